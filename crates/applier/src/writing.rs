//! The statements that carry a lane's verdicts out, inside the lane's transaction.

use std::collections::BTreeMap;
use std::ops::Range;

use crossfade_model::{FamilyPolicy, ReferentialAction, Row, RowOp, Seen, Value};
use crossfade_rules::plan::Dependences;
use crossfade_rules::{ChangeKind, NetChange, Remedy, TableMapping};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::along;
use crate::detour;
use crate::error::{ApplyError, is_duplicate_key, is_missing_parent, row_remedy};
use crate::family::{self, Ending, Endings, Orphan, Returning, Ruling, Rulings};
use crate::followers;
use crate::judged::{JudgedChange, JudgedLane, JudgedRow, JudgedStep, LastingEnd};
use crate::lane::{Care, Manner, Shared};
use crate::merging::{MergedRow, RowWork, merge_rows};
use crate::parking::Cause;
use crate::question;
use crate::read::same_image;
use crate::table::TargetTable;
use crate::tombstone;
use crate::uncopied;
use crate::undone;

/// Writing found every row that it was to delete.
pub(crate) const ALL_THERE: bool = true;

impl JudgedLane<'_> {
    /// Carries the verdicts out inside the open transaction.
    ///
    /// A row that the target refuses is an error, or is set aside where `manner` says so; what depends on it then goes
    /// with it.
    pub async fn write(&mut self, shared: &Shared, conn: &mut Conn, manner: Manner) -> Result<Written, ApplyError> {
        let by_sight = !manner.blind && (self.by_sight || manner.sighted_only);
        self.find_successors(shared);
        let mut aside = Dependences::default();
        let may_place_parents = self.concurrent && !manner.parents_first && self.has_late_parents(shared);
        if manner.parents_first {
            detour::place_parents(shared, conn, &mut self.steps).await?;
        }
        for index in 0..self.steps.len() {
            self.steps[index].hold_back(&shared.planner, &mut aside, true);
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
        let undone = undone::undo(shared, conn, &self.steps).await?;
        self.missed |= undone.found == undone::Found::Absent;
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

/// Rows of one table and one kind that do not depend on each other.
struct Part<'s> {
    shared: &'s Shared,
    table: usize,
    kind: ChangeKind,
    by_sight: bool,
    concurrent: bool,
    manner: Manner,
    may_place_parents: bool,
}

impl Part<'_> {
    /// Writes all rows at once. Where rows are to be isolated, what is refused is halved until the refused rows stand
    /// alone.
    async fn write(&self, conn: &mut Conn, rows: &mut [JudgedRow<'_>]) -> Result<Written, ApplyError> {
        if self.concurrent && matches!(self.kind, ChangeKind::Delete | ChangeKind::KeyChange) {
            let written = self.part_families(conn, rows).await?;
            if !matches!(written, Written::AsJudged { .. }) {
                return Ok(written);
            }
        }
        if self.kind == ChangeKind::Delete {
            let gone = rows.iter().filter(|row| row.arrives()).map(|row| row.net);
            let gone: Vec<Ending<'_>> = gone
                .filter_map(|net| Some(Ending { before: net.before.as_ref()?, moves_to: None, seen: &net.seen }))
                .collect();
            uncopied::end_children(self.shared, conn, self.table, &gone).await?;
        } else if self.kind != ChangeKind::Insert {
            let changed = rows.iter().filter(|row| row.arrives());
            let changed: Vec<(&Row, &Row)> =
                changed.filter_map(|row| row.net.before.as_ref().zip(row.after())).collect();
            uncopied::let_children_follow(self.shared, conn, self.table, &changed).await?;
        }
        let mut all_there = ALL_THERE;
        if rows.iter().any(|row| row.merges && row.writes()) {
            match self.write_merged(conn, rows).await? {
                Written::AsJudged { all_there: there } => all_there &= there,
                otherwise => return Ok(otherwise),
            }
        }
        let mut open: Vec<Range<usize>> = std::iter::once(0..rows.len()).collect();
        while let Some(range) = open.pop() {
            let part = &mut rows[range.clone()];
            if self.manner.isolate {
                conn.query_drop("SAVEPOINT part").await?;
            }
            match self.write_once(conn, part).await {
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
        Ok(Written::AsJudged { all_there })
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

    /// Looks for children that users of the target have given to the rows that are to be deleted or to leave their keys.
    async fn part_families(&self, conn: &mut Conn, rows: &mut [JudgedRow<'_>]) -> Result<Written, ApplyError> {
        let moves = self.kind == ChangeKind::KeyChange;
        let ends = |row: &JudgedRow<'_>| if moves { row.leaves() } else { row.arrives() };
        let mut places: Vec<usize> = (0..rows.len()).filter(|place| ends(&rows[*place])).collect();
        places.retain(|place| rows[*place].net.before.is_some() && rows[*place].successor.is_none());
        let endings: Vec<Ending<'_>> = places
            .iter()
            .filter_map(|place| {
                let net = rows[*place].net;
                let seen = net.moved_from.as_ref().map_or(&net.seen, |departure| &departure.seen);
                let moves_to = net.after.as_ref().filter(|_| moves);
                net.before.as_ref().map(|before| Ending { before, moves_to, seen })
            })
            .collect();
        let context = Context { shared: self.shared, concurrent: self.concurrent, manner: self.manner };
        match context.endings(conn, self.table, &endings, moves).await? {
            Endings::Undisputed => {}
            Endings::NotCaptured => return Ok(Written::NotCaptured),
            Endings::Undecided(undecided) => {
                undecided.iter().for_each(|at| rows[places[*at]].aside = Some(Cause::Held));
            }
            Endings::Disputed(losses) => {
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

fn row_error(mapping: &TableMapping, seqs: impl Iterator<Item = u64>, source: mysql_async::Error) -> ApplyError {
    let (first, last) = seqs.fold((u64::MAX, 0), |(first, last), seq| (first.min(seq), last.max(seq)));
    ApplyError::Row { table: mapping.target.clone(), first, last, source: source.into() }
}

/// How and for whom rows are written.
#[derive(Clone, Copy)]
pub(crate) struct Context<'s> {
    pub shared: &'s Shared,
    pub concurrent: bool,
    pub manner: Manner,
}

/// What becomes of a row that the target refuses.
enum AfterRefusal {
    /// It was written all the same, before its parent.
    Written,
    Aside(Cause),
    Ruled(Ruling),
    NotCaptured,
}

impl Context<'_> {
    /// Parents that are to be deleted, or to leave their keys. Where the children go, they are deleted here.
    async fn endings(
        &self,
        conn: &mut Conn,
        table: usize,
        endings: &[Ending<'_>],
        moves: bool,
    ) -> Result<Endings, ApplyError> {
        let hold_limit = self.manner.may_hold();
        let found = family::judge_endings(self.shared, conn, table, endings, moves, hold_limit).await?;
        match (found, self.shared.family) {
            (Endings::Disputed(losses), FamilyPolicy::ChildGoes) => {
                for (at, _) in losses {
                    family::end_children(self.shared, conn, table, &endings[at]).await?;
                }
                Ok(Endings::Undisputed)
            }
            (found, _) => Ok(found),
        }
    }

    async fn refused(
        &self,
        conn: &mut Conn,
        table: usize,
        (after, seen): (Option<&Row>, &Seen),
        before_parent: bool,
        source: mysql_async::Error,
    ) -> Result<AfterRefusal, ApplyError> {
        let goes = self.concurrent && self.shared.family == FamilyPolicy::ChildGoes && is_missing_parent(&source);
        if let Some(after) = after.filter(|_| goes) {
            match family::judge_orphan(self.shared, conn, table, (after, seen), self.manner.hold_limit).await? {
                Orphan::NotCaptured => return Ok(AfterRefusal::NotCaptured),
                Orphan::Ruled(ruling) => return Ok(AfterRefusal::Ruled(ruling)),
                Orphan::Unexplained => {}
            }
        }
        let may_come_first =
            before_parent && is_missing_parent(&source) && uncopied::parents_come_later(self.shared, table);
        if let Some(after) = after.filter(|_| may_come_first) {
            return Ok(match uncopied::put_before_parent(&self.shared.tables[table], conn, after).await {
                Ok(()) => AfterRefusal::Written,
                Err(error) if row_remedy(&error) == Remedy::Park => AfterRefusal::Aside(Cause::refused(error)),
                Err(error) => return Err(row_error(&self.shared.mappings[table], std::iter::empty(), error)),
            });
        }
        let rivals = match after.filter(|_| is_duplicate_key(&source)) {
            Some(after) => detour::rivals(self.shared, conn, table, after).await?,
            None => Vec::new(),
        };
        Ok(AfterRefusal::Aside(Cause::refused(source).against(rivals)))
    }
}

/// Changes that keep the order of their source.
impl Context<'_> {
    /// Writes one change. One that the target refuses is set aside, where `manner` says so.
    pub async fn write_change(&self, conn: &mut Conn, judged: &mut JudgedChange<'_>) -> Result<Written, ApplyError> {
        let change = judged.change;
        judged.came_back = false;
        let (mapping, target) = (&self.shared.mappings[change.table], &self.shared.tables[change.table]);
        if self.manner.sighted_only && !mapping.keyless {
            judged.aside = Some(Cause::Held);
            return Ok(Written::AsJudged { all_there: ALL_THERE });
        }
        let moves = judged.moves_away(target);
        let ends = moves || judged.deletes(mapping) && judged.successor.is_none();
        if let (true, Some(before)) = (self.concurrent && ends, &change.before) {
            let moves_to = change.after.as_ref().filter(|_| moves);
            let ending = Ending { before, moves_to, seen: &change.seen };
            match self.endings(conn, change.table, &[ending], moves).await? {
                Endings::Undisputed | Endings::Undecided(_) => {}
                Endings::NotCaptured => return Ok(Written::NotCaptured),
                Endings::Disputed(losses) => {
                    let ruling = if moves { Ruling::Undone } else { Ruling::Returns };
                    let ruled = losses.into_iter().map(|(_, loss)| (change.seq, ruling(loss)));
                    return Ok(Written::Ruled(ruled.collect()));
                }
            }
        }
        let wins = moves && judged.arrives();
        if let (true, Some(before)) = (judged.arrives() && !mapping.keyless, &change.before) {
            match judged.after() {
                None => {
                    let ending = Ending { before, moves_to: None, seen: &change.seen };
                    uncopied::end_children(self.shared, conn, change.table, &[ending]).await?;
                }
                Some(after) => {
                    uncopied::let_children_follow(self.shared, conn, change.table, &[(before, after)]).await?;
                }
            }
        }
        let merged = match judged.merges {
            false => None,
            true => match self.merge_change(conn, judged).await? {
                None => return Ok(Written::NotCaptured),
                merged => merged,
            },
        };
        if let Some(loss) = judged.lost_half().filter(|_| wins) {
            return Ok(Written::Ruled([(change.seq, Ruling::Undone(loss))].into()));
        }
        if self.manner.isolate {
            conn.query_drop("SAVEPOINT part").await?;
        }
        let respelled = judged.after().filter(|_| !moves && !mapping.keyless && judged.may_respell());
        if let Some(after) = respelled {
            followers::respell_alone(self.shared, conn, change.table, after).await?;
        }
        let succession = (change.before.as_ref(), judged.successor.as_ref().filter(|_| judged.arrives()));
        let taken = along::take(self.shared, conn, change.table, succession).await;
        let written = match (taken.map(|taken| judged.along = taken), &merged) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(merged)) => {
                let came_back = change.before.is_some() && merged.brings_back();
                let put = Put { all_there: merged.all_there(), came_back };
                merged.write(target, conn).await.map(|()| put)
            }
            (Ok(()), None) => write_in_order(mapping, target, conn, judged).await,
        };
        if written.is_err() {
            judged.along = Vec::new();
        }
        match written {
            Ok(Put { all_there, came_back }) => {
                judged.came_back = came_back;
                return Ok(Written::AsJudged { all_there });
            }
            Err(source) if self.manner.isolate && row_remedy(&source) == Remedy::Park => {
                conn.query_drop("ROLLBACK TO SAVEPOINT part").await?;
                let before_parent = !mapping.keyless && !moves && merged.is_none();
                let row: (_, &Seen) = (judged.after(), &change.seen);
                match self.refused(conn, change.table, row, before_parent, source).await? {
                    AfterRefusal::Written => {}
                    AfterRefusal::Aside(cause) => judged.aside = Some(cause),
                    AfterRefusal::NotCaptured => return Ok(Written::NotCaptured),
                    AfterRefusal::Ruled(ruling) => {
                        return Ok(Written::Ruled([(change.seq, ruling.over(moves))].into()));
                    }
                }
            }
            Err(source) => return Err(row_error(mapping, std::iter::once(change.seq), source)),
        }
        Ok(Written::AsJudged { all_there: ALL_THERE })
    }
}

impl Context<'_> {
    /// `None`: the opposite reader did not get there in time.
    async fn merge_change<'r>(
        &self,
        conn: &mut Conn,
        judged: &mut JudgedChange<'r>,
    ) -> Result<Option<MergedRow<'r>>, ApplyError> {
        let (change, table) = (judged.change, judged.change.table);
        let work = RowWork::of_change(change, &self.shared.tables[table]).into_iter().collect();
        let merged = merge_rows(self.shared, conn, table, work, self.manner.hold_limit).await?;
        let Some(mut merged) = merged.and_then(|merged| merged.into_iter().next()) else { return Ok(None) };
        if let Some(Ruling::LetsGo(columns)) = &judged.ruling {
            merged.let_go(columns);
        }
        let departure = merged.departure.as_mut().map(|left| std::mem::take(&mut left.ends));
        judged.merged(departure.unwrap_or_default(), std::mem::take(&mut merged.arrival.ends));
        Ok(Some(merged))
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

/// Makes a row what it is to be, whether it exists or not. Tells whether it was there.
pub(crate) async fn put_one(target: &TargetTable, conn: &mut Conn, row: &Row) -> Result<bool, mysql_async::Error> {
    let is_there = target.lock_and_tell(conn, &[target.key_of(row)]).await?[0];
    match is_there {
        true => target.overwrite(conn, &[row]).await?,
        false => insert_absent(target, conn, vec![row]).await?,
    }
    Ok(is_there)
}

/// Inserts rows that were not there a moment ago. A row that a user has inserted since is locked and overwritten; each
/// round locks at least one more row, so this ends. A duplicate of another key's value is an error.
async fn insert_absent(target: &TargetTable, conn: &mut Conn, mut absent: Vec<&Row>) -> Result<(), mysql_async::Error> {
    loop {
        let duplicate = match target.insert(conn, &absent).await {
            Err(error) if is_duplicate_key(&error) => error,
            done => return done,
        };
        let keys: Vec<Vec<&Value>> = absent.iter().map(|row| target.key_of(row)).collect();
        let found = target.lock_and_tell(conn, &keys).await?;
        let (mut present, mut missing) = (Vec::new(), Vec::new());
        for (row, is_there) in absent.iter().zip(found) {
            if is_there { present.push(*row) } else { missing.push(*row) }
        }
        if present.is_empty() {
            return Err(duplicate);
        }
        target.overwrite(conn, &present).await?;
        absent = missing;
    }
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

/// How a row was put where it is to be.
struct Put {
    all_there: bool,
    /// It was not here, as its source knew it.
    came_back: bool,
}

impl From<bool> for Put {
    fn from(all_there: bool) -> Put {
        Put { all_there, came_back: false }
    }
}

/// Moves a row to its new key: one UPDATE where the old key is there and the new one free, else by parts.
async fn move_row(
    target: &TargetTable,
    conn: &mut Conn,
    before: &Row,
    after: &Row,
    leave: bool,
    arrive: bool,
) -> Result<Put, mysql_async::Error> {
    let (old_key, new_key) = (target.key_of(before), target.key_of(after));
    let found = target.lock_and_tell(conn, &[old_key.clone(), new_key.clone()]).await?;
    let (old_there, new_there) = (found[0], found[1]);
    match (leave, arrive) {
        (true, true) if old_there && !new_there => target.rekey(conn, &old_key, after).await.map(|()| ALL_THERE.into()),
        // Keys that only the server takes for one: the row is found under both.
        (true, true) if old_there && target.is_same_key(conn, &old_key, &new_key).await? => {
            target.rekey(conn, &old_key, after).await.map(|()| ALL_THERE.into())
        }
        _ => {
            let all_there = !leave || target.delete(conn, std::slice::from_ref(&old_key)).await?;
            match (arrive, new_there) {
                (true, true) => target.overwrite(conn, &[after]).await?,
                (true, false) => insert_absent(target, conn, vec![after]).await?,
                (false, _) => {}
            }
            // Where it has a row under the new key, it has followed whom the target's own row follows.
            Ok(Put { all_there, came_back: leave && arrive && !old_there && !new_there })
        }
    }
}

async fn write_in_order(
    mapping: &TableMapping,
    target: &TargetTable,
    conn: &mut Conn,
    judged: &JudgedChange<'_>,
) -> Result<Put, mysql_async::Error> {
    let change = judged.change;
    if mapping.keyless {
        match (change.before.as_ref(), judged.after()) {
            (None, Some(after)) => target.insert(conn, &[after]).await?,
            (Some(before), Some(after)) => target.update_whole(conn, before, after).await?,
            (Some(before), None) => target.delete_whole(conn, before).await?,
            (None, None) => {}
        }
        return Ok(ALL_THERE.into());
    }
    let (leave, arrive) = (judged.leaves(), judged.arrives());
    match (change.op, change.before.as_ref(), judged.after()) {
        (RowOp::Update, Some(before), Some(after)) if target.key_of(before) != target.key_of(after) => {
            move_row(target, conn, before, after, leave, arrive).await
        }
        (_, before, Some(after)) if arrive => {
            let was_there = put_one(target, conn, after).await?;
            Ok(Put { all_there: ALL_THERE, came_back: !was_there && before.is_some() })
        }
        (RowOp::Delete, Some(before), None) if arrive => {
            target.delete(conn, &[target.key_of(before)]).await.map(Put::from)
        }
        _ => Ok(ALL_THERE.into()),
    }
}
