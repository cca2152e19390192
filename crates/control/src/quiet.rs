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

pub(crate) const ASK_EVERY: Duration = Duration::from_millis(20);

/// InnoDB shows what it has collected before, as long as somebody has asked within a tenth of a second
/// (`CACHE_MIN_IDLE_TIME` in `trx0i_s.cc`, both brands). So those who ask again and again keep each other from seeing anything
/// new, unless they ask in turn.
const STALE_FOR: Duration = Duration::from_millis(110);

/// Whoever has its turn on a side holds a lock of this name. Others wait for it 2 s each time, and look without a turn then; where the
/// holder is frozen, or its host has gone, the server ends its session after 10 idle seconds, and its turn with it.
const TAKE_TURN: &str = "SET @crossfade_turn = GET_LOCK('crossfade.transactions', 2), SESSION wait_timeout = 10";
const END_TURN: &str = "SET @crossfade_turn = RELEASE_LOCK('crossfade.transactions'), SESSION wait_timeout = DEFAULT";

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

/// A transaction gets its number when it first writes. Until then MySQL shows it by where its session keeps it
/// (`trx_get_id_for_print` in `trx0trx.ic`), with numbers from here on, and MariaDB by 0 (`fill_trx_row` in `trx0i_s.cc`).
const NO_NUMBER_YET: u64 = 1 << 48;

impl Writer {
    /// Whether a later look shows the same transaction. One that had only locked rows may have a number by then; a session's next
    /// one within the same second looks the same, and is then another second's.
    fn is(&self, later: &Writer) -> bool {
        let same = match self.number {
            0 | NO_NUMBER_YET.. => self.started == later.started,
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
    waits.note(format!("{side} did not list its transactions"));
    let mut left = writers(conn, side, waits).await?;
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
        let now = writers(conn, side, waits).await?;
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

/// What has written or locked something and not ended, at some moment since this was called.
async fn writers(conn: &mut Conn, side: Side, waits: &Waits) -> Result<Vec<Writer>, ControlError> {
    run(conn, side, TAKE_TURN).await?;
    // The list has one of ours, so it shows for which question it was collected.
    run(conn, side, "START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let mut asked = 0;
    let writers = loop {
        if let Some(writers) = listed(conn, side).await? {
            break writers;
        }
        asked += 1;
        // The first answer may be what we, or another tool, had asked for just before.
        let mut factor = 1.0;
        if asked > 1 {
            waits.note(format!(
                "{side} did not list its transactions anew, as where somebody reads innodb_trx (MariaDB: or innodb_locks, innodb_lock_waits) \
                 more than nine times a second, or writes bytes that are no text"
            ));
            // Two who have no turn would else ask alternately for ever.
            factor = rand::random_range(1.0..2.0);
        }
        tokio::time::sleep(STALE_FOR.mul_f64(factor)).await;
    };
    run(conn, side, "ROLLBACK").await?;
    run(conn, side, END_TURN).await?;
    Ok(writers)
}

async fn run(conn: &mut Conn, side: Side, statement: &str) -> Result<(), ControlError> {
    in_time(side, conn.query_drop(statement)).await?.map_err(during(side, LIST))
}

/// Sessions in which something was written or locked and not ended, at some moment since this was called.
pub(crate) async fn writing_sessions(
    conn: &mut Conn,
    side: Side,
    waits: &Waits,
) -> Result<BTreeSet<u64>, ControlError> {
    Ok(writers(conn, side, waits).await?.into_iter().map(|writer| writer.session).collect())
}

/// As [`writers`]; `None` where the server shows what it had collected before, or cannot show anything right now.
async fn listed(conn: &mut Conn, side: Side) -> Result<Option<Vec<Writer>>, ControlError> {
    let own = u64::from(conn.id());
    // The list shows the statement that a transaction's session was at: for ours, this one, with a number that no other has.
    let question = format!(
        "SELECT CAST(trx_id AS UNSIGNED), trx_mysql_thread_id, CAST(trx_started AS CHAR), \
           trx_rows_modified + trx_rows_locked + trx_tables_locked > 0, COALESCE(LOCATE('look {}', trx_query), 0) > 0 \
         FROM information_schema.innodb_trx WHERE trx_state <> 'PREPARED'",
        rand::random::<u64>()
    );
    let rows: Vec<(u64, u64, String, bool, bool)> = match in_time(side, conn.query(question)).await? {
        Err(mysql_async::Error::Server(error)) if error.code == NO_TEXT => return Ok(None),
        rows => rows.map_err(during(side, LIST))?,
    };
    let is_new = rows.iter().any(|(_, session, _, _, is_this)| *session == own && *is_this);
    let others = rows.into_iter().filter(|(_, session, _, writes, _)| *session != own && *writes);
    let writers = others.map(|(number, session, started, ..)| Writer { session, number, started });
    Ok(is_new.then(|| writers.collect()))
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
        for no_number_yet in [0, NO_NUMBER_YET + 12] {
            let locks = writer(7, no_number_yet, "10:00:00");
            assert!(locks.is(&locks) && locks.is(&writer(7, 4_711, "10:00:00")), "it has got its number");
            assert!(!locks.is(&writer(7, no_number_yet, "10:00:01")), "the session's next one");
            assert!(!locks.is(&writer(7, 4_711, "10:00:01")), "the session's next one, which has written");
            assert!(!locks.is(&writer(8, 4_711, "10:00:00")), "another session's");
        }
        let writes = writer(7, 4_711, "10:00:00");
        assert!(writes.is(&writes) && !writes.is(&writer(7, 4_712, "10:00:00")));
    }
}
