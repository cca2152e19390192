//! Anything at all, on both sides of the same rows.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::Status;
use crossfade_testkit::sql;
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Migration, Setup, rounds};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::Side::{New, Old};
use crate::{ACCOUNTS, LIMIT, MERGED, in_turn};

/// Rows of such a table can be judged by sight.
const SUMS_ONLY: &str = "[[table]]\nname = \"{schema}.accounts\"\nclock = \"updated_at\"\nmerge = \"columns\"\n\
     merge_rules = { balance = \"sum-delta\", price = \"sum-delta\" }\n";

/// As the accounts, but a unique key over a part of a column keeps their changes in order, one by one.
const LEDGER: &str = "CREATE TABLE {schema}.ledger LIKE {schema}.accounts";
const IN_ORDER: &str = "ALTER TABLE {schema}.ledger ADD tag VARCHAR(10) NULL, ADD UNIQUE KEY (tag(3))";

const HOT_ROWS: u32 = 12;

/// A change of a few rows, which the server may refuse.
fn any_change(random: &mut StdRng, table: &str) -> String {
    let id = random.random_range(0..HOT_ROWS);
    let number = random.random_range(0..1_000);
    let set = match random.random_range(0..6) {
        0 => format!("name = 'n{number}'"),
        1 => format!("email = 'e{number}', balance = balance + {number}"),
        2 => format!("best = {number}, earliest = '2020-01-01' + INTERVAL {number} DAY"),
        3 => format!("best = NULL, price = price - {number} / 8"),
        4 => format!("balance = balance - {number}"),
        _ => format!("name = 'name', extra = '{{\"n\": {number}}}'"),
    };
    let columns = "(id, name, email, best, earliest, balance, price)";
    match random.random_range(0..12) {
        0 => format!("DELETE FROM {table} WHERE id = {id}"),
        1 | 2 => {
            format!("INSERT INTO {table} {columns} VALUES ({id}, 'i{number}', NULL, {number}, NOW(), {number}, 0)")
        }
        3 => format!("UPDATE {table} SET id = {}, {set} WHERE id = {id}", random.random_range(0..HOT_ROWS)),
        4 => format!("UPDATE {table} SET {set} WHERE id IN ({id}, {}, {})", (id + 3) % HOT_ROWS, (id + 7) % HOT_ROWS),
        _ => format!("UPDATE {table} SET {set} WHERE id = {id}"),
    }
}

/// Transactions of one to three changes. Returns how many changes the server took.
async fn change_at_random(pool: Pool, schema: String, seed: u64, transactions: u32) -> Result<u32> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut conn = pool.get_conn().await?;
    let mut taken = 0;
    for _ in 0..transactions {
        conn.query_drop("BEGIN").await?;
        for _ in 0..random.random_range(1..=3) {
            let table = ["accounts", "ledger"][random.random_range(0..2)];
            let change = any_change(&mut random, &format!("{}.{table}", sql::name(&schema)));
            match conn.query_drop(&change).await {
                Ok(()) => taken += 1,
                // A key that is taken, or a deadlock, which has rolled back all.
                Err(mysql_async::Error::Server(error)) if matches!(error.code, 1062 | 1205 | 1213) => {}
                Err(error) => return Err(error).context(change),
            }
        }
        conn.query_drop("COMMIT").await?;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..20))).await;
    }
    Ok(taken)
}

/// Anything on both sides of the same rows, while directions rest and processes die.
pub async fn random_changes_converge(flavor: Flavor) -> Result<()> {
    let seed = crate::seed(flavor)?;
    let mut random = StdRng::seed_from_u64(seed);
    let tables = format!("{SUMS_ONLY}{MERGED}");
    let setup = Setup { tables, ..Setup::new(flavor, "merge_random") };
    let mut migration = Migration::new(&setup).await?;
    migration.on_both(&[ACCOUNTS, LEDGER, IN_ORDER]).await?;
    migration.init().await?;
    migration.start_both().await?;
    let transactions = rounds(400, 4_000);
    let writers = [(&migration.old, seed), (&migration.new, seed ^ 1)]
        .map(|(pool, seed)| tokio::spawn(change_at_random(pool.clone(), migration.schema.clone(), seed, transactions)));
    for round in 0..rounds(4, 30) {
        let directions = [Direction::BOTH[random.random_range(0..2)]];
        if round % 4 == 3 {
            migration.expect_lines(KILLED);
            migration.process(directions[0])?.kill9().await?;
            migration.start(directions[0], &[])?;
        } else {
            migration.rest(&directions).await?;
            tokio::time::sleep(Duration::from_millis(random.random_range(300..2_000))).await;
            migration.go_on(&directions).await?;
        }
    }
    let mut changes = 0;
    for writer in writers {
        changes += writer.await??;
    }
    let (status, comparison) =
        migration.until_quiet_and_equal(LIMIT).await.with_context(|| format!("{flavor:?}, CROSSFADE_SEED={seed}"))?;
    println!(
        "{flavor:?}: {changes} statements, {} rows equal, merged {}, wholly lost {}, by sight {}, by waiting {}",
        comparison.rows_compared(),
        status.total("conflicts_won"),
        status.total("conflicts_lost"),
        status.total("judged_by_sight"),
        status.total("judged_by_waiting"),
    );
    ensure!(
        status.total("conflicts_won") > 50 && status.total("conflicts_lost") > 20,
        "too little was met: {}",
        status.0
    );
    ensure!(status.total("open_failures") + status.total("held") == 0, "rows were set aside: {}", status.0);
    // Where nobody else writes, a row needs no waiting.
    in_turn(
        &migration,
        &[(New, "INSERT INTO {schema}.accounts VALUES (99, 'n', NULL, 0, NOW(), 0, 0, NULL, NOW(6), NOW(6))")],
    )
    .await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    in_turn(&migration, &[(Old, "UPDATE {schema}.accounts SET name = 'quiet', balance = balance + 1")]).await?;
    let (later, _) = migration.until_quiet_and_equal(LIMIT).await?;
    let by_sight = |status: &Status| status.number("forward", "judged_by_sight");
    ensure!(by_sight(&later) > by_sight(&status), "nothing was judged by sight: {}", later.0);
    migration.stop_both().await
}
