//! What is concurrent with a change: the look-up in the opposite stream's captured messages.

use std::collections::HashMap;
use std::sync::Arc;

use crossfade_message::Store;
use crossfade_model::{Clock, Message, Seen, Side, StreamId, TableLayout, TableName, Value};
use crossfade_rules::concurrent::{BatchId, Judging, Known, Unknown};
use crossfade_rules::key::{exact_hash, folded_hash};
use crossfade_rules::{
    ConcurrentIndex, Event, LastConcurrent, OppositeChange, Plan, Planner, TableMapping, Verdict, decide,
};
use mysql_async::Conn;
use rustc_hash::FxHashMap;

use crate::error::ApplyError;
use crate::mapped::Mapper;
use crate::table::TargetTable;

/// Rows and bytes of the opposite stream that are read at a time.
const READ_ROWS: usize = 5_000;
const READ_BYTES: usize = 8 << 20;

/// So many answers of the server are kept before all are forgotten.
const REMEMBERED_ROWS: usize = 10_000;

/// Decides what happens to a change, from what the opposite stream has captured so far.
pub(crate) struct Lookup {
    store: Store,
    opposite: StreamId,
    /// Mappings of the opposite direction, whose rows are the opposite stream's messages.
    opposite_mappings: Arc<[TableMapping]>,
    prefer: Side,
    side: Side,
    index: ConcurrentIndex,
    keys: KeyColumns,
    found: Found,
}

/// What was asked before.
#[derive(Default)]
struct Found {
    plans: HashMap<BatchId, Plan>,
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

/// The change to be judged: one key of one table.
pub(crate) struct Subject<'a> {
    pub mapping: &'a TableMapping,
    pub key: &'a [&'a Value],
    pub effective: Option<Clock>,
    pub seen: &'a Seen,
}

impl Lookup {
    /// `side` is where the judged changes were made.
    pub fn new(
        store: Store,
        opposite: StreamId,
        opposite_mappings: Arc<[TableMapping]>,
        side: Side,
        prefer: Side,
    ) -> Lookup {
        Lookup {
            store,
            opposite,
            keys: KeyColumns::default(),
            opposite_mappings,
            prefer,
            side,
            index: ConcurrentIndex::default(),
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
        let change = &message.change;
        let Some(table) = self.keys.of_layout(&self.opposite_mappings, &change.layout) else {
            // A table that is not synced in this direction has no row to be concurrent with.
            return self.index.pass(message.seq);
        };
        for image in [&change.before, &change.after].into_iter().flatten() {
            let key: Vec<&Value> = table.columns.iter().filter_map(|index| image.get(*index)).collect();
            let exact = exact_hash(&table.identity, &key);
            let is_text = key.iter().any(|value| matches!(value, Value::Text(_) | Value::Encoded { .. }));
            self.index.add(
                folded_hash(&table.identity, &key),
                OppositeChange {
                    seq: message.seq,
                    exact,
                    effective: message.effective,
                    op: change.op,
                    effect: None,
                    text_key: is_text.then(|| key.into_iter().cloned().collect()),
                },
            );
        }
    }

    /// Decides from what is captured and read so far. `conn` answers whether two keys are one where only the server can
    /// tell.
    pub async fn judge(
        &mut self,
        subject: &Subject<'_>,
        table: &TargetTable,
        conn: &mut Conn,
    ) -> Result<Verdict, ApplyError> {
        let concurrent = self.last_concurrent(subject, table, conn).await?;
        let event = Event { side: self.side, effective: subject.effective, overtaken: false };
        Ok(decide(&event, concurrent.as_ref(), subject.mapping.policy, self.prefer))
    }

    /// The last change by users of the target that the subject's writer had not seen.
    pub async fn last_concurrent(
        &mut self,
        subject: &Subject<'_>,
        table: &TargetTable,
        conn: &mut Conn,
    ) -> Result<Option<LastConcurrent>, ApplyError> {
        let identity = &subject.mapping.identity;
        let judging = Judging {
            folded: folded_hash(identity, subject.key),
            exact: exact_hash(identity, subject.key),
            seen: subject.seen.streams.get(self.opposite.as_str()),
        };
        if self.found.same_rows.len() > REMEMBERED_ROWS {
            self.found.same_rows.clear();
        }
        loop {
            match self.index.last_unseen(judging, &self.found) {
                Ok(last) => return Ok(last),
                Err(Unknown::Plan(batch)) => {
                    let plan = self.opposite_plan(batch).await?;
                    self.found.plans.insert(batch, plan);
                }
                Err(Unknown::SameRow { exact, key }) => {
                    let other: Vec<&Value> = key.iter().collect();
                    let same = table.is_same_key(conn, subject.key, &other).await?;
                    self.found.same_rows.insert((judging.exact, exact), same);
                }
            }
        }
    }

    /// The opposite direction's plan of a batch; planning is a pure function, so it is the one that was carried out.
    async fn opposite_plan(&self, batch: BatchId) -> Result<Plan, ApplyError> {
        let messages = self.store.read_range(&self.opposite, batch.first, batch.last).await?;
        let changes = Mapper::new(self.opposite_mappings.clone()).map(messages)?;
        Planner::new(&self.opposite_mappings).plan(changes, batch.lanes).map_err(ApplyError::Plan)
    }
}

/// Where the row key stands in the layouts of captured messages.
#[derive(Default)]
struct KeyColumns {
    by_layout: HashMap<usize, (Arc<TableLayout>, Option<Arc<KeyPlace>>)>,
}

struct KeyPlace {
    identity: TableName,
    columns: Vec<usize>,
}

impl KeyColumns {
    fn of_layout(&mut self, mappings: &[TableMapping], layout: &Arc<TableLayout>) -> Option<Arc<KeyPlace>> {
        // The address stays taken, since the layout is kept beside it.
        let address = Arc::as_ptr(layout) as usize;
        let (_, place) = self
            .by_layout
            .entry(address)
            .or_insert_with(|| (layout.clone(), key_place(mappings, layout).map(Arc::new)));
        place.clone()
    }
}

fn key_place(mappings: &[TableMapping], layout: &TableLayout) -> Option<KeyPlace> {
    let mapping = mappings.iter().find(|mapping| mapping.source == layout.name)?;
    let columns = mapping
        .row_key
        .iter()
        .map(|index| {
            let name = &mapping.columns.get(*index)?.source;
            layout.columns.iter().position(|column| column.eq_ignore_ascii_case(name))
        })
        .collect::<Option<Vec<usize>>>()?;
    Some(KeyPlace { identity: mapping.identity.clone(), columns })
}
