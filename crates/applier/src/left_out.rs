//! Messages of tables that the configuration leaves out in so many words, and that were captured before it did.
//!
//! A table is left out where the stream can never pass what happened to it, a `TRUNCATE` for example. What was captured of it by
//! then has nowhere to go, and must stop nobody: it ends as discarded, with its images and this reason. A table that is merely
//! not named any more may be a mistake, so its messages stop the stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crossfade_catalog::Purpose;
use crossfade_config::TablePattern;
use crossfade_message::{Outcome, Status};
use crossfade_model::{Message, TableName};
use crossfade_rules::TableMapping;

use crate::applier::Applier;
use crate::error::ApplyError;
use crate::session;

#[derive(Debug, Clone)]
pub(crate) struct LeftOut {
    patterns: Arc<[TablePattern]>,
    mapped: Arc<BTreeSet<TableName>>,
}

impl LeftOut {
    /// `patterns` name tables of the source, `mappings` those that are carried all the same.
    pub fn new(patterns: Arc<[TablePattern]>, mappings: &[TableMapping]) -> LeftOut {
        LeftOut { patterns, mapped: Arc::new(mappings.iter().map(|mapping| mapping.source.clone()).collect()) }
    }

    fn has(&self, message: &Message) -> bool {
        let table = &message.change.layout.name;
        !self.mapped.contains(table) && self.patterns.iter().any(|pattern| pattern.matches(table))
    }

    /// Takes such messages out, and says how they end.
    pub fn take(&self, messages: &mut Vec<Message>) -> Vec<Outcome> {
        if self.patterns.is_empty() {
            return Vec::new();
        }
        messages.extract_if(.., |message| self.has(message)).map(|message| discarded(&message)).collect()
    }
}

fn discarded(message: &Message) -> Outcome {
    Outcome::undisputed(
        message.seq,
        message.change.layout.name.clone(),
        Status::Discarded,
        "its table is left out of the configuration (`skip = true`)".to_owned(),
    )
}

impl Applier {
    /// Keeps how messages of tables that are left out end, before anything passes them.
    pub(crate) async fn keep_left_out(&self, outcomes: &[Outcome]) -> Result<(), ApplyError> {
        if outcomes.is_empty() {
            return Ok(());
        }
        self.shared.store.record_outcomes(&self.options.stream, outcomes).await?;
        let mut by_table: BTreeMap<&TableName, usize> = BTreeMap::new();
        for outcome in outcomes {
            *by_table.entry(&outcome.table).or_default() += 1;
        }
        for (table, messages) in by_table {
            tracing::warn!(%table, messages, "captured before its table was left out of the configuration; discarded");
        }
        Ok(())
    }

    /// Gives up what is set aside of such tables.
    pub(crate) async fn give_up_left_out(&mut self) -> Result<(), ApplyError> {
        if self.options.left_out.is_empty() {
            return Ok(());
        }
        let shared = self.shared.clone();
        let reading = async {
            let mut conn = self.options.target.connect(Purpose::Apply).await?;
            let parked = session::answered(shared.owner.parked(&mut conn)).await?;
            conn.disconnect().await?;
            Ok::<_, ApplyError>(parked)
        };
        let parked = reading.await?;
        let mut messages = shared.store.read_some(&self.options.stream, &parked).await?;
        let outcomes = LeftOut::new(self.options.left_out.clone(), &self.options.mappings).take(&mut messages);
        let seqs: BTreeSet<u64> = outcomes.iter().map(|outcome| outcome.seq).collect();
        if seqs.is_empty() {
            return Ok(());
        }
        self.keep_left_out(&outcomes).await?;
        self.give_up(&seqs).await?;
        Ok(shared.store.clear_set_aside(&self.options.stream, &Vec::from_iter(seqs)).await?)
    }
}
