//! The session that every connection which writes to a side runs in.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

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

/// A session that was silent for longer than this is not used again: it may be gone at any moment.
pub(crate) const USED_WITHIN: Duration = Duration::from_secs(4);

/// For the next transaction alone: a statement that looks for a row by its key and finds none keeps the place free until
/// the commit (MySQL manual, "InnoDB Locking"). Otherwise sessions read committed, which locks only rows that are there.
pub(crate) const LOCKING_GAPS: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";

pub(crate) async fn prepare(conn: &mut Conn) -> Result<(), mysql_async::Error> {
    conn.query_drop(format!(
        "SET SESSION time_zone = '+00:00', sql_mode = '{STRICT_SQL_MODE}', \
         innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}, lock_wait_timeout = {LOCK_WAIT_SECONDS}, \
         wait_timeout = {SILENCE_SECONDS}, autocommit = 1, foreign_key_checks = 1, unique_checks = 1"
    ))
    .await?;
    conn.query_drop("SET NAMES utf8mb4").await?;
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await
}

/// The largest packet that the server takes in this session.
pub(crate) async fn packet_bytes(conn: &mut Conn) -> Result<usize, mysql_async::Error> {
    let bytes: Option<usize> = conn.query_first("SELECT @@SESSION.max_allowed_packet").await?;
    Ok(bytes.unwrap_or(1 << 30))
}
