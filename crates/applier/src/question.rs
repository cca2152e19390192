//! Rows that come back, or to another key, without what hangs on them.
//!
//! One side has ended a row's parent, and with it the row, and all that hung on it; its binlog may tell of none of that. The other
//! side has given the row another parent meanwhile, or the parent itself another key. What arrives then brings back that one
//! row. Only the side that has changed it knows what hangs on it, and only the side where it was gone knows that it was: so that
//! one asks, by a message of the opposite stream that changes nothing, and what hangs on the row goes back, as weak as any row
//! that returns. Users of the side that is asked may have given the row yet another key since: it is found by that.
//!
//! While nobody tells what users of the side that is asked did, nobody knows where the row is: the question is set aside then, and
//! answered when that is told again. What its asker did to the row before is to be applied then, and what he does to it later is
//! not: so questions are a batch of their own.

use std::time::Duration;

use crossfade_model::{Message, Origin, ReferentialAction, Row, RowChange, RowOp, Seen, Value};
use crossfade_rules::MappedChange;
use crossfade_rules::mapping::ChildLink;
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::family::{self, GivenBack, numbered, send_back};
use crate::judged::{JudgedLane, JudgedStep};
use crate::lane::{Manner, Shared};
use crate::lookup::Subject;
use crate::parking::{Aside, Cause};
use crate::session;

/// Takes the questions out of messages that are to be planned.
pub(crate) fn take(messages: &mut Vec<Message>) -> Vec<Message> {
    messages.extract_if(.., |message| message.origin == Origin::Asked).collect()
}

/// Makes questions a batch of their own: those that the messages begin with are left, or what comes before the first.
pub(crate) fn keep_apart(messages: &mut Vec<Message>) {
    let others = messages.iter().take_while(|message| message.origin != Origin::Asked).count();
    messages.truncate(others.max(first_questions(messages)));
}

/// Leaves what comes up to the first questions, and these.
pub(crate) fn leave_what_follows(messages: &mut Vec<Message>) {
    let others = messages.iter().take_while(|message| message.origin != Origin::Asked).count();
    messages.truncate(others + first_questions(&messages[others..]));
}

/// How many questions these begin with.
fn first_questions(messages: &[Message]) -> usize {
    messages.iter().take_while(|message| message.origin == Origin::Asked).count()
}

/// A row that has come without what hangs on it would have that on its own side.
fn may_hang(link: &ChildLink) -> bool {
    link.on_delete != ReferentialAction::Restrict || link.on_update != ReferentialAction::Restrict
}

/// Asks for what hangs on rows that have come back.
pub(crate) async fn ask(shared: &Shared, conn: &mut Conn, lane: &JudgedLane<'_>) -> Result<(), ApplyError> {
    if !lane.concurrent {
        return Ok(());
    }
    let mut asked = Vec::new();
    for (table, row) in lane.steps.iter().flat_map(JudgedStep::came_back) {
        // What a backfill has yet to copy has never been here.
        if shared.children[table].iter().any(may_hang) && !shared.uncopied.has(table) {
            let (layout, row) = (shared.layouts[table].clone(), row.clone());
            let (before, after) = (Some(row.clone()), Some(row));
            asked.push(RowChange { layout, op: RowOp::Update, before, after, event_index: 0 });
        }
    }
    send_back(shared, conn, &numbered(asked, Origin::Asked)).await
}

/// How a lane's questions have ended.
pub(crate) enum Answered {
    All,
    /// These are set aside, since the opposite reader is away: where the rows are is not known.
    Later(Vec<Aside>),
    /// The opposite reader did not get there in time.
    NotCaptured,
}

/// Gives back what hangs on the rows that the other side asks about.
pub(crate) async fn answer(
    shared: &Shared,
    conn: &mut Conn,
    questions: &[MappedChange],
    manner: Manner,
) -> Result<Answered, ApplyError> {
    let Some(hold_limit) = manner.may_hold() else {
        return Ok(Answered::Later(questions.iter().map(|question| aside(shared, question)).collect()));
    };
    for MappedChange { table, after, seen, .. } in questions {
        let Some(after) = after else { continue };
        let Some(rows) = rows_by_now(shared, conn, (*table, after), (seen, hold_limit)).await? else {
            return Ok(Answered::NotCaptured);
        };
        let parents: Vec<&Row> = rows.iter().collect();
        let hanging = family::descendants(shared, conn, *table, &parents, may_hang).await?;
        let hanging: Vec<GivenBack> = hanging.into_iter().map(GivenBack::whole).collect();
        if !hanging.is_empty() && !family::give_back(shared, conn, hanging, (seen, Some(hold_limit))).await? {
            return Ok(Answered::NotCaptured);
        }
    }
    Ok(Answered::All)
}

/// What its asker does later to the row waits behind it.
fn aside(shared: &Shared, question: &MappedChange) -> Aside {
    let MappedChange { table, seq, op, before, after, .. } = question;
    Aside {
        seqs: vec![*seq],
        table: shared.mappings[*table].source.clone(),
        op: *op,
        dependence: shared.planner.dependence(*table, before.as_ref(), after.as_ref()),
        cause: Cause::Held,
    }
}

/// The row that was asked for, under whatever key its users have it by now, and what is under the key that it was asked for by;
/// locked. `None`: the opposite reader did not get there in time.
async fn rows_by_now(
    shared: &Shared,
    conn: &mut Conn,
    (table, asked): (usize, &Row),
    (seen, hold_limit): (&Seen, Duration),
) -> Result<Option<Vec<Row>>, ApplyError> {
    let (mapping, target) = (&shared.mappings[table], &shared.tables[table]);
    let key = target.key_of(asked);
    let subject = Subject { mapping, key: &key, seen };
    let mut keys: Vec<Vec<Value>> = vec![key.iter().map(|value| (*value).clone()).collect()];
    loop {
        let values: Vec<Vec<&Value>> = keys.iter().map(|key| key.iter().collect()).collect();
        let rows = target.lock_where(conn, target.key(), &values).await?;
        // What has left these keys before they were locked has been told after this.
        if !shared.hold.captured_under_locks(conn, hold_limit).await?.is_enough() {
            return Ok(None);
        }
        let mut lookup = session::while_alive(conn, shared.lookup.lock()).await?;
        lookup.refresh().await?;
        match lookup.key_by_now(&subject, target, conn).await? {
            Some(by_now) if !keys.contains(&by_now) => keys.push(by_now),
            _ => return Ok(Some(rows)),
        }
    }
}

impl JudgedStep<'_> {
    fn came_back(&self) -> Vec<(usize, &Row)> {
        match self {
            JudgedStep::Net { table, rows, .. } => rows
                .iter()
                .filter(|row| row.came_back && row.aside.is_none())
                .filter_map(|row| Some((*table, row.after()?)))
                .collect(),
            JudgedStep::InOrder(changes) => changes
                .iter()
                .filter(|judged| judged.came_back && judged.aside.is_none())
                .filter_map(|judged| Some((judged.change.table, judged.after()?)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Origin::{Asked, User};
    use crossfade_model::{TableLayout, TableName};
    use std::sync::Arc;

    fn messages(origins: &[Origin]) -> Vec<Message> {
        let layout =
            TableLayout { name: TableName::new("app", "users"), columns: vec![], kinds: vec![], row_key: vec![] };
        let layout = Arc::new(layout);
        let change = |_: &Origin| family::change(&layout, RowOp::Update, Some(Row::new()), Some(Row::new()));
        let mut messages = numbered(origins.iter().map(change).collect(), User);
        messages.iter_mut().zip(origins).for_each(|(message, origin)| message.origin = *origin);
        messages
    }

    #[test]
    fn questions_are_apart_from_what_comes_before_and_after() {
        let batches: [(&[Origin], usize, usize); 6] = [
            (&[User, User, User], 3, 3),
            (&[User, Asked, User], 1, 2),
            (&[Asked, Asked, User], 2, 2),
            (&[User, User, Asked, Asked], 2, 4),
            (&[Asked, User, Asked], 1, 1),
            (&[], 0, 0),
        ];
        for (origins, apart, followed) in batches {
            let left = |leave: fn(&mut Vec<Message>)| {
                let mut batch = messages(origins);
                leave(&mut batch);
                assert!(batch.iter().zip(1..).all(|(message, seq)| message.seq == seq));
                batch.len()
            };
            assert_eq!((left(keep_apart), left(leave_what_follows)), (apart, followed), "{origins:?}");
        }
    }
}
