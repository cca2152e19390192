//! One seed, from empty tables to equal ones.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use crossfade_servers::SharedPair;
use crossfade_testkit::hotset::{self, Counts, HotSet, Settings, Table};
use crossfade_testkit::quiet::Status;
use crossfade_testkit::workload::Side;
use crossfade_tests::lines::AWAY;
use crossfade_tests::{Migration, Setup, is_soak, rounds};

use crate::faults::{Faults, Happened};
use crate::outcome::{Outcome, Waits};
use crate::{Stand, mend, outcome, reckoning};

/// Transactions a second on each side.
const RATE: f64 = 80.0;
const WRITERS: u64 = 3;
const QUIET_LIMIT: Duration = Duration::from_secs(120);

pub struct Run {
    seed: u64,
    migration: Migration,
}

impl Run {
    /// Runs a seed; an error tells what is not as promised, and leaves configuration and logs.
    pub async fn carry_out(stand: Stand, servers: &'static SharedPair, seed: u64) -> Result<Outcome> {
        let setup = Setup { tables: tables(), ..Setup::new(stand.flavor, "convergence") };
        let migration = Migration::on_servers(&setup, servers).await?;
        migration.expect_lines(AWAY);
        for pool in [&migration.old, &migration.new] {
            hotset::create(pool, &migration.schema).await?;
            hotset::load(pool, &migration.schema).await?;
        }
        migration.init().await?;
        let mut run = Run { seed, migration };
        let (written, happened) = run.write_and_suffer().await?;
        let outcome = match run.reckon(written, happened).await {
            Ok(outcome) => outcome,
            Err(error) => {
                let kept = reckoning::keep_what_was_written(&run.migration).await;
                let kept = kept.err().map(|error| format!("\nmessages and binlogs are not kept: {error:#}"));
                bail!("{error:#}\n{}{}", run.migration.log_ends(), kept.unwrap_or_default());
            }
        };
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
        let captured = reckoning::every_change_was_captured_once(migration).await?;
        reckoning::binlogs_are_quiet(migration).await?;
        let outcome = Outcome {
            written,
            changes: [captured.forward, captured.reverse],
            returned: captured.returned,
            happened,
            won: status.total("conflicts_won"),
            lost: status.total("conflicts_lost"),
            stale: outcome::stale(&status),
            by_sight: status.total("judged_by_sight"),
            by_look_up: status.total("judged_by_look_up"),
            by_waiting: status.total("judged_by_waiting"),
            waits: Waits::of(&status),
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
    ensure!(
        outcome.by_look_up > 10 && outcome.by_waiting > 100 && outcome.waits.count > 10,
        "too little was judged: {}",
        status.0
    );
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
