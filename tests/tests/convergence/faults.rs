//! What goes wrong while users write: the seed decides what, and when.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Server;
use crossfade_testkit::hotset;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::workload::Side;
use crossfade_tests::{Direction, Migration};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

/// How long a direction rests after `crossfade stop`.
const REST: Duration = Duration::from_secs(5);
/// A command that meets a server in the middle of its restart is tried again.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// A process that is told to die at a point comes there in this time, or there was no such work for it.
const DEATH_LIMIT: Duration = Duration::from_secs(10);

/// A process that was started so shortly before a server went away may not yet have come to wait for it. Whoever runs it
/// starts it again.
const START_UP: Duration = Duration::from_secs(10);

/// Where a process is in the middle of its work. Between lanes it is only when it has a batch for several.
const POINTS: [&str; 6] =
    ["after-read", "inside-capture", "after-capture", "mid-lane", "after-target-commit", "before-settle"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGKILL at any moment.
    Kill(Direction),
    /// The process kills itself where it has half-done work.
    KillAtPoint(Direction),
    /// `crossfade stop` now, `crossfade start` later; other faults come meanwhile.
    Rest(Direction),
    /// SIGSTOP, and SIGCONT a second or two later.
    Freeze(Direction),
    RestartServer(Side),
    KillServer(Side),
}

/// What went wrong, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Happened {
    pub kills: u64,
    /// Kills of a process that had work half done, or changes that it had not brought over.
    pub mid_work: u64,
    pub server_restarts: u64,
    pub stops: u64,
    pub freezes: u64,
}

/// The faults of one run.
pub struct Faults {
    rng: StdRng,
    deck: Vec<Fault>,
    resting: Option<(Direction, Instant)>,
    /// When each process was started last, and when a server went away and was back.
    started: [Instant; 2],
    outage: Option<(Instant, Instant)>,
    happened: Happened,
}

impl Faults {
    /// `rounds` times one of each kind, in any order.
    pub fn new(seed: u64, rounds: u32) -> Faults {
        let mut rng = StdRng::seed_from_u64(seed ^ 0xFA17);
        let mut deck = Vec::new();
        for _ in 0..rounds {
            let first = *Direction::BOTH.choose(&mut rng).unwrap_or(&Direction::Forward);
            let side = if rng.random_bool(0.5) { Side::Old } else { Side::New };
            let resting = if rng.random_bool(0.5) { first } else { first.opposite() };
            let mut round = vec![
                Fault::KillAtPoint(first),
                Fault::Kill(first.opposite()),
                Fault::KillAtPoint(first.opposite()),
                Fault::Rest(resting),
                Fault::Freeze(first),
                if rng.random_bool(0.5) { Fault::RestartServer(side) } else { Fault::KillServer(side) },
            ];
            round.shuffle(&mut rng);
            deck.extend(round);
        }
        Faults { rng, deck, resting: None, started: [Instant::now(); 2], outage: None, happened: Happened::default() }
    }

    /// Lets all of it happen, one after the other, and ends with both directions at work again.
    pub async fn run(mut self, migration: &mut Migration) -> Result<Happened> {
        for fault in std::mem::take(&mut self.deck) {
            self.pause(Duration::from_millis(300)..Duration::from_millis(1_200)).await;
            self.end_rest_if_due(migration).await?;
            self.befall(migration, fault).await.with_context(|| format!("during {fault:?}"))?;
            self.keep_running(migration).with_context(|| format!("after {fault:?}"))?;
        }
        self.pause(Duration::from_millis(500)..Duration::from_millis(1_000)).await;
        self.end_rest(migration).await?;
        self.keep_running(migration)?;
        Ok(self.happened)
    }

    async fn pause(&mut self, between: std::ops::Range<Duration>) {
        let pause = self.rng.random_range(between);
        tokio::time::sleep(pause).await;
    }

    async fn befall(&mut self, migration: &mut Migration, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill(direction) => self.kill(migration, direction, &[]).await,
            Fault::KillAtPoint(direction) => self.kill_at_point(migration, direction).await,
            Fault::Rest(direction) => {
                self.end_rest(migration).await?;
                command(migration, &["stop", direction.as_str()]).await?;
                self.resting = Some((direction, Instant::now() + REST));
                self.happened.stops += 1;
                Ok(())
            }
            Fault::Freeze(direction) => {
                migration.process(direction)?.pause()?;
                self.pause(Duration::from_millis(1_000)..Duration::from_millis(2_000)).await;
                self.happened.freezes += 1;
                migration.process(direction)?.resume()
            }
            Fault::RestartServer(side) | Fault::KillServer(side) => {
                let (server, begin) = (server(migration, side), Instant::now());
                if matches!(fault, Fault::KillServer(_)) {
                    server.kill9().await?;
                }
                server.restart().await?;
                self.outage = Some((begin, Instant::now()));
                self.happened.server_restarts += 1;
                Ok(())
            }
        }
    }

    fn start(&mut self, migration: &mut Migration, direction: Direction, environment: &[(&str, &str)]) -> Result<()> {
        self.started[direction as usize] = Instant::now();
        migration.start(direction, environment)
    }

    /// No fault is a reason for a running process to give up.
    fn keep_running(&mut self, migration: &mut Migration) -> Result<()> {
        for direction in Direction::BOTH {
            let Some(status) = migration.process(direction)?.exit_status()? else { continue };
            let started = self.started[direction as usize];
            let starting = self.outage.is_some_and(|(begin, end)| started + START_UP > begin && started < end);
            ensure!(
                starting && status.code() == Some(3),
                "{} has ended with {status}\n{}",
                direction.as_str(),
                migration.log_ends()
            );
            self.start(migration, direction, &[])?;
        }
        Ok(())
    }

    /// Kills a process and starts it at once again.
    async fn kill(
        &mut self,
        migration: &mut Migration,
        direction: Direction,
        environment: &[(&str, &str)],
    ) -> Result<()> {
        let source = if direction == Direction::Forward { &migration.old } else { &migration.new };
        let written = hotset::changes(source, &migration.schema).await?.total();
        migration.process(direction)?.kill9().await?;
        self.happened.kills += 1;
        if passed(migration, direction).await? < written {
            self.happened.mid_work += 1;
        }
        self.start(migration, direction, environment)
    }

    /// Replaces a process by one that dies where it has half-done work, and starts it at once when it did.
    async fn kill_at_point(&mut self, migration: &mut Migration, direction: Direction) -> Result<()> {
        let point = *POINTS.choose(&mut self.rng).unwrap_or(&"mid-lane");
        let times = self.rng.random_range(1..8);
        self.kill(migration, direction, &[("CROSSFADE_FAILPOINT", &format!("{point}:{times}"))]).await?;
        let process = migration.process(direction)?;
        // A direction that rests does not apply, and so does not come to every point.
        if let Ok(status) = process.wait(DEATH_LIMIT).await {
            ensure!(status.signal() == Some(9), "{} ended with {status}\n{}", direction.as_str(), migration.log_ends());
            self.happened.mid_work += 1;
        } else {
            migration.process(direction)?.kill9().await?;
        }
        self.happened.kills += 1;
        self.start(migration, direction, &[])
    }

    async fn end_rest_if_due(&mut self, migration: &Migration) -> Result<()> {
        if self.resting.is_some_and(|(_, due)| due <= Instant::now()) { self.end_rest(migration).await } else { Ok(()) }
    }

    async fn end_rest(&mut self, migration: &Migration) -> Result<()> {
        let Some((direction, due)) = self.resting.take() else { return Ok(()) };
        tokio::time::sleep_until(due).await;
        command(migration, &["start", direction.as_str()]).await
    }
}

fn server(migration: &Migration, side: Side) -> &'static Server {
    match side {
        Side::Old => migration.servers.old(),
        Side::New => migration.servers.new(),
    }
}

async fn command(migration: &Migration, words: &[&str]) -> Result<()> {
    until("a command that finds its servers", COMMAND_LIMIT, || async {
        migration.crossfade(words).await.map(Progress::Reached)
    })
    .await?;
    Ok(())
}

/// The last change of a direction's source that its applier has passed, as the target itself says.
async fn passed(migration: &Migration, direction: Direction) -> Result<u64> {
    let (target, stream): (&Pool, &str) = match direction {
        Direction::Forward => (&migration.new, "forward/%"),
        Direction::Reverse => (&migration.old, "reverse/%"),
    };
    let query = "SELECT CAST(COALESCE(MAX(seq), 0) AS UNSIGNED) FROM crossfade.checkpoint \
                 WHERE pair = ? AND stream LIKE ? AND lane < 65535";
    Ok(target.get_conn().await?.exec_first(query, (&migration.pair, stream)).await?.unwrap_or(0))
}
