//! Transactions that were under way when users were told to stop.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossfade_catalog::Dialect;
use crossfade_config::Settings;
use crossfade_model::Side;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::ControlError;
use crate::side::{connect_known, during, in_time};
use crate::waits::Waits;

const ASK_EVERY: Duration = Duration::from_millis(20);

/// InnoDB shows what it has collected before, as long as somebody has asked within a tenth of a second
/// (`CACHE_MIN_IDLE_TIME` in `trx0i_s.cc`, both brands).
const STALE_FOR: Duration = Duration::from_millis(110);

const LIST: &str = "list its transactions";

/// ER_CANNOT_CONVERT_STRING: MySQL shows each transaction's statement in utf8mb3, and fails as a whole where one of them holds bytes
/// that are no text, such as a value that somebody writes at this moment.
const NO_TEXT: u16 = 3854;

/// A transaction by its number, with the session that it is in.
type Writers = BTreeMap<String, u64>;

/// XA transactions that are prepared on a side; fails where that, or what is under way, may not be listed.
pub async fn prepared(settings: &Settings, side: Side) -> Result<u64, ControlError> {
    let (mut conn, facts) = connect_known(settings, side).await?;
    // That it lists anything at all, is all that counts.
    listed(&mut conn, side).await?;
    let count = count_prepared(&mut conn, facts.dialect(), side).await;
    let _ = conn.disconnect().await;
    count
}

/// Waits until every transaction has ended that has written something, and ends their sessions `end_after` the `fence`, if so
/// wished; then until no XA transaction is prepared.
pub(crate) async fn until_quiet(
    (conn, dialect): (&mut Conn, Dialect),
    side: Side,
    fence: Instant,
    end_after: Option<Duration>,
    waits: &Waits,
) -> Result<(), ControlError> {
    let begun_before = first_look(conn, side, waits).await?;
    let mut left = begun_before;
    let mut ended = false;
    while !left.is_empty() {
        let sessions: Vec<String> = left.values().map(u64::to_string).collect();
        waits.note(format!("sessions {} on {side} had written something and not committed it", sessions.join(", ")));
        if !ended && end_after.is_some_and(|after| fence.elapsed() >= after) {
            end_sessions(conn, side, left.values().copied()).await?;
            ended = true;
        }
        tokio::time::sleep(STALE_FOR).await;
        let now = writers(conn, side).await?.0;
        left.retain(|number, _| now.contains_key(number));
    }
    loop {
        match count_prepared(conn, dialect, side).await? {
            0 => return Ok(()),
            count => waits.note(format!("{count} XA transactions on {side} were prepared and not decided")),
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// What has written something by now. A list that lacks our own transaction, begun just before, is an old one.
async fn first_look(conn: &mut Conn, side: Side, waits: &Waits) -> Result<Writers, ControlError> {
    let during = || during(side, LIST);
    waits.note(format!("{side} did not list its transactions"));
    in_time(side, conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT")).await?.map_err(during())?;
    let listed = loop {
        let (listed, has_own) = writers(conn, side).await?;
        if has_own {
            break listed;
        }
        tokio::time::sleep(STALE_FOR).await;
    };
    in_time(side, conn.query_drop("ROLLBACK")).await?.map_err(during())?;
    Ok(listed)
}

/// Transactions that have written or locked rows, and whether the session's own is listed.
async fn writers(conn: &mut Conn, side: Side) -> Result<(Writers, bool), ControlError> {
    let rows = loop {
        match listed(conn, side).await? {
            Some(rows) => break rows,
            None => tokio::time::sleep(STALE_FOR).await,
        }
    };
    let has_own = rows.iter().any(|(.., is_own)| *is_own);
    let writers = rows.into_iter().filter(|(_, _, writes, is_own)| *writes && !is_own);
    Ok((writers.map(|(number, session, ..)| (number, session)).collect(), has_own))
}

/// Number, session, whether it writes, and whether it is the connection's own; `None` where the server cannot show them right now.
async fn listed(conn: &mut Conn, side: Side) -> Result<Option<Vec<(String, u64, bool, bool)>>, ControlError> {
    let question = "SELECT CAST(trx_id AS CHAR), trx_mysql_thread_id, \
                      trx_rows_modified + trx_rows_locked + trx_tables_locked > 0, trx_mysql_thread_id = CONNECTION_ID() \
                    FROM information_schema.innodb_trx WHERE trx_state <> 'PREPARED'";
    match in_time(side, conn.query(question)).await? {
        Err(mysql_async::Error::Server(error)) if error.code == NO_TEXT => Ok(None),
        rows => Ok(Some(rows.map_err(during(side, LIST))?)),
    }
}

async fn count_prepared(conn: &mut Conn, dialect: Dialect, side: Side) -> Result<u64, ControlError> {
    let rows: Result<Vec<Row>, _> = in_time(side, conn.query(dialect.prepared_transactions())).await?;
    Ok(rows.map_err(during(side, "list prepared XA transactions"))?.len() as u64)
}

async fn end_sessions(conn: &mut Conn, side: Side, sessions: impl Iterator<Item = u64>) -> Result<(), ControlError> {
    /// ER_NO_SUCH_THREAD: it has ended by itself.
    const GONE: u16 = 1094;
    for session in sessions {
        tracing::warn!(%side, session, "a session that does not commit is ended");
        match in_time(side, conn.query_drop(format!("KILL {session}"))).await? {
            Err(mysql_async::Error::Server(error)) if error.code == GONE => {}
            ended => ended.map_err(during(side, "end a session"))?,
        }
    }
    Ok(())
}
