//! Transactions that were under way when users were told to stop.

use std::collections::BTreeSet;
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
/// (`CACHE_MIN_IDLE_TIME` in `trx0i_s.cc`, both brands). So those who ask again and again keep each other from seeing anything
/// new, unless they ask in turn.
const STALE_FOR: Duration = Duration::from_millis(110);

/// Held on a side by the tool that looks.
const TURN: &str = "'crossfade.transactions'";

/// A tool that is frozen in its turn keeps the others waiting no longer.
const TURN_WITHIN_SECONDS: u32 = 2;

const LIST: &str = "list its transactions";

/// ER_CANNOT_CONVERT_STRING: MySQL shows each transaction's statement in utf8mb3, and fails as a whole where one of them holds bytes
/// that are no text, such as a value that somebody writes at this moment.
const NO_TEXT: u16 = 3854;

/// A transaction that has written or locked something, with the session that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Writer {
    session: u64,
    number: u64,
    /// To the second.
    started: String,
}

/// Numbers from here on are not a transaction's own: it gets that when it first writes, and is shown by where its session keeps it
/// until then (`trx_get_id_for_print` in `trx0trx.ic`, both brands).
const NO_NUMBER_YET: u64 = 1 << 48;

impl Writer {
    /// Whether a later look shows the same transaction. One that had only locked rows may have a number by then; a session's next
    /// one within the same second looks the same, and is then another second's.
    fn is(&self, later: &Writer) -> bool {
        let same = match self.number {
            NO_NUMBER_YET.. => self.started == later.started,
            number => number == later.number,
        };
        self.session == later.session && same
    }
}

/// XA transactions that are prepared on a side; fails where that, or what is under way, may not be listed.
pub async fn prepared(settings: &Settings, side: Side) -> Result<u64, ControlError> {
    let (mut conn, facts) = connect_known(settings, side).await?;
    // That it lists anything at all, is all that counts.
    listed(&mut conn, side).await?;
    let names = prepared_names(&mut conn, facts.dialect(), side).await;
    let _ = conn.disconnect().await;
    Ok(names?.len() as u64)
}

/// What the users of a side do who are not to be waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Others {
    /// There are none: all were told to stop. Nothing may stay prepared; sessions are ended so long after the fence, if so wished.
    Stopped { end_after: Option<Duration> },
    /// They write on: nobody is ended, and what they prepare from now on is of no interest.
    WriteOn,
}

/// Waits until every transaction has ended that has written something by now, then until XA transactions are decided that are
/// prepared.
pub(crate) async fn until_quiet(
    (conn, dialect): (&mut Conn, Dialect),
    side: Side,
    fence: Instant,
    others: Others,
    waits: &Waits,
) -> Result<(), ControlError> {
    let end_after = match others {
        Others::Stopped { end_after } => end_after,
        Others::WriteOn => None,
    };
    let mut left = first_look(conn, side, waits).await?;
    let mut ended = false;
    while !left.is_empty() {
        let sessions: Vec<String> = left.iter().map(|writer| writer.session.to_string()).collect();
        waits.note(format!("sessions {} on {side} had written something and not committed it", sessions.join(", ")));
        if !ended && end_after.is_some_and(|after| fence.elapsed() >= after) {
            for writer in &left {
                tracing::warn!(%side, session = writer.session, "a session that does not commit is ended");
            }
            end_sessions(conn, side, left.iter().map(|writer| writer.session)).await?;
            ended = true;
        }
        let now = writers_now(conn, side).await?;
        left = now.into_iter().filter(|later| left.iter().any(|before| before.is(later))).collect();
    }
    let mut left = prepared_names(conn, dialect, side).await?;
    while !left.is_empty() {
        waits.note(format!("{} XA transactions on {side} were prepared and not decided", left.len()));
        tokio::time::sleep(ASK_EVERY).await;
        let now = prepared_names(conn, dialect, side).await?;
        left = match others {
            Others::Stopped { .. } => now,
            Others::WriteOn => left.intersection(&now).cloned().collect(),
        };
    }
    Ok(())
}

/// What has written something by now. A list that lacks our own transaction, begun just before, is an old one.
async fn first_look(conn: &mut Conn, side: Side, waits: &Waits) -> Result<Vec<Writer>, ControlError> {
    let during = || during(side, LIST);
    waits.note(format!("{side} did not list its transactions"));
    take_turn(conn, side).await?;
    in_time(side, conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT")).await?.map_err(during())?;
    let listed = loop {
        let (listed, has_own) = writers(conn, side).await?;
        if has_own {
            break listed;
        }
        waits.note(format!(
            "{side} did not list its transactions anew, as where somebody reads innodb_trx more than nine times a second"
        ));
        tokio::time::sleep(STALE_FOR).await;
    };
    in_time(side, conn.query_drop("ROLLBACK")).await?.map_err(during())?;
    end_turn(conn, side).await?;
    Ok(listed)
}

/// What has written something and not ended, as far as nobody but these tools looks at the same time.
async fn writers_now(conn: &mut Conn, side: Side) -> Result<Vec<Writer>, ControlError> {
    take_turn(conn, side).await?;
    tokio::time::sleep(STALE_FOR).await;
    let (listed, _) = writers(conn, side).await?;
    end_turn(conn, side).await?;
    Ok(listed)
}

/// It ends with the connection at the latest. Where somebody keeps it too long, both look.
async fn take_turn(conn: &mut Conn, side: Side) -> Result<(), ControlError> {
    let question = format!("DO GET_LOCK({TURN}, {TURN_WITHIN_SECONDS})");
    in_time(side, conn.query_drop(question)).await?.map_err(during(side, LIST))
}

async fn end_turn(conn: &mut Conn, side: Side) -> Result<(), ControlError> {
    in_time(side, conn.query_drop(format!("DO RELEASE_LOCK({TURN})"))).await?.map_err(during(side, LIST))
}

/// Transactions that have written or locked rows, and whether the session's own is listed.
async fn writers(conn: &mut Conn, side: Side) -> Result<(Vec<Writer>, bool), ControlError> {
    let rows = loop {
        match listed(conn, side).await? {
            Some(rows) => break rows,
            None => tokio::time::sleep(STALE_FOR).await,
        }
    };
    let has_own = rows.iter().any(|(_, _, is_own)| *is_own);
    let writers = rows.into_iter().filter(|(_, writes, is_own)| *writes && !is_own);
    Ok((writers.map(|(writer, ..)| writer).collect(), has_own))
}

/// Sessions in which something is written or locked.
pub(crate) async fn writing_sessions(conn: &mut Conn, side: Side) -> Result<BTreeSet<u64>, ControlError> {
    Ok(writers_now(conn, side).await?.into_iter().map(|writer| writer.session).collect())
}

/// Whether it writes, and whether it is the connection's own; `None` where the server cannot show them right now.
async fn listed(conn: &mut Conn, side: Side) -> Result<Option<Vec<(Writer, bool, bool)>>, ControlError> {
    let question = "SELECT CAST(trx_id AS UNSIGNED), trx_mysql_thread_id, CAST(trx_started AS CHAR), \
                      trx_rows_modified + trx_rows_locked + trx_tables_locked > 0, trx_mysql_thread_id = CONNECTION_ID() \
                    FROM information_schema.innodb_trx WHERE trx_state <> 'PREPARED'";
    match in_time(side, conn.query(question)).await? {
        Err(mysql_async::Error::Server(error)) if error.code == NO_TEXT => Ok(None),
        rows => {
            let rows: Vec<(u64, u64, String, bool, bool)> = rows.map_err(during(side, LIST))?;
            let of_row =
                |(number, session, started, writes, is_own)| (Writer { session, number, started }, writes, is_own);
            Ok(Some(rows.into_iter().map(of_row).collect()))
        }
    }
}

/// What XA RECOVER lists, a text for each.
async fn prepared_names(conn: &mut Conn, dialect: Dialect, side: Side) -> Result<BTreeSet<String>, ControlError> {
    let rows: Result<Vec<Row>, _> = in_time(side, conn.query(dialect.prepared_transactions())).await?;
    let rows = rows.map_err(during(side, "list prepared XA transactions"))?;
    Ok(rows.into_iter().map(|row| format!("{:?}", row.unwrap_raw())).collect())
}

pub(crate) async fn end_sessions(
    conn: &mut Conn,
    side: Side,
    sessions: impl Iterator<Item = u64>,
) -> Result<(), ControlError> {
    /// ER_NO_SUCH_THREAD: it has ended by itself.
    const GONE: u16 = 1094;
    for session in sessions {
        match in_time(side, conn.query_drop(format!("KILL {session}"))).await? {
            Err(mysql_async::Error::Server(error)) if error.code == GONE => {}
            ended => ended.map_err(during(side, "end a session"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(session: u64, number: u64, started: &str) -> Writer {
        Writer { session, number, started: started.to_owned() }
    }

    #[test]
    fn p9_a_transaction_that_only_locks_stays_the_same_when_it_first_writes() {
        let locks = writer(7, NO_NUMBER_YET + 12, "10:00:00");
        assert!(locks.is(&writer(7, 4_711, "10:00:00")), "it has got its number");
        assert!(!locks.is(&writer(7, 4_711, "10:00:01")), "the session's next one");
        assert!(!locks.is(&writer(8, 4_711, "10:00:00")), "another session's");
        let writes = writer(7, 4_711, "10:00:00");
        assert!(writes.is(&writes) && !writes.is(&writer(7, 4_712, "10:00:00")));
    }
}
