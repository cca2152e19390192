//! Writing at a steady rate.

use std::time::{Duration, Instant};

use anyhow::Result;
use crossfade_servers::Server;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::task::JoinSet;

use super::UPDATED_ROWS;

/// One durable commit takes milliseconds, so one connection alone could not keep the rate.
pub fn writers(rate: u32) -> u64 {
    match rate {
        0..=500 => 4,
        501..=2_000 => 20,
        _ => 40,
    }
}

pub const INSERT: &str = "INSERT INTO bench.beat (id, number, email, profile, note, updated_at) VALUES";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Insert,
    Update,
}

/// A change that the source has acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    /// Counted from 1, without holes; later ones may be committed before earlier ones.
    pub number: u64,
    pub kind: Kind,
    pub committed_at: Instant,
    /// From sending the statement to the acknowledgement of its commit.
    pub took: Duration,
}

/// Writes `rate` changes a second for a while, inserts and updates in turn, each a transaction. A writer that is late
/// catches up. Returns every change, in order of numbers.
pub async fn steadily(source: &Server, rate: u32, lasts: Duration) -> Result<Vec<Committed>> {
    let changes = (f64::from(rate) * lasts.as_secs_f64()) as u64;
    let began = Instant::now();
    let mut writers = JoinSet::new();
    let together = self::writers(rate);
    for writer in 0..together {
        let conn = source.connect().await?;
        let changes = (1..=changes).filter(|number| number % together == writer).map(|number| change(number, together));
        writers.spawn(write(conn, changes.collect(), began, f64::from(rate)));
    }
    let mut committed = Vec::new();
    while let Some(written) = writers.join_next().await {
        committed.extend(written??);
    }
    committed.sort_by_key(|change: &Committed| change.number);
    Ok(committed)
}

async fn write(mut conn: Conn, changes: Vec<Change>, began: Instant, rate: f64) -> Result<Vec<Committed>> {
    let mut committed = Vec::with_capacity(changes.len());
    for Change { number, kind, statement } in changes {
        let due = began + Duration::from_secs_f64(number as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        let sent = Instant::now();
        conn.query_drop(statement).await?;
        let committed_at = Instant::now();
        committed.push(Committed { number, kind, committed_at, took: committed_at - sent });
    }
    Ok(committed)
}

struct Change {
    number: u64,
    kind: Kind,
    statement: String,
}

/// Every writer writes both kinds, and an updated row belongs to one writer.
fn change(number: u64, writers: u64) -> Change {
    if (number / writers).is_multiple_of(2) {
        let statement = format!("{INSERT} {}", row(UPDATED_ROWS + number, number));
        Change { number, kind: Kind::Insert, statement }
    } else {
        let id = number % UPDATED_ROWS + 1;
        let statement = format!("UPDATE bench.beat SET number = {number} WHERE id = {id}");
        Change { number, kind: Kind::Update, statement }
    }
}

/// `(…)` of a row of about 250 bytes.
pub fn row(id: u64, number: u64) -> String {
    let note = format!("note {number} ");
    format!(
        "({id},{number},'user.{id}@mail.example','{{\"city\": \"Graz\", \"score\": {number}}}','{note:-<150}',NOW(6))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_updated_twice_before_its_first_update_can_be_seen() {
        for writers in [4, 5_000, 1_000].map(writers) {
            let mut last_of = std::collections::HashMap::new();
            let mut kinds = [0_u64, 0];
            for number in 1..=200_000 {
                let Change { kind, statement, .. } = change(number, writers);
                kinds[usize::from(kind == Kind::Update)] += 1;
                if kind == Kind::Update {
                    let id = statement.rsplit(' ').next().unwrap().to_owned();
                    if let Some((last, writer)) = last_of.insert(id, (number, number % writers)) {
                        assert!(number - last >= UPDATED_ROWS, "{number} after {last}");
                        assert_eq!(writer, number % writers);
                    }
                }
            }
            assert!(kinds[0].abs_diff(kinds[1]) <= 2 * writers, "{kinds:?}");
        }
    }
}
