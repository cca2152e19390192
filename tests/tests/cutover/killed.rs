//! The tool is killed at every step, and each sync process in the middle of it.

use anyhow::{Result, ensure};
use crossfade_tests::lines::{AWAY, KILLED};
use crossfade_tests::{Direction, Flavor, on_both_brands};

use crate::application::{Application, flag};
use crate::stage::{LIMIT, THREE, change, conclude, setup, staged, start_again};

/// The same command, killed, and then once more, finishes what it has begun: there for one point, and back for the next one.
async fn the_same_command_goes_on(flavor: Flavor) -> Result<()> {
    const POINTS: [&str; 12] = [
        "switch-gates",
        "switch-start",
        "switch-fence",
        "switch-canary",
        "switch-acknowledge",
        "switch-quiet",
        "switch-drain",
        "switch-count",
        "switch-mark",
        "switch-flip",
        "switch-flipped",
        "switch-end",
    ];
    let mut migration = staged(&setup(flavor, "killed_tool", "")).await?;
    let application = Application::start(&migration, &THREE).await?;
    for point in POINTS {
        let words = if flag(&migration).await?.value == 1 { ["cutover"] } else { ["rollback"] };
        let (code, output) = migration.crossfade_with(&words, &[("CROSSFADE_FAILPOINT", point)]).await?;
        ensure!(code.is_none(), "`{}` was not killed at {point}: {code:?}\n{output}", words[0]);
        let killed_at = flag(&migration).await?;
        let done = change(&migration, &words, 0).await?;
        ensure!(done["state"] == "done" && done["change"] == words[0], "{point}: {done:#}");
        println!(
            "{flavor:?}: {} killed at {point} (flag {killed_at:?}); {} with a pause of {} ms",
            words[0],
            if done["resumed"] == true { "finished" } else { "undone, and done again" },
            done["pause_ms"]
        );
    }
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

/// A sync process dies while users write nowhere, and does not come back in time: all is as before, and goes well afterwards.
async fn a_dead_process_undoes_it(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "killed_sync", "timeout = \"3s\"")).await?;
    migration.expect_lines(KILLED);
    migration.expect_lines(AWAY);
    let application = Application::start(&migration, &THREE).await?;
    for (words, direction) in [
        (["cutover"], Direction::Forward),
        (["cutover"], Direction::Reverse),
        (["rollback"], Direction::Reverse),
        (["rollback"], Direction::Forward),
    ] {
        let before = flag(&migration).await?;
        let freeze = [("CROSSFADE_FAILPOINT", "switch-acknowledge:1:stop")];
        let mut tool = migration.tool("tool", &words, &freeze)?;
        tool.until_frozen(LIMIT).await?;
        ensure!(flag(&migration).await?.fenced, "it should hold before it has acknowledgements");
        migration.process(direction)?.kill9().await?;
        tool.resume()?;
        let status = tool.wait(LIMIT).await?;
        let after = flag(&migration).await?;
        // Of the other direction nothing is drained; but what is drained may have to wait for what it reads.
        let is_drained = (words == ["cutover"]) == (direction == Direction::Forward);
        let (undone, done) = (status.code() == Some(1), status.code() == Some(0));
        ensure!(undone || (done && !is_drained), "{words:?} without {direction:?}: {status}\n{}", tool.log_end());
        ensure!(!after.fenced && (after.value == before.value) == undone, "{before:?} {after:?} {status}");
        println!("{flavor:?}: {} without {}: {status}", words[0], direction.as_str());
        start_again(&mut migration, direction).await?;
        if undone {
            change(&migration, &words, 0).await?;
        }
        if is_drained {
            // Once more, without the other one.
            change(&migration, &[if words == ["cutover"] { "rollback" } else { "cutover" }], 0).await?;
        }
    }
    migration.expect_lines(&["error: cutover", "error: rollback"]);
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

on_both_brands! {
    p9_the_same_command_goes_on => the_same_command_goes_on,
    p9_a_dead_process_undoes_it => a_dead_process_undoes_it,
}
