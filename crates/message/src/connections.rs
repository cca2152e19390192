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

/// One that has rested for longer is asked first whether it lives, …
pub(crate) const SURE_FOR: Duration = Duration::from_secs(1);

/// … and one that does not answer by then does not.
pub(crate) const PING_LIMIT: Duration = Duration::from_secs(2);

/// One that was not wanted for so long is closed, …
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(5);

/// … and one that has served for so long goes back to the pool, which closes old ones.
const SERVES_FOR: Duration = Duration::from_secs(600);

/// The moment since when only younger connections are used.
pub(crate) type AnewAt = Arc<RwLock<Option<Instant>>>;

/// The pool, for statements that are answered soon. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pool: MySqlPool,
    anew_at: AnewAt,
    at_hand: Arc<Mutex<Vec<Spare>>>,
}

/// A connection that waits for its next statement.
#[derive(Debug)]
struct Spare {
    connection: PoolConnection<MySql>,
    taken_at: Instant,
    used_at: Instant,
}

/// One connection out of the pool. Unless it is [kept](Held::keep), it is closed when dropped.
pub(crate) struct Held {
    /// Until it is kept.
    spare: Option<Spare>,
    home: Connections,
}

impl Held {
    /// What was begun has ended well: somebody else may have it.
    pub fn keep(mut self) {
        if let Some(spare) = self.spare.take() {
            self.home.put_back(spare);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Going back to the pool it would be asked whether it lives, and a dead one never answers.
        self.spare.take().map(Spare::close);
    }
}

impl Deref for Held {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        match &self.spare {
            Some(spare) => &spare.connection,
            None => unreachable!("it is taken only by what ends the holding"),
        }
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        match &mut self.spare {
            Some(spare) => &mut spare.connection,
            None => unreachable!("it is taken only by what ends the holding"),
        }
    }
}

impl Spare {
    fn close(mut self) {
        self.connection.close_on_drop();
    }
}

impl Connections {
    pub fn new(pool: MySqlPool, anew_at: AnewAt) -> Connections {
        Connections { pool, anew_at, at_hand: Arc::default() }
    }

    /// A connection for several statements. What is done with it stands in [`in_time`].
    pub async fn acquire(&self) -> Result<Held, sqlx::Error> {
        while let Some(spare) = self.take_spare() {
            let is_sure = spare.used_at.elapsed() <= SURE_FOR;
            let mut held = self.hold(spare);
            if is_sure || matches!(tokio::time::timeout(PING_LIMIT, held.ping()).await, Ok(Ok(()))) {
                return Ok(held);
            }
        }
        let taken_at = Instant::now();
        let connection = self.pool.acquire().await?;
        Ok(self.hold(Spare { connection, taken_at, used_at: taken_at }))
    }

    fn hold(&self, spare: Spare) -> Held {
        Held { spare: Some(spare), home: self.clone() }
    }

    /// The one that was used last.
    fn take_spare(&self) -> Option<Spare> {
        let anew_at = *self.anew_at.read().unwrap_or_else(PoisonError::into_inner);
        let is_former = |spare: &Spare| anew_at.is_some_and(|at| spare.taken_at <= at);
        let mut at_hand = self.at_hand();
        at_hand.extract_if(.., |spare| is_former(spare) || spare.used_at.elapsed() > KEPT_FOR).for_each(Spare::close);
        at_hand.pop()
    }

    fn put_back(&self, mut spare: Spare) {
        spare.used_at = Instant::now();
        let mut at_hand = self.at_hand();
        // Under the lock: what is closed has nothing at hand any more.
        if at_hand.len() < AT_HAND && spare.taken_at.elapsed() < SERVES_FOR && !self.pool.is_closed() {
            at_hand.push(spare);
        }
    }

    /// Closes all connections, also those of clones.
    pub async fn close(&self) {
        let closing = self.pool.close();
        self.at_hand().drain(..).for_each(Spare::close);
        closing.await;
    }

    fn at_hand(&self) -> MutexGuard<'_, Vec<Spare>> {
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

/// A statement that the server refused leaves its connection as good as before.
fn keep_unless_broken<T>(held: Held, ended: &Result<T, sqlx::Error>) {
    if matches!(ended, Ok(_) | Err(sqlx::Error::Database(_))) {
        held.keep();
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
