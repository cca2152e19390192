//! Processes are killed while the service changes sides.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::http::HttpClient;
use crossfade_tests::lines::{AWAY, KILLED};
use crossfade_tests::{Direction, Flavor, on_both_brands};

use crate::instance::{Ages, Instance, USUAL};
use crate::stage::{LIMIT, Stage};

/// Shorter than usual, so that nobody waits long for the dead; still much longer than a busy machine keeps anybody waiting.
const SHORT: Ages = Ages { max_age: Duration::from_secs(2), ttl: Duration::from_secs(4) };

/// The dead is waited for until its time is over; its clients go to another instance.
async fn an_instance_is_killed(flavor: Flavor) -> Result<()> {
    let mut stage = Stage::begin(flavor, "service_instance", SHORT).await?;
    for (number, command) in [(0, "cutover"), (1, "rollback")] {
        stage.instances[number].process.kill9().await?;
        let killed = Instant::now();
        let (report, _) = stage.change(command).await?;
        let waited_for = report["instances"].as_array().map_or(0, Vec::len);
        ensure!(waited_for == 2, "the dead instance has acknowledged: {report:#}");
        println!("{flavor:?}: {command} had ended {} ms after the kill", killed.elapsed().as_millis());
        stage.judge().await?;
        stage.restart_instance(number).await?;
        stage.writes_for_a_while(200).await?;
    }
    stage.change_quickly("cutover").await?;
    stage.judge().await?;
    stage.end().await
}

/// While `crossfade serve` is dead, instances write on as long as what they know of the flag is young enough, and not one moment
/// longer than a cutover waits for them; so it may go on without them.
async fn the_flags_server_is_killed(flavor: Flavor) -> Result<()> {
    let mut stage = Stage::begin(flavor, "service_serve", SHORT).await?;

    // It is back soon enough for nobody to notice.
    let refused = stage.clients.ledger().not_now;
    let killed = Instant::now();
    stage.served.process.kill9().await?;
    stage.restart_serve().await?;
    let was_quick = killed.elapsed() < SHORT.max_age / 2;
    stage.writes_for_a_while(300).await?;
    let refused = stage.clients.ledger().not_now - refused;
    println!("{flavor:?}: serve was back after {} ms; {refused} writes were refused", killed.elapsed().as_millis());
    ensure!(!was_quick || refused == 0, "{refused} writes were refused although serve was back soon");
    stage.until_all_follow().await?;
    stage.judge().await?;

    for command in ["cutover", "rollback"] {
        let before = stage.clients.ledger().acknowledged();
        stage.served.process.kill9().await?;
        let killed = Instant::now();
        until("writes without serve", SHORT.max_age / 2, || async {
            let now = stage.clients.ledger().acknowledged();
            Ok(if now > before + 20 { Progress::Reached(()) } else { Progress::NotYet(now.to_string()) })
        })
        .await?;
        let (code, output, errors) = stage.migration.crossfade_any(&[command, "--json"]).await?;
        ensure!(code == Some(0), "{command} while serve is dead: {output}{errors}");
        until_nobody_writes(&stage.instances).await?;
        let last = stage.clients.ledger().last_acknowledged();
        ensure!(
            last.is_some_and(|last| last < killed + SHORT.ttl),
            "a write was acknowledged {:?} after serve had died",
            last.map(|last| last - killed)
        );
        println!(
            "{flavor:?}: the last write was acknowledged {:?} after serve had died",
            last.map(|last| last - killed)
        );
        stage.judge().await?;
        stage.restart_serve().await?;
        stage.until_all_follow().await?;
        stage.writes_for_a_while(200).await?;
        stage.judge().await?;
    }
    stage.end().await
}

/// No instance trusts its flag any more.
async fn until_nobody_writes(instances: &[Instance]) -> Result<()> {
    for instance in instances {
        until("an instance that does not know the flag", LIMIT, || async {
            let answer = HttpClient::new(&instance.address).ask("GET", "/healthz", "").await?;
            Ok(if answer.code == 503 { Progress::Reached(()) } else { Progress::NotYet(answer.body) })
        })
        .await?;
    }
    Ok(())
}

/// A sync process dies while users write nowhere. It is started again, and the change goes on, or is undone and done once more.
async fn sync_processes_are_killed(flavor: Flavor) -> Result<()> {
    let mut stage = Stage::begin(flavor, "service_sync", USUAL).await?;
    stage.migration.expect_lines(KILLED);
    stage.migration.expect_lines(AWAY);
    for (command, direction) in [
        ("cutover", Direction::Forward),
        ("rollback", Direction::Reverse),
        ("cutover", Direction::Reverse),
        ("rollback", Direction::Forward),
    ] {
        let freeze = [("CROSSFADE_FAILPOINT", "switch-acknowledge:1:stop")];
        let mut tool = stage.migration.tool("tool", &[command], &freeze)?;
        tool.until_frozen(LIMIT).await?;
        stage.migration.process(direction)?.kill9().await?;
        stage.migration.start(direction, &[])?;
        tool.resume()?;
        let ended = tool.wait(LIMIT).await?;
        stage.migration.status().until_running(LIMIT).await?;
        println!("{flavor:?}: {command} while {} was killed: {ended}", direction.as_str());
        match ended.code() {
            Some(0) => stage.writes_for_a_while(200).await?,
            Some(1) => {
                stage.migration.expect_lines(&["error: cutover", "error: rollback"]);
                stage.judge().await?;
                stage.change(command).await?;
            }
            _ => anyhow::bail!("{command} ended with {ended}: {}", tool.log_end()),
        }
        stage.judge().await?;
    }
    stage.end().await
}

on_both_brands! {
    p9_an_instance_is_killed => an_instance_is_killed,
    p9_the_flags_server_is_killed => the_flags_server_is_killed,
    p9_sync_processes_are_killed => sync_processes_are_killed,
}
