//! The play itself: writers on both sides, a kill, and the wait for quiet.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossfade_testkit::quiet::Status;
use crossfade_testkit::workload::{Counts, Settings, Side, Workload};

use super::DemoArgs;
use super::display::{Display, Scene};
use super::stage::{Pair, Stage};

/// Transactions a second on each side.
const RATE: f64 = 250.0;
/// Users whose rows both sides write.
const HOT_USERS: u64 = 200;
/// How long the killed process stays dead, so that one sees the other direction go on and the backlog grow.
const DEAD_FOR: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(500);
/// From the last write to quiet, the killed process's lease included.
const QUIET_LIMIT: Duration = Duration::from_secs(120);

/// What the writers of both sides did.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    pub old: Counts,
    pub new: Counts,
    /// The process that was killed, and how many of its messages it had captured and not yet applied (at the last look).
    pub killed_pid: u32,
}

/// Writes on both sides at once, kills the forward process with -9 in the middle, and starts it again.
pub async fn write_on_both_sides(
    args: &DemoArgs,
    display: &Display,
    stage: &Stage,
    pair: &mut Pair,
) -> Result<Written> {
    let duration = Duration::from_secs(args.seconds);
    display.say(&format!("writing on both sides at once for {} s, also to the same rows", args.seconds));
    let old = Workload::start(&stage.old, &settings(args, Side::Old))?;
    let new = Workload::start(&stage.new, &settings(args, Side::New))?;
    let scene = display.scene(duration);

    let began = Instant::now();
    watch(stage, &scene, &old, &new, began, duration.mul_f64(0.4), pair).await?;
    let killed_pid = pair.forward.pid();
    pair.forward.kill9().await?;
    display.say(&format!("kill -9 {killed_pid}: the forward process is dead; users keep writing"));
    let awake = began.elapsed() + DEAD_FOR;
    look(stage, &scene, &old, &new, began, awake).await?;
    pair.forward = stage.start_sync("forward")?;
    display.say(&format!("forward runs again as process {}", pair.forward.pid()));
    watch(stage, &scene, &old, &new, began, duration, pair).await?;

    let (old, new) = tokio::try_join!(old.finish(), new.finish())?;
    scene.finish();
    Ok(Written { old, new, killed_pid })
}

fn settings(args: &DemoArgs, side: Side) -> Settings {
    Settings { rate: Some(RATE), hot_users: HOT_USERS, writers: 3, ..Settings::new("app", side, args.users) }
}

/// Shows how changes travel until `end` after `began`. A process that ends by itself ends the play.
async fn watch(
    stage: &Stage,
    scene: &Scene,
    old: &Workload,
    new: &Workload,
    began: Instant,
    end: Duration,
    pair: &mut Pair,
) -> Result<()> {
    while began.elapsed() < end {
        look(stage, scene, old, new, began, (began.elapsed() + LOOK).min(end)).await?;
        for process in [&mut pair.forward, &mut pair.reverse] {
            if let Some(status) = process.exit_status()? {
                bail!("process {} ended by itself: {status}", process.pid());
            }
        }
    }
    Ok(())
}

/// One look at everything, then rest until `until` after `began`.
async fn look(
    stage: &Stage,
    scene: &Scene,
    old: &Workload,
    new: &Workload,
    began: Instant,
    until: Duration,
) -> Result<()> {
    let status = stage.status().read().await.context("`crossfade status` failed")?;
    if !(old.is_running() && new.is_running()) {
        bail!("the writers of a side have stopped by themselves");
    }
    scene.show(began.elapsed(), &old.counts(), &new.counts(), &status);
    tokio::time::sleep(until.saturating_sub(began.elapsed())).await;
    Ok(())
}

/// Waits until both directions have read and applied everything.
pub async fn wait_for_quiet(display: &Display, stage: &Stage) -> Result<Status> {
    let bar = display.spinner("catching up");
    let status = stage.status().until_quiet(QUIET_LIMIT).await;
    bar.finish();
    status
}
