//! A single change, and what becomes of one that the target refuses.

use crossfade_model::{FamilyPolicy, Row, RowOp, Seen};
use crossfade_rules::{Authority, Remedy, TableMapping};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::along;
use crate::detour;
use crate::error::{ApplyError, is_duplicate_key, is_missing_parent, row_remedy};
use crate::family::{self, Ending, Endings, Orphan, Ruling};
use crate::followers;
use crate::judged::JudgedChange;
use crate::lane::{Manner, Shared};
use crate::merging::{MergedRow, RowWork, merge_rows};
use crate::parking::Cause;
use crate::table::TargetTable;
use crate::uncopied;

use super::rows::{Put, move_row, put_one, row_error};
use super::{ALL_THERE, Written};

/// How and for whom rows are written.
#[derive(Clone, Copy)]
pub(crate) struct Context<'s> {
    pub shared: &'s Shared,
    pub concurrent: bool,
    pub manner: Manner,
}

/// What becomes of a row that the target refuses.
pub(super) enum AfterRefusal {
    /// It was written all the same, before its parent.
    Written,
    Aside(Cause),
    Ruled(Ruling),
    NotCaptured,
}

impl Context<'_> {
    /// Parents that are to be deleted, or to leave their keys. Where the children go, they are deleted here.
    pub(super) async fn endings(
        &self,
        conn: &mut Conn,
        table: usize,
        endings: &[Ending<'_>],
        moves: bool,
    ) -> Result<Endings, ApplyError> {
        let hold_limit = self.manner.may_hold();
        let found = family::judge_endings(self.shared, conn, table, endings, moves, hold_limit).await?;
        let (losses, mut outranking) = match found {
            Endings::Disputed { losses, outranking } => (losses, outranking),
            found => return Ok(found),
        };
        let lost = match self.shared.family {
            FamilyPolicy::ChildGoes => {
                outranking.extend(losses.iter().map(|(at, _)| *at));
                Vec::new()
            }
            FamilyPolicy::ParentReturns => losses,
        };
        // Else all is judged again, with what was lost.
        if lost.is_empty() {
            for at in outranking {
                family::end_children(self.shared, conn, table, &endings[at]).await?;
            }
            return Ok(Endings::Undisputed);
        }
        Ok(Endings::Disputed { losses: lost, outranking })
    }

    pub(super) async fn refused(
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
        if let Some(after) = after.filter(|_| may_come_first)
            && uncopied::lacking_parents(self.shared, conn, table, &[after]).await?[0]
        {
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
        self.keep_columns(conn, judged).await?;
        if self.manner.sighted_only && !mapping.keyless {
            judged.aside = Some(Cause::Held);
            return Ok(Written::AsJudged { all_there: ALL_THERE });
        }
        let moves = judged.moves_away(target);
        let respells = moves && self.respells(conn, judged).await?;
        let ends = moves && !respells || judged.deletes(mapping) && judged.successor.is_none();
        if let (true, Some(before)) = (self.concurrent && ends, &change.before) {
            let moves_to = change.after.as_ref().filter(|_| moves);
            let outranks = judged.standing.authority == Authority::Held;
            let ending = Ending { before, moves_to, seen: &change.seen, outranks };
            match self.endings(conn, change.table, &[ending], moves).await? {
                Endings::Undisputed | Endings::Undecided(_) => {}
                Endings::NotCaptured => return Ok(Written::NotCaptured),
                Endings::Disputed { losses, .. } => {
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
                    let ending = Ending { before, moves_to: None, seen: &change.seen, outranks: false };
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
        let unaware = match (judged.after().filter(|_| respells), self.manner.may_hold()) {
            (Some(after), Some(hold_limit)) => {
                let respelled: (&Row, &Seen) = (after, &change.seen);
                followers::unaware(self.shared, conn, change.table, &[respelled], hold_limit).await?
            }
            _ => Some(Vec::new()),
        };
        let Some(unaware) = unaware else { return Ok(Written::NotCaptured) };
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
                followers::spell_as_before(self.shared, conn, &unaware).await?;
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
    /// Has columns stay as they are at the target that users of it may change, and that the change leaves as they were.
    async fn keep_columns(&self, conn: &mut Conn, judged: &mut JudgedChange<'_>) -> Result<(), mysql_async::Error> {
        let (change, target) = (judged.change, &self.shared.tables[judged.change.table]);
        let entity = self.shared.entities.tables.table(change.table).filter(|entity| !entity.kept.is_empty());
        let (Some(entity), Some(before), Some(after)) = (entity, &change.before, &change.after) else { return Ok(()) };
        if judged.keeps && judged.arrives() && target.key_of(before) == target.key_of(after) {
            let found = target.lock_where(conn, target.key(), &[target.key_of(after)]).await?.pop();
            if let Some(found) = found {
                judged.keep(&entity.kept, &found);
            }
        }
        Ok(())
    }

    /// The row may have others that refer to it, and its key is merely spelled otherwise.
    async fn respells(&self, conn: &mut Conn, judged: &JudgedChange<'_>) -> Result<bool, ApplyError> {
        let (change, table) = (judged.change, judged.change.table);
        match change.before.as_ref().zip(change.after.as_ref()) {
            Some(images) if self.concurrent && !self.shared.children[table].is_empty() => {
                Ok(!followers::leaves_its_key(self.shared, conn, table, images).await?)
            }
            _ => Ok(false),
        }
    }

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
