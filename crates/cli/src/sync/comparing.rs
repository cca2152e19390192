//! Comparing both sides again and again, as a part of the forward process.
//!
//! A round goes over all tables, one after the other, and is kept in the store table by table: whoever takes the lease goes on
//! with it. Only the holder of the lease compares, and the store takes nothing of a round from a process of an older one.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use crossfade_catalog::Servers;
use crossfade_config::Settings;
use crossfade_message::{
    Comparisons, CopyState, OpenVerification, Store, StoreError, TableCopy, Verification, VerifyWish,
};
use crossfade_throttle::Throttle;
use crossfade_verify::{Filter, Options, Progress, Sides, TablePair, TableReport};
use tokio_util::sync::CancellationToken;

use super::failpoint::Probe;
use crate::command::{rounds, verify};
use crate::differences::InStore;
use crate::failure::with_causes;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After an error that passes by itself.
const PAUSE: Duration = Duration::from_secs(10);

/// How long both directions may take to pass a mark.
const PATIENCE: Duration = Duration::from_secs(300);

/// Rows of each table that differ and are kept with their values; all are counted.
const KEPT_PER_TABLE: u64 = 1_000;

const ASKED: &str = "--continuous";

/// What of the process the comparing needs.
pub struct Comparing {
    pub settings: Arc<Settings>,
    pub store: Store,
    /// Of the forward direction's lease.
    pub epoch: u64,
    pub tables: Vec<TablePair>,
    pub throttle: Throttle,
    pub probe: Probe,
}

impl Comparing {
    /// Compares as long as it is wished, until `running` ends. What goes wrong is tried again.
    pub async fn run(self, running: CancellationToken) -> anyhow::Result<()> {
        running.run_until_cancelled(self.rounds()).await;
        Ok(())
    }

    async fn rounds(&self) {
        loop {
            let compared = match self.is_due().await {
                Ok(true) => tokio::select! {
                    compared = self.round() => compared,
                    () = self.until_unwished() => Ok(()),
                },
                Ok(false) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = compared {
                tracing::info!(error = with_causes(&error), "comparing in the background pauses, and goes on later");
                tokio::time::sleep(PAUSE).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Nothing is to be copied first, and it is wished: then a round is open, or the pause after the last one is over. Who
    /// wishes it anew need not wait. Or something was copied since the last round.
    async fn is_due(&self) -> Result<bool, StoreError> {
        let wish = self.store.verify_wish().await?;
        if self.is_unwished(wish) {
            return Ok(false);
        }
        let copies = self.store.copies().await?;
        if copies.iter().any(|copy| copy.state != CopyState::Copied) {
            return Ok(false);
        }
        let last = self.last_round().await?;
        if !wish.map_or(self.settings.verify.continuous, |wish| wish.on) {
            let is_done = |at| last.as_ref().is_some_and(|round| round.begun_at >= at && round.ended_at.is_some());
            return Ok(copied_at(&copies).is_some_and(|at| !is_done(at)));
        }
        let Some(ended_at) = last.and_then(|round| round.ended_at) else { return Ok(true) };
        let rested = (Utc::now() - ended_at).to_std().unwrap_or_default() >= self.settings.verify.pause;
        Ok(rested || wish.is_some_and(|wish| wish.since > ended_at))
    }

    async fn until_unwished(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // What cannot be read is as it was.
            let wish = self.store.verify_wish().await;
            if wish.is_ok_and(|wish| self.is_unwished(wish)) {
                return;
            }
        }
    }

    /// Not even after copying.
    fn is_unwished(&self, wish: Option<VerifyWish>) -> bool {
        let verify = &self.settings.verify;
        !wish.map_or(verify.continuous || verify.after_backfill, |wish| wish.on)
    }

    async fn last_round(&self) -> Result<Option<Verification>, StoreError> {
        Ok(self.store.verifications(Comparisons::Rounds, 1).await?.into_iter().next())
    }

    /// Goes on with the round that is open, or begins one, and ends it.
    async fn round(&self) -> anyhow::Result<()> {
        let (round, mut reports) = self.open().await?;
        let keeper = Arc::new(InStore::new(&self.store, round, false));
        let (sides, options, progress) = (self.sides(), self.options(), Progress::default());
        for table in &self.tables {
            let name = table.mapping.identity.to_string();
            if reports.iter().any(|report| report.table == name) {
                continue;
            }
            self.store.forget_differences(round.id, &table.mapping.source).await?;
            let tables = std::slice::from_ref(table);
            let compared = crossfade_verify::compare(&sides, tables, &options, &progress, keeper.clone()).await;
            reports.append(&mut compared?);
            self.store.keep_reports(round, &serde_json::to_string(&reports)?).await?;
            (self.probe)("table-compared");
        }
        self.store.end_verification(round, &serde_json::to_string(&reports)?).await?;
        tell(round, &reports);
        Ok(())
    }

    async fn open(&self) -> anyhow::Result<(OpenVerification, Vec<TableReport>)> {
        let copied_at = copied_at(&self.store.copies().await?);
        // What was compared before something was copied does not count.
        let is_open =
            |round: &Verification| round.ended_at.is_none() && copied_at.is_none_or(|at| round.begun_at >= at);
        if let Some(open) = self.last_round().await?.filter(is_open) {
            let mut reports = rounds::reports(&open);
            // Another configuration may have other tables.
            let is_known = |report: &TableReport| {
                self.tables.iter().any(|table| table.mapping.identity.to_string() == report.table)
            };
            reports.retain(is_known);
            tracing::info!(round = open.id, tables_done = reports.len(), "comparing goes on");
            return Ok((self.store.adopt_round(open.id, self.epoch).await?, reports));
        }
        let tables = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
        let round = self.store.begin_verification(ASKED, Some(self.epoch), Some(tables)).await?;
        tracing::info!(round = round.id, tables, "comparing begins");
        Ok((round, Vec::new()))
    }

    fn sides(&self) -> Sides {
        Sides {
            pair: self.settings.pair.clone(),
            old: Servers::new(self.settings.old.urls()),
            new: Servers::new(self.settings.new.urls()),
            store: self.store.clone(),
        }
    }

    fn options(&self) -> Options {
        Options {
            filter: Filter { condition: None, since: None },
            sample: None,
            chunk_time: self.settings.verify.chunk_time,
            chunk_bytes: verify::CHUNK_BYTES,
            share: f64::from(self.settings.verify.share_ppm) / 1e6,
            parallel: 1,
            throttle: self.throttle.clone(),
            patience: PATIENCE,
            keep_per_table: KEPT_PER_TABLE,
        }
    }
}

fn copied_at(copies: &[TableCopy]) -> Option<DateTime<Utc>> {
    copies.iter().filter_map(|copy| copy.copied_at).max()
}

fn tell(round: OpenVerification, reports: &[TableReport]) {
    let sum = |of: fn(&TableReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (rows, differences) = (sum(TableReport::rows), sum(TableReport::mismatches));
    if differences > 0 {
        let hint = "see `crossfade verify show --continuous`";
        tracing::warn!(round = round.id, rows, differences, hint, "rows differ between the sides");
    } else {
        tracing::info!(round = round.id, rows, "comparing has ended: no row is known to differ");
    }
}
