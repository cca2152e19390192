//! Columns merged with what users of the target did meanwhile.
//!
//! Rows of which something is known to be concurrent are locked first. Then one wait for the opposite reader tells all that
//! users had done to them, and nobody can do more before the commit: what is merged then is final.

use std::collections::BTreeSet;
use std::time::Duration;

use crossfade_model::{Message, Row, StreamProgress, Value};
use crossfade_rules::concurrent::{Unknown, was_seen};
use crossfade_rules::merge::{Concurrent, Found, Images, Merged, Merging, Missing, Part, PartEnd, Window};
use crossfade_rules::{MappedChange, NetChange, TableMapping};
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::family;
use crate::lane::Shared;
use crate::lookup::{self, Lookup, key_hashes};
use crate::mapped::Mapper;
use crate::table::TargetTable;

/// What happens to one key.
pub(crate) struct KeyWork<'r> {
    /// An image with the key.
    pub image: &'r Row,
    pub parts: Vec<Part>,
}

/// What happens to one row: to its key, and to the one that it leaves.
pub(crate) struct RowWork<'r> {
    departure: Option<KeyWork<'r>>,
    arrival: KeyWork<'r>,
}

/// What a key's row becomes.
pub(crate) struct MergedKey<'r> {
    key: Vec<&'r Value>,
    is_there: bool,
    row: Merged,
    pub ends: Vec<PartEnd>,
}

pub(crate) struct MergedRow<'r> {
    pub departure: Option<MergedKey<'r>>,
    pub arrival: MergedKey<'r>,
}

impl<'r> RowWork<'r> {
    pub fn of_net(net: &'r NetChange) -> Option<RowWork<'r>> {
        let image = net.after.as_ref().or(net.before.as_ref())?;
        let departure = net.moved_from.as_ref().zip(net.before.as_ref());
        Some(RowWork {
            departure: departure.map(|(left, image)| KeyWork { image, parts: left.parts.clone() }),
            arrival: KeyWork { image, parts: net.parts.clone() },
        })
    }

    pub fn of_change(change: &'r MappedChange, target: &TargetTable) -> Option<RowWork<'r>> {
        let image = change.after.as_ref().or(change.before.as_ref())?;
        let left = change.before.as_ref().filter(|before| target.key_of(before) != target.key_of(image));
        Some(RowWork {
            departure: left.map(|image| KeyWork { image, parts: vec![change.departure()] }),
            arrival: KeyWork { image, parts: vec![change.arrival(left.is_some())] },
        })
    }
}

/// Locks rows of a table, waits until all that users have done to them is known, and merges. `None`: the opposite reader did
/// not get there in time.
pub(crate) async fn merge_rows<'r>(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    works: Vec<RowWork<'r>>,
    hold_limit: Duration,
) -> Result<Option<Vec<MergedRow<'r>>>, ApplyError> {
    let target = &shared.tables[table];
    let keys: Vec<Vec<&Value>> = works
        .iter()
        .flat_map(|work| work.departure.iter().chain([&work.arrival]))
        .map(|work| target.key_of(work.image))
        .collect();
    let found = target.lock(conn, &keys, true).await?;
    if !family::wait(shared, hold_limit).await? {
        return Ok(None);
    }
    let mut lookup = shared.lookup.lock().await;
    lookup.refresh().await?;
    let mut found = found.into_iter().map(|found| found.map(|found| found.row));
    let mut merged = Vec::with_capacity(works.len());
    for RowWork { departure, arrival } in works {
        let mut merge = Merge { lookup: &mut lookup, shared, table, conn };
        let departure = match departure {
            None => None,
            Some(work) => Some(merge.key(work, found.next().flatten()).await?),
        };
        let mut there = found.next().flatten();
        let keeps_its_place = match &departure {
            Some(left) if left.is_there && there.is_some() => {
                target.is_same_key(merge.conn, &left.key, &target.key_of(arrival.image)).await?
            }
            _ => false,
        };
        if let (true, Some(left)) = (keeps_its_place, &departure) {
            there = there.and_then(|row| left.after(row));
        }
        let arrival = merge.key(arrival, there).await?;
        merged.push(MergedRow { departure, arrival });
    }
    Ok(Some(merged))
}

impl MergedRow<'_> {
    /// Whether what a user might insert unseen before the commit is of no matter: rows that are not there do come.
    pub fn all_there(&self) -> bool {
        let stays_away = |key: &MergedKey<'_>| !key.is_there && key.row == Merged::Absent;
        !stays_away(&self.arrival) && !self.departure.as_ref().is_some_and(stays_away)
    }

    /// Makes these columns NULL.
    pub fn let_go(&mut self, columns: &[usize]) {
        for column in columns {
            match &mut self.arrival.row {
                Merged::Whole(row) => row[*column] = Value::Null,
                Merged::Changed(values) => {
                    values.insert(*column, Value::Null);
                }
                Merged::Absent => {}
            }
        }
    }

    /// Writes what the locked rows become.
    pub async fn write(&self, target: &TargetTable, conn: &mut Conn) -> Result<(), mysql_async::Error> {
        let arrival = &self.arrival;
        if let Some(left) = &self.departure {
            if let (Merged::Absent, true, Merged::Whole(row)) = (&left.row, left.is_there, &arrival.row)
                && !arrival.is_there
            {
                return target.rekey(conn, &left.key, row).await;
            }
            left.write(target, conn).await?;
        }
        arrival.write(target, conn).await
    }
}

impl MergedKey<'_> {
    /// What becomes of the row that was found.
    fn after(&self, mut found: Row) -> Option<Row> {
        match &self.row {
            Merged::Absent => None,
            Merged::Whole(row) => Some(row.clone()),
            Merged::Changed(values) => {
                values.iter().for_each(|(column, value)| found[*column] = value.clone());
                Some(found)
            }
        }
    }

    async fn write(&self, target: &TargetTable, conn: &mut Conn) -> Result<(), mysql_async::Error> {
        match (&self.row, self.is_there) {
            (Merged::Absent, true) => target.delete(conn, std::slice::from_ref(&self.key)).await.map(|_| ()),
            (Merged::Changed(values), true) if !values.is_empty() => target.change(conn, &self.key, values).await,
            (Merged::Whole(row), true) => target.overwrite(conn, &[row]).await,
            (Merged::Whole(row), false) => target.insert(conn, &[row]).await,
            (Merged::Absent | Merged::Changed(_), _) => Ok(()),
        }
    }
}

/// The merging of one table's rows.
struct Merge<'m> {
    lookup: &'m mut Lookup,
    shared: &'m Shared,
    table: usize,
    conn: &'m mut Conn,
}

impl Merge<'_> {
    fn mapping(&self) -> &TableMapping {
        &self.shared.mappings[self.table]
    }

    async fn key<'r>(&mut self, work: KeyWork<'r>, there: Option<Row>) -> Result<MergedKey<'r>, ApplyError> {
        let KeyWork { image, parts } = work;
        let key = self.shared.tables[self.table].key_of(image);
        let window = self.window(&key, &parts).await?;
        let mut found = Found::default();
        loop {
            let merging = Merging::new(self.mapping(), self.lookup.prefer, &window.opposite);
            let Some(merging) = merging else {
                // A table whose columns are not merged has no such work.
                let row = parts.last().and_then(|part| part.after.clone()).map_or(Merged::Absent, Merged::Whole);
                return Ok(MergedKey { key, is_there: there.is_some(), row, ends: Vec::new() });
            };
            match merging.merge(there.as_ref(), &window.of(&parts), &found) {
                Ok((row, ends)) => return Ok(MergedKey { key, is_there: there.is_some(), row, ends }),
                Err(missing) => self.find(missing, &key, &mut found).await?,
            }
        }
    }

    async fn window(&mut self, key: &[&Value], parts: &[Part]) -> Result<Window, ApplyError> {
        let hashes = key_hashes(self.mapping(), key);
        loop {
            let Lookup { index, opposite, found, .. } = &*self.lookup;
            match Window::look_up(index, hashes, opposite.as_str(), parts, found) {
                Ok(window) => return Ok(window),
                Err(unknown) => self.find_out(unknown, key, hashes.exact).await?,
            }
        }
    }

    async fn find_out(&mut self, unknown: Unknown, key: &[&Value], exact: u64) -> Result<(), ApplyError> {
        let target = &self.shared.tables[self.table];
        self.lookup.find_out(unknown, (key, exact), target, self.conn).await
    }

    /// Reads what merging asks for.
    async fn find(&mut self, missing: Missing, key: &[&Value], found: &mut Found) -> Result<(), ApplyError> {
        match missing {
            Missing::Images(seqs) => {
                for (seq, images) in self.images(&seqs.into_iter().collect()).await? {
                    found.images.insert(seq, images);
                }
            }
            Missing::Revived { delete, part } => {
                let row = self.revived(key, delete, part).await?;
                found.revived.insert((delete, part), row);
            }
        }
        Ok(())
    }

    async fn images(&mut self, seqs: &BTreeSet<u64>) -> Result<Vec<(u64, Images)>, ApplyError> {
        let messages = self.concurrent_messages(seqs).await?;
        Ok(messages.iter().map(|message| (message.seq, self.images_of(message))).collect())
    }

    async fn concurrent_messages(&self, seqs: &BTreeSet<u64>) -> Result<Vec<Message>, ApplyError> {
        let opposite = &self.lookup.opposite;
        let messages = self.lookup.store.read_some(opposite, seqs).await?;
        match seqs.iter().find(|seq| messages.binary_search_by_key(*seq, |message| message.seq).is_err()) {
            Some(seq) => Err(ApplyError::MessageMissing { stream: opposite.clone(), seq: *seq }),
            None => Ok(messages),
        }
    }

    /// A message of the opposite stream in the order of the mapping's columns.
    fn images_of(&mut self, message: &Message) -> Images {
        let Lookup { keys, mappings, opposite_mappings, .. } = &mut *self.lookup;
        let place = keys.of_layout(opposite_mappings, mappings, &message.change.layout);
        let row = |image: &Option<Row>| Some(place.as_ref()?.merged.as_ref()?.row(image.as_ref()?));
        Images { before: row(&message.change.before), after: row(&message.change.after) }
    }

    /// The row that message `delete` of the opposite stream took away, as it would be when message `until` comes.
    async fn revived(&mut self, key: &[&Value], delete: u64, until: u64) -> Result<Row, ApplyError> {
        let mut gone = self.concurrent_messages(&BTreeSet::from([delete])).await?;
        let Some(gone) = gone.pop() else { return Ok(Row::new()) };
        let before = self.images_of(&gone).before.unwrap_or_default();
        let since = self.arrived_since(&gone, key, until).await?;
        if since.is_empty() {
            return Ok(before);
        }
        let window = self.window_through(key, delete, &since).await?;
        let mut found = Found::default();
        loop {
            let merging = Merging::new(self.mapping(), self.lookup.prefer, &window.opposite);
            let Some(merging) = merging else { return Ok(before) };
            match merging.revive(before.clone(), &window.of(&since), &found) {
                Ok(row) => return Ok(row),
                Err(Missing::Images(seqs)) => {
                    found.images.extend(self.images(&seqs.into_iter().collect()).await?);
                }
                Err(Missing::Revived { .. }) => return Ok(before),
            }
        }
    }

    /// The direction's own changes of the key that the delete had not seen.
    async fn arrived_since(&mut self, gone: &Message, key: &[&Value], until: u64) -> Result<Vec<Part>, ApplyError> {
        let (own, store) = (self.lookup.own.clone(), self.lookup.store.clone());
        let seen = gone.seen.streams.get(own.as_str());
        let first = seen.map_or(0, StreamProgress::in_effect_through) + 1;
        let source = self.mapping().source.clone();
        let folded = key_hashes(self.mapping(), key).folded;
        let is_of_table = |message: &Message| message.change.layout.name == source;
        let messages = store.read_messages_of_keys(&own, first, until - 1, &[folded], is_of_table).await?;
        let mappings = self.lookup.mappings.clone();
        let changes = Mapper::new(mappings.clone()).map(messages)?;
        let mut known = lookup::Found::default();
        let mut since = Vec::new();
        for change in changes {
            let was_seen = loop {
                match was_seen(seen, change.seq, &known) {
                    Ok(was_seen) => break was_seen,
                    Err(Unknown::Plan(batch)) => {
                        let plan = lookup::plan_of(&store, &own, &mappings, batch).await?;
                        known.plans.insert(batch, plan);
                    }
                    Err(Unknown::SameRow { .. }) => break false,
                }
            };
            if !was_seen {
                since.extend(self.parts_at(key, change).await?);
            }
        }
        Ok(since)
    }

    /// The opposite stream's changes of the key, from before what the first of `since` has not seen to message `last`.
    async fn window_through(&mut self, key: &[&Value], last: u64, since: &[Part]) -> Result<Window, ApplyError> {
        let opposite = self.lookup.opposite.clone();
        let seen = since.first().and_then(|part| part.seen.streams.get(opposite.as_str()));
        let first = seen.map_or(0, StreamProgress::in_effect_through) + 1;
        let hashes = key_hashes(self.mapping(), key);
        let source = self.mapping().target.clone();
        let is_of_table = |message: &Message| message.change.layout.name == source;
        let store = self.lookup.store.clone();
        let messages = store.read_messages_of_keys(&opposite, first, last, &[hashes.folded], is_of_table).await?;
        let mut changes = Vec::new();
        for message in messages {
            let Images { before, after } = self.images_of(&message);
            let Message { seq, effective, seen, .. } = message;
            let (table, op, transaction) = (self.table, message.change.op, 0);
            let change = MappedChange { seq, table, op, before, after, effective, seen, transaction };
            changes.extend(self.parts_at(key, change).await?.iter().map(Concurrent::from));
        }
        loop {
            match Window::over(changes.clone(), opposite.as_str(), since, &self.lookup.found) {
                Ok(window) => return Ok(window),
                Err(unknown) => self.find_out(unknown, key, hashes.exact).await?,
            }
        }
    }

    /// What a change does to the key: nothing, one thing, or (where it changes how the key is spelled) two.
    async fn parts_at(&mut self, key: &[&Value], change: MappedChange) -> Result<Vec<Part>, ApplyError> {
        let target = &self.shared.tables[self.table];
        let hashes = key_hashes(self.mapping(), key);
        let mut at_key = [false; 2];
        for (at_key, image) in at_key.iter_mut().zip([&change.before, &change.after]) {
            let Some(image) = image else { continue };
            let other = target.key_of(image);
            let others = key_hashes(&self.shared.mappings[self.table], &other);
            *at_key = others.exact == hashes.exact
                || others.folded == hashes.folded && target.is_same_key(self.conn, key, &other).await?;
        }
        let spelled_alike = match (&change.before, &change.after) {
            (Some(before), Some(after)) => target.key_of(before) == target.key_of(after),
            _ => false,
        };
        Ok(match at_key {
            [true, true] if spelled_alike => vec![change.arrival(false)],
            [true, true] => vec![change.departure(), change.arrival(true)],
            [true, false] => vec![change.departure()],
            [false, true] => vec![change.arrival(true)],
            [false, false] => Vec::new(),
        })
    }
}
