//! Users who write one row after another of a transaction that is being applied do not keep it from being applied.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Flavor, Migration, on_both_brands};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};

use crate::of_one_table;

const LIMIT: Duration = Duration::from_secs(60);

/// More than are judged by what is there once they are locked.
const ROWS: u32 = 100;

/// Once, before locks are kept.
const TURNS_MOST: u32 = 1;

async fn a_lane_is_not_starved(flavor: Flavor) -> Result<()> {
    let mut migration = of_one_table(flavor, "starved").await?;
    let rows = (1..=ROWS).map(|id| format!("({id}, 'first')")).collect::<Vec<_>>().join(", ");
    migration.on(&migration.old, &[&format!("INSERT INTO {{schema}}.t (id, v) VALUES {rows}")]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;

    let mut written = BTreeSet::from([ROWS / 2]);
    let mut holder = begun(&migration, ROWS / 2).await?;
    migration.on(&migration.new, &["UPDATE {schema}.t SET v = 'of new'"]).await?;
    let mut turns = 0;
    loop {
        // The applier has judged all, and locked some.
        until_waiting(&migration, "NOT LIKE '%round%'").await?;
        let id = *locked(&migration).await?.difference(&written).max().context("the applier has locked no row")?;
        written.insert(id);
        let queued = begun(&migration, id);
        let before = async {
            until_waiting(&migration, &format!("LIKE '%round {id}\\'%'")).await?;
            holder.query_drop("COMMIT").await?;
            anyhow::Ok(())
        };
        let (mut next, ()) =
            tokio::time::timeout(LIMIT, async { tokio::try_join!(queued, before) }).await.context("a lock")??;
        let query = format!("SELECT COUNT(*) FROM `{}`.t WHERE v = 'of new'", migration.schema);
        let applied: Option<u32> = next.query_first(query).await?;
        if applied > Some(0) {
            next.query_drop("COMMIT").await?;
            break;
        }
        turns += 1;
        ensure!(turns <= TURNS_MOST, "users have come before the applier {turns} times");
        holder = next;
    }
    let (_, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() == u64::from(ROWS), "rows are missing: {comparison}");
    migration.stop_both().await
}

/// A user's transaction on old that has changed a row, once it can.
async fn begun(migration: &Migration, id: u32) -> Result<Conn> {
    let mut conn = Conn::new(Opts::from_url(&migration.servers.old().root_url())?).await?;
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
    conn.query_drop("BEGIN").await?;
    // It wins, also where it is made before that of new.
    let later = "updated_at = NOW(6) + INTERVAL 1 MINUTE";
    conn.query_drop(format!("UPDATE `{}`.t SET v = 'round {id}', {later} WHERE id = {id}", migration.schema)).await?;
    Ok(conn)
}

/// The rows on old that somebody has locked.
async fn locked(migration: &Migration) -> Result<BTreeSet<u32>> {
    let mut conn = migration.old.get_conn().await?;
    conn.query_drop("BEGIN").await?;
    let query = format!("SELECT id FROM `{}`.t FOR UPDATE SKIP LOCKED", migration.schema);
    let free: Vec<u32> = conn.query(query).await?;
    conn.query_drop("ROLLBACK").await?;
    Ok((1..=ROWS).filter(|id| !free.contains(id)).collect())
}

/// Returns when a statement on the test's table that is like this waits for a lock on old.
async fn until_waiting(migration: &Migration, like: &str) -> Result<()> {
    let question = format!(
        "SELECT COUNT(*) FROM information_schema.innodb_trx \
         WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE '%{}%' AND trx_query {like}",
        migration.schema
    );
    until("somebody waits for a lock", LIMIT, || async {
        // InnoDB tells what it told before to whoever asks again within a tenth of a second.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut conn = migration.old.get_conn().await?;
        let waiting: Option<u64> = conn.query_first(&question).await?;
        Ok(if waiting > Some(0) { Progress::Reached(()) } else { Progress::NotYet(format!("none is {like}")) })
    })
    .await
}

on_both_brands! {
    p4_a_lane_is_not_starved => a_lane_is_not_starved,
}
