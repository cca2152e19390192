//! Connections to the store that are not waited for for ever.
//!
//! A connection can be dead without either end knowing (packets dropped on the way, a peer that went without a word), and
//! whoever waits for an answer on it would wait until the process ends. So every statement has a time in which its answer
//! must come. A connection whose answer did not come, or that failed otherwise, is not used again.

use std::future::Future;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::mysql::{MySql, MySqlConnection, MySqlPool, MySqlQueryResult, MySqlRow, MySqlStatement, MySqlTypeInfo};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Either, Execute, Executor, SqlStr};

use crate::StoreError;

/// The statements of a running process are short, and wait for locks at most half as long.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A link slower than this many bytes a second is taken for a dead one.
const SLOWEST_LINK: u64 = 100_000;

/// So many connections are kept at hand beside the pool, which would ask each that comes back whether it lives: one more round trip
/// for every short statement.
pub(crate) const AT_HAND: usize = 3;

/// A connection that has rested for longer is asked whether it lives before it is used.
pub(crate) const SURE_FOR: Duration = Duration::from_secs(1);

/// A connection that does not answer a ping within this is dead.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// A connection that was not wanted for so long is closed.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(5);

/// A connection that has served for so long goes back to the pool, which closes old ones.
const SERVES_FOR: Duration = Duration::from_secs(600);

/// When sessions were last to begin anew, if ever: older connections are not used again. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct AnewAt(Arc<RwLock<Option<Instant>>>);

impl AnewAt {
    pub fn begin_anew(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether a connection that was made then is from before.
    pub fn is_former(&self, made_at: Instant) -> bool {
        let at = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| made_at <= at)
    }
}

pub(crate) async fn is_alive(connection: &mut MySqlConnection) -> bool {
    matches!(tokio::time::timeout(PING_LIMIT, connection.ping()).await, Ok(Ok(())))
}

/// The pool, and a few connections kept beside it, for statements that are answered soon. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pool: MySqlPool,
    anew_at: AnewAt,
    at_hand: Arc<Mutex<Vec<Pooled>>>,
}

/// A connection that was taken out of the pool.
#[derive(Debug)]
struct Pooled {
    connection: PoolConnection<MySql>,
    taken_at: Instant,
    used_at: Instant,
}

impl Pooled {
    /// Going back to the pool it would be asked whether it lives, and a dead one never answers.
    fn close(mut self) {
        self.connection.close_on_drop();
    }
}

/// One connection out of the pool. Unless it is [kept](Held::keep), it is closed when dropped.
pub(crate) struct Held {
    /// `None` only once `keep` or `drop` has taken it.
    pooled: Option<Pooled>,
    home: Connections,
}

const TAKEN: &str = "a connection is taken only by what ends the holding";

impl Held {
    /// What was begun has ended well: somebody else may have it.
    pub fn keep(mut self) {
        if let Some(pooled) = self.pooled.take() {
            self.home.put_back(pooled);
        }
    }

    /// As [`keep`](Held::keep), where the server refused what was asked. It may have ended the session with that word, so the pool
    /// asks it first whether it lives.
    fn keep_doubtful(mut self) {
        drop(self.pooled.take());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(pooled) = self.pooled.take() {
            pooled.close();
        }
    }
}

impl Deref for Held {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        match &self.pooled {
            Some(pooled) => &pooled.connection,
            None => unreachable!("{TAKEN}"),
        }
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        match &mut self.pooled {
            Some(pooled) => &mut pooled.connection,
            None => unreachable!("{TAKEN}"),
        }
    }
}

impl Connections {
    pub fn new(pool: MySqlPool, anew_at: AnewAt) -> Connections {
        Connections { pool, anew_at, at_hand: Arc::default() }
    }

    /// A connection for several statements. What is done with it stands in [`in_time`].
    pub async fn acquire(&self) -> Result<Held, sqlx::Error> {
        while let Some(pooled) = self.take_at_hand() {
            let is_sure = pooled.used_at.elapsed() <= SURE_FOR;
            let mut held = self.hold(pooled);
            if is_sure || is_alive(&mut held).await {
                return Ok(held);
            }
        }
        let taken_at = Instant::now();
        let connection = self.pool.acquire().await?;
        Ok(self.hold(Pooled { connection, taken_at, used_at: taken_at }))
    }

    fn hold(&self, pooled: Pooled) -> Held {
        Held { pooled: Some(pooled), home: self.clone() }
    }

    /// The one that was used last.
    fn take_at_hand(&self) -> Option<Pooled> {
        let is_over =
            |pooled: &mut Pooled| self.anew_at.is_former(pooled.taken_at) || pooled.used_at.elapsed() > KEPT_FOR;
        let mut at_hand = self.at_hand();
        at_hand.extract_if(.., is_over).for_each(Pooled::close);
        at_hand.pop()
    }

    /// What finds no place at hand goes back to the pool.
    fn put_back(&self, mut pooled: Pooled) {
        pooled.used_at = Instant::now();
        let mut at_hand = self.at_hand();
        // Asked under the lock that `close` empties it under.
        if at_hand.len() < AT_HAND && pooled.taken_at.elapsed() < SERVES_FOR && !self.pool.is_closed() {
            at_hand.push(pooled);
        }
    }

    /// Closes all connections, also those of clones.
    pub async fn close(&self) {
        // It counts as closed from here on, so nothing is put back after what is at hand was closed.
        let closing = self.pool.close();
        self.at_hand().drain(..).for_each(Pooled::close);
        closing.await;
    }

    fn at_hand(&self) -> MutexGuard<'_, Vec<Pooled>> {
        self.at_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn gather<'q, E: 'q + Execute<'q, MySql>>(
        &self,
        query: E,
    ) -> Result<Vec<Either<MySqlQueryResult, MySqlRow>>, sqlx::Error> {
        let mut held = self.acquire().await?;
        let mut items = Vec::new();
        let answered = {
            let mut answers = held.fetch_many(query);
            loop {
                match answer(answers.try_next()).await {
                    Ok(Some(item)) => items.push(item),
                    Ok(None) => break Ok(items),
                    Err(error) => break Err(error),
                }
            }
        };
        keep_unless_broken(held, &answered);
        answered
    }
}

/// So many statements, one after the other, as the bytes that take as long: a tenth of a second each.
pub(crate) fn statements(count: usize) -> u64 {
    count as u64 * (SLOWEST_LINK / 10)
}

/// Runs several statements on one connection, which together have as long as one, and the time that so many bytes take.
pub(crate) async fn in_time<T, E: From<StoreError>>(
    what: &'static str,
    bytes: u64,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let limit = ANSWER_LIMIT + Duration::from_secs(bytes / SLOWEST_LINK);
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(StoreError::during(what)(no_answer()).into()))
}

async fn answer<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(ANSWER_LIMIT, work).await.unwrap_or_else(|_| Err(no_answer()))
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer"))
}

/// A connection on which the server refused something is used again once it has been asked whether it lives.
fn keep_unless_broken<T>(held: Held, ended: &Result<T, sqlx::Error>) {
    match ended {
        Ok(_) => held.keep(),
        Err(sqlx::Error::Database(_)) => held.keep_doubtful(),
        Err(_) => {}
    }
}

impl<'p> Executor<'p> for &'_ Connections {
    type Database = MySql;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<MySqlQueryResult, MySqlRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, MySql>,
    {
        let connections = self.clone();
        stream::once(async move { connections.gather(query).await })
            .map_ok(|items| stream::iter(items.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<MySqlRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, MySql>,
    {
        let connections = self.clone();
        Box::pin(async move {
            let mut held = connections.acquire().await?;
            let answered = answer(held.fetch_optional(query)).await;
            keep_unless_broken(held, &answered);
            answered
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [MySqlTypeInfo],
    ) -> BoxFuture<'e, Result<MySqlStatement, sqlx::Error>>
    where
        'p: 'e,
    {
        let connections = self.clone();
        Box::pin(async move {
            let mut held = connections.acquire().await?;
            let answered = answer(held.prepare_with(sql, parameters)).await;
            keep_unless_broken(held, &answered);
            answered
        })
    }
}
