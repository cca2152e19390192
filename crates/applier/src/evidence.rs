//! What merging must know: what users of the target did to a row, from which values to which, and what a row that they have
//! deleted would be by now.

use std::collections::BTreeSet;

use crossfade_model::{Message, Row, StreamProgress, Value};
use crossfade_rules::concurrent::{Unknown, was_seen};
use crossfade_rules::merge::{Concurrent, Found, Images, Merging, Missing, Part, Window};
use crossfade_rules::{MappedChange, TableMapping};
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::lane::Shared;
use crate::lookup::{self, Lookup, key_hashes};
use crate::mapped::Mapper;

/// What is known of one table's rows, and where more is found.
pub(crate) struct Evidence<'m> {
    pub lookup: &'m mut Lookup,
    pub shared: &'m Shared,
    pub table: usize,
    pub conn: &'m mut Conn,
    pub found: Found,
}

impl Evidence<'_> {
    fn mapping(&self) -> &TableMapping {
        &self.shared.mappings[self.table]
    }

    /// What users of the target did to a key that the first of these changes had not seen.
    pub async fn window(&mut self, key: &[&Value], parts: &[Part]) -> Result<Window, ApplyError> {
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

    /// Reads what merging has asked for, all images together. With each row its key.
    pub async fn find(&mut self, missing: Vec<(Missing, &[&Value])>) -> Result<(), ApplyError> {
        let mut seqs = BTreeSet::new();
        for (missing, key) in missing {
            match missing {
                Missing::Images(more) => seqs.extend(more),
                Missing::Revived { delete, part } => {
                    let row = self.revived(key, delete, part).await?;
                    self.found.revived.insert((delete, part), row);
                }
            }
        }
        let images = self.images(&seqs).await?;
        self.found.images.extend(images);
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
        let gone = self.concurrent_messages(&BTreeSet::from([delete])).await?.pop();
        let before = gone.as_ref().and_then(|gone| self.images_of(gone).before);
        let (Some(gone), Some(before)) = (gone, before) else {
            return Err(ApplyError::MessageMissing { stream: self.lookup.opposite.clone(), seq: delete });
        };
        let since = self.arrived_since(&gone, key, until).await?;
        if since.is_empty() {
            return Ok(before);
        }
        let window = self.window_through(key, delete, &since).await?;
        loop {
            let merging = Merging::new(self.mapping(), self.lookup.prefer, &window.opposite);
            let Some(merging) = merging else { return Ok(before) };
            let missing = match merging.revive(before.clone(), &window.of(&since), &self.found) {
                Ok(row) => return Ok(row),
                Err(Missing::Images(seqs)) => seqs,
                // A row that does not exist is not brought back once more.
                Err(Missing::Revived { .. }) => return Ok(before),
            };
            let images = self.images(&missing.into_iter().collect()).await?;
            self.found.images.extend(images);
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
                    Err(Unknown::SameRow { .. } | Unknown::MovedOut { .. }) => break false,
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
            let Message { seq, origin, effective, seen, .. } = message;
            let (table, op, transaction) = (self.table, message.change.op, 0);
            let change = MappedChange { seq, table, op, before, after, effective, seen, transaction, origin };
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
