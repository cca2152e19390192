//! Two processes for one direction: one works, the other stands by. When the first one hangs, the second takes over; when the
//! first one wakes up, it can do no harm.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, StatusReader, until};
use crossfade_testkit::workload::{Counts, Settings, Side, Workload};
use crossfade_tests::lines::{KILLED, REPLACED};
use crossfade_tests::{Direction, Migration, Setup};

const USERS: u64 = 500;
/// The promise is 10 s; the rest is for reading the status on a busy machine.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(14);
const LIMIT: Duration = Duration::from_secs(60);
/// Changes that the second process must carry while the first one hangs.
const CARRIED: u64 = 200;

async fn a_process_that_hangs_is_replaced(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::of_users(&Setup::new(flavor, "takeover"), USERS).await?;
    migration.expect_lines(REPLACED);
    migration.start_both().await?;
    let mut second = migration.standby(Direction::Forward)?;
    let old = Workload::start(&migration.old, &settings(&migration, Side::Old))?;
    let new = Workload::start(&migration.new, &settings(&migration, Side::New))?;
    let status = migration.status();
    let first_holder = until_settled(&status, CARRIED).await?;
    ensure!(second.exit_status()?.is_none(), "the process that should stand by has ended: {}", second.log_end());

    migration.process(Direction::Forward)?.pause()?;
    let frozen = Instant::now();
    until("another holder", TAKEOVER_LIMIT, || async {
        let holder = holder(&status).await?;
        let taken = holder.as_ref().is_some_and(|holder| *holder != first_holder);
        Ok(if taken {
            Progress::Reached(())
        } else {
            Progress::NotYet(format!("{holder:?} after {:?}", frozen.elapsed()))
        })
    })
    .await?;
    println!("{flavor:?}: taken over after {:.1} s", frozen.elapsed().as_secs_f64());
    let settled = status.read().await?.number("forward", "settled_seq");
    until_settled(&status, settled + CARRIED).await.context("nothing crosses after the take-over")?;

    // It wakes up in the middle of what it was doing, and finds its lease gone.
    migration.process(Direction::Forward)?.resume()?;
    migration.process(Direction::Forward)?.wait(LIMIT).await.context("it should end when its lease is gone")?;
    migration.replace(Direction::Forward, second);

    let (old, new) = tokio::try_join!(old.finish(), new.finish())?;
    nothing_lost_or_doubled(&mut migration, [(Direction::Forward, old), (Direction::Reverse, new)]).await
}

/// Two stand by. Whoever works is killed in mid-work, and so is the one that takes over; the last one carries on alone.
async fn the_last_of_three_takes_over(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::of_users(&Setup::new(flavor, "last_of_three"), USERS).await?;
    migration.expect_lines(KILLED);
    migration.start_both().await?;
    let mut waiting = vec![migration.standby(Direction::Forward)?, migration.standby(Direction::Forward)?];
    let status = migration.status();
    until("two stand by", LIMIT, || async {
        let now = status.read().await?;
        let forward = now.streams().iter().find(|stream| stream["stream"] == "forward/old");
        let standing_by = forward.and_then(|stream| stream["standby"].as_array()).map_or(0, Vec::len);
        Ok(if standing_by == 2 { Progress::Reached(()) } else { Progress::NotYet(now.0.to_string()) })
    })
    .await?;
    let old = Workload::start(&migration.old, &settings(&migration, Side::Old))?;
    let new = Workload::start(&migration.new, &settings(&migration, Side::New))?;
    let mut last_holder = until_settled(&status, CARRIED).await?;
    while !waiting.is_empty() {
        migration.process(Direction::Forward)?.kill9().await?;
        let killed = Instant::now();
        let holder = until("another holder", TAKEOVER_LIMIT, || async {
            let holder = holder(&status).await?;
            Ok(match holder {
                Some(holder) if holder != last_holder => Progress::Reached(holder),
                holder => Progress::NotYet(format!("{holder:?} after {:?}", killed.elapsed())),
            })
        })
        .await?;
        println!("{flavor:?}: taken over after {:.1} s", killed.elapsed().as_secs_f64());
        let at = waiting.iter().position(|process| holder.contains(&format!("/{}/", process.pid())));
        let taken_over = waiting.remove(at.with_context(|| format!("{holder} is none of those that stood by"))?);
        for process in &mut waiting {
            ensure!(process.exit_status()?.is_none(), "who stands by on has ended: {}", process.log_end());
        }
        migration.replace(Direction::Forward, taken_over);
        last_holder = holder;
        let settled = status.read().await?.number("forward", "settled_seq");
        until_settled(&status, settled + CARRIED).await.context("nothing crosses after the take-over")?;
    }
    let (old, new) = tokio::try_join!(old.finish(), new.finish())?;
    nothing_lost_or_doubled(&mut migration, [(Direction::Forward, old), (Direction::Reverse, new)]).await
}

/// All crosses, and each change of a user was captured once.
async fn nothing_lost_or_doubled(migration: &mut Migration, written: [(Direction, Counts); 2]) -> Result<()> {
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    for (direction, counts) in written {
        let captured = status.number(direction.as_str(), "last_seq");
        ensure!(captured == counts.changes, "{} captured {captured} changes of {counts:?}", direction.as_str());
    }
    ensure!(status.total("open_failures") == 0, "rows were parked: {}", status.0);
    migration.stop_both().await
}

/// Waits until forward has settled so many messages; returns who runs it.
async fn until_settled(status: &StatusReader, seq: u64) -> Result<String> {
    until("changes crossing", LIMIT, || async {
        let now = status.read().await?;
        let settled = now.number("forward", "settled_seq");
        match holder(status).await? {
            Some(holder) if settled >= seq => Ok(Progress::Reached(holder)),
            _ => Ok(Progress::NotYet(now.0.to_string())),
        }
    })
    .await
}

async fn holder(status: &StatusReader) -> Result<Option<String>> {
    let status = status.read().await?;
    let forward = status.streams().iter().find(|stream| stream["stream"] == "forward/old");
    Ok(forward.and_then(|stream| stream["holder"].as_str()).map(str::to_owned))
}

fn settings(migration: &Migration, side: Side) -> Settings {
    Settings { hot_users: 30, rate: Some(60.0), ..Settings::new(&migration.schema, side, USERS) }
}

#[tokio::test]
async fn p2_a_process_that_hangs_is_replaced_on_mysql() -> Result<()> {
    a_process_that_hangs_is_replaced(Flavor::MySql).await
}

#[tokio::test]
async fn p2_a_process_that_hangs_is_replaced_on_mariadb() -> Result<()> {
    a_process_that_hangs_is_replaced(Flavor::MariaDb).await
}

#[tokio::test]
async fn p2_the_last_of_three_takes_over_on_mysql() -> Result<()> {
    the_last_of_three_takes_over(Flavor::MySql).await
}

#[tokio::test]
async fn p2_the_last_of_three_takes_over_on_mariadb() -> Result<()> {
    the_last_of_three_takes_over(Flavor::MariaDb).await
}
