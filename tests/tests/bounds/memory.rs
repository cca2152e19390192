//! `[memory] limit`: what a process needs at most, measured by the kernel.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_tests::{Direction, Migration, Setup, is_soak};
use mysql_async::prelude::Queryable;

use crate::{LIMIT, until_status};

const MIB: u64 = 1 << 20;
const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";
const LONG: Duration = Duration::from_secs(1_800);

fn limit() -> Duration {
    if is_soak() { LONG } else { LIMIT }
}

/// That neither process ever had more than so much resident; prints the figures.
fn within(migration: &mut Migration, what: &str, most_bytes: u64) -> Result<()> {
    let mut peaks = Vec::new();
    for direction in Direction::BOTH {
        peaks.push(migration.process(direction)?.peak_memory_bytes()?);
    }
    let flavor = migration.servers.flavor();
    println!(
        "{flavor:?}: {what}: peak of forward {} MiB, of reverse {} MiB, {} MiB allowed",
        peaks[0] / MIB,
        peaks[1] / MIB,
        most_bytes / MIB
    );
    ensure!(peaks.iter().all(|peak| *peak <= most_bytes), "{what}: {peaks:?} of {most_bytes}");
    Ok(())
}

/// `count` numbers from 1, as a table of one column `n`.
fn numbers(count: u64) -> String {
    let digits = "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL \
                  SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let names = ["a", "b", "c", "e", "f", "g"];
    let sum: Vec<String> =
        names.iter().enumerate().map(|(at, name)| format!("{name}.d * {}", 10_u64.pow(at as u32))).collect();
    let tables: Vec<String> = names.iter().map(|name| format!("{digits} {name}")).collect();
    format!("(SELECT 1 + {} AS n FROM {}) AS numbers WHERE n <= {count}", sum.join(" + "), tables.join(" JOIN "))
}

/// Server options under which a transaction of the long form has its place.
fn builder(flavor: Flavor) -> crossfade_servers::ServerBuilder {
    Server::builder(flavor)
        .relaxed()
        .option("max_binlog_cache_size", 8_u64 << 30)
        .option("innodb_buffer_pool_size", "256M")
}

async fn one_transaction(flavor: Flavor, name: &'static str, session: &[&str]) -> Result<()> {
    let (rows, limit_mib) = if is_soak() { (262_144, 512) } else { (12_500, 96) };
    let servers = SharedPair::own(builder(flavor)).await?;
    let settings = format!("\n[memory]\nlimit = \"{limit_mib}MiB\"\n");
    let mut migration = Migration::on_servers(&Setup { settings, ..Setup::new(flavor, name) }, servers).await?;
    let create = format!("CREATE TABLE {{schema}}.t (id INT PRIMARY KEY, a INT, v LONGTEXT NOT NULL, {CLOCK})");
    migration.on_both(&[&create]).await?;
    migration.init().await?;
    migration.start_both().await?;
    // 8 KiB a row, of which a quarter does not repeat itself.
    let repeated =
        "CONCAT(SHA2(n, 512), SHA2(n + 0.1, 512), SHA2(n + 0.2, 512), SHA2(n + 0.3, 512), REPEAT(SHA2(n, 512), 60))";
    let insert = format!("INSERT INTO {{schema}}.t (id, a, v) SELECT n, 0, {repeated} FROM {}", numbers(rows));
    let statements: Vec<&str> = session.iter().copied().chain([insert.as_str()]).collect();
    migration.on(&migration.old, &statements).await?;
    let (status, _) = migration.until_quiet_and_equal(limit()).await?;
    ensure!(status.number("forward", "last_seq") == rows, "of {rows} rows: {}", status.0);
    within(&mut migration, &format!("{name} of {} MiB", rows * 8 / 1024), limit_mib * MIB)?;
    migration.stop_both().await
}

pub async fn a_transaction_larger_than_memory(flavor: Flavor) -> Result<()> {
    one_transaction(flavor, "transaction", &[]).await
}

pub async fn a_compressed_transaction_larger_than_memory(flavor: Flavor) -> Result<()> {
    one_transaction(flavor, "compressed", &["SET SESSION binlog_transaction_compression = ON"]).await
}

/// Rows of 16 MiB stay under the default limit; larger ones need at most eight times what they are.
pub async fn rows_that_are_large(flavor: Flavor) -> Result<()> {
    let servers = SharedPair::own(builder(flavor).option("max_allowed_packet", "256M")).await?;
    let mut migration = Migration::on_servers(&Setup::new(flavor, "large_rows"), servers).await?;
    let create = format!("CREATE TABLE {{schema}}.t (id INT PRIMARY KEY, a INT, v LONGBLOB NOT NULL, {CLOCK})");
    migration.on_both(&[&create]).await?;
    migration.init().await?;
    migration.start_both().await?;
    let rows = if is_soak() { 64 } else { 4 };
    for id in 1..=rows {
        let row = format!("INSERT INTO {{schema}}.t (id, v) VALUES ({id}, REPEAT(RANDOM_BYTES(1024), 16 * 1024))");
        migration.on(&migration.old, &[&row, &format!("UPDATE {{schema}}.t SET a = 1 WHERE id = {id}")]).await?;
    }
    let (status, _) = migration.until_quiet_and_equal(limit()).await?;
    ensure!(status.number("forward", "last_seq") == 2 * rows, "of {rows} rows: {}", status.0);
    within(&mut migration, "rows of 16 MiB", 512 * MIB)?;
    if is_soak() {
        let row = "INSERT INTO {schema}.t (id, v) VALUES (1000, REPEAT(RANDOM_BYTES(1024), 100 * 1024))";
        migration.on(&migration.old, &[row]).await?;
        migration.until_quiet_and_equal(limit()).await?;
        within(&mut migration, "a row of 100 MiB", 8 * 100 * MIB)?;
    }
    migration.stop_both().await
}

/// Nothing is applied in reverse for long, so that forward must remember, or look up, all that was captured there.
pub async fn many_changes_not_seen(flavor: Flavor) -> Result<()> {
    let (rows, limit_mib) = if is_soak() { (1_000_000, 512) } else { (100_000, 96) };
    let servers = SharedPair::own(builder(flavor)).await?;
    let settings = format!("\n[memory]\nlimit = \"{limit_mib}MiB\"\n");
    let mut migration = Migration::on_servers(&Setup { settings, ..Setup::new(flavor, "not_seen") }, servers).await?;
    let create = format!("CREATE TABLE {{schema}}.t (id INT PRIMARY KEY, v VARCHAR(80) NOT NULL, {CLOCK})");
    migration.on_both(&[&create]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.rest(&[Direction::Reverse]).await?;
    let insert = format!("INSERT INTO {{schema}}.t (id, v) SELECT n, SHA2(n, 256) FROM {}", numbers(rows));
    migration.on(&migration.new, &[&insert]).await?;
    until_status(&migration, "all captured", limit(), |status| status.number("reverse", "last_seq") == rows).await?;
    // Concurrent with the first, the middle and the last of them, under clocks that make them win and lose.
    for id in [1, rows / 2, rows] {
        for (id, clock) in [(id, "2001-01-01"), (id - id.min(2) + 1, "2035-01-01")] {
            let row = format!("INSERT INTO {{schema}}.t (id, v, updated_at) VALUES ({id}, 'old', '{clock}')");
            let again = format!("{row} ON DUPLICATE KEY UPDATE v = 'older', updated_at = '{clock}'");
            migration.on(&migration.old, &[&again]).await?;
        }
    }
    let forward = until_status(&migration, "forward applied", limit(), |status| {
        let (last, settled) = (status.number("forward", "last_seq"), status.number("forward", "settled_seq"));
        last >= 5 && last == settled
    })
    .await?;
    ensure!(forward.number("forward", "conflicts_lost") > 0, "no change met one of new's: {}", forward.0);
    within(&mut migration, &format!("{rows} changes not seen"), limit_mib * MIB)?;
    migration.go_on(&[Direction::Reverse]).await?;
    let (status, _) = migration.until_quiet_and_equal(limit()).await?;
    ensure!(status.total("open_failures") + status.total("held") == 0, "something is set aside: {}", status.0);
    let mut conn = migration.new.get_conn().await?;
    let won = format!("SELECT COUNT(*) FROM `{}`.t WHERE v LIKE 'old%'", migration.schema);
    let won: u64 = conn.query_first(won).await?.unwrap_or(0);
    ensure!(won > 0, "no change of old won");
    within(&mut migration, &format!("a backlog of {rows} changes"), limit_mib * MIB)?;
    migration.stop_both().await
}
