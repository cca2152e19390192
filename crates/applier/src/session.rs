//! The session that every connection which writes to a side runs in, and how one is told from a dead one.
//!
//! A connection can be dead without our end knowing: packets are dropped on the way, and an answer never comes. The server
//! knows, since it drops a session that says nothing; so it is asked, over another connection.

use std::io;
use std::time::Duration;

use crossfade_catalog::{Purpose, Servers};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, IoError, Row};

use crate::error::ApplyError;

/// Accepts what the source held (zero and impossible dates, id 0) and refuses what would be cut or rounded: strict mode
/// without the NO_ZERO modes (MySQL manual, "Server SQL Modes").
pub(crate) const STRICT_SQL_MODE: &str = "STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES";

/// As above without strictness: the only mode in which an ENUM's error value 0 can be written.
pub(crate) const LENIENT_SQL_MODE: &str = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES";

/// A wait for a row or a table longer than this is retried by us instead of holding other locks meanwhile.
const LOCK_WAIT_SECONDS: u32 = 5;

/// The server drops a session that says nothing for so long, and with it the locks of a process that was frozen inside a
/// transaction: not later than its lease runs out.
const SILENCE_SECONDS: u32 = 8;

/// A session that waits says something so often.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(2);

/// A session that was silent for longer than this is not used again: it may be gone at any moment.
pub(crate) const USED_WITHIN: Duration = Duration::from_secs(4);

/// For the next transaction alone: a statement that looks for a row by its key and finds none keeps the place free until
/// the commit (MySQL manual, "InnoDB Locking"). Otherwise sessions read committed, which locks only rows that are there.
pub(crate) const LOCKING_GAPS: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";

/// Short questions and single rows are answered in this time, waits for locks included, or not at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Work that has taken this long is asked for. By then the server has dropped a session that it does not hear.
const ASK_AFTER: Duration = Duration::from_secs(10);

/// Waits for an answer, but not for ever. A connection on which none came must not be used again.
pub(crate) async fn answered<T, E: From<Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let silent = || Error::Io(IoError::Io(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer")));
    tokio::time::timeout(ANSWER_LIMIT, work).await.unwrap_or_else(|_| Err(silent().into()))
}

/// Waits for something else in mid-transaction; the session says something before the server takes it for dead.
pub(crate) async fn while_alive<T>(conn: &mut Conn, awaited: impl Future<Output = T>) -> Result<T, Error> {
    tokio::pin!(awaited);
    loop {
        tokio::select! {
            done = &mut awaited => return Ok(done),
            () = tokio::time::sleep(SIGN_OF_LIFE_EVERY) => conn.ping().await?,
        }
    }
}

/// One session on the primary of a side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionId {
    pub id: u32,
    /// [`Servers::moves`] when it was opened.
    pub moves: u64,
}

/// Returns when the primary knows nothing of a session any more: whatever it was asked, no answer will come that counts.
/// `unreachable` is told what keeps the primary from being asked, and `None` when it could be.
pub(crate) async fn until_gone(
    servers: &Servers,
    session: SessionId,
    mut unreachable: impl FnMut(Option<&ApplyError>),
) {
    loop {
        tokio::time::sleep(ASK_AFTER).await;
        match is_there(servers, session).await {
            Ok(true) => unreachable(None),
            Ok(false) => return,
            Err(error) => unreachable(Some(&error)),
        }
    }
}

async fn is_there(servers: &Servers, session: SessionId) -> Result<bool, ApplyError> {
    let mut conn = servers.connect(Purpose::Catalog).await?;
    // Sessions of one's own account are listed whatever its privileges (MySQL manual, "SHOW PROCESSLIST").
    let sessions: Vec<Row> = answered(async { conn.query("SHOW PROCESSLIST").await }).await?;
    let is_listed = sessions.iter().any(|row| row.get::<u64, _>(0) == Some(u64::from(session.id)));
    // It has answered; how the connection ends does not matter.
    let _ = conn.disconnect().await;
    // Where another server is the primary now, its sessions have numbers of their own.
    Ok(is_listed && servers.moves() == session.moves)
}

pub(crate) async fn prepare(conn: &mut Conn) -> Result<(), Error> {
    answered(set(conn)).await
}

async fn set(conn: &mut Conn) -> Result<(), Error> {
    conn.query_drop(format!(
        "SET SESSION time_zone = '+00:00', sql_mode = '{STRICT_SQL_MODE}', \
         innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}, lock_wait_timeout = {LOCK_WAIT_SECONDS}, \
         wait_timeout = {SILENCE_SECONDS}, autocommit = 1, foreign_key_checks = 1, unique_checks = 1"
    ))
    .await?;
    conn.query_drop("SET NAMES utf8mb4").await?;
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await
}

/// Does work in which no reference between rows is checked, nor followed.
pub(crate) async fn unchecked<T, E: From<Error>>(
    conn: &mut Conn,
    work: impl AsyncFnOnce(&mut Conn) -> Result<T, E>,
) -> Result<T, E> {
    conn.query_drop("SET SESSION foreign_key_checks = 0").await?;
    let done = work(conn).await;
    conn.query_drop("SET SESSION foreign_key_checks = 1").await?;
    done
}

/// The largest packet that the server takes in this session.
pub(crate) async fn packet_bytes(conn: &mut Conn) -> Result<usize, mysql_async::Error> {
    let bytes: Option<usize> = conn.query_first("SELECT @@SESSION.max_allowed_packet").await?;
    Ok(bytes.unwrap_or(1 << 30))
}
