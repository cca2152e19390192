//! What is concurrent with a change: the look-up in the opposite stream's captured messages.

use std::collections::HashMap;
use std::sync::Arc;

use crossfade_message::Store;
use crossfade_model::{Clock, Message, Seen, Side, StreamId, TableLayout, TableName, Value};
use crossfade_rules::key::{exact_hash, folded_hash};
use crossfade_rules::{Event, LastConcurrent, Plan, Planner, SeenJudgement, TableMapping, Verdict, decide, judge_seen};
use mysql_async::Conn;
use rustc_hash::FxHashMap;

use crate::concurrent::{ConcurrentIndex, OppositeChange};
use crate::error::ApplyError;
use crate::mapped::Mapper;
use crate::table::TargetTable;

/// Rows and bytes of the opposite stream that are read at a time.
const READ_ROWS: usize = 5_000;
const READ_BYTES: usize = 8 << 20;

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
    plans: HashMap<(u64, u64, u16), Arc<Plan>>,
    same_rows: FxHashMap<(u64, u64), bool>,
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
            plans: HashMap::new(),
            same_rows: FxHashMap::default(),
        }
    }

    /// No change still to be judged has seen less than this one: what it has seen need not be kept.
    pub fn advance_floor(&mut self, seen: &Seen) {
        let Some(progress) = seen.streams.get(self.opposite.as_str()) else { return };
        let through = progress.applied_through();
        if through > self.index.through() {
            self.index.skip_to(through);
        } else {
            self.index.forget_through(through);
        }
        self.plans.retain(|(_, batch_last, _), _| *batch_last > through);
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

    async fn last_concurrent(
        &mut self,
        subject: &Subject<'_>,
        table: &TargetTable,
        conn: &mut Conn,
    ) -> Result<Option<LastConcurrent>, ApplyError> {
        let identity = &subject.mapping.identity;
        let candidates = self.index.of_key(folded_hash(identity, subject.key));
        if candidates.is_empty() {
            return Ok(None);
        }
        let newest_first: Vec<OppositeChange> = candidates.iter().rev().cloned().collect();
        let exact = exact_hash(identity, subject.key);
        for change in newest_first {
            if self.was_seen(subject.seen, change.seq).await? {
                continue;
            }
            if change.exact == exact || self.is_same_row(&change, exact, subject.key, table, conn).await? {
                return Ok(Some(LastConcurrent { seq: change.seq, effective: change.effective, op: change.op }));
            }
        }
        Ok(None)
    }

    async fn was_seen(&mut self, seen: &Seen, seq: u64) -> Result<bool, ApplyError> {
        match judge_seen(seen.streams.get(self.opposite.as_str()), seq) {
            SeenJudgement::Yes => Ok(true),
            SeenJudgement::No => Ok(false),
            SeenJudgement::InPartialBatch { batch_first, batch_last, lanes, done } => {
                let plan = self.opposite_plan(batch_first, batch_last, lanes).await?;
                Ok(plan.lane_of(seq).is_some_and(|lane| done.contains(&lane)))
            }
        }
    }

    /// The opposite direction's plan of a batch; planning is a pure function, so it is the one that was carried out.
    async fn opposite_plan(&mut self, first: u64, last: u64, lanes: u16) -> Result<Arc<Plan>, ApplyError> {
        if let Some(plan) = self.plans.get(&(first, last, lanes)) {
            return Ok(plan.clone());
        }
        let messages = self.store.read_range(&self.opposite, first, last).await?;
        let changes = Mapper::new(self.opposite_mappings.clone()).map(messages)?;
        let planner = Planner::new(&self.opposite_mappings);
        let plan = Arc::new(planner.plan(changes, lanes).map_err(ApplyError::Plan)?);
        self.plans.insert((first, last, lanes), plan.clone());
        Ok(plan)
    }

    async fn is_same_row(
        &mut self,
        change: &OppositeChange,
        exact: u64,
        key: &[&Value],
        table: &TargetTable,
        conn: &mut Conn,
    ) -> Result<bool, ApplyError> {
        let Some(other) = &change.text_key else { return Ok(false) };
        if let Some(same) = self.same_rows.get(&(exact, change.exact)) {
            return Ok(*same);
        }
        let other: Vec<&Value> = other.iter().collect();
        let same = table.is_same_key(conn, key, &other).await?;
        if self.same_rows.len() > 10_000 {
            self.same_rows.clear();
        }
        self.same_rows.insert((exact, change.exact), same);
        Ok(same)
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
