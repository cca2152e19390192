//! Too much is refused: the direction stops, says why, and goes on when a person has looked.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_tests::{Direction, Setup, on_both_brands};

use crate::{
    LIMIT, PLAIN, forward, insert, never_green, reason, rows, started, state, until_all_is_well, until_number,
    until_status,
};

on_both_brands! {
    too_many_refused_rows_stop_the_direction: p7_circuit_on_mysql, p7_circuit_on_mariadb;
    a_batch_half_done_rests_too: p7_circuit_half_done_on_mysql, p7_circuit_half_done_on_mariadb;
    what_was_refused_for_a_moment_does_not_count: p7_circuit_for_a_moment_on_mysql, p7_circuit_for_a_moment_on_mariadb;
}

/// Ten rows of the last 10,000 messages may be refused here.
const SETTINGS: &str = "[apply]\nmax_parked_share = \"0.1%\"\n";

/// The new side refuses rows from now on, until it is mended.
const REFUSE: &str = "ALTER TABLE {schema}.t ADD CONSTRAINT below CHECK (n < 1000)";

fn mend(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MySql => "ALTER TABLE {schema}.t DROP CHECK below",
        Flavor::MariaDb => "ALTER TABLE {schema}.t DROP CONSTRAINT below",
    }
}

async fn too_many_refused_rows_stop_the_direction(flavor: Flavor) -> Result<()> {
    let setup = Setup { settings: SETTINGS.to_owned(), ..Setup::new(flavor, "circuit") };
    let mut migration = started(&setup, &[PLAIN]).await?;
    migration.expect_lines(&["too much of forward/old cannot be applied"]);
    migration.on(&migration.new, &[REFUSE]).await?;
    let there = format!("SELECT COUNT(*) FROM `{}`.t", migration.schema);

    // A few among few do not open it, whatever their share.
    migration.on(&migration.old, &[&insert((1..=20).map(|id| (id, if id <= 5 { 5_000 } else { 1 })))]).await?;
    until_status(&migration, "five rows set aside", |status| status.number("forward", "open_failures") == 5).await?;
    until_number(&migration.new, &there, 15).await?;

    // Few enough for one lane, so that what is counted is known.
    migration.on(&migration.old, &[&insert((101..=280).map(|id| (id, if id % 5 == 0 { 5_000 } else { 1 })))]).await?;
    let opened = until_status(&migration, "the circuit open", |status| state(status) == "stopped").await?;
    let said = reason(&opened);
    ensure!(said.contains("41 rows") && said.contains("at most 10") && said.contains("crossfade start"), "{said}");
    ensure!(opened.number("forward", "open_failures") == 5, "more was set aside: {}", opened.0);
    ensure!(state_of_reverse(&opened) != "stopped", "the other direction goes on: {}", opened.0);
    // Nothing more is applied; capture goes on; who waits is told.
    migration.on(&migration.old, &[&insert([(500, 1)])]).await?;
    until_status(&migration, "the change captured", |status| status.number("forward", "last_seq") == 201).await?;
    until_number(&migration.new, &there, 15).await?;
    let (code, _, waited) = migration.crossfade_any(&["status", "--wait", "60s"]).await?;
    ensure!(code == Some(1) && waited.contains("41 rows"), "{code:?} {waited}");

    // A restart changes nothing of it, and neither does a start while nothing is mended.
    migration.stop(Direction::Forward).await?;
    migration.start(Direction::Forward, &[])?;
    let again = until_status(&migration, "still stopped after a restart", |status| {
        state(status) == "stopped" && forward(status)["holder"].is_string()
    })
    .await?;
    ensure!(reason(&again) == said, "{}", reason(&again));
    never_green(&migration, Duration::from_secs(2)).await?;
    migration.crossfade(&["start", "forward"]).await?;
    until_status(&migration, "open once more", |status| {
        state(status) == "stopped"
            && reason(status).contains("36 rows")
            && status.number("forward", "open_failures") == 5
    })
    .await?;
    let journal = format!("SELECT text FROM crossfade.journal WHERE pair = '{}' AND kind = 'circuit'", migration.pair);
    let told: Vec<String> = rows(&migration.new, &journal).await?;
    ensure!(told.len() == 2, "told once each time: {told:?}");

    migration.on(&migration.new, &[mend(flavor)]).await?;
    migration.crossfade(&["start", "forward"]).await?;
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("forward", "last_seq") == 201 && status.number("reverse", "last_seq") == 0, "{}", status.0);
    until_number(&migration.new, &there, 201).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// Some lanes of a batch have committed when another one opens the circuit: what is left of it is not tried again and again.
async fn a_batch_half_done_rests_too(flavor: Flavor) -> Result<()> {
    let setup = Setup { settings: SETTINGS.to_owned(), ..Setup::new(flavor, "half_done") };
    let mut migration = started(&setup, &[PLAIN]).await?;
    migration.expect_lines(&["too much of forward/old cannot be applied"]);
    migration.on(&migration.new, &[REFUSE]).await?;
    // Each of four lanes has some of the twenty, and less than ten.
    migration.on(&migration.old, &[&insert((1..=2_000).map(|id| (id, if id % 100 == 0 { 5_000 } else { 1 })))]).await?;
    let opened = until_status(&migration, "the circuit open", |status| state(status) == "stopped").await?;
    let some = opened.number("forward", "open_failures");
    ensure!((1..=10).contains(&some), "no lane has committed, or all have: {}", opened.0);
    never_green(&migration, Duration::from_secs(2)).await?;
    let log = std::fs::read_to_string(migration.log(Direction::Forward))?;
    ensure!(log.matches("nothing is applied meanwhile").count() == 1, "told again and again: {log}");

    migration.on(&migration.new, &[mend(flavor)]).await?;
    migration.crossfade(&["start", "forward"]).await?;
    until_all_is_well(&migration).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

fn state_of_reverse(status: &crossfade_testkit::quiet::Status) -> &str {
    let reverse = status.streams().iter().find(|stream| stream["stream"] == "reverse/new");
    reverse.and_then(|stream| stream["state"].as_str()).unwrap_or_default()
}

/// Rows that were refused and have gone through by themselves do not add up, though they are among the last 10,000 messages.
async fn what_was_refused_for_a_moment_does_not_count(flavor: Flavor) -> Result<()> {
    let setup = Setup { settings: SETTINGS.to_owned(), ..Setup::new(flavor, "moment") };
    let mut migration = started(&setup, &[PLAIN]).await?;
    for round in 0..3 {
        migration.on(&migration.new, &[REFUSE]).await?;
        let first = 100 * round + 1;
        migration.on(&migration.old, &[&insert((first..first + 8).map(|id| (id, 5_000)))]).await?;
        until_status(&migration, "eight rows set aside", |status| status.number("forward", "open_failures") == 8)
            .await?;
        migration.on(&migration.new, &[mend(flavor)]).await?;
        until_all_is_well(&migration).await?;
        migration.on(&migration.old, &["DELETE FROM {schema}.t"]).await?;
        until_all_is_well(&migration).await?;
    }
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}
