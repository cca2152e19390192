//! Connections to the store that are not waited for for ever.
//!
//! A connection can be dead without either end knowing (packets dropped on the way, a peer that went without a word), and
//! whoever waits for an answer on it would wait until the process ends. So every statement has a time in which its answer
//! must come. A connection whose answer did not come, or that failed otherwise, is not used again.

use std::future::Future;
use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::mysql::{MySql, MySqlConnection, MySqlPool, MySqlQueryResult, MySqlRow, MySqlStatement, MySqlTypeInfo};
use sqlx::pool::PoolConnection;
use sqlx::{Either, Execute, Executor, SqlStr};

use crate::StoreError;

/// The statements of a running process are short, and wait for locks at most half as long.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A link slower than this many bytes a second is taken for a dead one.
const SLOWEST_LINK: u64 = 100_000;

/// The pool, for statements that are answered soon. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connections(MySqlPool);

/// One connection out of the pool. Unless it is [kept](Held::keep), it is closed when dropped.
pub(crate) struct Held {
    connection: PoolConnection<MySql>,
    is_sound: bool,
}

impl Held {
    /// What was begun has ended well: somebody else may have it.
    pub fn keep(mut self) {
        self.is_sound = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Going back to the pool it would be asked whether it lives, and a dead one never answers.
        if !self.is_sound {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Held {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        &self.connection
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        &mut self.connection
    }
}

impl Connections {
    pub fn new(pool: MySqlPool) -> Connections {
        Connections(pool)
    }

    /// A connection for several statements. What is done with it stands in [`in_time`].
    pub async fn acquire(&self) -> Result<Held, sqlx::Error> {
        Ok(Held { connection: self.0.acquire().await?, is_sound: false })
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
