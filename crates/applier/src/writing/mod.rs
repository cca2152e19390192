//! The statements that carry a lane's verdicts out, inside the lane's transaction.
//!
//! Many rows that a statement can write at once stand in [`many`], single changes in [`one`], and what both do to rows in [`rows`].

mod many;
mod one;
mod rows;

use std::collections::BTreeMap;

use crossfade_model::ReferentialAction;
use crossfade_rules::plan::Dependences;
use crossfade_rules::{ChangeKind, Remedy};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::along;
use crate::detour;
use crate::error::{ApplyError, row_remedy};
use crate::family::{self, Returning, Ruling, Rulings};
use crate::judged::{JudgedLane, JudgedRow, JudgedStep, LastingEnd};
use crate::lane::{Manner, Shared};
use crate::late;
use crate::parking::Cause;
use crate::question;
use crate::tombstone;
use crate::undone;

use many::Part;
use rows::row_error;

pub(crate) use one::Context;
pub(crate) use rows::put_one;

/// Writing found every row that it was to delete.
pub(crate) const ALL_THERE: bool = true;

impl JudgedStep<'_> {
    /// Has columns stay as they are at the target that users of it may change, and that the changes leave as they were. The
    /// rows stay locked.
    async fn keep_columns(&mut self, shared: &Shared, conn: &mut Conn) -> Result<(), mysql_async::Error> {
        match self {
            JudgedStep::Net { table, rows, .. } => {
                let (target, entity) = (&shared.tables[*table], shared.entities.tables.table(*table));
                let Some(entity) = entity.filter(|entity| !entity.kept.is_empty()) else { return Ok(()) };
                for row in rows.iter_mut().filter(|row| row.keeps && row.arrives_whole()) {
                    let net = row.net;
                    let (Some(before), Some(after)) = (&net.before, &net.after) else { continue };
                    if target.key_of(before) != target.key_of(after) {
                        continue;
                    }
                    let found = target.lock_where(conn, target.key(), &[target.key_of(after)]).await?.pop();
                    if let Some(found) = found {
                        row.keep(&entity.kept, &found);
                    }
                }
            }
            // These may follow each other at one row: each is looked at when its turn has come.
            JudgedStep::InOrder(_) => {}
        }
        Ok(())
    }
}

impl JudgedLane<'_> {
    /// Carries the verdicts out inside the open transaction.
    ///
    /// A row that the target refuses is an error, or is set aside where `manner` says so; what depends on it then goes
    /// with it.
    pub async fn write(&mut self, shared: &Shared, conn: &mut Conn, manner: Manner) -> Result<Written, ApplyError> {
        let by_sight = !manner.blind && (self.by_sight || manner.sighted_only);
        self.find_successors(shared, conn).await?;
        let mut aside = Dependences::default();
        let may_place_parents = self.concurrent && !manner.parents_first && self.has_late_parents(shared);
        if manner.parents_first {
            detour::place_parents(shared, conn, &mut self.steps).await?;
        }
        for index in 0..self.steps.len() {
            self.steps[index].hold_back(&shared.planner, &mut aside, true);
            self.steps[index].keep_columns(shared, conn).await?;
            let written = match &mut self.steps[index] {
                JudgedStep::Net { table, kind, rows } => {
                    if *kind == ChangeKind::Delete {
                        with_what_waits(shared, conn, *table, rows, [&self.earlier, &aside]).await?;
                    }
                    let (table, kind, concurrent) = (*table, *kind, self.concurrent);
                    let part = Part { shared, table, kind, by_sight, concurrent, manner, may_place_parents };
                    let written = part.write(conn, rows).await?;
                    for row in rows.iter().filter(|row| row.aside.is_some()) {
                        aside.add(&row.dependence(&shared.planner, table));
                    }
                    written
                }
                JudgedStep::InOrder(changes) => {
                    let in_order = Context { shared, concurrent: self.concurrent, manner };
                    in_order.write_in_order(conn, changes, &self.earlier, &mut aside).await?
                }
            };
            match written {
                Written::AsJudged { all_there } => {
                    self.missed |= !all_there;
                    let graves = tombstone::graves(shared, &self.steps[index]);
                    tombstone::bury(shared, conn, &graves).await?;
                }
                Written::Ruled(rulings) => return Ok(Written::Ruled(self.with_what_cascaded(shared, rulings))),
                Written::NotCaptured => return Ok(Written::NotCaptured),
                Written::ParentMissing => return Ok(Written::ParentMissing),
                Written::Ahead(ahead) => return Ok(Written::Ahead(ahead)),
            }
        }
        let still_in_the_way = self.end_detours(shared, conn).await?;
        if !still_in_the_way.is_empty() {
            return Ok(Written::Ahead(still_in_the_way));
        }
        if !self.carry_out_rulings(shared, conn, manner).await? {
            return Ok(Written::NotCaptured);
        }
        let Some(settled) = late::settle(shared, conn, self, manner).await? else { return Ok(Written::NotCaptured) };
        let undone = undone::undo(shared, conn, &self.steps, settled.answers).await?;
        self.missed |= settled.is_absent || undone.found == undone::Found::Absent;
        if !undone::return_children(shared, conn, &self.steps, undone.followers, manner).await? {
            return Ok(Written::NotCaptured);
        }
        question::ask(shared, conn, self).await?;
        let ahead = along::tell(shared, conn, self).await?;
        Ok(if ahead.is_empty() { Written::AsJudged { all_there: !self.missed } } else { Written::Ahead(ahead) })
    }

    /// Some change brings a row to which others may refer, if it is not there, and no order asks for that.
    fn has_late_parents(&self, shared: &Shared) -> bool {
        self.steps.iter().any(|step| match step {
            JudgedStep::Net { table, kind: ChangeKind::Update, rows } => {
                !shared.children[*table].is_empty() && rows.iter().any(JudgedRow::arrives_whole)
            }
            _ => false,
        })
    }

    /// Rows that were written with other unique values, or before their turn, get their own, each when the others have left
    /// these. Returns the messages of those that never can, which are to wait.
    async fn end_detours(&mut self, shared: &Shared, conn: &mut Conn) -> Result<BTreeMap<u64, Cause>, ApplyError> {
        loop {
            let (mut refused, mut has_ended_some) = (BTreeMap::new(), false);
            for step in &mut self.steps {
                let JudgedStep::Net { table, rows, .. } = step else { continue };
                for row in rows.iter_mut().filter(|row| row.on_detour) {
                    if let Some(cause) = &row.aside {
                        refused.extend(row.net.seqs.iter().map(|seq| (seq, cause.clone())));
                    }
                    let Some(after) = row.after().filter(|_| row.arrives_whole()) else { continue };
                    conn.query_drop("SAVEPOINT part").await?;
                    match put_one(&shared.tables[*table], conn, after).await {
                        Ok(_) => (row.on_detour, has_ended_some) = (false, true),
                        Err(source) if row_remedy(&source) == Remedy::Park => {
                            conn.query_drop("ROLLBACK TO SAVEPOINT part").await?;
                            let rivals = detour::rivals(shared, conn, *table, after).await?;
                            let cause = Cause::refused(source).against(rivals);
                            refused.extend(row.net.seqs.iter().map(|seq| (seq, cause.clone())));
                        }
                        Err(source) => {
                            return Err(row_error(&shared.mappings[*table], row.net.seqs.iter(), source));
                        }
                    }
                }
            }
            if refused.is_empty() || !has_ended_some {
                return Ok(refused);
            }
        }
    }

    /// Parents whose end has lost by their own clock. What cascaded from them, perhaps without a message, returns too.
    pub fn lost_parents(&self, shared: &Shared) -> Rulings {
        let cascades =
            |table: usize| shared.children[table].iter().any(|link| link.on_delete != ReferentialAction::Restrict);
        let lost: Rulings = self.steps.iter().flat_map(|step| step.lost_deletes(cascades)).collect();
        if lost.is_empty() { lost } else { self.with_what_cascaded(shared, lost) }
    }

    /// What ended in the same source transaction as a parent that returns, and referred to it, ended with it. Only what nobody
    /// else has changed, and the batch no more than that: of other rows the target may have nothing that could return.
    fn with_what_cascaded(&self, shared: &Shared, mut rulings: Rulings) -> Rulings {
        loop {
            let endings: Vec<LastingEnd<'_>> = self.steps.iter().flat_map(JudgedStep::endings).collect();
            let loss_of = |ended: &LastingEnd<'_>| {
                ended.seqs.iter().find_map(|seq| match rulings.get(seq) {
                    Some(Ruling::Returns(loss)) => Some(*loss),
                    _ => None,
                })
            };
            let mut cascaded = Vec::new();
            for parent in &endings {
                let Some(loss) = loss_of(parent) else { continue };
                let given_up = shared.planner.dependence(parent.table, Some(parent.before), None);
                for child in endings.iter().filter(|child| child.is_plain && loss_of(child).is_none()) {
                    let refers = shared.planner.dependence(child.table, Some(child.before), None);
                    if child.transaction == parent.transaction
                        && given_up.given_up().iter().any(|token| refers.parents().contains(token))
                    {
                        cascaded.extend(child.seqs.iter().map(|seq| (*seq, Ruling::Returns(loss))));
                    }
                }
            }
            if cascaded.is_empty() {
                return rulings;
            }
            rulings.extend(cascaded);
        }
    }

    /// Sends back what returns, and ends what goes with its parent. `false`: the opposite reader did not get there in time.
    async fn carry_out_rulings(
        &mut self,
        shared: &Shared,
        conn: &mut Conn,
        manner: Manner,
    ) -> Result<bool, ApplyError> {
        let mut all_there = ALL_THERE;
        let hold_limit = manner.may_hold();
        for ended in self.steps.iter().flat_map(JudgedStep::ruled) {
            let target = &shared.tables[ended.table];
            match ended.ruling {
                Ruling::Returns(_) => {
                    let key = target.key_of(ended.row);
                    let returning = Returning { key, seen: ended.seen, hold_limit };
                    match family::return_rows(shared, conn, ended.table, returning).await? {
                        Some(there) => all_there &= there,
                        None => return Ok(false),
                    }
                }
                Ruling::Goes(_) => all_there &= family::end_orphan(shared, conn, ended.table, ended.row).await?,
                Ruling::LetsGo(_) | Ruling::Undone(_) => {}
            }
        }
        // Whoever inserts what is not there must have seen that it did not return, or that it went.
        self.missed |= !all_there;
        Ok(true)
    }
}

/// Rows that are to be deleted wait for what was set aside before and refers to what would go with them: it may have gone with
/// them at its source.
async fn with_what_waits(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    rows: &mut [JudgedRow<'_>],
    asides: [&Dependences; 2],
) -> Result<(), ApplyError> {
    let is_nothing_aside = asides.iter().all(|aside| aside.is_empty());
    for row in rows.iter_mut().filter(|row| row.is_behind() || row.arrives() && !is_nothing_aside) {
        let Some(before) = &row.net.before else { continue };
        let takes = family::dependence_of(shared, &family::going_along(shared, conn, table, before).await?);
        // One that waits already is tied to the others by this.
        if row.is_behind() || asides.iter().any(|aside| aside.holds_back(&takes)) {
            (row.aside, row.takes) = (Some(Cause::Behind), takes);
        }
    }
    Ok(())
}

/// How the writing of a lane went.
pub(crate) enum Written {
    /// `all_there`: every row that was to be deleted was there.
    AsJudged { all_there: bool },
    /// A parent and its children were found in conflict; the lane is to be judged again with this.
    Ruled(Rulings),
    /// The opposite reader did not get there in time.
    NotCaptured,
    /// A child's parent is not there, and may be among what comes after it.
    ParentMissing,
    /// These messages are to wait for what should have come with them.
    Ahead(BTreeMap<u64, Cause>),
}
