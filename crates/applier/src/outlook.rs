//! What would become of a message now, for people: judged as the applier judges, from outside and without writing.

use std::collections::BTreeSet;
use std::sync::Arc;

use crossfade_catalog::Flavor;
use crossfade_message::Store;
use crossfade_model::{Message, Origin, Row, Side, StreamId, TableLayout, TableShape, Value};
use crossfade_rules::plan::Dependences;
use crossfade_rules::{MappedColumn, Planner, TableMapping, Verdict};
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::lookup::{Claim, Lookup, Subject};
use crate::mapped::Mapper;
use crate::session;
use crate::table::{PacketLimit, TargetTable};
use crate::target::target_tables;

/// What must be known to judge messages of one stream.
pub struct Outlook {
    pub store: Store,
    pub stream: StreamId,
    pub mappings: Arc<[TableMapping]>,
    pub opposite_mappings: Arc<[TableMapping]>,
    /// As many as `mappings`: the target's definitions.
    pub target_shapes: Vec<Arc<TableShape>>,
    pub target_flavor: Flavor,
    pub prefer: Side,
    /// While the opposite direction is declared off, nothing can be concurrent.
    pub opposite_declared: bool,
}

/// For the look-up of one message; more is asked of the store.
const INDEX_BYTES: usize = 16 << 20;

/// What is foreseen of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreseen {
    /// By what the opposite stream has captured so far.
    pub verdict: Verdict,
    /// Concurrent changes of the row's columns are merged, whatever the verdict.
    pub merges: bool,
    /// Earlier messages of its stream that are set aside and that it must wait behind.
    pub waits_behind: Vec<u64>,
    /// The key that the row has after the message, or had before a delete; empty for a keyless table.
    pub key: Vec<KeyColumn>,
    /// The unique values that it brings, one list for each of the target's other unique keys; without those with a NULL.
    pub unique: Vec<Vec<KeyColumn>>,
}

/// One column of a row's key, as both sides name it.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyColumn {
    pub source: String,
    pub target: String,
    pub value: Value,
}

impl KeyColumn {
    fn of(column: &MappedColumn, value: &Value) -> KeyColumn {
        KeyColumn { source: column.source.clone(), target: column.target.clone(), value: value.clone() }
    }
}

impl Outlook {
    /// Judges a message, of which those in `set_aside` are not applied. `conn` is a connection to the target; it answers
    /// whether two keys are one where only a server can tell.
    pub async fn foresee(
        &self,
        message: &Message,
        set_aside: &BTreeSet<u64>,
        conn: &mut Conn,
    ) -> Result<Foreseen, ApplyError> {
        let mut mapper = Mapper::new(self.mappings.clone());
        let changes = mapper.map(vec![message.clone()])?;
        let Some(change) = changes.first() else {
            return Err(ApplyError::MessageMissing { stream: self.stream.clone(), seq: message.seq });
        };
        let mapping = &self.mappings[change.table];
        let tables = target_tables(&self.mappings, &self.target_shapes, self.target_flavor, &PacketLimit::new());
        let last = change.after.as_ref().or(change.before.as_ref());
        let key: Vec<&Value> = last.map(|row| tables[change.table].key_of(row)).unwrap_or_default();
        let mut verdict = Verdict::Write(crossfade_rules::decide::WriteReason::NothingConcurrent);
        // A question is not judged.
        if self.opposite_declared && !mapping.keyless && message.origin != Origin::Asked {
            let mut lookup = self.lookup();
            lookup.advance_floor(std::iter::once(&*message.seen));
            lookup.refresh().await?;
            let returned = change.origin == Origin::Returned;
            let claim = Claim { effective: change.effective, returned, standing: None };
            let subject = Subject { mapping, key: &key, seen: &message.seen };
            verdict = lookup.judge(&subject, claim, &tables[change.table], conn).await?;
        }
        let columns = |row: &Row, indexes: &[usize]| -> Vec<KeyColumn> {
            indexes.iter().map(|index| KeyColumn::of(&mapping.columns[*index], &row[*index])).collect()
        };
        let bound = |row: &Row| -> Vec<Vec<KeyColumn>> {
            let whole = mapping.unique_keys.iter().filter(|key| key.iter().all(|index| !row[*index].is_null()));
            whole.map(|key| columns(row, key)).collect()
        };
        Ok(Foreseen {
            verdict,
            merges: mapping.merge.is_some(),
            waits_behind: self.waits_behind(message, set_aside).await?,
            key: last.map(|row| columns(row, &mapping.row_key)).unwrap_or_default(),
            unique: change.after.as_ref().map(bound).unwrap_or_default(),
        })
    }

    pub(crate) fn lookup(&self) -> Lookup {
        Lookup::new(
            self.store.clone(),
            self.stream.clone(),
            self.mappings.clone(),
            self.opposite_mappings.clone(),
            self.prefer,
            INDEX_BYTES,
        )
    }

    async fn waits_behind(&self, message: &Message, set_aside: &BTreeSet<u64>) -> Result<Vec<u64>, ApplyError> {
        let mut seqs: BTreeSet<u64> = set_aside.range(..message.seq).copied().collect();
        seqs.insert(message.seq);
        let mut messages = self.store.read_some(&self.stream, &seqs).await?;
        let planner = Planner::new(&self.mappings);
        let mut mapper = Mapper::new(self.mappings.clone());
        messages.retain(|message| mapper.knows(message));
        let mut dependences = Vec::new();
        for change in mapper.map(messages)? {
            let dependence = planner.dependence(change.table, change.before.as_ref(), change.after.as_ref());
            dependences.push((change.seq, dependence));
        }
        let Some((_, last)) = dependences.pop() else { return Ok(Vec::new()) };
        let holds_back = |(seq, earlier): (u64, _)| {
            let mut this = Dependences::default();
            this.add(&earlier);
            this.holds_back(&last).then_some(seq)
        };
        Ok(dependences.into_iter().filter_map(holds_back).collect())
    }
}

/// Reads one row by its key as it is now, without locking it; with the columns as messages name them. `None` where there is
/// no such row, or the table has no such column.
pub async fn read_row(
    conn: &mut Conn,
    shape: &TableShape,
    key: &[(&str, &Value)],
) -> Result<Option<(TableLayout, Row)>, ApplyError> {
    session::prepare(conn).await?;
    let places: Option<Vec<usize>> = key.iter().map(|(name, _)| shape.column(name)).collect();
    let Some(places) = places.filter(|places| !places.is_empty()) else { return Ok(None) };
    let kinds: Vec<_> = shape.columns.iter().map(|column| column.kind.clone()).collect();
    let table =
        TargetTable::new(&shape.name, shape.columns.clone(), &kinds, places.clone(), None, true, PacketLimit::new());
    let values: Vec<&Value> = key.iter().map(|(_, value)| *value).collect();
    let row = table.find(conn, &values).await?;
    let columns = shape.columns.iter().map(|column| column.name.as_str().into()).collect();
    Ok(row.map(|row| (TableLayout { name: shape.name.clone(), columns, kinds, row_key: places }, row)))
}

/// Reads the row that fulfils a condition, as [`read_row`]; of several, any. The session is the caller's, and so is a lock that
/// the condition ends with.
pub async fn read_row_where(
    conn: &mut Conn,
    shape: &TableShape,
    condition: &str,
    params: Vec<mysql_async::Value>,
) -> Result<Option<(TableLayout, Row)>, ApplyError> {
    let kinds: Vec<_> = shape.columns.iter().map(|column| column.kind.clone()).collect();
    let key = shape.row_key().unwrap_or_default().to_vec();
    let columns = shape.columns.clone();
    let table = TargetTable::new(&shape.name, columns, &kinds, key.clone(), None, true, PacketLimit::new());
    let row = table.find_where(conn, condition, params).await?;
    let columns = shape.columns.iter().map(|column| column.name.as_str().into()).collect();
    Ok(row.map(|row| (TableLayout { name: shape.name.clone(), columns, kinds, row_key: key }, row)))
}
