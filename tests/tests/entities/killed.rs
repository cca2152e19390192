//! The tool is killed at every step; the same command goes on, and nothing is half moved.

use anyhow::{Result, ensure};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::lines::{AWAY, KILLED};
use crossfade_tests::{Direction, Flavor, Served, on_both_brands};

use crate::stage::{LIMIT, counts, entity, nodes_agree, number, on_new, setup, staged};
use crate::writers::{Users, has_all};

const USERS: u64 = 60;

/// There for one point, and back for the next one; each time in three batches, of which the second one is killed in.
async fn the_same_command_goes_on(flavor: Flavor) -> Result<()> {
    const POINTS: [&str; 8] = [
        "entity-copying",
        "entity-verified",
        "entity-fenced",
        "entity-quiet",
        "entity-drained",
        "entity-decide",
        "entity-decided",
        "entity-lifted",
    ];
    let mut migration = staged(&setup(flavor, "killed", "batch = 20"), USERS).await?;
    // What is decided is finished by a sync process, which tells that.
    migration.expect_lines(&["has died; what it had in hand is at rest"]);
    let served = Served::start(&migration).await?;
    let users = Users::start(&migration, &served.url(), USERS, 4, false)?;
    entity(&migration, &["add", "--all"], 0).await?;
    let mut there = 0;
    for point in POINTS {
        let words = if there == 0 { ["entity", "move", "--all"] } else { ["entity", "return", "--all"] };
        let environment = [("CROSSFADE_FAILPOINT", &*format!("{point}:2"))];
        let (code, output) = migration.crossfade_with(&words, &environment).await?;
        ensure!(code.is_none(), "`{}` was not killed at {point}: {code:?}\n{output}", words.join(" "));
        let then = on_new(&migration).await?.len();
        let report = entity(&migration, &words[1..], 0).await?;
        println!(
            "{flavor:?}: {} killed at {point} with {then} on new; then {} moved, pauses {}",
            words[1], report["moved"], report["pauses"]
        );
        ensure!(report["resumed"] == true && number(&report, "failed")? == 0, "{report:#}");
        there = if there == 0 { USERS } else { 0 };
        let state = if there == 0 { "returned" } else { "moved" };
        let all = counts(&migration).await?;
        ensure!(all.len() == 1 && all[state] == USERS, "after {point}: {all:?}");
        nodes_agree(&migration).await?;
    }
    let (ledger, _) = users.finish().await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    has_all(&migration, &ledger).await?;
    println!("{flavor:?}: {} acknowledged writes, {} on new", ledger.writes, ledger.on_new);
    migration.stop_both().await
}

/// Nobody runs the command again: users can write all the same.
async fn users_are_not_kept_waiting_for_a_tool_that_has_died(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "left_behind", "fence_timeout = \"3s\""), 5).await?;
    migration.expect_lines(&["has died; what it had in hand is at rest"]);
    let served = Served::start(&migration).await?;
    for (point, id, side) in [("entity-fenced", "1", 0), ("entity-decided", "2", 1)] {
        let environment = [("CROSSFADE_FAILPOINT", point)];
        let (code, output) = migration.crossfade_with(&["entity", "move", id], &environment).await?;
        ensure!(code.is_none(), "{code:?}\n{output}");
        let client = crossfade_flag::EntityClient::builder(served.url()).build()?;
        let guard = client.begin_write(id).await?;
        let is_new = guard.side() == crossfade_flag::Side::New;
        ensure!(u8::from(is_new) == side, "{point}: {guard:?}");
    }
    // One may be withdrawn that nobody has in hand.
    entity(&migration, &["move", "1"], 0).await?;
    until("nobody at work", LIMIT, || async {
        let found = counts(&migration).await?;
        let at_rest = found.len() == 1 && found.get("moved") == Some(&2);
        Ok(if at_rest { Progress::Reached(()) } else { Progress::NotYet(format!("{found:?}")) })
    })
    .await?;
    nodes_agree(&migration).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// A sync process dies under a fence: what does not come over in time is undone, and goes well later.
async fn a_dead_process_undoes_it(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "dead_sync", "fence_timeout = \"5s\"\nattempts = 1"), 10).await?;
    migration.expect_lines(KILLED);
    migration.expect_lines(AWAY);
    migration.expect_lines(&["error: 10 have failed", "error: nothing was moved"]);
    let served = Served::start(&migration).await?;
    let users = Users::start(&migration, &served.url(), 10, 2, false)?;
    entity(&migration, &["add", "--all"], 0).await?;
    let mut tool =
        migration.tool("tool", &["entity", "move", "--all"], &[("CROSSFADE_FAILPOINT", "entity-fenced:1:stop")])?;
    tool.until_frozen(LIMIT).await?;
    migration.process(Direction::Forward)?.kill9().await?;
    tool.resume()?;
    let status = tool.wait(LIMIT).await?;
    ensure!(status.code() == Some(1), "{status}\n{}", tool.log_end());
    let found = counts(&migration).await?;
    ensure!(found["failed"] == 10 && on_new(&migration).await?.is_empty(), "{found:?}");
    let failed = entity(&migration, &["list", "--state", "failed"], 0).await?;
    let reason = failed["entities"][0]["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains("longer than 5s"), "{reason}");
    migration.start(Direction::Forward, &[])?;
    migration.status().until_running(LIMIT).await?;
    entity(&migration, &["move", "--state", "failed"], 0).await?;
    ensure!(on_new(&migration).await?.len() == 10);
    let (ledger, _) = users.finish().await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    has_all(&migration, &ledger).await?;
    migration.stop_both().await
}

on_both_brands! {
    p9_the_same_command_goes_on => the_same_command_goes_on,
    p9_users_are_not_kept_waiting => users_are_not_kept_waiting_for_a_tool_that_has_died,
    p9_a_dead_process_undoes_it => a_dead_process_undoes_it,
}
