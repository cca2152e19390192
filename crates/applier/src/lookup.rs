//! What is concurrent with a change: the look-up in the opposite stream's captured messages.

use std::collections::HashMap;
use std::sync::Arc;

use crossfade_message::Store;
use crossfade_model::{Clock, Message, Origin, Row, RowOp, Seen, Side, StreamId, TableLayout, TableName, Value};
use crossfade_rules::concurrent::{BatchId, Judging, Known, Unknown};
use crossfade_rules::key::{exact_hash, folded_hash};
use crossfade_rules::merge::{Effect, KeyHashes};
use crossfade_rules::{
    Authority, ConcurrentIndex, Event, LastConcurrent, OppositeChange, Plan, Planner, TableMapping, Verdict, decide,
};
use mysql_async::Conn;
use rustc_hash::FxHashMap;

use crate::entity::Standing;
use crate::error::ApplyError;
use crate::mapped::Mapper;
use crate::opposite_stream;
use crate::question;
use crate::table::TargetTable;

/// Rows and bytes of the opposite stream that are read at a time.
const READ_ROWS: usize = 5_000;
const READ_BYTES: usize = 8 << 20;

/// So many answers of the server are kept before all are forgotten.
const REMEMBERED_ROWS: usize = 10_000;

/// Decides what happens to a change, from what the opposite stream has captured so far.
pub(crate) struct Lookup {
    pub(crate) store: Store,
    pub(crate) own: StreamId,
    pub(crate) opposite: StreamId,
    /// Of the direction whose changes are judged.
    pub(crate) mappings: Arc<[TableMapping]>,
    /// Mappings of the opposite direction, whose rows are the opposite stream's messages.
    pub(crate) opposite_mappings: Arc<[TableMapping]>,
    pub(crate) prefer: Side,
    side: Side,
    pub(crate) index: ConcurrentIndex,
    pub(crate) keys: KeyColumns,
    pub(crate) found: Found,
}

/// What was asked before.
#[derive(Default)]
pub(crate) struct Found {
    pub plans: HashMap<BatchId, Plan>,
    same_rows: FxHashMap<(u64, u64), bool>,
}

impl Known for Found {
    fn plan(&self, batch: BatchId) -> Option<&Plan> {
        self.plans.get(&batch)
    }

    fn same_row(&self, exact: u64, other: u64) -> Option<bool> {
        self.same_rows.get(&(exact, other)).copied()
    }
}

/// What a change claims for itself.
pub(crate) struct Claim<'a> {
    pub effective: Option<Clock>,
    /// It only gives the row back.
    pub returned: bool,
    /// Where authority counts.
    pub standing: Option<&'a Standing>,
}

/// The change to be judged: one key of one table.
pub(crate) struct Subject<'a> {
    pub mapping: &'a TableMapping,
    pub key: &'a [&'a Value],
    pub seen: &'a Seen,
}

impl Lookup {
    /// `own` is the stream of the judged changes; `index_bytes` bounds what is held in memory.
    pub fn new(
        store: Store,
        own: StreamId,
        mappings: Arc<[TableMapping]>,
        opposite_mappings: Arc<[TableMapping]>,
        prefer: Side,
        index_bytes: usize,
    ) -> Lookup {
        Lookup {
            store,
            opposite: opposite_stream(&own),
            side: own.direction().source(),
            own,
            mappings,
            keys: KeyColumns::default(),
            opposite_mappings,
            prefer,
            index: ConcurrentIndex::with_bound(index_bytes),
            found: Found::default(),
        }
    }

    /// No change still to be judged has seen less than these: what all of them have seen need not be kept.
    pub fn advance_floor<'s>(&mut self, seen: impl Iterator<Item = &'s Seen>) {
        let opposite = self.opposite.as_str();
        let through = self.index.keep_unseen_by(seen.map(|seen| seen.streams.get(opposite)));
        self.found.plans.retain(|batch, _| batch.last > through);
    }

    /// Reads what the opposite stream has captured by now.
    pub async fn refresh(&mut self) -> Result<(), ApplyError> {
        let captured = self.store.last_seq(&self.opposite).await?;
        while self.index.through() < captured {
            let from = self.index.through() + 1;
            let messages = self.store.read_messages(&self.opposite, from, READ_ROWS, READ_BYTES).await?;
            if messages.is_empty() {
                return Err(ApplyError::MessageMissing { stream: self.opposite.clone(), seq: from });
            }
            for message in &messages {
                self.add(message);
            }
        }
        Ok(())
    }

    fn add(&mut self, message: &Message) {
        let index = &mut self.index;
        // A table that is not synced in this direction has no row to be concurrent with.
        index.pass(message.seq);
        self.keys
            .changes_of(&self.opposite_mappings, &self.mappings, message, |folded, change| index.add(folded, change));
    }

    /// Has all at hand that is to be known of these folded keys, so that it is not looked for one by one.
    pub async fn prepare(&mut self, folded: impl Iterator<Item = u64>) -> Result<(), ApplyError> {
        match self.index.to_recall(folded) {
            Some((keys, first, last)) => self.recall(&keys, first, last).await,
            None => Ok(()),
        }
    }

    async fn recall(&mut self, keys: &[u64], first: u64, last: u64) -> Result<(), ApplyError> {
        let Lookup { store, opposite, opposite_mappings, mappings, keys: places, .. } = self;
        let mut found: FxHashMap<u64, Vec<OppositeChange>> = keys.iter().map(|key| (*key, Vec::new())).collect();
        let visit = |message: Message| {
            places.changes_of(opposite_mappings, mappings, &message, |folded, change| {
                if let Some(changes) = found.get_mut(&folded) {
                    changes.push(change);
                }
            });
        };
        store.visit_messages_of_keys(opposite, first, last, keys, visit).await?;
        found.into_iter().for_each(|(folded, changes)| self.index.recall(folded, changes));
        Ok(())
    }

    /// Decides from what is captured and read so far. `conn` answers whether two keys are one where only the server can tell.
    pub async fn judge(
        &mut self,
        subject: &Subject<'_>,
        claim: Claim<'_>,
        table: &TargetTable,
        conn: &mut Conn,
    ) -> Result<Verdict, ApplyError> {
        let mut concurrent = self.last_concurrent(subject, table, conn).await?;
        let Claim { effective, returned, standing } = claim;
        let authority = standing.map(|standing| standing.authority).unwrap_or_default();
        if let (Some(other), Some(standing), Authority::Held) = (&mut concurrent, standing, authority) {
            other.authority = self.authority_of_opposite(standing, other.seq).await?;
        }
        let event = Event { side: self.side, effective, returned, authority };
        Ok(decide(&event, concurrent.as_ref(), subject.mapping.policy, self.prefer))
    }

    /// What the other side had over a change's entities when it wrote a message. What crossfade itself has sent lacks nothing.
    async fn authority_of_opposite(&self, standing: &Standing, seq: u64) -> Result<Authority, ApplyError> {
        let authority = standing.of_other(&self.store, &self.opposite, seq).await?;
        if authority != Authority::Lacking {
            return Ok(authority);
        }
        let message = self.store.read_some(&self.opposite, &[seq].into()).await?.pop();
        let message = message.ok_or_else(|| ApplyError::MessageMissing { stream: self.opposite.clone(), seq })?;
        Ok(if message.origin == Origin::User { Authority::Lacking } else { Authority::Shared })
    }

    /// The last change by users of the target that the subject's writer had not seen.
    pub async fn last_concurrent(
        &mut self,
        subject: &Subject<'_>,
        table: &TargetTable,
        conn: &mut Conn,
    ) -> Result<Option<LastConcurrent>, ApplyError> {
        let KeyHashes { folded, exact } = key_hashes(subject.mapping, subject.key);
        let judging = Judging { folded, exact, seen: subject.seen.streams.get(self.opposite.as_str()) };
        loop {
            match self.index.last_unseen(judging, &self.found) {
                Ok(last) => return Ok(last),
                Err(unknown) => self.find_out(unknown, (subject.key, exact), table, conn).await?,
            }
        }
    }

    /// The key under which users of the target have the subject's row by now, as far as that is captured; `None` where they have
    /// ended it.
    pub async fn key_by_now(
        &mut self,
        subject: &Subject<'_>,
        table: &TargetTable,
        conn: &mut Conn,
    ) -> Result<Option<Vec<Value>>, ApplyError> {
        let mut key: Vec<Value> = subject.key.iter().map(|value| (*value).clone()).collect();
        let mut reached_by = 0;
        loop {
            let values: Vec<&Value> = key.iter().collect();
            let under_key = Subject { mapping: subject.mapping, key: &values, seen: subject.seen };
            let ends = self.unseen_ends(&under_key, table, conn).await?;
            let Some(left_by) = ends.into_iter().find(|seq| *seq > reached_by) else { return Ok(Some(key)) };
            match self.key_reached_by(left_by).await? {
                Some(reached) => (key, reached_by) = (reached, left_by),
                None => return Ok(None),
            }
        }
    }

    /// The changes with which users of the target have ended the subject's row, or given it another key, and which its writer had
    /// not seen, in their order.
    async fn unseen_ends(
        &mut self,
        subject: &Subject<'_>,
        table: &TargetTable,
        conn: &mut Conn,
    ) -> Result<Vec<u64>, ApplyError> {
        let KeyHashes { folded, exact } = key_hashes(subject.mapping, subject.key);
        let judging = Judging { folded, exact, seen: subject.seen.streams.get(self.opposite.as_str()) };
        loop {
            let ends = self.index.unseen(judging, &self.found).map(|unseen| {
                unseen.into_iter().filter(|change| change.op == RowOp::Delete).map(|change| change.seq).collect()
            });
            match ends {
                Ok(ends) => return Ok(ends),
                Err(unknown) => self.find_out(unknown, (subject.key, exact), table, conn).await?,
            }
        }
    }

    /// The key that a row has after this message of the opposite stream.
    async fn key_reached_by(&mut self, seq: u64) -> Result<Option<Vec<Value>>, ApplyError> {
        let message = self.store.read_some(&self.opposite, &[seq].into()).await?.pop();
        let message = message.ok_or_else(|| ApplyError::MessageMissing { stream: self.opposite.clone(), seq })?;
        let place = self.keys.of_layout(&self.opposite_mappings, &self.mappings, &message.change.layout);
        let reached = place.zip(message.change.after.as_ref());
        Ok(reached.map(|(place, after)| place.key_of(after).into_iter().cloned().collect()))
    }

    /// Finds out what must be known of a key, or of a batch of the opposite direction.
    pub(crate) async fn find_out(
        &mut self,
        unknown: Unknown,
        (key, exact): (&[&Value], u64),
        table: &TargetTable,
        conn: &mut Conn,
    ) -> Result<(), ApplyError> {
        match unknown {
            Unknown::Plan(batch) => {
                let plan = plan_of(&self.store, &self.opposite, &self.opposite_mappings, batch).await?;
                self.found.plans.insert(batch, plan);
            }
            Unknown::MovedOut { folded, first, last } => self.recall(&[folded], first, last).await?,
            Unknown::SameRow { exact: other_exact, key: other } => {
                if self.found.same_rows.len() > REMEMBERED_ROWS {
                    self.found.same_rows.clear();
                }
                let other: Vec<&Value> = other.iter().collect();
                let same = table.is_same_key(conn, key, &other).await?;
                self.found.same_rows.insert((exact, other_exact), same);
            }
        }
        Ok(())
    }
}

pub(crate) fn key_hashes(mapping: &TableMapping, key: &[&Value]) -> KeyHashes {
    KeyHashes { folded: folded_hash(&mapping.identity, key), exact: exact_hash(&mapping.identity, key) }
}

/// A direction's plan of a batch; planning is a pure function, so it is the one that was carried out, by a program with the same rule
/// for lanes.
pub(crate) async fn plan_of(
    store: &Store,
    stream: &StreamId,
    mappings: &Arc<[TableMapping]>,
    batch: BatchId,
) -> Result<Plan, ApplyError> {
    let mut messages = store.read_range(stream, batch.first, batch.last).await?;
    let mut mapper = Mapper::new(mappings.clone());
    messages.retain(|message| mapper.knows(message));
    question::take(&mut messages);
    let changes = mapper.map(messages)?;
    Planner::new(mappings).plan(changes, batch.lanes).map_err(ApplyError::Plan)
}

/// Where the row key and merged columns stand in the layouts of captured messages.
#[derive(Default)]
pub(crate) struct KeyColumns {
    by_layout: HashMap<usize, (Arc<TableLayout>, Option<Arc<KeyPlace>>)>,
}

pub(crate) struct KeyPlace {
    identity: TableName,
    columns: Vec<usize>,
    /// For a table whose columns are merged.
    pub merged: Option<MergedPlace>,
}

/// Per column of the judged direction's mapping its place in the layout; a column that is gone is taken for NULL.
pub(crate) struct MergedPlace(Vec<Option<usize>>);

impl KeyColumns {
    /// `opposite` are the mappings of the messages' own direction, `mappings` those of the judged one.
    pub fn of_layout(
        &mut self,
        opposite: &[TableMapping],
        mappings: &[TableMapping],
        layout: &Arc<TableLayout>,
    ) -> Option<Arc<KeyPlace>> {
        // The address stays taken, since the layout is kept beside it.
        let address = Arc::as_ptr(layout) as usize;
        let (_, place) = self
            .by_layout
            .entry(address)
            .or_insert_with(|| (layout.clone(), key_place(opposite, mappings, layout).map(Arc::new)));
        place.clone()
    }

    /// What a message does to keys of the judged direction, each with the folded hash of its key.
    fn changes_of(
        &mut self,
        opposite: &[TableMapping],
        mappings: &[TableMapping],
        message: &Message,
        mut found: impl FnMut(u64, OppositeChange),
    ) {
        let change = &message.change;
        // A question changes nothing.
        if message.origin == Origin::Asked {
            return;
        }
        let Some(table) = self.of_layout(opposite, mappings, &change.layout) else { return };
        let keys = [&change.before, &change.after].map(|image| image.as_ref().map(|image| table.key_of(image)));
        let keeps_its_key = keys[0] == keys[1];
        for (place, key) in keys.iter().enumerate().filter_map(|(place, key)| Some((place, key.as_ref()?))) {
            let is_text = key.iter().any(|value| matches!(value, Value::Text(_) | Value::Encoded { .. }));
            // A row that leaves its key is deleted there, and inserted under the other one.
            let (op, effect) = match place {
                _ if keeps_its_key => (change.op, None),
                0 => (RowOp::Delete, Some(Effect::Delete)),
                _ => (RowOp::Insert, Some(Effect::Insert)),
            };
            let effect = table
                .merged
                .as_ref()
                .map(|merged| effect.unwrap_or_else(|| merged.effect(&change.before, &change.after)));
            found(
                folded_hash(&table.identity, key),
                OppositeChange {
                    seq: message.seq,
                    exact: exact_hash(&table.identity, key),
                    effective: message.effective,
                    op,
                    returned: message.origin == Origin::Returned,
                    effect: effect.map(Box::new),
                    text_key: is_text.then(|| key.iter().map(|value| (*value).clone()).collect()),
                },
            );
        }
    }
}

impl KeyPlace {
    fn key_of<'r>(&self, image: &'r Row) -> Vec<&'r Value> {
        self.columns.iter().filter_map(|index| image.get(*index)).collect()
    }
}

impl MergedPlace {
    /// The image in the order of the judged direction's mapping.
    pub fn row(&self, image: &Row) -> Row {
        self.values(image).cloned().collect()
    }

    fn values<'r>(&'r self, image: &'r Row) -> impl Iterator<Item = &'r Value> {
        self.0.iter().map(|place| place.and_then(|place| image.get(place)).unwrap_or(&Value::Null))
    }

    /// Of a change that keeps its key.
    fn effect(&self, before: &Option<Row>, after: &Option<Row>) -> Effect {
        let values = |row| self.values(row);
        Effect::of(before.as_ref().map(values), after.as_ref().map(values)).unwrap_or(Effect::Delete)
    }
}

fn key_place(opposite: &[TableMapping], mappings: &[TableMapping], layout: &TableLayout) -> Option<KeyPlace> {
    let of_message = opposite.iter().find(|mapping| mapping.source == layout.name)?;
    let columns = of_message.row_key.iter().map(|index| layout.column(&of_message.columns.get(*index)?.source));
    let merging = mappings.iter().find(|mapping| mapping.identity == of_message.identity && mapping.merge.is_some());
    let merged = merging.map(|mapping| mapping.columns.iter().map(|column| layout.column(&column.target)).collect());
    Some(KeyPlace {
        identity: of_message.identity.clone(),
        columns: columns.collect::<Option<Vec<usize>>>()?,
        merged: merged.map(MergedPlace),
    })
}
