//! Cutover, rollback, and cutover again, under load.

use anyhow::{Result, ensure};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Flavor, Migration, on_both_brands, rounds, says};
use mysql_async::prelude::Queryable;

use crate::application::{Application, flag};
use crate::pauses::Pauses;
use crate::stage::{LIMIT, THREE, change, conclude, setup, staged, until_mirrored};

/// Far more than a pause should take, also on a machine that does much else.
const LONGEST_PAUSE_MS: u64 = 5_000;

async fn nothing_acknowledged_is_lost(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "there_and_back", "")).await?;
    let application = Application::start(&migration, &THREE).await?;
    let mut pauses = Pauses::default();
    for round in 0..rounds(2, 20) {
        writes_for_a_while(&migration, 400).await?;
        let cut = change(&migration, &["cutover"], 0).await?;
        pauses.add(&cut)?;
        if round == 0 {
            println!("{flavor:?}: {cut:#}");
            let told = says(&migration, &["status"], 0, &["phase read_new, flag 2", "3 instances follow it"]).await?;
            ensure!(!told.contains("is not over"), "{told}");
        }
        writes_for_a_while(&migration, 400).await?;
        pauses.add(&change(&migration, &["rollback"], 0).await?)?;
    }
    writes_for_a_while(&migration, 400).await?;
    pauses.add(&change(&migration, &["cutover"], 0).await?)?;
    writes_for_a_while(&migration, 400).await?;
    until_mirrored(&migration).await?;
    let ledger = conclude(&mut migration, application).await?;
    println!(
        "{flavor:?}: {} acknowledged writes, {:.0} in a second while users might write; the longest gap of a writer was {} ms\n{pauses}",
        ledger.writes,
        ledger.per_second,
        ledger.longest_gap.as_millis()
    );
    let worst = pauses.worst();
    ensure!(worst < LONGEST_PAUSE_MS, "a pause of {worst} ms");
    // Once more where users are already: that is told, and nothing happens.
    let before = flag(&migration).await?;
    says(&migration, &["cutover"], 1, &["phase is read_new", "`rollback`"]).await?;
    ensure!(flag(&migration).await? == before);
    migration.stop_both().await
}

/// Forward rests after the cutover: going back starts it, and what somebody has written on old meanwhile crosses after all.
async fn going_back_starts_what_was_stopped(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "trial_run", "")).await?;
    // A new row of old would get a number that is given on new as well.
    migration.on(&migration.old, &["INSERT INTO {schema}.item (writer, n, v) VALUES ('late', 1, 0)"]).await?;
    let application = Application::start(&migration, &THREE).await?;
    for (v, stop) in [(1, &["stop", "forward"][..]), (2, &["stop", "forward", "--capture"])] {
        change(&migration, &["cutover"], 0).await?;
        migration.crossfade(stop).await?;
        writes_for_a_while(&migration, 200).await?;
        let late = format!("UPDATE {{schema}}.item SET v = {v} WHERE writer = 'late'");
        migration.on(&migration.old, &[&late]).await?;
        says(&migration, &["cutover", "--dry-run"], 1, &["forward runs", "`crossfade start forward`"]).await?;
        says(&migration, &["rollback", "--dry-run"], 0, &["it will be started"]).await?;
        let back = change(&migration, &["rollback"], 0).await?;
        ensure!(
            back["steps"].as_array().is_some_and(|steps| steps.iter().any(|step| step["step"] == "start")),
            "{back:#}"
        );
        until("what was written late", LIMIT, || async {
            let mut conn = migration.new.get_conn().await?;
            let question = format!("SELECT v FROM `{}`.item WHERE writer = 'late'", migration.schema);
            let found: Option<i32> = conn.query_first(question).await?;
            Ok(if found == Some(v) { Progress::Reached(()) } else { Progress::NotYet(format!("{found:?}")) })
        })
        .await?;
    }
    migration.on(&migration.old, &["DELETE FROM {schema}.item WHERE writer = 'late'"]).await?;
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

/// Numbers that inserts have used on old which were rolled back do not cross, and are not given again; reading goes on after the
/// ALTER TABLE that sees to it, in both directions.
async fn no_number_is_given_twice(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "numbers", "require_instances = false")).await?;
    for (round, (command, from, to)) in
        [("cutover", &migration.old, &migration.new), ("rollback", &migration.new, &migration.old)]
            .into_iter()
            .enumerate()
    {
        let insert = format!("INSERT INTO {{schema}}.item (writer, n, v) VALUES ('{command}', 1, 1)");
        migration.on(from, &[&insert]).await?;
        let more: Vec<String> = (2..7).map(|n| insert.replace("1, 1)", &format!("{n}, 1)"))).collect();
        let burnt: Vec<&str> =
            std::iter::once("BEGIN").chain(more.iter().map(String::as_str)).chain(["ROLLBACK"]).collect();
        migration.on(from, &burnt).await?;
        let done = change(&migration, &[command], 0).await?;
        println!("{flavor:?}: {command}: {}", done["counted"]);
        ensure!(done["counted"].as_array().is_some_and(|tables| tables.len() == 1), "{done:#}");
        migration.on(to, &[&insert.replace("1, 1)", "7, 1)")]).await?;
        let mut conn = to.get_conn().await?;
        let question = format!("SELECT MAX(id) FROM `{}`.item", migration.schema);
        let last: Option<u64> = conn.query_first(question).await?;
        let used = 7 * (round as u64 + 1);
        ensure!(last == Some(used), "{last:?}, after {} numbers that were used", used - 1);
        migration.until_quiet_and_equal(LIMIT).await?;
    }
    migration.stop_both().await
}

/// Waits until the side in charge has so many more rows than now.
async fn writes_for_a_while(migration: &Migration, more: u64) -> Result<()> {
    let captured = || async {
        let status = migration.status().read().await?;
        anyhow::Ok(status.number("forward", "last_seq") + status.number("reverse", "last_seq"))
    };
    let before = captured().await?;
    until("writes", LIMIT, || async {
        let now = captured().await?;
        Ok(if now >= before + more { Progress::Reached(()) } else { Progress::NotYet(now.to_string()) })
    })
    .await
}

on_both_brands! {
    p9_nothing_acknowledged_is_lost_there_and_back => nothing_acknowledged_is_lost,
    p9_no_number_is_given_twice => no_number_is_given_twice,
    p9_going_back_starts_what_was_stopped => going_back_starts_what_was_stopped,
}
