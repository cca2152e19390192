//! A person who looks after parked rows: where both sides have given one unique value to different rows, he gives one of
//! them another value, on its own side. Everything else must pass by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use crossfade_testkit::hotset::{self, Table};
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use serde_json::Value;
use tokio::time::Instant;

/// Until everything that is set aside has gone through. A refused change is tried again after a minute at the latest.
const LIMIT: Duration = Duration::from_secs(150);
/// What a mended row sets free goes through by itself in this time, mostly.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(250);
const DUPLICATE: &str = "1062";

/// A change that is set aside, as the store shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parked {
    direction: Direction,
    seq: u64,
    table: String,
    key: Option<u64>,
    /// The row as the change leaves it.
    after: Value,
    code: String,
    text: String,
}

/// Mends until nothing is set aside; returns how many rows had to be mended.
pub async fn until_nothing_is_aside(migration: &Migration) -> Result<u64> {
    let end = Instant::now() + LIMIT;
    let mut mended = BTreeSet::new();
    loop {
        let aside = look(migration, Instant::now() + PATIENCE).await?;
        if aside.parked.is_empty() && aside.held == 0 {
            return Ok(mended.len() as u64);
        }
        if Instant::now() >= end {
            bail!("not to be mended within {LIMIT:?} (held: {}): {:#?}", aside.held, aside.parked);
        }
        // One at a time: to mend one of two rows must be enough for both.
        for parked in aside.parked.iter().filter(|parked| parked.code == DUPLICATE) {
            if mend(migration, parked, mended.len()).await? {
                mended.insert((parked.direction.as_str(), parked.seq));
                break;
            }
        }
    }
}

struct Aside {
    parked: Vec<Parked>,
    held: u64,
}

/// What is set aside, once that is nothing or has not changed until `patience` ends.
async fn look(migration: &Migration, patience: Instant) -> Result<Aside> {
    loop {
        let aside = Aside { parked: parked(migration).await?, held: migration.status().read().await?.total("held") };
        if (aside.parked.is_empty() && aside.held == 0) || Instant::now() >= patience {
            return Ok(aside);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn parked(migration: &Migration) -> Result<Vec<Parked>> {
    // The store is on the new side.
    let mut connection = migration.new.get_conn().await?;
    let query = "SELECT stream, seq, table_name, row_key, after_image, error_code, error_text FROM crossfade.failure \
                 WHERE pair = ? ORDER BY stream, seq";
    type Line = (String, u64, String, Option<String>, Option<String>, String, String);
    let lines: Vec<Line> = connection.exec(query, (&migration.pair,)).await?;
    lines
        .into_iter()
        .map(|(stream, seq, table, row_key, after, code, text)| {
            let direction = if stream.starts_with("forward/") { Direction::Forward } else { Direction::Reverse };
            let key = row_key.map(|key| id_of(&key)).transpose()?;
            let after = after.map(|after| serde_json::from_str(&after)).transpose()?.unwrap_or_default();
            Ok(Parked { direction, seq, table, key, after, code, text })
        })
        .collect()
}

fn id_of(row_key: &str) -> Result<u64> {
    let key: Value = serde_json::from_str(row_key).context("a row key that is no JSON")?;
    key["id"].as_u64().with_context(|| format!("a row key without an id: {row_key}"))
}

/// Gives one of two rows a new unique value: the parked one on its own side, if the other side has its value in another
/// row; else the row on the other side that has what the parked change wanted, though its row has gone on since.
async fn mend(migration: &Migration, parked: &Parked, number: usize) -> Result<bool> {
    let table = Table::ALL.into_iter().find(|table| table.name() == parked.table);
    let (Some(unique), Some(key)) = (table.and_then(Table::unique), parked.key) else {
        bail!("refused for a unique value where there is none: {parked:#?}")
    };
    let (source, target) = match parked.direction {
        Direction::Forward => (&migration.old, &migration.new),
        Direction::Reverse => (&migration.new, &migration.old),
    };
    let name = sql::full_name(&migration.schema, &parked.table);
    let holder = |value: &str| {
        format!("SELECT CAST(id AS CHAR) FROM {name} WHERE {unique} = {} AND id <> {key}", sql::text(value))
    };
    let here = first(source, &format!("SELECT {unique} FROM {name} WHERE id = {key}")).await?;
    let clashes = match &here {
        Some(value) => first(target, &holder(value)).await?.is_some(),
        None => false,
    };
    let (side, id) = match parked.after[unique].as_str() {
        _ if clashes => (source, key.to_string()),
        Some(value) => match first(target, &holder(value)).await? {
            Some(id) => (target, id),
            None => return Ok(false),
        },
        None => return Ok(false),
    };
    let value = format!("mended-{}-{}-{number}", parked.direction.as_str(), parked.seq);
    let statement = format!("UPDATE {name} SET {unique} = '{value}' WHERE id = {id}");
    let rows = hotset::write(side, &migration.schema, &statement).await?;
    ensure!(rows == 1, "a row went away while nobody writes: {parked:#?}");
    Ok(true)
}

async fn first(pool: &Pool, query: &str) -> Result<Option<String>> {
    Ok(pool.get_conn().await?.query_first(query).await?)
}
