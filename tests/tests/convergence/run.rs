//! One seed, from empty tables to equal ones.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use crossfade_servers::SharedPair;
use crossfade_testkit::hotset::{self, Counts, HotSet, Settings, Table};
use crossfade_testkit::quiet::Status;
use crossfade_testkit::workload::Side;
use crossfade_tests::{Migration, Setup, is_soak, rounds};

use crate::faults::{Faults, Happened};
use crate::{Stand, mend, reckoning};

/// Transactions a second on each side.
const RATE: f64 = 80.0;
const WRITERS: u64 = 3;
const QUIET_LIMIT: Duration = Duration::from_secs(120);

/// What a run came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    pub written: Counts,
    pub changes: [u64; 2],
    /// Rows that went back to the side that had deleted them.
    pub returned: u64,
    pub happened: Happened,
    pub won: u64,
    pub lost: u64,
    pub by_sight: u64,
    pub by_waiting: u64,
    pub mended: u64,
    pub held: u64,
    pub rows_equal: u64,
}

/// A column's name, and its number of a run.
type Column = (&'static str, fn(&Outcome) -> u64);

/// What is printed of a run.
const COLUMNS: [Column; 20] = [
    ("transactions", |outcome| outcome.written.transactions),
    ("refused", |outcome| outcome.written.refused),
    ("rolled back", |outcome| outcome.written.rolled_back),
    ("uncertain", |outcome| outcome.written.uncertain),
    ("changes forward", |outcome| outcome.changes[0]),
    ("reverse", |outcome| outcome.changes[1]),
    ("returned", |outcome| outcome.returned),
    ("kills", |outcome| outcome.happened.kills),
    ("in mid-work", |outcome| outcome.happened.mid_work),
    ("server restarts", |outcome| outcome.happened.server_restarts),
    ("stops", |outcome| outcome.happened.stops),
    ("freezes", |outcome| outcome.happened.freezes),
    ("conflicts won", |outcome| outcome.won),
    ("lost", |outcome| outcome.lost),
    ("by sight", |outcome| outcome.by_sight),
    ("by waiting", |outcome| outcome.by_waiting),
    ("mended", |outcome| outcome.mended),
    ("held", |outcome| outcome.held),
    // A run that came to its end has neither.
    ("differences", |_| 0),
    ("echoes captured", |_| 0),
];

impl Outcome {
    /// The head of a table of runs.
    pub fn head() -> String {
        format!("seed | {}", COLUMNS.map(|(name, _)| name).join(" | "))
    }

    /// One line of the table.
    pub fn line(&self, seed: &str) -> String {
        format!("{seed} | {}", COLUMNS.map(|(_, number)| number(self).to_string()).join(" | "))
    }

    pub fn plus(&self, other: &Outcome) -> Outcome {
        let (a, b) = (&self.happened, &other.happened);
        Outcome {
            written: self.written.plus(&other.written),
            changes: [self.changes[0] + other.changes[0], self.changes[1] + other.changes[1]],
            returned: self.returned + other.returned,
            happened: Happened {
                kills: a.kills + b.kills,
                mid_work: a.mid_work + b.mid_work,
                server_restarts: a.server_restarts + b.server_restarts,
                stops: a.stops + b.stops,
                freezes: a.freezes + b.freezes,
            },
            won: self.won + other.won,
            lost: self.lost + other.lost,
            by_sight: self.by_sight + other.by_sight,
            by_waiting: self.by_waiting + other.by_waiting,
            mended: self.mended + other.mended,
            held: self.held + other.held,
            rows_equal: self.rows_equal + other.rows_equal,
        }
    }
}

pub struct Run {
    seed: u64,
    migration: Migration,
}

impl Run {
    /// Runs a seed; an error tells what is not as promised, and leaves configuration and logs.
    pub async fn carry_out(stand: Stand, servers: &'static SharedPair, seed: u64) -> Result<Outcome> {
        let setup = Setup { tables: tables(), ..Setup::new(stand.flavor, "convergence") };
        let migration = Migration::on_servers(&setup, servers).await?;
        for pool in [&migration.old, &migration.new] {
            hotset::create(pool, &migration.schema).await?;
            hotset::load(pool, &migration.schema).await?;
        }
        migration.init().await?;
        let mut run = Run { seed, migration };
        let (written, happened) = run.write_and_suffer().await?;
        let outcome =
            run.reckon(written, happened).await.map_err(|error| anyhow!("{error:#}\n{}", run.migration.log_ends()))?;
        run.migration.stop_both().await?;
        Ok(outcome)
    }

    async fn write_and_suffer(&mut self) -> Result<(Counts, Happened)> {
        self.migration.start_both().await?;
        let old = HotSet::start(&self.migration.old, &self.settings(Side::Old)).await?;
        let new = HotSet::start(&self.migration.new, &self.settings(Side::New)).await?;
        let happened = Faults::new(self.seed, rounds(1, 3)).run(&mut self.migration).await?;
        let (old, new) = tokio::try_join!(old.finish(), new.finish())?;
        Ok((old.plus(&new), happened))
    }

    fn settings(&self, side: Side) -> Settings {
        Settings {
            schema: self.migration.schema.clone(),
            side,
            seed: self.seed,
            writers: WRITERS,
            rate: RATE,
            families: self.families(),
        }
    }

    /// In every run but each third, one side deletes parents while the other gives them children.
    fn families(&self) -> bool {
        !self.seed.is_multiple_of(3)
    }

    async fn reckon(&self, written: Counts, happened: Happened) -> Result<Outcome> {
        let migration = &self.migration;
        reckoning::all_is_settled(migration, QUIET_LIMIT).await.context("when the writers had stopped")?;
        let mended = mend::until_nothing_is_aside(migration).await?;
        let status = migration.status().until_quiet(QUIET_LIMIT).await.context("when all was mended")?;
        let rows_equal = reckoning::rows_are_equal(migration).await?;
        let captured = reckoning::every_change_was_captured_once(migration, self.families()).await?;
        reckoning::binlogs_are_quiet(migration).await?;
        let outcome = Outcome {
            written,
            changes: [captured.forward, captured.reverse],
            returned: captured.returned,
            happened,
            won: status.total("conflicts_won"),
            lost: status.total("conflicts_lost"),
            by_sight: status.total("judged_by_sight"),
            by_waiting: status.total("judged_by_waiting"),
            mended,
            held: status.total("held"),
            rows_equal,
        };
        something_happened(&outcome, &status)?;
        Ok(outcome)
    }
}

fn something_happened(outcome: &Outcome, status: &Status) -> Result<()> {
    let least = if is_soak() { 1_000 } else { 200 };
    ensure!(outcome.changes.iter().all(|changes| *changes > least), "too few changes: {outcome:?}");
    ensure!(outcome.won > 10 && outcome.lost > 10, "too few conflicts: {}", status.0);
    ensure!(outcome.written.refused > 10 && outcome.written.rolled_back > 3, "too little was refused: {outcome:?}");
    ensure!(status.total("echoes") > 100, "too few echoes were recognised: {}", status.0);
    ensure!(outcome.happened.kills > 0 && outcome.happened.stops > 0, "nothing went wrong: {outcome:?}");
    ensure!(outcome.rows_equal > 5, "too few rows are left to compare: {outcome:?}");
    ensure!(status.total("open_failures") + status.total("held") == 0, "something is set aside: {}", status.0);
    Ok(())
}

/// The `[[table]]` entries: every table by name, since the ledgers are not synced.
fn tables() -> String {
    let entry = |table: Table| {
        let clock = table.clock().map(|clock| format!("clock = \"{clock}\"\n")).unwrap_or_default();
        let policy = if table == Table::Guests { "policy = \"version\"\n" } else { "" };
        format!("[[table]]\nname = \"{{schema}}.{}\"\n{clock}{policy}\n", table.name())
    };
    Table::ALL.into_iter().map(entry).collect()
}
