//! Changes that keep the order of their source, and what becomes of those among them that the target refuses.
//!
//! A refused change is passed over at first, since it is often not what the source has in the end: a later change of the
//! same row may stand in for it, its row may have gone with its parent, or with its parent's, or have followed one to another
//! key, or the parent may come after it. Only what nothing makes up for is set aside, and then everything that depends on it.

use std::collections::BTreeMap;

use crossfade_model::{ReferentialAction, Row, RowOp, Seen, Value};
use crossfade_rules::mapping::ChildLink;
use crossfade_rules::plan::{Dependence, Dependences};
use crossfade_rules::{ChangeKind, MappedChange, Planner, Remedy};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::detour;
use crate::error::{ApplyError, row_remedy};
use crate::family::{self, Orphan, Ruling};
use crate::followers;
use crate::judged::{JudgedChange, JudgedLane, JudgedStep};
use crate::lane::Shared;
use crate::parking::{Cause, Refused};
use crate::writing::{ALL_THERE, Context, Written, put_one};

/// One way through the changes.
struct Round<'l> {
    aside: Dependences,
    /// Of `aside` what does not merely miss a parent, nor wait for who does.
    aside_itself: Dependences,
    /// Places of the refused changes, in order.
    passed_over: Vec<usize>,
    /// Places of those that nothing makes up for, and why the target has refused them.
    last: &'l BTreeMap<usize, Cause>,
    /// What was set aside before.
    earlier: &'l Dependences,
    /// What has gone so far with rows that were deleted, as far as somebody may have to know.
    went: Vec<Went>,
}

/// A row that has gone with one that was deleted.
struct Went {
    /// The place of that delete.
    place: usize,
    table: usize,
    row: Row,
}

/// Whether something made up for a change that was passed over.
enum MadeUp {
    /// `all_there`: as of [`Written::AsJudged`].
    Yes {
        all_there: bool,
    },
    /// Why it is refused.
    No(Cause),
    Otherwise(Written),
}

/// What stands in for a change that merely misses a parent.
#[derive(Clone, Copy)]
struct Parents<'w> {
    /// What has gone with rows that were deleted in this transaction.
    went: &'w [Went],
    /// Besides, that users of the target have ended the parent, and nobody refers to it any more.
    may_have_ended: bool,
}

/// What was made up for, all in all.
struct Made {
    /// Places of the changes for which there is nothing, and why the target has refused them.
    left: Vec<(usize, Cause)>,
    all_there: bool,
}

/// The child's row refers to the parent's by this foreign key.
fn refers(link: &ChildLink, (child, row): (usize, &Row), parent: &Row) -> bool {
    let mut columns = link.columns.iter().zip(&link.referred);
    link.child == child && columns.all(|(column, referred)| row[*column] == parent[*referred])
}

/// The end of a row of this table takes other rows along, or their references.
fn may_take_along(shared: &Shared, table: usize) -> bool {
    shared.children[table].iter().any(|link| link.on_delete != ReferentialAction::Restrict)
}

impl JudgedLane<'_> {
    /// Some change may take other rows along.
    pub fn takes_along(&self, shared: &Shared) -> bool {
        self.steps.iter().any(|step| match step {
            JudgedStep::Net { table, kind, .. } => *kind == ChangeKind::Delete && may_take_along(shared, *table),
            JudgedStep::InOrder(changes) => changes
                .iter()
                .any(|judged| judged.change.op == RowOp::Delete && may_take_along(shared, judged.change.table)),
        })
    }
}

impl Round<'_> {
    /// What was set aside refers to what would go with a row that is to be deleted, and may have gone with it at its source.
    fn must_wait_with(&self, shared: &Shared, judged: &mut JudgedChange<'_>, went: &[(usize, Row)]) -> bool {
        let takes = family::dependence_of(shared, went);
        let waits = [&self.aside, self.earlier].into_iter().any(|aside| aside.holds_back(&takes));
        if waits {
            judged.takes = takes;
        }
        waits
    }

    fn holds_back(&self, planner: &Planner, judged: &JudgedChange<'_>) -> bool {
        !self.aside.is_empty() && self.aside.holds_back(&judged.dependence(planner))
    }

    /// A child that misses its parent may keep back an end of that parent, and so what comes after that. If it is this which
    /// the target refuses, nobody else has a reason to tell.
    fn why_it_waits(&self, planner: &Planner, judged: &JudgedChange<'_>, place: usize) -> Cause {
        let own = self.last.get(&place).filter(|_| !self.aside_itself.holds_back(&judged.dependence(planner)));
        own.cloned().unwrap_or(Cause::Behind)
    }

    fn set_aside(&mut self, planner: &Planner, judged: &JudgedChange<'_>) {
        let dependence = judged.dependence(planner);
        let is_itself = match &judged.aside {
            Some(Cause::Refused(refused)) => !refused.misses_parent,
            Some(Cause::Held) => true,
            Some(Cause::Behind) | None => self.aside_itself.holds_back(&dependence),
        };
        self.aside.add(&dependence);
        if is_itself {
            self.aside_itself.add(&dependence);
        }
    }
}

impl Context<'_> {
    pub async fn write_in_order(
        &self,
        conn: &mut Conn,
        changes: &mut [JudgedChange<'_>],
        earlier: &Dependences,
        aside: &mut Dependences,
    ) -> Result<Written, ApplyError> {
        let open: Vec<usize> = (0..changes.len()).filter(|place| changes[*place].aside.is_none()).collect();
        for judged in changes.iter_mut().filter(|judged| judged.aside == Some(Cause::Behind)) {
            let change = judged.change;
            if let Some(before) = change.before.as_ref().filter(|_| self.takes_along(change)) {
                let went = family::going_along(self.shared, conn, change.table, before).await?;
                judged.takes = family::dependence_of(self.shared, &went);
            }
        }
        let mut last = BTreeMap::new();
        loop {
            if self.manner.isolate {
                conn.query_drop("SAVEPOINT round").await?;
            }
            let (before, passed_over) = (aside.clone(), Vec::new());
            let mut round = Round {
                aside: before.clone(),
                aside_itself: before,
                passed_over,
                last: &last,
                earlier,
                went: Vec::new(),
            };
            let written = self.write_round(conn, changes, &open, &mut round).await?;
            let Written::AsJudged { all_there } = written else { return Ok(written) };
            let Round { aside: now_aside, passed_over, went, .. } = round;
            let made = match self.make_up(conn, changes, passed_over, &went).await? {
                Ok(made) => made,
                Err(otherwise) => return Ok(otherwise),
            };
            if made.left.is_empty() {
                *aside = now_aside;
                return Ok(Written::AsJudged { all_there: all_there && made.all_there });
            }
            // Once more, and what depends on these waits with them.
            last.extend(made.left);
            conn.query_drop("ROLLBACK TO SAVEPOINT round").await?;
            for place in &open {
                (changes[*place].aside, changes[*place].takes) = (None, Dependence::default());
            }
        }
    }

    async fn write_round(
        &self,
        conn: &mut Conn,
        changes: &mut [JudgedChange<'_>],
        open: &[usize],
        round: &mut Round<'_>,
    ) -> Result<Written, ApplyError> {
        let planner = &self.shared.planner;
        let mut all_there = ALL_THERE;
        for &place in open {
            let judged = &mut changes[place];
            let waits = round.holds_back(planner, judged);
            if !judged.writes() {
                // Whom a lost end took along at the source is found when those who wait have been written.
                // What goes back is told by the rows that are here, and so waits for those as well.
                let must_wait = waits && (judged.acts() || self.takes_along(judged.change));
                judged.aside = must_wait.then_some(Cause::Behind);
                if must_wait && judged.acts() {
                    round.set_aside(planner, judged);
                }
                continue;
            }
            let went = if waits { Vec::new() } else { self.going_along(conn, judged, round).await? };
            if waits {
                judged.aside = Some(round.why_it_waits(planner, judged, place));
            } else if round.must_wait_with(self.shared, judged, &went) {
                judged.aside = Some(Cause::Behind);
            } else {
                round.went.extend(went.into_iter().map(|(table, row)| Went { place, table, row }));
                match self.write_change(conn, judged).await? {
                    Written::AsJudged { all_there: there } => all_there &= there,
                    otherwise => return Ok(otherwise),
                }
            }
            match &judged.aside {
                Some(Cause::Refused(refused))
                    if !round.last.contains_key(&place) && self.is_of_one_row(conn, judged.change, refused).await? =>
                {
                    let cause = judged.aside.take();
                    match self.leave(conn, judged).await? {
                        Some(there) => {
                            round.passed_over.push(place);
                            all_there &= there;
                            // It was not here before: what hangs on it is asked for.
                            judged.came_back |= !there && !self.is_there(conn, judged).await?;
                            self.put_around(conn, changes, place).await?;
                        }
                        None => {
                            judged.aside = cause;
                            round.set_aside(planner, judged);
                        }
                    }
                }
                Some(_) => round.set_aside(planner, judged),
                None => {}
            }
        }
        Ok(Written::AsJudged { all_there })
    }

    /// The change brings, changes or moves one row and nothing else: nobody here refers to a key that it gives up.
    async fn is_of_one_row(
        &self,
        conn: &mut Conn,
        change: &MappedChange,
        refused: &Refused,
    ) -> Result<bool, mysql_async::Error> {
        if self.shared.mappings[change.table].keyless || change.after.is_none() {
            return Ok(false);
        }
        let Some(before) = &change.before else { return Ok(true) };
        let dependence = self.shared.planner.dependence(change.table, Some(before), change.after.as_ref());
        if dependence.given_up().is_empty() {
            return Ok(true);
        }
        // What is not synced may refer to it too.
        Ok(!refused.is_referred_to && !family::has_children(self.shared, conn, change.table, before).await?)
    }

    /// A delete that takes other rows along, or their references.
    fn takes_along(&self, change: &MappedChange) -> bool {
        change.op == RowOp::Delete && may_take_along(self.shared, change.table)
    }

    /// What goes with a row that is to be deleted, where somebody must know.
    async fn going_along(
        &self,
        conn: &mut Conn,
        judged: &JudgedChange<'_>,
        round: &Round<'_>,
    ) -> Result<Vec<(usize, Row)>, ApplyError> {
        let nobody_asks = round.aside.is_empty() && round.earlier.is_empty() && round.passed_over.is_empty();
        let change = judged.change;
        match &change.before {
            Some(before) if !nobody_asks && judged.arrives() && self.takes_along(change) => {
                family::going_along(self.shared, conn, change.table, before).await
            }
            _ => Ok(Vec::new()),
        }
    }

    /// A moved row that cannot arrive leaves its old key all the same, and `false` says that it was not there. `None`: the target
    /// keeps it, since what is not synced refers to it.
    async fn leave(&self, conn: &mut Conn, judged: &JudgedChange<'_>) -> Result<Option<bool>, ApplyError> {
        let (change, table) = (judged.change, judged.change.table);
        let target = &self.shared.tables[table];
        let (Some(before), Some(after)) = (&change.before, &change.after) else { return Ok(Some(ALL_THERE)) };
        if !judged.leaves() || !followers::leaves_its_key(self.shared, conn, table, (before, after)).await? {
            return Ok(Some(ALL_THERE));
        }
        conn.query_drop("SAVEPOINT part").await?;
        match target.delete(conn, &[target.key_of(before)]).await {
            Err(source) if row_remedy(&source) == Remedy::Park => {
                conn.query_drop("ROLLBACK TO SAVEPOINT part").await?;
                Ok(None)
            }
            left => Ok(Some(left?)),
        }
    }

    /// Some row has the key that this one is to have.
    async fn is_there(&self, conn: &mut Conn, judged: &JudgedChange<'_>) -> Result<bool, mysql_async::Error> {
        let target = &self.shared.tables[judged.change.table];
        match judged.after() {
            Some(after) => Ok(target.lock_and_tell(conn, &[target.key_of(after)]).await?[0]),
            None => Ok(false),
        }
    }

    /// A row that is refused for a unique value waits for it with another one, so that others can take what it leaves: if the
    /// change is the last of its row.
    async fn put_around(
        &self,
        conn: &mut Conn,
        changes: &mut [JudgedChange<'_>],
        place: usize,
    ) -> Result<(), ApplyError> {
        let (judged, table) = (&changes[place], changes[place].change.table);
        let Some(after) = judged.after().filter(|_| judged.arrives() && !judged.merges) else { return Ok(()) };
        if (place + 1..changes.len()).any(|later| self.is_of_row(changes[later].change, judged.change)) {
            return Ok(());
        }
        let Some(around) = detour::around(self.shared, conn, table, after).await? else { return Ok(()) };
        conn.query_drop("SAVEPOINT part").await?;
        match put_one(&self.shared.tables[table], conn, &around).await {
            Err(source) if row_remedy(&source) == Remedy::Park => {
                conn.query_drop("ROLLBACK TO SAVEPOINT part").await?;
            }
            put => {
                let is_new = !put? && judged.change.op == RowOp::Update;
                let moves = judged.moves_away(&self.shared.tables[table]);
                changes[place].came_back |= is_new && !moves;
            }
        }
        Ok(())
    }

    /// Looks for what makes up for changes that were passed over, as long as one of them makes room for another.
    async fn make_up(
        &self,
        conn: &mut Conn,
        changes: &mut [JudgedChange<'_>],
        mut passed_over: Vec<usize>,
        went: &[Went],
    ) -> Result<Result<Made, Written>, ApplyError> {
        let (mut all_there, mut parents) = (ALL_THERE, Parents { went, may_have_ended: false });
        loop {
            let tried = passed_over.len();
            let made = match self.make_up_once(conn, changes, passed_over, parents).await? {
                Ok(made) => made,
                Err(otherwise) => return Ok(Err(otherwise)),
            };
            all_there &= made.all_there;
            if made.left.is_empty() {
                return Ok(Ok(Made { left: made.left, all_there }));
            }
            if made.left.len() == tried {
                if parents.may_have_ended || !self.are_all_undone_later(changes, &made.left) {
                    return Ok(Ok(Made { left: made.left, all_there }));
                }
                parents.may_have_ended = true;
            }
            passed_over = made.left.into_iter().rev().map(|(place, _)| place).collect();
        }
    }

    /// All of these merely miss a parent, and their rows were moved on, which is undone: nobody refers to that parent any more,
    /// so it does not come back for their sake.
    fn are_all_undone_later(&self, changes: &[JudgedChange<'_>], left: &[(usize, Cause)]) -> bool {
        left.iter().all(|(place, cause)| {
            let misses_parent = matches!(cause, Cause::Refused(refused) if refused.misses_parent);
            let is_undone = |later: &JudgedChange<'_>| {
                later.aside.is_none() && later.is_undone() && self.is_of_row(later.change, changes[*place].change)
            };
            misses_parent && changes[place + 1..].iter().any(is_undone)
        })
    }

    async fn make_up_once(
        &self,
        conn: &mut Conn,
        changes: &mut [JudgedChange<'_>],
        mut passed_over: Vec<usize>,
        parents: Parents<'_>,
    ) -> Result<Result<Made, Written>, ApplyError> {
        let (mut left, mut all_there) = (Vec::new(), ALL_THERE);
        // The last one first: it may stand in for those before.
        while let Some(place) = passed_over.pop() {
            let stands_in = |later: usize| {
                let judged = &changes[later];
                let tells = judged.aside.is_none() && !judged.merges && !judged.is_undone();
                let counts = tells && left.iter().all(|(left, _)| *left != later);
                counts && self.is_of_row(judged.change, changes[place].change)
            };
            if (place + 1..changes.len()).any(stands_in) {
                continue;
            }
            let is_of_row = |later: usize| self.is_of_row(changes[later].change, changes[place].change);
            if changes[place].merges && (place + 1..changes.len()).any(is_of_row) {
                // Later ones of its row were merged without it, and would be undone.
                left.push((place, Cause::Behind));
                continue;
            }
            match self.make_up_one(conn, changes, place, parents).await? {
                MadeUp::Yes { all_there: there } => all_there &= there,
                MadeUp::No(cause) => left.push((place, cause)),
                MadeUp::Otherwise(written) => return Ok(Err(written)),
            }
        }
        Ok(Ok(Made { left, all_there }))
    }

    async fn make_up_one(
        &self,
        conn: &mut Conn,
        changes: &mut [JudgedChange<'_>],
        place: usize,
        parents: Parents<'_>,
    ) -> Result<MadeUp, ApplyError> {
        let change = changes[place].change;
        let Some(mut row) = changes[place].after().cloned() else { return Ok(MadeUp::No(Cause::Behind)) };
        for (later, parent) in changes.iter().enumerate().skip(place + 1) {
            for link in self.ended_parents(parent, (later, parents.went), (change.table, &row)) {
                let values: Vec<&Value> = link.columns.iter().map(|column| &row[*column]).collect();
                let of_parent = &self.shared.tables[parent.change.table];
                // An end that lost took nobody along, if there is a row that it should have ended; that which lost to another
                // end had none to end here, and whatever is there now has come since.
                let took_along = parent.arrives()
                    || parent.lost_to_an_end()
                    || of_parent.lock_where(conn, &link.referred, std::slice::from_ref(&values)).await?.is_empty();
                if took_along && link.on_delete == ReferentialAction::SetNull {
                    link.columns.iter().for_each(|column| row[*column] = Value::Null);
                } else if took_along {
                    let target = &self.shared.tables[change.table];
                    let key = change.after.iter().map(|after| target.key_of(after)).collect::<Vec<_>>();
                    let all_there = target.delete(conn, &key).await?;
                    return Ok(MadeUp::Yes { all_there });
                }
            }
            self.follow(parent, change.table, &mut row);
        }
        if parents.may_have_ended {
            match self.let_go_of_ended(conn, (change.table, &mut row), &change.seen).await? {
                None => return Ok(MadeUp::Otherwise(Written::NotCaptured)),
                // What is here under its key goes back to the source when the move is undone.
                Some(false) => return Ok(MadeUp::Yes { all_there: ALL_THERE }),
                Some(true) => {}
            }
        }
        let judged = &mut changes[place];
        let kept = judged.replace(row);
        // It has left its old key when it was passed over; later changes may have put another row there.
        judged.has_left = true;
        let came_back = judged.came_back;
        let written = self.write_change(conn, judged).await?;
        judged.came_back |= came_back;
        judged.has_left = false;
        judged.take_back(kept);
        match (written, judged.aside.take()) {
            (Written::AsJudged { all_there }, None) => Ok(MadeUp::Yes { all_there }),
            (Written::AsJudged { .. }, Some(cause)) => Ok(MadeUp::No(cause)),
            (otherwise, _) => Ok(MadeUp::Otherwise(otherwise)),
        }
    }

    /// Has a row let go of parents that users of the target have ended, as far as that is known. `false`: it cannot come without
    /// one of them. `None`: the opposite reader did not get there in time.
    async fn let_go_of_ended(
        &self,
        conn: &mut Conn,
        (table, row): (usize, &mut Row),
        seen: &Seen,
    ) -> Result<Option<bool>, ApplyError> {
        loop {
            match family::judge_orphan(self.shared, conn, table, (row, seen), self.manner.hold_limit).await? {
                Orphan::NotCaptured => return Ok(None),
                Orphan::Ruled(Ruling::LetsGo(columns)) => {
                    columns.iter().for_each(|column| row[*column] = Value::Null);
                }
                Orphan::Ruled(_) => return Ok(Some(false)),
                Orphan::Unexplained => return Ok(Some(true)),
            }
        }
    }

    /// How the child's row refers to what has ended by a later change, or with it, where it goes along, or its reference does.
    fn ended_parents(
        &self,
        judged: &JudgedChange<'_>,
        (later, went): (usize, &[Went]),
        (child, row): (usize, &Row),
    ) -> Vec<ChildLink> {
        let parent = judged.change;
        if judged.aside.is_some() || parent.op != RowOp::Delete {
            return Vec::new();
        }
        let ended = parent.before.as_ref().map(|before| (parent.table, before));
        let went = went.iter().filter(|went| went.place == later).map(|went| (went.table, &went.row));
        let links = ended.into_iter().chain(went).flat_map(|(table, before)| {
            let links = self.shared.children[table].iter().filter(move |link| refers(link, (child, row), before));
            links.filter(|link| link.on_delete != ReferentialAction::Restrict)
        });
        links.cloned().collect()
    }

    /// Lets the child's row follow its parent to the key that a later change has given that one.
    fn follow(&self, judged: &JudgedChange<'_>, child: usize, row: &mut Row) {
        let parent = judged.change;
        let (Some(before), Some(after)) = (&parent.before, &parent.after) else { return };
        if !judged.arrives() {
            return;
        }
        for link in self.shared.children[parent.table].iter().filter(|link| link.child == child) {
            let stays = link.referred.iter().all(|column| before[*column] == after[*column]);
            if stays || link.on_update == ReferentialAction::Restrict || !refers(link, (child, row), before) {
                continue;
            }
            for (column, referred) in link.columns.iter().zip(&link.referred) {
                row[*column] = match link.on_update {
                    ReferentialAction::SetNull => Value::Null,
                    _ => after[*referred].clone(),
                };
            }
        }
    }

    /// The later change says what becomes of the row that the earlier one leaves.
    fn is_of_row(&self, later: &MappedChange, earlier: &MappedChange) -> bool {
        let target = &self.shared.tables[earlier.table];
        let row: Option<&Row> = earlier.after.as_ref().filter(|_| later.table == earlier.table);
        let mut images = [&later.before, &later.after].into_iter().flatten();
        row.is_some_and(|row| images.any(|image| target.key_of(image) == target.key_of(row)))
    }
}
