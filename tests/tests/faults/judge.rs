//! Figures that say whether anything was lost, doubled or echoed: what users wrote, by their own ledgers, against what the
//! message table holds.

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::Status;
use crossfade_testkit::workload::ledger_total;
use crossfade_tests::{Direction, Migration};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

/// Remembers what was judged before.
#[derive(Debug, Default)]
pub struct Judge {
    written: [u64; 2],
    last_seq: [u64; 2],
    echoes: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Verdict {
    /// Rows that users changed.
    pub written: u64,
    /// Rows that crossfade recognised as its own.
    pub echoes: u64,
    /// Changes of users that are not in the message table.
    pub lost: u64,
    /// Changes of the source's binlog that are there more than once.
    pub doubled: u64,
    /// Changes that are there and that no user made.
    pub echoed: u64,
}

impl Verdict {
    pub fn ensure_clean(&self) -> Result<()> {
        ensure!(self.lost == 0 && self.doubled == 0 && self.echoed == 0, "not as promised: {self:?}");
        ensure!(self.written > 0, "nobody wrote: {self:?}");
        Ok(())
    }

    /// A line of the table of faults.
    pub fn line(&self, flavor: Flavor, injected: &str, must_hold: &str, measured: &str) -> String {
        let Verdict { written, echoes, lost, doubled, echoed } = self;
        format!(
            "| {flavor} | {injected} | {must_hold} | {written} | {echoes} | {lost} | {doubled} | {echoed} | {measured} |"
        )
    }
}

impl Judge {
    /// Nobody writes, and all is captured.
    pub async fn judge(&mut self, migration: &Migration, store: &Pool, status: &Status) -> Result<Verdict> {
        let mut verdict = Verdict { echoes: status.total("echoes").saturating_sub(self.echoes), ..Verdict::default() };
        self.echoes = status.total("echoes");
        for direction in Direction::BOTH {
            let (number, source) = match direction {
                Direction::Forward => (0, &migration.old),
                Direction::Reverse => (1, &migration.new),
            };
            let total = ledger_total(source, &migration.schema).await?;
            let written = total - self.written[number];
            let (held, distinct) = messages(store, &migration.pair, direction, self.last_seq[number]).await?;
            verdict.written += written;
            verdict.lost += written.saturating_sub(distinct);
            verdict.doubled += held - distinct;
            verdict.echoed += distinct.saturating_sub(written);
            self.written[number] = total;
            self.last_seq[number] = status.number(direction.as_str(), "last_seq");
        }
        Ok(verdict)
    }
}

/// Messages after a number, and of how many changes of the source's binlog they tell.
async fn messages(store: &Pool, pair: &str, direction: Direction, after: u64) -> Result<(u64, u64)> {
    // One event's rows are told apart by what they hold. Two sums of all of it, since servers look at the beginning of long
    // texts only. Not over the view: in views, MariaDB 10.11.14 forgets which columns are JSON.
    let all = "CONCAT_WS('|', p, i, n, o, k, b, a)";
    let query = format!(
        "SELECT COUNT(*), COUNT(DISTINCT CRC32({all}), CRC32(REVERSE({all}))) FROM crossfade.message_block \
         JOIN JSON_TABLE(CONVERT(UNCOMPRESS(payload) USING utf8mb4), '$[*]' COLUMNS (p VARCHAR(1000) PATH '$.p', \
         i INT PATH '$.i', n VARCHAR(64) PATH '$.n', o VARCHAR(8) PATH '$.o', k JSON PATH '$.k', b JSON PATH '$.b', \
         a JSON PATH '$.a')) message WHERE pair = ? AND stream LIKE ? AND first_seq > ?"
    );
    let stream = format!("{}/%", direction.as_str());
    let mut connection = store.get_conn().await?;
    connection.exec_first(query, (pair, stream, after)).await?.context("a count has a row")
}
