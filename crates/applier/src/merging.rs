//! Columns merged with what users of the target did meanwhile.
//!
//! Rows of which something is known to be concurrent are locked first. Then one wait for the opposite reader tells all that
//! users had done to them, and nobody can do more before the commit: what is merged then is final.

use std::time::Duration;

use crossfade_model::{Row, Side, Value};
use crossfade_rules::merge::{Found, Merged, Merging, Missing, Part, PartEnd, Window};
use crossfade_rules::{Loss, MappedChange, NetChange, TableMapping, Verdict};
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::evidence::Evidence;
use crate::lane::Shared;
use crate::session;
use crate::table::TargetTable;

/// What happens to one key.
struct KeyWork<'r> {
    key: Vec<&'r Value>,
    parts: Vec<Part>,
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
    pub fn of_net(net: &'r NetChange, target: &TargetTable) -> Option<RowWork<'r>> {
        let image = net.after.as_ref().or(net.before.as_ref())?;
        let departure = net.moved_from.as_ref().zip(net.before.as_ref());
        Some(RowWork {
            departure: departure.map(|(left, image)| KeyWork::new(target, image, left.parts.clone())),
            arrival: KeyWork::new(target, image, net.parts()),
        })
    }

    pub fn of_change(change: &'r MappedChange, target: &TargetTable) -> Option<RowWork<'r>> {
        let image = change.after.as_ref().or(change.before.as_ref())?;
        let left = change.before.as_ref().filter(|before| target.key_of(before) != target.key_of(image));
        Some(RowWork {
            departure: left.map(|image| KeyWork::new(target, image, vec![change.departure()])),
            arrival: KeyWork::new(target, image, vec![change.arrival(left.is_some())]),
        })
    }

    fn keys(&self) -> impl Iterator<Item = &KeyWork<'r>> {
        self.departure.iter().chain([&self.arrival])
    }
}

impl<'r> KeyWork<'r> {
    fn new(target: &TargetTable, image: &'r Row, parts: Vec<Part>) -> KeyWork<'r> {
        KeyWork { key: target.key_of(image), parts }
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
    let keys: Vec<Vec<&Value>> = works.iter().flat_map(RowWork::keys).map(|work| work.key.clone()).collect();
    let locked = target.lock_rows(conn, &keys).await?;
    if !shared.hold.captured_under_locks(conn, hold_limit).await?.is_enough() {
        return Ok(None);
    }
    let mut lookup = session::while_alive(conn, shared.lookup.lock()).await?;
    lookup.refresh().await?;
    let mut evidence = Evidence { lookup: &mut lookup, shared, table, conn, found: Found::default() };
    let mut locked = locked.into_iter();
    let mut open = Vec::with_capacity(works.len());
    for work in works {
        open.push(OpenRow::new(work, &mut locked, &mut evidence).await?);
    }
    let mut merged: Vec<Option<MergedRow<'r>>> = open.iter().map(|_| None).collect();
    loop {
        let mut missing = Vec::new();
        for (row, merged) in open.iter().zip(&mut merged).filter(|(_, merged)| merged.is_none()) {
            match row.merge(&shared.mappings[table], evidence.lookup.prefer, &evidence.found) {
                Ok(row) => *merged = Some(row),
                Err(lacks) => missing.push(lacks),
            }
        }
        if missing.is_empty() {
            return Ok(Some(merged.into_iter().flatten().collect()));
        }
        evidence.find(missing).await?;
    }
}

/// A locked row whose changes are to be merged.
struct OpenRow<'r> {
    departure: Option<OpenKey<'r>>,
    arrival: OpenKey<'r>,
    /// Both keys are one to the server.
    keeps_its_place: bool,
}

struct OpenKey<'r> {
    work: KeyWork<'r>,
    window: Window,
    there: Option<Row>,
}

impl<'r> OpenRow<'r> {
    async fn new(
        work: RowWork<'r>,
        locked: &mut impl Iterator<Item = Option<Row>>,
        evidence: &mut Evidence<'_>,
    ) -> Result<OpenRow<'r>, ApplyError> {
        let departure = match work.departure {
            None => None,
            Some(work) => Some(OpenKey::new(work, locked.next().flatten(), evidence).await?),
        };
        let arrival = OpenKey::new(work.arrival, locked.next().flatten(), evidence).await?;
        let keeps_its_place = match &departure {
            Some(left) if left.there.is_some() && arrival.there.is_some() => {
                let target = &evidence.shared.tables[evidence.table];
                target.is_same_key(evidence.conn, &left.work.key, &arrival.work.key).await?
            }
            _ => false,
        };
        Ok(OpenRow { departure, arrival, keeps_its_place })
    }

    /// Or what is missing for that, and of which key.
    fn merge(
        &self,
        mapping: &TableMapping,
        prefer: Side,
        found: &Found,
    ) -> Result<MergedRow<'r>, (Missing, &[&'r Value])> {
        let departure = match &self.departure {
            None => None,
            Some(key) => Some(key.merge(key.there.as_ref(), mapping, prefer, found)?),
        };
        let there = self.arrival.there.clone();
        let there = match &departure {
            Some(left) if self.keeps_its_place => there.and_then(|row| left.after(row)),
            _ => there,
        };
        let arrival = self.arrival.merge(there.as_ref(), mapping, prefer, found)?;
        Ok(MergedRow { departure, arrival })
    }
}

impl<'r> OpenKey<'r> {
    async fn new(
        work: KeyWork<'r>,
        there: Option<Row>,
        evidence: &mut Evidence<'_>,
    ) -> Result<OpenKey<'r>, ApplyError> {
        let window = evidence.window(&work.key, &work.parts).await?;
        Ok(OpenKey { work, window, there })
    }

    fn merge(
        &self,
        there: Option<&Row>,
        mapping: &TableMapping,
        prefer: Side,
        found: &Found,
    ) -> Result<MergedKey<'r>, (Missing, &[&'r Value])> {
        let KeyWork { key, parts } = &self.work;
        let merged = match Merging::new(mapping, prefer, &self.window.opposite) {
            Some(merging) => merging.merge(there, &self.window.of(parts), found),
            // A table whose columns are not merged has no such work.
            None => {
                Ok((parts.last().and_then(|part| part.after.clone()).map_or(Merged::Absent, Merged::Whole), vec![]))
            }
        };
        let (row, ends) = merged.map_err(|missing| (missing, key.as_slice()))?;
        Ok(MergedKey { key: key.clone(), is_there: there.is_some(), row, ends })
    }
}

impl MergedRow<'_> {
    /// Whether what a user might insert unseen before the commit is of no matter: rows that are not there do come.
    pub fn all_there(&self) -> bool {
        let stays_away = |key: &MergedKey<'_>| !key.is_there && key.row == Merged::Absent;
        !stays_away(&self.arrival) && !self.departure.as_ref().is_some_and(stays_away)
    }

    /// A row comes that was under neither key.
    pub fn brings_back(&self) -> bool {
        let was_there = |key: &MergedKey<'_>| key.is_there;
        let comes = !self.arrival.is_there && matches!(self.arrival.row, Merged::Whole(_));
        comes && !self.departure.as_ref().is_some_and(was_there)
    }

    /// Why a change of the key has lost at one of its keys.
    pub fn lost_move(&self) -> Option<Loss> {
        let departure = self.departure.as_ref()?;
        let loss = |key: &MergedKey<'_>| match key.ends.last()?.existence {
            Verdict::Lose(loss) => Some(loss),
            Verdict::Write(_) => None,
        };
        loss(&self.arrival).or_else(|| loss(departure))
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
