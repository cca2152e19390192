//! On which entities the rows of a lane hang, and whether the side that has changed them had authority there.
//!
//! A row that does not hold the key itself is followed through its parents: one that the lane changes, else one that the target
//! has, else one of which messages tell. A row whose parent is nowhere hangs on nothing, and is judged as if nobody had ever
//! moved.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crossfade_message::Store;
use crossfade_model::{EntityKey, Message, Origin, Row, StreamId, Value};
use crossfade_rules::authority::{KeyPlace, side_at};
use crossfade_rules::key::{Fineness, folded_hash, render};
use crossfade_rules::{Authority, AuthorityChange, EntityTables};
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::judged::{JudgedLane, JudgedStep};
use crate::lane::Shared;
use crate::mapped::Mapper;
use crate::opposite_stream;

/// What the configuration calls entities, and where they are found.
#[derive(Debug, Clone, Default)]
pub struct Entities {
    /// One of them: `user`.
    pub name: Arc<str>,
    pub tables: Arc<EntityTables>,
}

/// What is known of a change's row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub authority: Authority,
    /// Before and after the change; usually one.
    pub entities: Vec<EntityKey>,
}

/// By the last message of a change.
pub(crate) type Standings = BTreeMap<u64, Standing>;

/// A change whose standing is looked for.
struct Subject {
    seq: u64,
    entities: BTreeSet<EntityKey>,
}

/// A value by which a parent is looked for, and the subjects that hang on it.
type Wanted = (Value, Vec<usize>);

/// A row that hangs on a subject's entity.
struct Trail {
    subject: usize,
    table: usize,
    row: Row,
}

/// A change of a row that may be a parent.
#[derive(Clone, Copy)]
struct LaneRow<'a> {
    table: usize,
    seq: u64,
    before: Option<&'a Row>,
    after: Option<&'a Row>,
}

/// The standing of every change of an entity's table, by its own place in the stream.
pub(crate) async fn standings(
    shared: &Shared,
    conn: &mut Conn,
    lane: &JudgedLane<'_>,
) -> Result<Standings, ApplyError> {
    let tables = &shared.entities.tables;
    if tables.is_empty() {
        return Ok(Standings::new());
    }
    let rows: Vec<LaneRow<'_>> = lane.steps.iter().flat_map(lane_rows).collect();
    let (mut subjects, mut trails) = (Vec::new(), Vec::new());
    for row in rows.iter().filter(|row| tables.table(row.table).is_some()) {
        let images = [row.before, row.after].into_iter().flatten();
        let subject = subjects.len();
        trails.extend(images.map(|image| Trail { subject, table: row.table, row: image.clone() }));
        subjects.push(Subject { seq: row.seq, entities: BTreeSet::new() });
    }
    let parents = Parents::new(shared, &rows);
    while !trails.is_empty() {
        trails = follow(shared, conn, &parents, &mut subjects, trails).await?;
    }
    judge(shared, subjects).await
}

/// Takes each trail to its entity, or one parent further.
async fn follow(
    shared: &Shared,
    conn: &mut Conn,
    parents: &Parents<'_>,
    subjects: &mut [Subject],
    trails: Vec<Trail>,
) -> Result<Vec<Trail>, ApplyError> {
    let tables = &shared.entities.tables;
    let mut further = Vec::new();
    // By parent and what of it is referred to, with the values that are looked for.
    let mut wanted: BTreeMap<(usize, usize), BTreeMap<Vec<u8>, Wanted>> = BTreeMap::new();
    for trail in trails {
        let Some(table) = tables.table(trail.table) else { continue };
        let Some(value) = table.value(&trail.row) else { continue };
        match table.place {
            KeyPlace::Key(_) => subjects[trail.subject].entities.extend(table.key(&trail.row)),
            KeyPlace::Through { parent, referred, .. } => {
                match parents.find((parent, referred), value, subjects[trail.subject].seq) {
                    Some(row) => further.push(Trail { subject: trail.subject, table: parent, row: row.clone() }),
                    None => {
                        let values = wanted.entry((parent, referred)).or_default();
                        let known = values.entry(exact(value)).or_insert_with(|| (value.clone(), Vec::new()));
                        known.1.push(trail.subject);
                    }
                }
            }
        }
    }
    for ((parent, referred), mut values) in wanted {
        let asked: Vec<Vec<&Value>> = values.values().map(|(value, _)| vec![value]).collect();
        let found = shared.tables[parent].look_where(conn, &[referred], &asked).await?;
        drop(asked);
        for row in found {
            let Some((_, of)) = row.get(referred).and_then(|value| values.remove(&exact(value))) else { continue };
            further.extend(of.into_iter().map(|subject| Trail { subject, table: parent, row: row.clone() }));
        }
        for (value, of) in values.into_values() {
            let last = of.iter().map(|subject| subjects[*subject].seq).max().unwrap_or_default();
            let Some(row) = remembered(shared, (parent, referred), &value, last).await? else { continue };
            further.extend(of.into_iter().map(|subject| Trail { subject, table: parent, row: row.clone() }));
        }
    }
    Ok(further)
}

fn lane_rows<'a>(step: &'a JudgedStep<'_>) -> Vec<LaneRow<'a>> {
    match step {
        JudgedStep::Net { table, rows, .. } => rows
            .iter()
            .map(|row| {
                let (seq, before, after) = (row.net.seqs.last(), row.net.before.as_ref(), row.net.after.as_ref());
                LaneRow { table: *table, seq, before, after }
            })
            .collect(),
        JudgedStep::InOrder(changes) => changes
            .iter()
            .map(|judged| {
                let change = judged.change;
                let (before, after) = (change.before.as_ref(), change.after.as_ref());
                LaneRow { table: change.table, seq: change.seq, before, after }
            })
            .collect(),
    }
}

/// Rows of the lane that may be parents, by their table and by what of them is referred to.
struct Parents<'a>(HashMap<ParentKey, Vec<(u64, LaneRow<'a>)>>);

/// The table, what of it is referred to, and the value of that.
type ParentKey = (usize, usize, Vec<u8>);

impl<'a> Parents<'a> {
    fn new(shared: &Shared, rows: &[LaneRow<'a>]) -> Parents<'a> {
        let tables = &shared.entities.tables;
        let referred: BTreeSet<(usize, usize)> = (0..shared.mappings.len())
            .filter_map(|table| match tables.table(table)?.place {
                KeyPlace::Through { parent, referred, .. } => Some((parent, referred)),
                KeyPlace::Key(_) => None,
            })
            .collect();
        let mut parents: HashMap<ParentKey, Vec<(u64, LaneRow<'a>)>> = HashMap::new();
        for row in rows {
            for (_, column) in referred.range((row.table, 0)..=(row.table, usize::MAX)) {
                let values = [row.before, row.after].into_iter().flatten().filter_map(|image| image.get(*column));
                let values: BTreeSet<Vec<u8>> = values.map(exact).collect();
                for value in values {
                    parents.entry((row.table, *column, value)).or_default().push((row.seq, *row));
                }
            }
        }
        parents.values_mut().for_each(|rows| rows.sort_by_key(|(seq, _)| *seq));
        Parents(parents)
    }

    /// The parent as it was when message `seq` was written, or next to that.
    fn find(&self, (parent, referred): (usize, usize), value: &Value, seq: u64) -> Option<&'a Row> {
        let value = exact(value);
        let refers = |row: &&'a Row| row.get(referred).is_some_and(|found| exact(found) == value);
        let rows = self.0.get(&(parent, referred, value.clone()))?;
        let (earlier, later) = rows.split_at(rows.partition_point(|(of, _)| *of <= seq));
        match (earlier.last(), later.first()) {
            (Some((_, row)), _) => row.after.filter(refers).or(row.before.filter(refers)),
            (None, Some((_, row))) => row.before.filter(refers).or(row.after.filter(refers)),
            (None, None) => None,
        }
    }
}

/// Numbers are compared as numbers, whatever type carries them.
fn exact(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    render(Fineness::Exact, value, &mut bytes);
    bytes
}

/// The parent as messages have it that are still kept: of its own side up to this one, else of the other side.
async fn remembered(
    shared: &Shared,
    (parent, referred): (usize, usize),
    value: &Value,
    last: u64,
) -> Result<Option<Row>, ApplyError> {
    let mapping = &shared.mappings[parent];
    if mapping.row_key != [referred] {
        return Ok(None);
    }
    let folded = folded_hash(&mapping.identity, &[value]);
    let own = last_image(shared, &shared.owner.stream, (parent, referred), (value, folded), last).await?;
    if own.is_some() {
        return Ok(own);
    }
    let opposite = opposite_stream(&shared.owner.stream);
    last_image(shared, &opposite, (parent, referred), (value, folded), u64::MAX).await
}

async fn last_image(
    shared: &Shared,
    stream: &StreamId,
    (parent, referred): (usize, usize),
    (value, folded): (&Value, u64),
    last: u64,
) -> Result<Option<Row>, ApplyError> {
    let is_own = *stream == shared.owner.stream;
    let mapping = &shared.mappings[parent];
    let table = if is_own { &mapping.source } else { &mapping.target };
    let is_of_table = |message: &Message| message.change.layout.name == *table && message.origin != Origin::Asked;
    let messages = shared.store.read_messages_of_keys(stream, 1, last, &[folded], is_of_table).await?;
    for message in messages.into_iter().rev() {
        let images = match is_own {
            true => Mapper::new(shared.mappings.clone())
                .map(vec![message])?
                .into_iter()
                .flat_map(|change| [change.after, change.before])
                .collect::<Vec<Option<Row>>>(),
            // Of the opposite stream the target's columns are at hand by their names.
            false => {
                let layout = &message.change.layout;
                let place = |name: &String| layout.column(name);
                let row = |image: &Row| -> Option<Row> {
                    let value = |at: usize| image.get(at).cloned();
                    mapping
                        .columns
                        .iter()
                        .map(|column| place(&column.target).map_or(Some(Value::Null), value))
                        .collect()
                };
                [&message.change.after, &message.change.before].map(|image| image.as_ref().and_then(&row)).into()
            }
        };
        let refers = |row: &Row| row.get(referred).is_some_and(|found| exact(found) == exact(value));
        if let Some(row) = images.into_iter().flatten().find(refers) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

async fn judge(shared: &Shared, subjects: Vec<Subject>) -> Result<Standings, ApplyError> {
    let stream = &shared.owner.stream;
    let entities: BTreeSet<EntityKey> = subjects.iter().flat_map(|subject| subject.entities.iter().cloned()).collect();
    if entities.is_empty() {
        return Ok(Standings::new());
    }
    let given = GivenTo::read(&shared.store, stream, entities.iter()).await?;
    let mut standings = Standings::new();
    for subject in subjects {
        let authority = given.of(stream, subject.entities.iter(), subject.seq);
        let standing = Standing { authority, entities: subject.entities.into_iter().collect() };
        // A row that leaves its key and one that comes may be of one message: what either lacks, both lack.
        let known = standings.entry(subject.seq).or_insert_with(|| standing.clone());
        if standing.authority == Authority::Lacking {
            *known = standing;
        }
    }
    Ok(standings)
}

/// All changes of authority over some entities in one stream.
struct GivenTo(BTreeMap<EntityKey, Vec<AuthorityChange>>);

impl GivenTo {
    async fn read<'e>(
        store: &Store,
        stream: &StreamId,
        entities: impl Iterator<Item = &'e EntityKey>,
    ) -> Result<GivenTo, ApplyError> {
        let rest = EntityKey::rest();
        let mut keys: Vec<&EntityKey> = vec![&rest];
        for entity in entities {
            keys.push(entity);
        }
        Ok(GivenTo(store.authority(stream, &keys).await?))
    }

    /// What the side that a stream reads has at a message over all of these entities.
    fn of<'e>(&self, stream: &StreamId, entities: impl Iterator<Item = &'e EntityKey>, seq: u64) -> Authority {
        let own = stream.direction().source();
        let changes = |key: &EntityKey| self.0.get(key).map(Vec::as_slice).unwrap_or_default();
        let rest = changes(&EntityKey::rest());
        let mut authority = Authority::Shared;
        for entity in entities {
            if side_at(changes(entity), rest, seq) != own {
                return Authority::Lacking;
            }
            authority = Authority::Held;
        }
        authority
    }
}

impl Standing {
    /// What the side that another stream reads had over the same entities at a message of that stream.
    pub async fn of_other(&self, store: &Store, stream: &StreamId, seq: u64) -> Result<Authority, ApplyError> {
        let given = GivenTo::read(store, stream, self.entities.iter()).await?;
        Ok(given.of(stream, self.entities.iter(), seq))
    }
}
