//! Rows of a large table are reached by their key's index: a statement that reads the whole table is slow, and locks every row
//! of it from users.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_tests::{Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;

use crate::CLOCK;
use crate::scenario::QUIET_LIMIT;

const ROWS: u64 = 16_384;

/// What is read while the most changes of a step pass; each row is looked at a few times.
const MOST_READ: u64 = 200;

/// Each kind of key has its own ways past an index.
const KEYS: [(&str, &str); 5] = [
    ("one_number", "id BIGINT PRIMARY KEY, other INT"),
    ("two_numbers", "id BIGINT, other INT, PRIMARY KEY (id, other)"),
    ("text_and_number", "id VARCHAR(40) CHARACTER SET utf8mb4, other INT, PRIMARY KEY (id, other)"),
    ("latin_and_number", "id VARCHAR(40) CHARACTER SET latin1, other INT, PRIMARY KEY (id, other)"),
    ("decimal_and_time", "id DECIMAL(20,3), other TIMESTAMP(3), PRIMARY KEY (id, other)"),
];

/// How many rows of each table the new side's server has read so far.
async fn rows_read(migration: &Migration, flavor: Flavor) -> Result<BTreeMap<String, u64>> {
    let counts = match flavor {
        Flavor::MySql => {
            "SELECT OBJECT_NAME, COUNT_FETCH FROM performance_schema.table_io_waits_summary_by_table WHERE OBJECT_SCHEMA = ?"
        }
        Flavor::MariaDb => {
            "SELECT TABLE_NAME, ROWS_READ FROM information_schema.TABLE_STATISTICS WHERE TABLE_SCHEMA = ?"
        }
    };
    let counts: Vec<(String, u64)> = migration.new.get_conn().await?.exec(counts, (&migration.schema,)).await?;
    Ok(counts.into_iter().collect())
}

/// A row's values of `id` and `other`, as SQL.
fn key(table: &str, number: u64) -> [String; 2] {
    match table {
        "one_number" | "two_numbers" => [number.to_string(), "7".to_owned()],
        "decimal_and_time" => [format!("{number}.125"), "'2026-01-01 00:00:00.250'".to_owned()],
        _ => [format!("'Präparat {number}'"), "7".to_owned()],
    }
}

/// A transaction that changes so many rows of the old side in each of the ways there are.
fn changes(table: &str, count: u64, round: u64) -> Vec<String> {
    let mut statements = vec!["BEGIN".to_owned()];
    let first = round * 1_000 + 1;
    for number in first..first + count {
        let row = |number| format!("(id, other) = ({})", key(table, number).join(", "));
        let new = key(table, ROWS + number).join(", ");
        let [id, other] = key(table, 2 * ROWS + number);
        statements.extend([
            format!("UPDATE {{schema}}.{table} SET v = {round} WHERE {}", row(number)),
            format!("DELETE FROM {{schema}}.{table} WHERE {}", row(number + 100)),
            format!("INSERT INTO {{schema}}.{table} (id, other, v) VALUES ({new}, {round})"),
            format!("UPDATE {{schema}}.{table} SET id = {id}, other = {other} WHERE {}", row(number + 200)),
        ]);
    }
    statements.push("COMMIT".to_owned());
    statements
}

async fn rows_are_reached_by_index(flavor: Flavor) -> Result<()> {
    // On servers of its own, of which one counts.
    let counting = match flavor {
        Flavor::MySql => "performance_schema",
        Flavor::MariaDb => "userstat",
    };
    let servers = SharedPair::own(Server::builder(flavor).relaxed().option(counting, "ON")).await?;
    let mut migration = Migration::on_servers(&Setup::new(flavor, "by_index"), servers).await?;
    for (table, columns) in KEYS {
        let create = format!("CREATE TABLE {{schema}}.{table} ({columns}, v INT, {CLOCK})");
        let values = (1..=ROWS).fold(String::new(), |mut values, number| {
            let (comma, key) = (if number > 1 { "," } else { "" }, key(table, number).join(", "));
            let _ = write!(values, "{comma}({key}, 0, '2026-01-01')");
            values
        });
        let fill = format!("INSERT INTO {{schema}}.{table} (id, other, v, updated_at) VALUES {values}");
        migration.on_both(&[&create, &fill, &format!("ANALYZE TABLE {{schema}}.{table}")]).await?;
    }
    migration.init().await?;
    migration.start_both().await?;
    for (round, count) in (0..).zip([1, 2, 9]) {
        let before = rows_read(&migration, flavor).await?;
        for (table, _) in KEYS {
            let changes = changes(table, count, round);
            migration.on(&migration.old, &changes.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        migration.status().until_quiet(QUIET_LIMIT).await?;
        let after = rows_read(&migration, flavor).await?;
        for (table, _) in KEYS {
            let of_table = |counts: &BTreeMap<String, u64>| counts.get(table).copied().unwrap_or(0);
            let read = of_table(&after) - of_table(&before);
            ensure!((1..MOST_READ).contains(&read), "{flavor:?}: for {count} rows of {table}, {read} were read");
        }
    }
    migration.until_quiet_and_equal(QUIET_LIMIT).await?;
    migration.stop_both().await
}

on_both_brands! {
    p10_rows_are_reached_by_index => rows_are_reached_by_index,
}
