//! Batches of messages with their plans. The next one is fetched and planned while the lanes carry out the one before,
//! once enough has arrived for it: batches that are cut too early would cost more commits than the planning saves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossfade_message::{Outcome, Store};
use crossfade_model::{Message, Seen, StreamId};
use crossfade_rules::{MappedChange, Plan, Planner};
use tokio_util::task::AbortOnDropHandle;

use crate::applier::ApplierOptions;
use crate::error::ApplyError;
use crate::feed::{BatchBounds, Feed};
use crate::left_out::LeftOut;
use crate::mapped::Mapper;
use crate::pace::Pace;
use crate::question;

/// A batch smaller than this is not worth a second transaction, nor a thread of its own for its plan.
const MIN_ROWS_FOR_LANES: usize = 200;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Planning {
    store: Store,
    stream: StreamId,
    feed: Arc<Feed>,
    pace: Arc<Pace>,
    batch_bytes: usize,
    lanes: u16,
    planner: Arc<Planner>,
    mapper: Arc<Mutex<Mapper>>,
    left_out: LeftOut,
    /// Authority may turn between two messages.
    has_entities: bool,
}

pub(crate) struct PlannedBatch {
    pub plan: Plan,
    /// How those of its messages end that are not in the plan, since their tables are left out.
    pub left_out: Vec<Outcome>,
    /// What the other side asks, which is in no lane's plan either; the first lane answers.
    pub questions: Vec<MappedChange>,
    pub first: u64,
    /// Inclusive.
    pub last: u64,
    pub lanes: u16,
    pub committed_at_micros: i64,
    /// What the first message's writer had before him.
    pub seen: Arc<Seen>,
}

/// A batch that is being fetched and planned. What was fetched and is dropped unapplied is read from the store again.
pub(crate) type BatchToCome = AbortOnDropHandle<Result<PlannedBatch, ApplyError>>;

impl Planning {
    pub fn new(options: &ApplierOptions, planner: Arc<Planner>) -> Planning {
        Planning {
            store: options.store.clone(),
            stream: options.stream.clone(),
            feed: options.feed.clone(),
            pace: Arc::new(Pace::new(options.bounds.rows)),
            batch_bytes: options.bounds.bytes,
            lanes: options.lanes,
            planner,
            mapper: Arc::new(Mutex::new(Mapper::new(options.mappings.clone()))),
            left_out: LeftOut::new(options.left_out.clone(), &options.mappings),
            has_entities: !options.entities.tables.is_empty(),
        }
    }

    /// Begins to wait for the batch that starts with `from_seq`, and to plan it.
    pub fn begin(&self, from_seq: u64) -> BatchToCome {
        let planning = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let bounds = BatchBounds { rows: planning.pace.rows(), bytes: planning.batch_bytes };
            let mut messages = planning.feed.next(&planning.store, &planning.stream, from_seq, bounds).await?;
            planning.end_where_authority_turns(&mut messages).await?;
            question::keep_apart(&mut messages);
            planning.plan(messages, None).await
        }))
    }

    /// Changes of one row are folded, and what is folded is judged by one authority. What is left out is read from the store
    /// again.
    async fn end_where_authority_turns(&self, messages: &mut Vec<Message>) -> Result<(), ApplyError> {
        let (true, Some(first), Some(last)) = (self.has_entities, messages.first(), messages.last()) else {
            return Ok(());
        };
        if let Some(turn) = self.store.authority_turns(&self.stream, first.seq, last.seq).await? {
            messages.retain(|message| message.seq < turn);
        }
        Ok(())
    }

    /// Returns when half a batch or more has arrived from `from_seq` on.
    pub async fn worth_beginning(&self, from_seq: u64) {
        self.feed.reaches(from_seq + (self.pace.rows() / 2) as u64).await;
    }

    /// A batch of so many rows took so long to write; those to come may have more, or fewer.
    pub fn note_batch(&self, rows: usize, took: Duration) {
        self.pace.note(rows, took);
    }

    /// Plans messages for as many lanes as given, or as are worth it.
    pub async fn plan(&self, messages: Vec<Message>, lanes: Option<u16>) -> Result<PlannedBatch, ApplyError> {
        let is_small = messages.len() < MIN_ROWS_FOR_LANES;
        let lanes = lanes.unwrap_or(if is_small { 1 } else { self.lanes });
        if is_small {
            return self.plan_here(messages, lanes);
        }
        let planning = self.clone();
        let planned = tokio::task::spawn_blocking(move || planning.plan_here(messages, lanes)).await;
        planned.map_err(|_| ApplyError::PlanningEnded)?
    }

    fn plan_here(&self, mut messages: Vec<Message>, lanes: u16) -> Result<PlannedBatch, ApplyError> {
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
            return Err(ApplyError::PlanningEnded);
        };
        let (seq, last, committed_at_micros, seen) =
            (first.seq, last.seq, first.committed_at_micros, first.seen.clone());
        let left_out = self.left_out.take(&mut messages);
        let questions = question::take(&mut messages);
        // Its memory is of projections only, which are whole whatever happened to a batch.
        let mut mapper = self.mapper.lock().unwrap_or_else(PoisonError::into_inner);
        let (questions, changes) = (mapper.map(questions)?, mapper.map(messages)?);
        drop(mapper);
        let plan = self.planner.plan(changes, lanes).map_err(ApplyError::Plan)?;
        Ok(PlannedBatch { plan, left_out, questions, first: seq, last, lanes, committed_at_micros, seen })
    }
}
