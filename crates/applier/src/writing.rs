//! The statements that carry a lane's verdicts out, inside the lane's transaction.

use std::ops::Range;

use crossfade_model::{Row, RowOp, Value};
use crossfade_rules::plan::Dependences;
use crossfade_rules::{ChangeKind, NetChange, TableMapping};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::error::{ApplyError, Remedy, is_duplicate_key, row_remedy};
use crate::judged::{JudgedChange, JudgedLane, JudgedRow, JudgedStep};
use crate::lane::{Care, Manner, Shared};
use crate::parking::Cause;
use crate::read::same_image;
use crate::table::{Found, TargetTable};

/// Writing found every row that it was to delete.
const ALL_THERE: bool = true;

impl JudgedLane<'_> {
    /// Carries the verdicts out inside the open transaction.
    ///
    /// A row that the target refuses is an error, or is set aside where `manner` says so; what depends on it then goes
    /// with it.
    pub async fn write(&mut self, shared: &Shared, conn: &mut Conn, manner: Manner) -> Result<(), ApplyError> {
        let by_sight = self.by_sight || manner.sighted_only;
        let mut aside = Dependences::default();
        for step in &mut self.steps {
            step.hold_back(&shared.planner, &mut aside, |writes| writes);
            let all_there = match step {
                JudgedStep::Net { table, kind, rows } => {
                    let part = Part { shared, table: *table, kind: *kind, by_sight, manner };
                    let all_there = part.write(conn, rows).await?;
                    self.tally.by_sight += rows.iter().filter(|row| row.sighted && row.writes()).count() as u64;
                    for row in rows.iter().filter(|row| row.aside.is_some()) {
                        aside.add(&row.dependence(&shared.planner, *table));
                    }
                    all_there
                }
                JudgedStep::InOrder(changes) => write_all_in_order(shared, conn, changes, &mut aside, manner).await?,
            };
            self.missed |= !all_there;
        }
        Ok(())
    }
}

/// Rows of one table and one kind that do not depend on each other.
struct Part<'s> {
    shared: &'s Shared,
    table: usize,
    kind: ChangeKind,
    by_sight: bool,
    manner: Manner,
}

impl Part<'_> {
    /// Writes all rows at once. Where rows are to be isolated, what is refused is halved until the refused rows stand
    /// alone.
    async fn write(&self, conn: &mut Conn, rows: &mut [JudgedRow<'_>]) -> Result<bool, ApplyError> {
        let mut all_there = ALL_THERE;
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
                    if let [row] = part {
                        row.aside = Some(Cause::refused(source));
                    } else {
                        let middle = range.start.midpoint(range.end);
                        open.extend([middle..range.end, range.start..middle]);
                    }
                }
                Err(source) => {
                    let seqs = part.iter().filter(|row| row.writes()).flat_map(|row| row.net.seqs.iter());
                    return Err(row_error(&self.shared.mappings[self.table], seqs, source));
                }
            }
        }
        Ok(all_there)
    }

    async fn write_once(&self, conn: &mut Conn, rows: &mut [JudgedRow<'_>]) -> Result<bool, mysql_async::Error> {
        let (mapping, target) = (&self.shared.mappings[self.table], &self.shared.tables[self.table]);
        let sight = self.by_sight && mapping.strict_clock;
        if self.manner.sighted_only {
            self.set_unsighted_aside(conn, rows, sight).await?;
        }
        match self.kind {
            ChangeKind::Insert if self.manner.care == Care::Optimistic => {
                insert(target, conn, rows).await.map(|()| ALL_THERE)
            }
            ChangeKind::Insert => put(target, conn, rows, false).await.map(|()| ALL_THERE),
            ChangeKind::Update => put(target, conn, rows, sight).await.map(|()| ALL_THERE),
            ChangeKind::Delete => delete(target, conn, rows, sight).await,
            ChangeKind::KeyChange => rekey(target, conn, rows).await,
        }
    }

    /// Only what the locked row proves can be written while the opposite direction does not answer.
    async fn set_unsighted_aside(
        &self,
        conn: &mut Conn,
        rows: &mut [JudgedRow<'_>],
        sight: bool,
    ) -> Result<(), mysql_async::Error> {
        let target = &self.shared.tables[self.table];
        let sight = sight && matches!(self.kind, ChangeKind::Update | ChangeKind::Delete);
        for row in rows.iter_mut().filter(|row| row.writes()) {
            let sighted = match &row.net.before {
                Some(before) if sight && !row.net.transient => {
                    let found = target.lock(conn, &[target.key_of(before)], true).await?;
                    is_sighted(found[0].as_ref(), Some(before))
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

async fn write_all_in_order(
    shared: &Shared,
    conn: &mut Conn,
    changes: &mut [JudgedChange<'_>],
    aside: &mut Dependences,
    manner: Manner,
) -> Result<bool, ApplyError> {
    let mut all_there = ALL_THERE;
    for judged in changes.iter_mut().filter(|judged| judged.writes()) {
        let table = judged.change.table;
        let (mapping, target) = (&shared.mappings[table], &shared.tables[table]);
        let dependence = || judged.dependence(&shared.planner);
        if !aside.is_empty() && aside.hold_back(&dependence()) {
            judged.aside = Some(Cause::Behind);
        } else if manner.sighted_only && !mapping.keyless {
            judged.aside = Some(Cause::Held);
        } else {
            if manner.isolate {
                conn.query_drop("SAVEPOINT part").await?;
            }
            match write_in_order(mapping, target, conn, judged).await {
                Ok(there) => all_there &= there,
                Err(source) if manner.isolate && row_remedy(&source) == Remedy::Park => {
                    conn.query_drop("ROLLBACK TO SAVEPOINT part").await?;
                    judged.aside = Some(Cause::refused(source));
                }
                Err(source) => return Err(row_error(mapping, std::iter::once(judged.change.seq), source)),
            }
        }
        if judged.aside.is_some() {
            aside.add(&judged.dependence(&shared.planner));
        }
    }
    Ok(all_there)
}

async fn insert(target: &TargetTable, conn: &mut Conn, rows: &[JudgedRow<'_>]) -> Result<(), mysql_async::Error> {
    let written: Vec<&Row> = rows.iter().filter(|row| row.arrives()).filter_map(|row| row.net.after.as_ref()).collect();
    target.insert(conn, &written).await
}

/// Makes rows what the changes say, whether they exist or not.
async fn put(
    target: &TargetTable,
    conn: &mut Conn,
    rows: &mut [JudgedRow<'_>],
    sight: bool,
) -> Result<(), mysql_async::Error> {
    let mut winners: Vec<(&mut bool, &NetChange, &Row)> = rows
        .iter_mut()
        .filter(|row| row.arrives())
        .filter_map(|row| row.net.after.as_ref().map(|after| (&mut row.sighted, row.net, after)))
        .collect();
    let keys: Vec<Vec<&Value>> = winners.iter().map(|(_, _, after)| target.key_of(after)).collect();
    let found = target.lock(conn, &keys, sight).await?;
    let (mut present, mut absent) = (Vec::new(), Vec::new());
    for ((sighted, net, after), found) in winners.iter_mut().zip(&found) {
        **sighted = sight && is_sighted(found.as_ref(), net.before.as_ref());
        if found.is_some() { present.push(*after) } else { absent.push(*after) }
    }
    target.overwrite(conn, &present).await?;
    insert_absent(target, conn, absent).await
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
        let found = target.lock(conn, &keys, false).await?;
        let (mut present, mut missing) = (Vec::new(), Vec::new());
        for (row, found) in absent.iter().zip(&found) {
            if found.is_some() { present.push(*row) } else { missing.push(*row) }
        }
        if present.is_empty() {
            return Err(duplicate);
        }
        target.overwrite(conn, &present).await?;
        absent = missing;
    }
}

fn is_sighted(found: Option<&Found>, before: Option<&Row>) -> bool {
    matches!((found, before), (Some(found), Some(before)) if same_image(&found.row, before))
}

async fn delete(
    target: &TargetTable,
    conn: &mut Conn,
    rows: &mut [JudgedRow<'_>],
    sight: bool,
) -> Result<bool, mysql_async::Error> {
    let mut winners: Vec<&mut JudgedRow<'_>> = rows.iter_mut().filter(|row| row.arrives()).collect();
    let keys: Vec<Vec<&Value>> =
        winners.iter().filter_map(|row| row.net.before.as_ref()).map(|before| target.key_of(before)).collect();
    if sight {
        let found = target.lock(conn, &keys, true).await?;
        for (row, found) in winners.iter_mut().zip(&found) {
            row.sighted = !row.net.transient && is_sighted(found.as_ref(), row.net.before.as_ref());
        }
    }
    target.delete(conn, &keys).await
}

async fn rekey(target: &TargetTable, conn: &mut Conn, rows: &[JudgedRow<'_>]) -> Result<bool, mysql_async::Error> {
    let mut all_there = ALL_THERE;
    for row in rows {
        if let (Some(before), Some(after)) = (&row.net.before, &row.net.after) {
            all_there &= move_row(target, conn, before, after, row.leaves(), row.arrives()).await?;
        }
    }
    Ok(all_there)
}

/// Moves a row to its new key: one UPDATE where the old key is there and the new one free, else by parts.
async fn move_row(
    target: &TargetTable,
    conn: &mut Conn,
    before: &Row,
    after: &Row,
    leave: bool,
    arrive: bool,
) -> Result<bool, mysql_async::Error> {
    let (old_key, new_key) = (target.key_of(before), target.key_of(after));
    let found = target.lock(conn, &[old_key.clone(), new_key.clone()], false).await?;
    let (old_there, new_there) = (found[0].is_some(), found[1].is_some());
    match (leave, arrive) {
        (true, true) if old_there && !new_there => target.rekey(conn, &old_key, after).await.map(|()| ALL_THERE),
        // Keys that only the server takes for one: the row is found under both.
        (true, true) if old_there && target.is_same_key(conn, &old_key, &new_key).await? => {
            target.rekey(conn, &old_key, after).await.map(|()| ALL_THERE)
        }
        _ => {
            let all_there = !leave || target.delete(conn, std::slice::from_ref(&old_key)).await?;
            match (arrive, new_there) {
                (true, true) => target.overwrite(conn, &[after]).await?,
                (true, false) => insert_absent(target, conn, vec![after]).await?,
                (false, _) => {}
            }
            Ok(all_there)
        }
    }
}

async fn write_in_order(
    mapping: &TableMapping,
    target: &TargetTable,
    conn: &mut Conn,
    judged: &JudgedChange<'_>,
) -> Result<bool, mysql_async::Error> {
    let change = judged.change;
    if mapping.keyless {
        match (&change.before, &change.after) {
            (None, Some(after)) => target.insert(conn, &[after]).await?,
            (Some(before), Some(after)) => target.update_whole(conn, before, after).await?,
            (Some(before), None) => target.delete_whole(conn, before).await?,
            (None, None) => {}
        }
        return Ok(ALL_THERE);
    }
    let (leave, arrive) = (judged.leaves(), judged.arrives());
    match (change.op, &change.before, &change.after) {
        (RowOp::Update, Some(before), Some(after)) if target.key_of(before) != target.key_of(after) => {
            move_row(target, conn, before, after, leave, arrive).await
        }
        (_, _, Some(after)) if arrive => {
            let found = target.lock(conn, &[target.key_of(after)], false).await?;
            if found[0].is_some() {
                target.overwrite(conn, &[after]).await?;
            } else {
                insert_absent(target, conn, vec![after]).await?;
            }
            Ok(ALL_THERE)
        }
        (RowOp::Delete, Some(before), None) if arrive => target.delete(conn, &[target.key_of(before)]).await,
        _ => Ok(ALL_THERE),
    }
}
