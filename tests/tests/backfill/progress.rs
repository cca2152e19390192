//! Waiting for copies, as `crossfade backfill status --json` tells of them.

use std::time::Duration;

use anyhow::{Context, Result};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::Migration;
use serde_json::Value;

/// How far the copying is.
pub struct Copies(pub Value);

impl Copies {
    pub async fn read(migration: &Migration) -> Result<Copies> {
        // Rows that were refused or kept make it end with 1.
        let (code, output, errors) = migration.crossfade_any(&["backfill", "status", "--json"]).await?;
        anyhow::ensure!(matches!(code, Some(0 | 1)), "`backfill status` ended with {code:?}: {errors}");
        Ok(Copies(serde_json::from_str(&output).context("`backfill status --json` gave something else than JSON")?))
    }

    /// Waits until more rows are counted as copied than these.
    pub async fn until_more_than(migration: &Migration, rows: u64, limit: Duration) -> Result<Copies> {
        until("more rows copied", limit, || async {
            let copies = Copies::read(migration).await?;
            let is_more = copies.total("rows") > rows;
            Ok(if is_more { Progress::Reached(copies) } else { Progress::NotYet(copies.0.to_string()) })
        })
        .await
        .with_context(|| migration.log_ends())
    }

    /// Waits until every table is copied, and all that was refused is settled.
    pub async fn until_copied(migration: &Migration, limit: Duration) -> Result<Copies> {
        until("all tables copied", limit, || async {
            let copies = Copies::read(migration).await?;
            let is_copied = |table: &Value| table["state"] == "copied" && table["refused"] == 0;
            let done = !copies.tables().is_empty() && copies.tables().iter().all(is_copied);
            Ok(if done { Progress::Reached(copies) } else { Progress::NotYet(copies.0.to_string()) })
        })
        .await
        .with_context(|| migration.log_ends())
    }

    pub fn tables(&self) -> &[Value] {
        self.0["tables"].as_array().map_or(&[], Vec::as_slice)
    }

    /// A number, summed over all tables.
    pub fn total(&self, field: &str) -> u64 {
        self.tables().iter().map(|table| table[field].as_u64().unwrap_or(0)).sum()
    }

    /// A number of one table, by the end of its name.
    pub fn of(&self, table: &str, field: &str) -> u64 {
        let is_it = |line: &&Value| line["table"].as_str().is_some_and(|name| name.ends_with(table));
        self.tables().iter().find(is_it).and_then(|line| line[field].as_u64()).unwrap_or(0)
    }
}
