//! Rows whose order among themselves is no matter, many to a statement.

use std::collections::BTreeSet;
use std::ops::Range;

use crossfade_model::{FamilyPolicy, Row, Seen, Value};
use crossfade_rules::{Authority, ChangeKind, NetChange, Remedy, TableMapping};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::along;
use crate::detour;
use crate::error::{ApplyError, is_duplicate_key, is_missing_parent, row_remedy};
use crate::family::{Ending, Endings, Ruling};
use crate::followers::{self, Follower};
use crate::judged::JudgedRow;
use crate::lane::{Care, Manner, Shared};
use crate::merging::{RowWork, merge_rows};
use crate::parking::Cause;
use crate::read::same_image;
use crate::session;
use crate::table::TargetTable;
use crate::uncopied;

use super::one::{AfterRefusal, Context};
use super::rows::{insert_absent, move_row, put_one, row_error};
use super::{ALL_THERE, Written};

/// Rows of one table and one kind that do not depend on each other.
pub(super) struct Part<'s> {
    pub shared: &'s Shared,
    pub table: usize,
    pub kind: ChangeKind,
    pub by_sight: bool,
    pub concurrent: bool,
    pub manner: Manner,
    pub may_place_parents: bool,
}

impl Part<'_> {
    /// Writes all rows at once. Where rows are to be isolated, what is refused is halved until the refused rows stand
    /// alone.
    pub async fn write(&self, conn: &mut Conn, rows: &mut [JudgedRow<'_>]) -> Result<Written, ApplyError> {
        let respelled = self.respelled(conn, rows).await?;
        if self.concurrent && matches!(self.kind, ChangeKind::Delete | ChangeKind::KeyChange) {
            let written = self.part_families(conn, rows, &respelled).await?;
            if !matches!(written, Written::AsJudged { .. }) {
                return Ok(written);
            }
        }
        if self.kind == ChangeKind::Delete {
            let gone = rows.iter().filter(|row| row.arrives()).map(|row| row.net);
            let gone: Vec<Ending<'_>> = gone
                .filter_map(|net| {
                    let before = net.before.as_ref()?;
                    Some(Ending { before, moves_to: None, seen: &net.seen, outranks: false })
                })
                .collect();
            uncopied::end_children(self.shared, conn, self.table, &gone).await?;
        } else if self.kind != ChangeKind::Insert {
            let changed = rows.iter().filter(|row| row.arrives());
            let changed: Vec<(&Row, &Row)> =
                changed.filter_map(|row| row.net.before.as_ref().zip(row.after())).collect();
            uncopied::let_children_follow(self.shared, conn, self.table, &changed).await?;
        }
        let Some(unaware) = self.unaware(conn, rows, &respelled).await? else { return Ok(Written::NotCaptured) };
        let mut all_there = ALL_THERE;
        if rows.iter().any(|row| row.merges && row.writes()) {
            match self.write_merged(conn, rows).await? {
                Written::AsJudged { all_there: there } => all_there &= there,
                otherwise => return Ok(otherwise),
            }
        }
        let orphans = self.orphans_first(conn, rows).await?;
        let mut open: Vec<Range<usize>> = [orphans..rows.len(), 0..orphans].into();
        open.retain(|range| !range.is_empty());
        while let Some(range) = open.pop() {
            let part = &mut rows[range.clone()];
            if self.manner.isolate {
                conn.query_drop("SAVEPOINT part").await?;
            }
            let written = match range.end <= orphans {
                true => session::unchecked(conn, async |conn| self.write_once(conn, part).await).await,
                false => self.write_once(conn, part).await,
            };
            match written {
                Ok(there) => all_there &= there,
                Err(source) if self.manner.isolate && row_remedy(&source) == Remedy::Park => {
                    conn.query_drop("ROLLBACK TO SAVEPOINT part").await?;
                    let [row] = part else {
                        let middle = range.start.midpoint(range.end);
                        open.extend([middle..range.end, range.start..middle]);
                        continue;
                    };
                    if let Some(otherwise) = self.refused(conn, row, source).await? {
                        return Ok(otherwise);
                    }
                }
                Err(source) => {
                    let seqs = part.iter().filter(|row| row.writes()).flat_map(|row| row.net.seqs.iter());
                    return Err(row_error(&self.shared.mappings[self.table], seqs, source));
                }
            }
        }
        followers::spell_as_before(self.shared, conn, &unaware).await?;
        Ok(Written::AsJudged { all_there })
    }

    /// Children of rows whose keys are merely spelled otherwise, which keep their spelling. `None`: the opposite reader did not get
    /// there in time.
    async fn unaware(
        &self,
        conn: &mut Conn,
        rows: &[JudgedRow<'_>],
        respelled: &BTreeSet<usize>,
    ) -> Result<Option<Vec<Follower>>, ApplyError> {
        let (Some(hold_limit), false) = (self.manner.may_hold(), respelled.is_empty()) else {
            return Ok(Some(Vec::new()));
        };
        let respelled = respelled.iter().map(|place| &rows[*place]).filter(|row| row.writes());
        let respelled: Vec<(&Row, &Seen)> = respelled.filter_map(|row| Some((row.after()?, &*row.net.seen))).collect();
        followers::unaware(self.shared, conn, self.table, &respelled, hold_limit).await
    }

    /// Places of rows to which others may refer and whose keys are merely spelled otherwise.
    async fn respelled(&self, conn: &mut Conn, rows: &[JudgedRow<'_>]) -> Result<BTreeSet<usize>, ApplyError> {
        let mut respelled = BTreeSet::new();
        if self.kind != ChangeKind::KeyChange || !self.concurrent || self.shared.children[self.table].is_empty() {
            return Ok(respelled);
        }
        for (place, row) in rows.iter().enumerate() {
            if let (Some(before), Some(after)) = (&row.net.before, &row.net.after)
                && !followers::leaves_its_key(self.shared, conn, self.table, (before, after)).await?
            {
                respelled.insert(place);
            }
        }
        Ok(respelled)
    }

    /// Moves the rows to the front whose parents are yet to be copied, and tells how many these are: they are written together,
    /// where each would be refused first.
    async fn orphans_first(&self, conn: &mut Conn, rows: &mut [JudgedRow<'_>]) -> Result<usize, ApplyError> {
        let must_be_judged = self.concurrent && self.shared.family == FamilyPolicy::ChildGoes;
        let puts = matches!(self.kind, ChangeKind::Insert | ChangeKind::Update);
        if must_be_judged || !puts || !uncopied::may_come_together(self.shared, self.table) {
            return Ok(0);
        }
        let (places, put): (Vec<usize>, Vec<&Row>) = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.arrives_whole())
            .filter_map(|(place, row)| Some((place, row.after()?)))
            .unzip();
        let lacking = uncopied::lacking_parents(self.shared, conn, self.table, &put).await?;
        let orphans = places.into_iter().zip(lacking).filter_map(|(place, lacks)| lacks.then_some(place));
        let orphans: Vec<usize> = orphans.collect();
        // Each is at or behind the place that it is moved to.
        orphans.iter().enumerate().for_each(|(front, place)| rows.swap(front, *place));
        Ok(orphans.len())
    }

    /// A row that the target refuses is set aside, unless something else is to be done.
    async fn refused(
        &self,
        conn: &mut Conn,
        row: &mut JudgedRow<'_>,
        source: mysql_async::Error,
    ) -> Result<Option<Written>, ApplyError> {
        let context = Context { shared: self.shared, concurrent: self.concurrent, manner: self.manner };
        if self.may_place_parents && is_missing_parent(&source) {
            return Ok(Some(Written::ParentMissing));
        }
        if is_duplicate_key(&source) && self.write_around(conn, row).await? {
            (row.on_detour, row.sighted) = (true, false);
            return Ok(None);
        }
        // A row that is merely put into its place needs nothing else to be done.
        let before_parent = matches!(self.kind, ChangeKind::Insert | ChangeKind::Update) && !row.merges;
        match context.refused(conn, self.table, (row.after(), &row.net.seen), before_parent, source).await? {
            AfterRefusal::Written => {}
            AfterRefusal::Aside(cause) => row.aside = Some(cause),
            AfterRefusal::NotCaptured => return Ok(Some(Written::NotCaptured)),
            AfterRefusal::Ruled(ruling) => {
                let ruling = ruling.over(self.kind == ChangeKind::KeyChange);
                let ruled = row.net.seqs.iter().map(|seq| (seq, ruling.clone()));
                return Ok(Some(Written::Ruled(ruled.collect())));
            }
        }
        Ok(None)
    }

    /// Writes a row with other unique values at first. `false`: that cannot be.
    async fn write_around(&self, conn: &mut Conn, row: &mut JudgedRow<'_>) -> Result<bool, ApplyError> {
        let target = &self.shared.tables[self.table];
        let Some(after) = row.after().filter(|_| row.arrives_whole()) else { return Ok(false) };
        let Some(around) = detour::around(self.shared, conn, self.table, after).await? else { return Ok(false) };
        let written = match row.net.before.as_ref().filter(|_| self.kind == ChangeKind::KeyChange) {
            Some(before) => move_row(target, conn, before, &around, row.leaves(), true).await.map(|put| put.came_back),
            None => put_one(target, conn, &around).await.map(|is_there| !is_there && row.net.before.is_some()),
        };
        match written {
            Ok(came_back) => {
                row.came_back = came_back;
                Ok(true)
            }
            Err(source) if row_remedy(&source) == Remedy::Park => {
                conn.query_drop("ROLLBACK TO SAVEPOINT part").await?;
                Ok(false)
            }
            Err(source) => Err(row_error(&self.shared.mappings[self.table], row.net.seqs.iter(), source)),
        }
    }

    /// Writes the rows whose columns are merged, one by one.
    async fn write_merged(&self, conn: &mut Conn, rows: &mut [JudgedRow<'_>]) -> Result<Written, ApplyError> {
        let (mapping, target) = (&self.shared.mappings[self.table], &self.shared.tables[self.table]);
        let mut merging: Vec<&mut JudgedRow<'_>> =
            rows.iter_mut().filter(|row| row.merges && row.aside.is_none()).collect();
        if self.manner.sighted_only {
            merging.iter_mut().for_each(|row| row.aside = Some(Cause::Held));
            return Ok(Written::AsJudged { all_there: ALL_THERE });
        }
        let works = merging.iter().filter_map(|row| RowWork::of_net(row.net, target)).collect();
        let merged = merge_rows(self.shared, conn, self.table, works, self.manner.hold_limit).await?;
        let Some(merged) = merged else { return Ok(Written::NotCaptured) };
        let mut all_there = ALL_THERE;
        for (row, mut merged) in merging.into_iter().zip(merged) {
            if let Some(loss) = merged.lost_move() {
                let ruled = row.net.seqs.iter().map(|seq| (seq, Ruling::Undone(loss)));
                return Ok(Written::Ruled(ruled.collect()));
            }
            all_there &= merged.all_there();
            row.came_back = row.net.before.is_some() && merged.brings_back();
            if let Some(Ruling::LetsGo(columns)) = &row.ruling {
                merged.let_go(columns);
            }
            if self.manner.isolate {
                conn.query_drop("SAVEPOINT part").await?;
            }
            let taken = along::take(self.shared, conn, self.table, row.succession()).await;
            let written = match taken.map(|taken| row.along = taken) {
                Ok(()) => merged.write(target, conn).await,
                Err(error) => Err(error),
            };
            match written {
                Ok(()) => row.merged(merged.departure.map(|left| left.ends).unwrap_or_default(), merged.arrival.ends),
                Err(source) if self.manner.isolate && row_remedy(&source) == Remedy::Park => {
                    conn.query_drop("ROLLBACK TO SAVEPOINT part").await?;
                    if let Some(otherwise) = self.refused(conn, row, source).await? {
                        return Ok(otherwise);
                    }
                }
                Err(source) => return Err(row_error(mapping, row.net.seqs.iter(), source)),
            }
        }
        Ok(Written::AsJudged { all_there })
    }

    /// Looks for children that users of the target have given to the rows that are to be deleted or to leave their keys. A key that
    /// is merely spelled otherwise is not left.
    async fn part_families(
        &self,
        conn: &mut Conn,
        rows: &mut [JudgedRow<'_>],
        respelled: &BTreeSet<usize>,
    ) -> Result<Written, ApplyError> {
        let moves = self.kind == ChangeKind::KeyChange;
        let ends = |row: &JudgedRow<'_>| if moves { row.leaves() } else { row.arrives() };
        let mut places: Vec<usize> = (0..rows.len()).filter(|place| ends(&rows[*place])).collect();
        places.retain(|place| !respelled.contains(place));
        places.retain(|place| rows[*place].net.before.is_some() && rows[*place].successor.is_none());
        let endings: Vec<Ending<'_>> = places
            .iter()
            .filter_map(|place| {
                let net = rows[*place].net;
                let seen = net.moved_from.as_ref().map_or(&net.seen, |departure| &departure.seen);
                let moves_to = net.after.as_ref().filter(|_| moves);
                let outranks = rows[*place].standing.authority == Authority::Held;
                net.before.as_ref().map(|before| Ending { before, moves_to, seen, outranks })
            })
            .collect();
        let context = Context { shared: self.shared, concurrent: self.concurrent, manner: self.manner };
        match context.endings(conn, self.table, &endings, moves).await? {
            Endings::Undisputed => {}
            Endings::NotCaptured => return Ok(Written::NotCaptured),
            Endings::Undecided(undecided) => {
                undecided.iter().for_each(|at| rows[places[*at]].aside = Some(Cause::Held));
            }
            Endings::Disputed { losses, .. } => {
                let ruling = if moves { Ruling::Undone } else { Ruling::Returns };
                let ruled = losses
                    .iter()
                    .flat_map(|(at, loss)| rows[places[*at]].net.seqs.iter().map(|seq| (seq, ruling(*loss))));
                return Ok(Written::Ruled(ruled.collect()));
            }
        }
        Ok(Written::AsJudged { all_there: ALL_THERE })
    }

    async fn write_once(&self, conn: &mut Conn, rows: &mut [JudgedRow<'_>]) -> Result<bool, mysql_async::Error> {
        let (mapping, target) = (&self.shared.mappings[self.table], &self.shared.tables[self.table]);
        let sight = Some(mapping).filter(|mapping| self.by_sight && mapping.strict_clock);
        if self.manner.sighted_only {
            self.set_unsighted_aside(conn, rows, sight).await?;
        }
        if self.kind != ChangeKind::KeyChange {
            for after in rows.iter().filter(|row| row.may_respell()).filter_map(JudgedRow::after) {
                followers::respell_alone(self.shared, conn, self.table, after).await?;
            }
        }
        match self.kind {
            ChangeKind::Insert if self.manner.care == Care::Optimistic => {
                insert(target, conn, rows).await.map(|()| ALL_THERE)
            }
            ChangeKind::Insert => put(target, conn, rows, None).await.map(|()| ALL_THERE),
            ChangeKind::Update => put(target, conn, rows, sight).await.map(|()| ALL_THERE),
            ChangeKind::Delete => {
                for row in rows.iter_mut().filter(|row| row.arrives_whole()) {
                    row.along = along::take(self.shared, conn, self.table, row.succession()).await?;
                }
                delete(target, conn, rows, sight).await
            }
            ChangeKind::KeyChange => rekey(target, conn, rows).await,
        }
    }

    /// Only what the locked row proves can be written while the opposite direction does not answer.
    async fn set_unsighted_aside(
        &self,
        conn: &mut Conn,
        rows: &mut [JudgedRow<'_>],
        sight: Option<&TableMapping>,
    ) -> Result<(), mysql_async::Error> {
        let target = &self.shared.tables[self.table];
        let sight = sight.filter(|_| matches!(self.kind, ChangeKind::Update | ChangeKind::Delete));
        for row in rows.iter_mut().filter(|row| row.writes() && !row.merges) {
            let sighted = match (&row.net.before, sight) {
                (Some(before), Some(mapping)) if !row.net.transient => {
                    let found = target.lock_rows(conn, &[target.key_of(before)]).await?;
                    is_sighted(mapping, found[0].as_ref(), row.net)
                }
                _ => false,
            };
            if !sighted {
                row.aside = Some(Cause::Held);
            }
        }
        Ok(())
    }
}

async fn insert(target: &TargetTable, conn: &mut Conn, rows: &[JudgedRow<'_>]) -> Result<(), mysql_async::Error> {
    let written: Vec<&Row> = rows.iter().filter(|row| row.arrives_whole()).filter_map(|row| row.after()).collect();
    target.insert(conn, &written).await
}

/// Makes rows what the changes say, whether they exist or not.
async fn put(
    target: &TargetTable,
    conn: &mut Conn,
    rows: &mut [JudgedRow<'_>],
    sight: Option<&TableMapping>,
) -> Result<(), mysql_async::Error> {
    let mut winners: Vec<&mut JudgedRow<'_>> = rows.iter_mut().filter(|row| row.arrives_whole()).collect();
    winners.retain(|row| row.after().is_some());
    let keys: Vec<Vec<&Value>> =
        winners.iter().filter_map(|row| row.after()).map(|after| target.key_of(after)).collect();
    let is_there = match sight {
        None => {
            let found = target.lock_and_tell(conn, &keys).await?;
            winners.iter_mut().for_each(|row| row.sighted = false);
            found
        }
        Some(mapping) => {
            let found = target.lock_rows(conn, &keys).await?;
            for (row, found) in winners.iter_mut().zip(&found) {
                row.sighted = is_sighted(mapping, found.as_ref(), row.net);
            }
            found.iter().map(Option::is_some).collect()
        }
    };
    let (mut present, mut absent) = (Vec::new(), Vec::new());
    for (row, is_there) in winners.iter_mut().zip(&is_there) {
        row.came_back = !is_there && row.net.before.is_some();
    }
    for (row, is_there) in winners.iter().zip(is_there) {
        if is_there { present.extend(row.after()) } else { absent.extend(row.after()) }
    }
    target.overwrite(conn, &present).await?;
    insert_absent(target, conn, absent).await
}

fn is_sighted(mapping: &TableMapping, found: Option<&Row>, net: &NetChange) -> bool {
    let (Some(found), Some(before)) = (found, &net.before) else { return false };
    mapping.shows_untouched(before)
        && mapping.moves_clock(before, net.after.as_deref(), net.effective)
        && same_image(found, before)
}

async fn delete(
    target: &TargetTable,
    conn: &mut Conn,
    rows: &mut [JudgedRow<'_>],
    sight: Option<&TableMapping>,
) -> Result<bool, mysql_async::Error> {
    let mut winners: Vec<&mut JudgedRow<'_>> = rows.iter_mut().filter(|row| row.arrives_whole()).collect();
    let keys: Vec<Vec<&Value>> =
        winners.iter().filter_map(|row| row.net.before.as_ref()).map(|before| target.key_of(before)).collect();
    if let Some(mapping) = sight {
        let found = target.lock_rows(conn, &keys).await?;
        for (row, found) in winners.iter_mut().zip(&found) {
            row.sighted = !row.net.transient && is_sighted(mapping, found.as_ref(), row.net);
        }
    }
    target.delete(conn, &keys).await
}

async fn rekey(target: &TargetTable, conn: &mut Conn, rows: &mut [JudgedRow<'_>]) -> Result<bool, mysql_async::Error> {
    let mut all_there = ALL_THERE;
    for row in rows.iter_mut().filter(|row| !row.merges) {
        if let (Some(before), Some(after)) = (row.net.before.as_ref(), row.after()) {
            let put = move_row(target, conn, before, after, row.leaves(), row.arrives()).await?;
            all_there &= put.all_there;
            row.came_back = put.came_back;
        }
    }
    Ok(all_there)
}
