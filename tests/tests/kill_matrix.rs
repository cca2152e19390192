//! Both processes are killed at every point where work is half done, again and again, while users write on both sides. After
//! each point all is quiet and equal, and the number of messages is the number of changes: nothing lost, nothing twice, no echo.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::workload::{Settings, Side, Workload};
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Migration, Setup, rounds};

/// Where a process can be told to kill itself, in the order of a change's way.
const POINTS: [&str; 7] = [
    "after-read",
    "inside-capture",
    "after-capture",
    "mid-lane",
    "between-lanes",
    "after-target-commit",
    "before-settle",
];
const USERS: u64 = 1_000;
/// Changes that are captured and applied by more than one lane.
const BACKLOG: u64 = 600;
/// Time for a process to take over the lease of the killed one, to come to its point, and to die there.
const DEATH_LIMIT: Duration = Duration::from_secs(60);
const QUIET_LIMIT: Duration = Duration::from_secs(120);

async fn killed_at_every_point(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::of_users(&Setup::new(flavor, "kill_matrix"), USERS).await?;
    migration.expect_lines(KILLED);
    let old = Workload::start(&migration.old, &settings(&migration, Side::Old))?;
    let new = Workload::start(&migration.new, &settings(&migration, Side::New))?;
    let rounds = rounds(2, 20);
    println!("{flavor:?}: {:<20} {:>8} {:>8} {:>10} {:>10}", "point", "forward", "reverse", "changes", "echoes");
    for point in POINTS {
        let mut kills = [0; 2];
        for round in 1..=rounds {
            kill_both(&mut migration, &old, &new, point)
                .await
                .with_context(|| format!("{flavor:?}, {point}, round {round}"))?;
            kills.iter_mut().for_each(|kills| *kills += 1);
        }
        old.pause().await;
        new.pause().await;
        migration.start_both().await?;
        let (status, _) = migration.until_quiet_and_equal(QUIET_LIMIT).await.with_context(|| point.to_owned())?;
        for (direction, counts) in [(Direction::Forward, old.counts()), (Direction::Reverse, new.counts())] {
            let captured = status.number(direction.as_str(), "last_seq");
            ensure!(
                counts.uncertain == 0 && captured == counts.changes,
                "{flavor:?}, {point}: {} captured {captured} changes of {counts:?}",
                direction.as_str()
            );
        }
        ensure!(status.total("open_failures") == 0, "{point}: rows were parked: {}", status.0);
        let changes = old.counts().plus(&new.counts()).changes;
        println!(
            "{flavor:?}: {point:<20} {:>8} {:>8} {changes:>10} {:>10}",
            kills[0],
            kills[1],
            status.total("echoes")
        );
        migration.stop_both().await.with_context(|| point.to_owned())?;
        old.resume();
        new.resume();
    }
    let written = old.finish().await?.plus(&new.finish().await?);
    ensure!(written.changes > 1_000, "too little was written: {written:?}");
    Ok(())
}

/// Lets each direction in turn kill itself at `point`, in the middle of its work, while the other one runs.
async fn kill_both(migration: &mut Migration, old: &Workload, new: &Workload, point: &str) -> Result<()> {
    for direction in Direction::BOTH {
        if point == "between-lanes" {
            // Only a batch of some size is worth a second lane.
            let source = if direction == Direction::Forward { old } else { new };
            backlog(source).await?;
        }
        migration.start(direction.opposite(), &[])?;
        migration.start(direction, &[("CROSSFADE_FAILPOINT", point)])?;
        let status = migration.process(direction)?.wait(DEATH_LIMIT).await?;
        ensure!(
            status.signal() == Some(9),
            "{} did not die at its point but ended with {status}\n{}",
            direction.as_str(),
            migration.log_ends()
        );
        migration.stop(direction.opposite()).await?;
    }
    Ok(())
}

/// Waits until so much has been written that it fills a batch for two lanes.
async fn backlog(source: &Workload) -> Result<()> {
    let before = source.counts().changes;
    until("a backlog", DEATH_LIMIT, || async {
        let written = source.counts().changes - before;
        Ok(if written >= BACKLOG { Progress::Reached(()) } else { Progress::NotYet(format!("{written} changes")) })
    })
    .await
}

fn settings(migration: &Migration, side: Side) -> Settings {
    Settings { hot_users: 30, rate: Some(100.0), ..Settings::new(&migration.schema, side, USERS) }
}

#[tokio::test]
async fn p2_killed_at_every_point_on_mysql() -> Result<()> {
    killed_at_every_point(Flavor::MySql).await
}

#[tokio::test]
async fn p2_killed_at_every_point_on_mariadb() -> Result<()> {
    killed_at_every_point(Flavor::MariaDb).await
}
