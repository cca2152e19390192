//! A lane's changes with their verdicts, and the statements that carry the verdicts out.

use crossfade_message::{Outcome, Status};
use crossfade_model::{Clock, MessageId, Row, RowOp, Seen, Value};
use crossfade_rules::decide::LossStatus;
use crossfade_rules::decide::{LossReason, WriteReason};
use crossfade_rules::{ChangeKind, LanePlan, Loss, MappedChange, NetChange, Seqs, Step, TableMapping, Verdict};
use mysql_async::Conn;

use crate::error::{ApplyError, is_duplicate_key};
use crate::lane::{Care, Shared};
use crate::lookup::{Lookup, Subject};
use crate::read::same_image;
use crate::table::{Found, TargetTable};

/// Up to so many rows, a lane reads the rows that it overwrites in order to judge them by sight. A larger lane asks only
/// whether they exist, and confirms them all with one wait.
const SIGHT_ROWS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    AsWritten,
    Otherwise,
}

pub(crate) struct JudgedLane<'a> {
    steps: Vec<JudgedStep<'a>>,
    concurrent: bool,
    by_sight: bool,
    /// A row that was to be deleted was not there.
    missed: bool,
    pub tally: Tally,
}

/// How the changes of a lane were judged.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub messages: u64,
    pub won: u64,
    pub lost: u64,
    pub by_sight: u64,
    pub by_waiting: u64,
}

enum JudgedStep<'a> {
    Net { table: usize, kind: ChangeKind, rows: Vec<JudgedRow<'a>> },
    InOrder(Vec<JudgedChange<'a>>),
}

struct JudgedRow<'a> {
    net: &'a NetChange,
    /// Of the key that the row has in the end.
    verdict: Verdict,
    /// Of the key that a moved row leaves.
    departure: Verdict,
    /// The locked row was what the change's writer had before him.
    sighted: bool,
}

struct JudgedChange<'a> {
    change: &'a MappedChange,
    verdict: Verdict,
    departure: Verdict,
}

const UNDISPUTED: Verdict = Verdict::Write(WriteReason::NothingConcurrent);

/// Writing found every row that it was to delete.
const ALL_THERE: bool = true;

fn is_write(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Write(_))
}

impl<'a> JudgedLane<'a> {
    pub fn new(plan: &'a LanePlan, concurrent: bool) -> JudgedLane<'a> {
        let mut rows_total = 0;
        let steps = plan
            .steps
            .iter()
            .map(|step| match step {
                Step::Net { table, kind, rows } => {
                    rows_total += rows.len();
                    let rows = rows
                        .iter()
                        .map(|net| JudgedRow { net, verdict: UNDISPUTED, departure: UNDISPUTED, sighted: false })
                        .collect();
                    JudgedStep::Net { table: *table, kind: *kind, rows }
                }
                Step::InOrder(changes) => {
                    rows_total += changes.len();
                    let judged = |change| JudgedChange { change, verdict: UNDISPUTED, departure: UNDISPUTED };
                    JudgedStep::InOrder(changes.iter().map(judged).collect())
                }
            })
            .collect();
        let by_sight = concurrent && rows_total <= SIGHT_ROWS;
        JudgedLane {
            steps,
            concurrent,
            by_sight,
            missed: false,
            tally: Tally { messages: plan.messages, ..Tally::default() },
        }
    }

    /// Judges every change by what is captured so far.
    pub async fn judge(&mut self, shared: &Shared, lookup: &mut Lookup, conn: &mut Conn) -> Result<(), ApplyError> {
        for step in &mut self.steps {
            match step {
                JudgedStep::Net { table, rows, .. } => {
                    let (mapping, target) = (&shared.mappings[*table], &shared.tables[*table]);
                    for row in rows {
                        (row.verdict, row.departure) = judge_net(mapping, target, row.net, lookup, conn).await?;
                    }
                }
                JudgedStep::InOrder(changes) => {
                    for judged in changes {
                        let table = judged.change.table;
                        let (mapping, target) = (&shared.mappings[table], &shared.tables[table]);
                        (judged.verdict, judged.departure) =
                            judge_change(mapping, target, judged.change, lookup, conn).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Judges again what was written and not sighted, with what was captured meanwhile.
    pub async fn confirm(
        &mut self,
        shared: &Shared,
        lookup: &mut Lookup,
        conn: &mut Conn,
    ) -> Result<Judged, ApplyError> {
        let turned = |before: (Verdict, Verdict), after: (Verdict, Verdict)| {
            is_write(before.0) != is_write(after.0) || is_write(before.1) != is_write(after.1)
        };
        for step in &mut self.steps {
            match step {
                JudgedStep::Net { table, rows, .. } => {
                    let (mapping, target) = (&shared.mappings[*table], &shared.tables[*table]);
                    for row in rows.iter_mut().filter(|row| !row.sighted) {
                        let now = judge_net(mapping, target, row.net, lookup, conn).await?;
                        if turned((row.verdict, row.departure), now) {
                            return Ok(Judged::Otherwise);
                        }
                        (row.verdict, row.departure) = now;
                        self.tally.by_waiting += 1;
                    }
                }
                JudgedStep::InOrder(changes) => {
                    for judged in changes {
                        let table = judged.change.table;
                        let (mapping, target) = (&shared.mappings[table], &shared.tables[table]);
                        let now = judge_change(mapping, target, judged.change, lookup, conn).await?;
                        if turned((judged.verdict, judged.departure), now) {
                            return Ok(Judged::Otherwise);
                        }
                        (judged.verdict, judged.departure) = now;
                        self.tally.by_waiting += 1;
                    }
                }
            }
        }
        Ok(Judged::AsWritten)
    }

    /// Something was written that only a captured stream can confirm.
    pub fn must_be_confirmed(&self) -> bool {
        self.concurrent
            && self.steps.iter().any(|step| match step {
                JudgedStep::Net { rows, .. } => {
                    rows.iter().any(|row| !row.sighted && (is_write(row.verdict) || is_write(row.departure)))
                }
                JudgedStep::InOrder(changes) => {
                    changes.iter().any(|judged| is_write(judged.verdict) || is_write(judged.departure))
                }
            })
    }

    /// Some delete found nothing, and a user might insert the row unseen.
    pub fn missed_rows(&self) -> bool {
        self.concurrent && self.missed
    }

    /// The losers, as the message table keeps them.
    pub fn outcomes(&mut self, shared: &Shared) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut won = 0;
        for ended in self.steps.iter().flat_map(JudgedStep::ends) {
            match ended.verdict {
                Verdict::Lose(loss) => {
                    outcomes.extend(ended.seqs.iter().map(|seq| outcome(shared, &ended, *seq, loss)));
                }
                Verdict::Write(WriteReason::Won { .. }) => won += 1,
                Verdict::Write(WriteReason::NothingConcurrent) => {}
            }
        }
        self.tally.won = won;
        self.tally.lost = outcomes.len() as u64;
        outcomes
    }

    /// Carries the verdicts out inside the open transaction.
    pub async fn write(&mut self, shared: &Shared, conn: &mut Conn, care: Care) -> Result<(), ApplyError> {
        let by_sight = self.by_sight;
        for step in &mut self.steps {
            match step {
                JudgedStep::Net { table, kind, rows } => {
                    let (mapping, target) = (&shared.mappings[*table], &shared.tables[*table]);
                    let written = match kind {
                        ChangeKind::Insert if care == Care::Optimistic => {
                            insert(target, conn, rows).await.map(|()| ALL_THERE)
                        }
                        ChangeKind::Insert | ChangeKind::Update => {
                            let sight = by_sight && mapping.strict_clock && *kind == ChangeKind::Update;
                            put(target, conn, rows, sight).await.map(|()| ALL_THERE)
                        }
                        ChangeKind::Delete => delete(target, conn, rows, by_sight && mapping.strict_clock).await,
                        ChangeKind::KeyChange => rekey(target, conn, rows).await,
                    };
                    let all_there =
                        written.map_err(|source| row_error(mapping, rows.iter().map(|row| &row.net.seqs), source))?;
                    self.missed |= !all_there;
                    self.tally.by_sight += rows.iter().filter(|row| row.sighted).count() as u64;
                }
                JudgedStep::InOrder(changes) => {
                    for judged in changes {
                        let (mapping, target) =
                            (&shared.mappings[judged.change.table], &shared.tables[judged.change.table]);
                        let seqs = Seqs::one(judged.change.seq);
                        let all_there = write_in_order(mapping, target, conn, judged)
                            .await
                            .map_err(|source| row_error(mapping, std::iter::once(&seqs), source))?;
                        self.missed |= !all_there;
                    }
                }
            }
        }
        Ok(())
    }
}

fn row_error<'s>(
    mapping: &TableMapping,
    seqs: impl Iterator<Item = &'s Seqs>,
    source: mysql_async::Error,
) -> ApplyError {
    let (first, last) =
        seqs.fold((u64::MAX, 0), |(first, last), seqs| (first.min(seqs.first()), last.max(seqs.last())));
    ApplyError::Row { table: mapping.target.clone(), first, last, source: source.into() }
}

/// How one key's changes ended.
struct Ended {
    table: usize,
    verdict: Verdict,
    seqs: Vec<u64>,
    effective: Option<Clock>,
}

impl JudgedStep<'_> {
    fn ends(&self) -> Vec<Ended> {
        match self {
            JudgedStep::Net { table, rows, .. } => rows.iter().flat_map(|row| row.ends(*table)).collect(),
            JudgedStep::InOrder(changes) => changes.iter().map(JudgedChange::end).collect(),
        }
    }
}

impl JudgedRow<'_> {
    /// A moved row ends once as the row that arrives; where only its leaving lost, as that.
    fn ends(&self, table: usize) -> Vec<Ended> {
        let net = self.net;
        let arrival = Ended { table, verdict: self.verdict, seqs: net.seqs.iter().collect(), effective: net.effective };
        match &net.moved_from {
            Some(departure) if is_write(self.verdict) && !is_write(self.departure) => vec![
                arrival,
                Ended {
                    table,
                    verdict: self.departure,
                    seqs: departure.seqs.iter().collect(),
                    effective: departure.effective,
                },
            ],
            _ => vec![arrival],
        }
    }
}

impl JudgedChange<'_> {
    fn end(&self) -> Ended {
        let MappedChange { table, seq, effective, .. } = *self.change;
        Ended { table, verdict: self.verdict, seqs: vec![seq], effective }
    }
}

fn outcome(shared: &Shared, ended: &Ended, seq: u64, loss: Loss) -> Outcome {
    Outcome {
        seq,
        table: shared.mappings[ended.table].source.clone(),
        status: match loss.status {
            LossStatus::ConflictLost => Status::ConflictLost,
            LossStatus::Stale => Status::Stale,
        },
        reason: loss.reason.to_string(),
        winner: Some(MessageId { stream: crate::opposite_stream(&shared.owner.stream), seq: loss.winner }),
        source_clock: ended.effective,
        target_clock: match loss.reason {
            LossReason::LaterClock { winner, .. } => winner,
            LossReason::EqualClocks { clock, .. } => clock,
            LossReason::PreferredSide { .. } => None,
        },
    }
}

fn key_of<'r>(mapping: &TableMapping, row: &'r Row) -> Vec<&'r Value> {
    mapping.row_key.iter().filter_map(|index| row.get(*index)).collect()
}

async fn judge_net(
    mapping: &TableMapping,
    target: &TargetTable,
    net: &NetChange,
    lookup: &mut Lookup,
    conn: &mut Conn,
) -> Result<(Verdict, Verdict), ApplyError> {
    let Some(last) = net.after.as_ref().or(net.before.as_ref()) else { return Ok((UNDISPUTED, UNDISPUTED)) };
    let key = key_of(mapping, last);
    let subject = Subject { mapping, key: &key, effective: net.effective, seen: &net.seen };
    let arrival = lookup.judge(&subject, target, conn).await?;
    let departure = match (&net.moved_from, &net.before) {
        (Some(departure), Some(before)) => {
            let key = key_of(mapping, before);
            let subject = Subject { mapping, key: &key, effective: departure.effective, seen: &departure.seen };
            lookup.judge(&subject, target, conn).await?
        }
        _ => UNDISPUTED,
    };
    Ok((arrival, departure))
}

async fn judge_change(
    mapping: &TableMapping,
    target: &TargetTable,
    change: &MappedChange,
    lookup: &mut Lookup,
    conn: &mut Conn,
) -> Result<(Verdict, Verdict), ApplyError> {
    if mapping.keyless {
        return Ok((UNDISPUTED, UNDISPUTED));
    }
    let seen: &Seen = &change.seen;
    let mut verdicts = [UNDISPUTED; 2];
    let images = [change.after.as_ref().or(change.before.as_ref()), change.before.as_ref()];
    for (verdict, image) in verdicts.iter_mut().zip(images) {
        if let Some(image) = image {
            let key = key_of(mapping, image);
            let subject = Subject { mapping, key: &key, effective: change.effective, seen };
            *verdict = lookup.judge(&subject, target, conn).await?;
        }
    }
    Ok((verdicts[0], verdicts[1]))
}

async fn insert(target: &TargetTable, conn: &mut Conn, rows: &[JudgedRow<'_>]) -> Result<(), mysql_async::Error> {
    let written: Vec<&Row> =
        rows.iter().filter(|row| is_write(row.verdict)).filter_map(|row| row.net.after.as_ref()).collect();
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
        .filter(|row| is_write(row.verdict))
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
    let mut winners: Vec<&mut JudgedRow<'_>> = rows.iter_mut().filter(|row| is_write(row.verdict)).collect();
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
            all_there &= move_row(target, conn, before, after, is_write(row.departure), is_write(row.verdict)).await?;
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
    let (leave, arrive) = (is_write(judged.departure), is_write(judged.verdict));
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
