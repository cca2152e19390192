//! `status --wait`: it ends well when everything has crossed, and tells at once why something will not.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Migration, Setup};

use crate::{create_table, insert, rows, says, state, until_status};

/// What is asked for; nothing that will not come may be waited for as long.
const LONG: &str = "150s";
const SOON: Duration = Duration::from_secs(75);

async fn migration(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let migration = Migration::new(&Setup::new(flavor, name)).await?;
    create_table(&migration).await?;
    migration.init().await?;
    Ok(migration)
}

/// That a long wait fails long before its end, and says all of these.
async fn fails_soon(migration: &Migration, told: &[&str]) -> Result<()> {
    let asked = Instant::now();
    let output = says(migration, &["status", "--wait", LONG], 1, &[&["error:", "hint:"], told].concat()).await?;
    ensure!(asked.elapsed() < SOON, "it waited {:?}:\n{output}", asked.elapsed());
    Ok(())
}

/// A stream that has stopped with an error does not go on by itself.
async fn an_error_ends_the_wait(flavor: Flavor) -> Result<()> {
    let mut migration = migration(flavor, "wait_error").await?;
    migration.expect_lines(&["was emptied without row changes"]);
    migration.start_both().await?;
    insert(&migration, &migration.old, 1..4).await?;
    says(&migration, &["status", "--wait", LONG], 0, &["forward/old"]).await?;
    ensure!(rows(&migration, &migration.new).await? == 3, "the wait ended before everything had crossed");

    // While it waits, too. Forward, whose process may be started again, is waited for; reverse fails meanwhile.
    migration.expect_lines(KILLED);
    migration.process(Direction::Forward)?.kill9().await?;
    let asked = Instant::now();
    let wait = migration.crossfade_any(&["status", "--wait", LONG]);
    let truncate = migration.on(&migration.new, &["TRUNCATE TABLE {schema}.users"]);
    let (ended, truncated) = tokio::join!(wait, truncate);
    truncated?;
    let (code, _, errors) = ended?;
    ensure!(code == Some(1) && asked.elapsed() < SOON, "it ended with {code:?} after {:?}: {errors}", asked.elapsed());
    for text in ["reverse/new is stopped", "emptied", "hint:", "crossfade sync reverse"] {
        ensure!(errors.contains(text), "the wait does not tell of `{text}`: {errors}");
    }
    until_status(&migration, "reverse has stopped", |status| state(status, "reverse") == "stopped").await?;
    fails_soon(&migration, &["reverse/new is stopped", "emptied"]).await?;
    migration.forget();
    Ok(())
}

/// Messages that wait for a direction which was told to rest are told of; `start` lets the wait end well.
async fn a_resting_direction_ends_the_wait(flavor: Flavor) -> Result<()> {
    let mut migration = migration(flavor, "wait_rest").await?;
    migration.start_both().await?;
    migration.crossfade(&["stop", "forward"]).await?;
    says(&migration, &["status", "--wait", LONG], 0, &["paused"]).await?;
    insert(&migration, &migration.old, 1..4).await?;
    fails_soon(&migration, &["forward/old is paused", "messages wait", "crossfade start forward"]).await?;
    migration.crossfade(&["start", "forward"]).await?;
    says(&migration, &["status", "--wait", LONG], 0, &["forward/old"]).await?;
    ensure!(rows(&migration, &migration.new).await? == 3, "the wait ended before everything had crossed");
    migration.stop_both().await
}

/// A direction that nobody has started is waited for; one that is declared off is not, and a person is told so.
async fn what_does_not_run_is_told(flavor: Flavor) -> Result<()> {
    let mut migration = migration(flavor, "wait_off").await?;
    says(&migration, &["status", "--wait", "2s"], 1, &["not started yet", "crossfade sync forward"]).await?;
    says(&migration, &["status"], 0, &["not started yet", "crossfade sync reverse"]).await?;
    // Started together with its processes, the wait is for what they carry.
    insert(&migration, &migration.old, 1..101).await?;
    for direction in Direction::BOTH {
        migration.start(direction, &[])?;
    }
    says(&migration, &["status", "--wait", LONG], 0, &["forward/old"]).await?;
    ensure!(rows(&migration, &migration.new).await? == 100, "the wait ended before the processes had begun");

    migration.crossfade(&["stop", "reverse", "--capture"]).await?;
    insert(&migration, &migration.old, 101..111).await?;
    says(&migration, &["status", "--wait", LONG], 0, &["reverse is declared off", "new side"]).await?;
    ensure!(rows(&migration, &migration.new).await? == 110, "the wait ended before everything had crossed");
    migration.crossfade(&["stop", "forward", "--capture"]).await?;
    fails_soon(&migration, &["both directions are declared off"]).await?;
    migration.stop_both().await?;

    let stranger = Migration::new(&Setup::new(flavor, "wait_stranger")).await?;
    fails_soon(&stranger, &["nothing is known", "crossfade init"]).await?;
    stranger.forget();
    Ok(())
}

/// A change that the target refuses has not crossed, although all others have.
async fn what_is_set_aside_has_not_crossed(flavor: Flavor) -> Result<()> {
    let mut migration = migration(flavor, "wait_aside").await?;
    migration.on(&migration.new, &["ALTER TABLE {schema}.users ADD CONSTRAINT CHECK (v <> 'row 2')"]).await?;
    migration.start_both().await?;
    insert(&migration, &migration.old, 1..4).await?;
    until_status(&migration, "one set aside", |status| status.number("forward", "open_failures") == 1).await?;
    until_status(&migration, "the others settled", |status| status.number("forward", "settled_seq") == 3).await?;
    let told = ["not caught up", "1 change is set aside", "messages list --status failed"];
    says(&migration, &["status", "--wait", "3s"], 1, &told).await?;
    ensure!(rows(&migration, &migration.new).await? == 2, "the others have not crossed");
    migration.on(&migration.old, &["UPDATE {schema}.users SET v = 'mended' WHERE id = 2"]).await?;
    says(&migration, &["status", "--wait", LONG], 0, &["forward/old"]).await?;
    ensure!(rows(&migration, &migration.new).await? == 3, "the wait ended before everything had crossed");
    migration.stop_both().await
}

/// A process that was killed is not said to run, although its lease has not ended.
async fn a_killed_process_is_seen(flavor: Flavor) -> Result<()> {
    let mut migration = migration(flavor, "wait_killed").await?;
    migration.start_both().await?;
    migration.expect_lines(KILLED);
    migration.process(Direction::Forward)?.kill9().await?;
    // The server may need a moment to see that the connection is gone; the lease would last for longer.
    until_status(&migration, "forward is seen to be gone", |status| state(status, "forward") == "stopped").await?;
    says(&migration, &["status"], 0, &["stopped", "died without a word", "crossfade sync forward"]).await?;
    migration.stop(Direction::Reverse).await?;
    migration.forget();
    Ok(())
}

#[tokio::test]
async fn waiting_on_mysql() -> Result<()> {
    waiting(Flavor::MySql).await
}

#[tokio::test]
async fn waiting_on_mariadb() -> Result<()> {
    waiting(Flavor::MariaDb).await
}

async fn waiting(flavor: Flavor) -> Result<()> {
    tokio::try_join!(
        an_error_ends_the_wait(flavor),
        a_resting_direction_ends_the_wait(flavor),
        what_does_not_run_is_told(flavor),
        what_is_set_aside_has_not_crossed(flavor),
        a_killed_process_is_seen(flavor),
    )
    .map(drop)
}
