//! Tables are copied in the order of their foreign keys, chunk by chunk, and the progress is told.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::userdb::UserDb;
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::prelude::Queryable;

use crate::progress::Copies;

const USERS: u64 = 1_500;
const LIMIT: Duration = Duration::from_secs(120);

/// The users database on the old side; the new side has its tables, and no rows.
async fn loaded_on_old(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let migration = Migration::new(&Setup::new(flavor, name)).await?;
    let data = UserDb { schema: migration.schema.clone(), users: USERS, seed: 1 };
    for pool in [&migration.old, &migration.new] {
        data.create(pool).await?;
    }
    data.load(&migration.old, |_| ()).await?;
    migration.init().await?;
    Ok(migration)
}

async fn an_empty_side_is_filled(flavor: Flavor) -> Result<()> {
    let mut migration = loaded_on_old(flavor, "backfill_fill").await?;
    migration.start(Direction::Forward, &[])?;
    migration.crossfade(&["backfill", "start"]).await?;
    let copies = Copies::until_copied(&migration, LIMIT).await?;
    let comparison = migration.compare().await?;
    ensure!(comparison.is_equal(), "{comparison}");
    println!("{flavor:?}: {} rows in {} chunks", copies.total("filled"), copies.total("chunks"));
    ensure!(copies.total("filled") == comparison.rows_compared(), "{}", copies.0);
    ensure!(copies.total("chunks") > copies.tables().len() as u64, "every table in one chunk: {}", copies.0);
    ensure!(copies.0["percent"] == 100.0 && copies.0["seconds_left"] == 0, "{}", copies.0);

    // The other direction finds nothing to carry: all of it bears the tag.
    migration.start(Direction::Reverse, &[])?;
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(status.total("last_seq") == 0, "rows that were copied came back: {}", status.0);
    ensure!(status.number("reverse", "echoes") >= copies.total("filled"), "{}", status.0);

    // A second start has nothing to do.
    migration.crossfade(&["backfill", "start"]).await?;
    let again = Copies::until_copied(&migration, LIMIT).await?;
    ensure!(again.total("chunks") == copies.total("chunks"), "copied twice: {}", again.0);
    migration.stop_both().await
}

async fn one_table_begins_anew(flavor: Flavor) -> Result<()> {
    let mut migration = loaded_on_old(flavor, "backfill_restart").await?;
    migration.start(Direction::Forward, &[])?;
    migration.crossfade(&["backfill", "start"]).await?;
    let before = Copies::until_copied(&migration, LIMIT).await?;
    // The comparison after the copying may meet the damage.
    migration.expect_lines(&["rows differ between the sides"]);
    let damages = ["USE {schema}", "DELETE FROM profiles WHERE user_id < 100", "UPDATE profiles SET bio = 'damaged'"];
    migration.on(&migration.new, &damages).await?;
    ensure!(!migration.compare().await?.is_equal(), "nothing was damaged");
    let table = format!("{}.profiles", migration.schema);
    migration.stop(Direction::Forward).await?;
    migration.crossfade(&["backfill", "restart", "--table", &table]).await?;
    let begun_anew = Copies::read(&migration).await?;
    ensure!(
        begun_anew.of(".profiles", "rows") == 0 && begun_anew.of(".profiles", "total_rows") > 0,
        "{}",
        begun_anew.0
    );
    migration.start(Direction::Forward, &[])?;
    let after = Copies::until_copied(&migration, LIMIT).await?;
    ensure!(migration.compare().await?.is_equal(), "{}", after.0);
    ensure!(after.of(".profiles", "filled") == before.of(".profiles", "filled"), "{}", after.0);
    ensure!(after.total("rows") == before.total("rows"), "other tables were copied again: {}", after.0);

    // Where users may write on the new side, nothing is cleared.
    migration.start(Direction::Reverse, &[])?;
    migration.status().until_running(LIMIT).await?;
    let (code, _, errors) = migration.crossfade_any(&["backfill", "restart", "--table", &table]).await?;
    ensure!(code == Some(1) && errors.contains("stop reverse"), "{code:?}: {errors}");
    migration.stop_both().await
}

async fn a_pause_holds(flavor: Flavor) -> Result<()> {
    let mut migration = loaded_on_old(flavor, "backfill_pause").await?;
    migration.crossfade(&["backfill", "start"]).await?;
    migration.crossfade(&["backfill", "pause"]).await?;
    migration.start(Direction::Forward, &[])?;
    // What users change crosses all the same.
    migration.on(&migration.old, &["USE {schema}", "UPDATE users SET name = 'changed' WHERE id = 7"]).await?;
    until("the change on the new side", LIMIT, || async {
        let asked = format!("SELECT name FROM `{}`.users WHERE id = 7", migration.schema);
        let name: Option<String> = migration.new.get_conn().await?.query_first(asked).await?;
        Ok(if name.as_deref() == Some("changed") {
            Progress::Reached(())
        } else {
            Progress::NotYet(format!("{name:?}"))
        })
    })
    .await?;
    let paused = Copies::read(&migration).await?;
    ensure!(paused.0["wish"] == "pause" && paused.0["rows"] == 0, "{}", paused.0);
    migration.crossfade(&["backfill", "resume"]).await?;
    Copies::until_copied(&migration, LIMIT).await?;
    ensure!(migration.compare().await?.is_equal());
    migration.stop(Direction::Forward).await?;
    migration.forget();
    Ok(())
}

#[tokio::test]
async fn p3_an_empty_side_is_filled_on_mysql() -> Result<()> {
    an_empty_side_is_filled(Flavor::MySql).await
}

#[tokio::test]
async fn p3_an_empty_side_is_filled_on_mariadb() -> Result<()> {
    an_empty_side_is_filled(Flavor::MariaDb).await
}

#[tokio::test]
async fn one_table_begins_anew_on_mysql() -> Result<()> {
    one_table_begins_anew(Flavor::MySql).await
}

#[tokio::test]
async fn one_table_begins_anew_on_mariadb() -> Result<()> {
    one_table_begins_anew(Flavor::MariaDb).await
}

#[tokio::test]
async fn a_pause_holds_on_mysql() -> Result<()> {
    a_pause_holds(Flavor::MySql).await
}
