//! Comparing both sides again and again, as a part of the forward process.
//!
//! A round goes over all tables, one after the other, and is kept in the store table by table: whoever takes the lease goes on
//! with it. Only the holder of the lease compares, and the store takes nothing of a round from a process of an older one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use crossfade_catalog::Servers;
use crossfade_config::Settings;
use crossfade_message::{
    Comparisons, CopyState, OpenVerification, Store, StoreError, TableCopy, Verification, VerifyWish,
};
use crossfade_model::TableName;
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

/// Why nothing is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Unwished,
    /// What is to be copied first would be told to differ.
    Copying,
}

/// What of the store decides whether there is something to compare.
struct Sight {
    wish: Option<VerifyWish>,
    /// Of the tables that are compared.
    copies: Vec<TableCopy>,
}

impl Sight {
    fn copied_at(&self) -> Option<DateTime<Utc>> {
        self.copies.iter().filter_map(|copy| copy.copied_at).max()
    }
}

/// A round, with what was found of the tables that are done.
struct Round {
    open: OpenVerification,
    /// When something was copied last before it was opened.
    copied_at: Option<DateTime<Utc>>,
    reports: Vec<TableReport>,
}

impl Comparing {
    /// Compares as long as it is wished, until `running` ends. What goes wrong is tried again.
    pub async fn run(self, running: CancellationToken) -> anyhow::Result<()> {
        running.run_until_cancelled(self.rounds()).await;
        Ok(())
    }

    async fn rounds(&self) {
        loop {
            if let Err(error) = self.look().await {
                tracing::info!(error = with_causes(&error), "comparing in the background pauses, and goes on later");
                tokio::time::sleep(PAUSE).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Compares if it is time to. A round that copying has overtaken is given up: all of it is compared anew afterwards.
    async fn look(&self) -> anyhow::Result<()> {
        let (sight, last) = (self.sight().await?, self.last_round().await?);
        match self.rest(&sight) {
            Some(Rest::Unwished) => Ok(()),
            Some(Rest::Copying) => match last.filter(|round| round.ended_at.is_none()) {
                Some(round) => self.give_up(&round).await,
                None => Ok(()),
            },
            None if self.is_due(&sight, last.as_ref()) => self.compare().await,
            None => Ok(()),
        }
    }

    /// Something was copied since the last round that has ended. Or it is to go on for ever, and a round is open, or the pause
    /// after the last one is over; who wishes it anew need not wait.
    fn is_due(&self, sight: &Sight, last: Option<&Verification>) -> bool {
        let ended = last.and_then(|round| round.ended_at.map(|ended_at| (round.begun_at, ended_at)));
        if sight.copied_at().is_some_and(|at| ended.is_none_or(|(begun_at, _)| begun_at < at)) {
            return true;
        }
        if !sight.wish.map_or(self.settings.verify.continuous, |wish| wish.on) {
            return false;
        }
        let Some((_, ended_at)) = ended else { return true };
        let rested = (Utc::now() - ended_at).to_std().unwrap_or_default() >= self.settings.verify.pause;
        rested || sight.wish.is_some_and(|wish| wish.since > ended_at)
    }

    /// `None` where it need not rest.
    fn rest(&self, sight: &Sight) -> Option<Rest> {
        let verify = &self.settings.verify;
        let is_wished = sight.wish.map_or(verify.continuous || verify.after_backfill, |wish| wish.on);
        let is_to_be_copied = sight.copies.iter().any(|copy| copy.state != CopyState::Copied);
        match (is_wished, is_to_be_copied) {
            (false, _) => Some(Rest::Unwished),
            (true, true) => Some(Rest::Copying),
            (true, false) => None,
        }
    }

    async fn sight(&self) -> Result<Sight, StoreError> {
        let compared: HashSet<&TableName> = self.tables.iter().map(|table| &table.mapping.source).collect();
        let mut copies = self.store.copies().await?;
        copies.retain(|copy| compared.contains(&copy.table));
        Ok(Sight { wish: self.store.verify_wish().await?, copies })
    }

    async fn until_it_must_rest(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // What cannot be read is as it was.
            if self.sight().await.is_ok_and(|sight| self.rest(&sight).is_some()) {
                return;
            }
        }
    }

    async fn give_up(&self, round: &Verification) -> anyhow::Result<()> {
        self.store.give_up_round(round.id, self.epoch).await?;
        tracing::info!(round = round.id, "comparing gives way to copying; a new round follows");
        Ok(())
    }

    async fn last_round(&self) -> Result<Option<Verification>, StoreError> {
        Ok(self.store.verifications(Comparisons::Rounds, 1).await?.into_iter().next())
    }

    /// Goes on with the round that is open, or begins one, and ends it; or leaves it open where comparing must rest.
    async fn compare(&self) -> anyhow::Result<()> {
        let mut round = self.open().await?;
        let is_whole = tokio::select! {
            is_whole = self.compare_tables(&mut round) => is_whole?,
            () = self.until_it_must_rest() => false,
        };
        if is_whole {
            let Round { open, reports, .. } = &round;
            self.store.end_verification(*open, &serde_json::to_string(reports)?).await?;
            tell(*open, reports);
        }
        Ok(())
    }

    /// Those that are not done yet; whether all are in the end. What was found of a table while something was copied is not kept.
    async fn compare_tables(&self, round: &mut Round) -> anyhow::Result<bool> {
        let keeper = Arc::new(InStore::new(&self.store, round.open, false));
        let (sides, options, progress) = (self.sides(), self.options(), Progress::default());
        for table in &self.tables {
            let name = table.mapping.identity.to_string();
            if round.reports.iter().any(|report| report.table == name) {
                continue;
            }
            self.store.forget_differences(round.open, &table.mapping.source).await?;
            let tables = std::slice::from_ref(table);
            let found = crossfade_verify::compare(&sides, tables, &options, &progress, keeper.clone()).await?;
            (self.probe)("rows-compared");
            let sight = self.sight().await?;
            if self.rest(&sight).is_some() || sight.copied_at() != round.copied_at {
                return Ok(false);
            }
            round.reports.extend(found);
            self.store.keep_reports(round.open, &serde_json::to_string(&round.reports)?).await?;
            (self.probe)("table-compared");
        }
        Ok(true)
    }

    async fn open(&self) -> anyhow::Result<Round> {
        let copied_at = self.sight().await?.copied_at();
        if let Some(last) = self.last_round().await?.filter(|round| round.ended_at.is_none()) {
            if copied_at.is_none_or(|at| last.begun_at >= at) {
                let mut reports = rounds::reports(&last);
                // Another configuration may have other tables.
                let is_known = |report: &TableReport| {
                    self.tables.iter().any(|table| table.mapping.identity.to_string() == report.table)
                };
                reports.retain(is_known);
                tracing::info!(round = last.id, tables_done = reports.len(), "comparing goes on");
                let open = self.store.adopt_round(last.id, self.epoch).await?;
                return Ok(Round { open, copied_at, reports });
            }
            self.give_up(&last).await?;
        }
        let tables = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
        let open = self.store.begin_verification(ASKED, Some(self.epoch), Some(tables)).await?;
        tracing::info!(round = open.id, tables, "comparing begins");
        Ok(Round { open, copied_at, reports: Vec::new() })
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
