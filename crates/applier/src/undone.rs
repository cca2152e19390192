//! Changes of a row's key that have lost are undone where they were made: see [`crossfade_rules::moves`].
//!
//! Neither of their halves is written here. What is here under the two keys goes back to the source in the same transaction, as
//! a change of the opposite stream: a row, or the end of the one that the source has there. What a change of the target tells
//! of a key, which has beaten the move there and is on its way, is not told twice.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use crossfade_model::{Clock, Message, Origin, ReferentialAction, Row, RowChange, RowOp, Seen};
use crossfade_rules::moves::undo_clock;
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::family::{self, Returning, numbered, send_back};
use crate::followers::{self, Follower};
use crate::judged::{JudgedStep, LostMove};
use crate::lane::{Manner, Shared};

/// What was found here under the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Rows,
    /// Under some key nothing, and only locked gaps keep a user from inserting a row there.
    Absent,
}

/// What came of undoing.
pub(crate) struct Undone<'s> {
    pub found: Found,
    pub followers: Vec<Followers<'s>>,
}

/// What has followed a row to its new key where it was moved.
pub(crate) struct Followers<'s> {
    rows: Vec<Follower>,
    /// What the one who moved the row had seen.
    seen: &'s Seen,
}

/// What goes back, and what of it was looked at.
struct Undoing<'s> {
    shared: &'s Shared,
    known: BTreeSet<(usize, u64)>,
    /// The youngest generation of followers comes last, and ends first.
    follower_ends: Vec<(RowChange, Clock)>,
    ends: Vec<(RowChange, Clock)>,
    rows: Vec<(RowChange, Clock)>,
    followers: Vec<Followers<'s>>,
    /// Of these the lane has changes of their own.
    changed: BTreeSet<(usize, u64)>,
    found: Found,
}

/// `answers` go back with what is undone: rows as they are here, which give up values and take others.
pub(crate) async fn undo<'s>(
    shared: &'s Shared,
    conn: &mut Conn,
    steps: &'s [JudgedStep<'_>],
    answers: Vec<(RowChange, Option<Clock>)>,
) -> Result<Undone<'s>, ApplyError> {
    let lost_moves: Vec<LostMove<'_>> = steps.iter().flat_map(JudgedStep::lost_moves).collect();
    if lost_moves.is_empty() && answers.is_empty() {
        return Ok(Undone { found: Found::Rows, followers: Vec::new() });
    }
    let endings = steps.iter().flat_map(JudgedStep::endings);
    let mut undoing = Undoing {
        shared,
        known: BTreeSet::new(),
        follower_ends: Vec::new(),
        ends: Vec::new(),
        rows: Vec::new(),
        followers: Vec::new(),
        changed: endings.map(|ended| (ended.table, shared.exact_key(ended.table, ended.before))).collect(),
        found: Found::Rows,
    };
    for lost in &lost_moves {
        undoing.look_where_it_went(conn, lost).await?;
    }
    for lost in &lost_moves {
        undoing.look_where_it_was(conn, lost).await?;
    }
    let Undoing { follower_ends, ends, rows, followers, found, .. } = undoing;
    // Values are given up before they are taken.
    let clocked = |(change, clock): (RowChange, Clock)| (change, Some(clock));
    let ends = follower_ends.into_iter().rev().chain(ends).map(clocked);
    let goes_back = ends.chain(answers).chain(rows.into_iter().map(clocked));
    let (changes, clocks): (Vec<RowChange>, Vec<_>) = goes_back.unzip();
    let messages = numbered(changes, Origin::Ruled).into_iter().zip(clocks);
    let messages: Vec<Message> = messages.map(|(message, effective)| Message { effective, ..message }).collect();
    send_back(shared, conn, &messages).await?;
    Ok(Undone { found, followers })
}

/// What went with a row whose end is undone, or followed one whose move is, and perhaps is in no binlog, comes back after it.
/// `false`: the opposite reader did not get there in time.
pub(crate) async fn return_children(
    shared: &Shared,
    conn: &mut Conn,
    steps: &[JudgedStep<'_>],
    followers: Vec<Followers<'_>>,
    manner: Manner,
) -> Result<bool, ApplyError> {
    for Followers { rows, seen } in followers {
        if !followers::give_back(shared, conn, rows, (seen, manner.may_hold())).await? {
            return Ok(false);
        }
    }
    let mut known = BTreeSet::new();
    let ends: Vec<LostMove<'_>> = steps.iter().flat_map(JudgedStep::lost_moves).filter(|lost| !lost.is_there).collect();
    // Who ended the row last had seen most.
    for lost in ends.iter().rev() {
        let may_cascade = shared.children[lost.table].iter().any(|link| link.on_delete != ReferentialAction::Restrict);
        if !may_cascade || !known.insert((lost.table, shared.exact_key(lost.table, lost.reached))) {
            continue;
        }
        let key = shared.tables[lost.table].key_of(lost.reached);
        let returning = Returning { key, seen: lost.seen, hold_limit: manner.may_hold() };
        if !family::return_children(shared, conn, lost.table, returning).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl<'s> Undoing<'s> {
    async fn look_where_it_went(&mut self, conn: &mut Conn, lost: &LostMove<'_>) -> Result<(), ApplyError> {
        let here = self.row_at(conn, lost.table, lost.reached).await?;
        let comes = here.is_some();
        let is_new = match here {
            // What is merged does not take the place of all that was there.
            Some(row) if lost.is_untold || self.shared.mappings[lost.table].merge.is_some() => {
                self.return_row(lost.table, row, self.clock(lost))
            }
            Some(_) => false,
            None => {
                self.found = Found::Absent;
                lost.is_there && self.known.insert((lost.table, self.shared.exact_key(lost.table, lost.reached)))
            }
        };
        // Also before another row comes, since that one may have what the row there has; but not where children would go too.
        let is_parent = !self.shared.children[lost.table].is_empty();
        // A late row that stands at its own key merely becomes what it is here.
        let stays = is_parent || lost.is_late && lost.moved_from.is_none();
        if is_new && lost.is_there && !(stays && comes) {
            let end = self.change(lost.table, RowOp::Delete, Some(lost.reached.clone()), None);
            self.ends.push((end, self.clock(lost)));
        }
        Ok(())
    }

    async fn look_where_it_was(&mut self, conn: &mut Conn, lost: &LostMove<'s>) -> Result<(), ApplyError> {
        if let Some(before) = lost.moved_from
            && !self.shared.children[lost.table].is_empty()
            && let Some(row) = self.row_at(conn, lost.table, before).await?
        {
            self.look_who_followed(conn, lost, (before, row)).await?;
        }
        let Some(left) = lost.left else { return Ok(()) };
        match self.row_at(conn, lost.table, left).await? {
            Some(row) => {
                self.return_row(lost.table, row, self.clock(lost));
            }
            None => self.found = Found::Absent,
        }
        Ok(())
    }

    /// What refers here to the row that stays has gone with it where it was moved. Where that is in the binlog, the change of
    /// its own tells what becomes of it.
    async fn look_who_followed(
        &mut self,
        conn: &mut Conn,
        lost: &LostMove<'s>,
        (before, row): (&Row, Row),
    ) -> Result<(), ApplyError> {
        let mut there = row.clone();
        for (column, (left, reached)) in before.iter().zip(lost.reached.iter()).enumerate() {
            if left != reached {
                there[column] = reached.clone();
            }
        }
        let mut rows = followers::of_row(self.shared, conn, lost.table, (row, there)).await?;
        rows.retain(|row| !self.changed.contains(&(row.table, self.shared.exact_key(row.table, &row.row))));
        for row in rows.iter().filter(|row| row.has_left_its_key) {
            let end = self.change(row.table, RowOp::Delete, Some(row.there.clone()), None);
            self.follower_ends.push((end, self.clock_in(row.table, None)));
        }
        if !rows.is_empty() {
            self.followers.push(Followers { rows, seen: lost.seen });
        }
        Ok(())
    }

    fn clock(&self, lost: &LostMove<'_>) -> Clock {
        self.clock_in(lost.table, lost.effective)
    }

    fn clock_in(&self, table: usize, lost: Option<Clock>) -> Clock {
        undo_clock(&self.shared.mappings[table], lost, now_micros())
    }

    /// What is here under the key of this image, locked.
    async fn row_at(&self, conn: &mut Conn, table: usize, image: &Row) -> Result<Option<Row>, ApplyError> {
        let target = &self.shared.tables[table];
        Ok(target.lock_where(conn, target.key(), &[target.key_of(image)]).await?.pop())
    }

    /// `false`: it is on its way already.
    fn return_row(&mut self, table: usize, row: Row, at_least: Clock) -> bool {
        let is_new = self.known.insert((table, self.shared.exact_key(table, &row)));
        if is_new {
            self.rows.push((self.change(table, RowOp::Insert, None, Some(row)), at_least));
        }
        is_new
    }

    fn change(&self, table: usize, op: RowOp, before: Option<Row>, after: Option<Row>) -> RowChange {
        RowChange { layout: self.shared.layouts[table].clone(), op, before, after, event_index: 0 }
    }
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
