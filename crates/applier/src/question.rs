//! Rows that come back, or to another key, without what hangs on them.
//!
//! One side has ended a row's parent, and with it the row, and all that hung on it; its binlog may tell of none of that. The other
//! side has given the row another parent meanwhile, or the parent itself another key. What arrives then brings back that one
//! row. Only the side that has changed it knows what hangs on it, and only the side where it was gone knows that it was: so that
//! one asks, by a message of the opposite stream that changes nothing, and what hangs on the row goes back, as weak as any row
//! that returns.

use crossfade_model::{Message, Origin, ReferentialAction, Row, RowChange, RowOp};
use crossfade_rules::MappedChange;
use crossfade_rules::mapping::ChildLink;
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::family::{self, GivenBack, numbered, send_back};
use crate::judged::{JudgedLane, JudgedStep};
use crate::lane::{Manner, Shared};

/// Takes the questions out of messages that are to be planned.
pub(crate) fn take(messages: &mut Vec<Message>) -> Vec<Message> {
    messages.extract_if(.., |message| message.origin == Origin::Asked).collect()
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

/// Gives back what hangs on the rows that the other side asks about. `false`: the opposite reader did not get there in time.
pub(crate) async fn answer(
    shared: &Shared,
    conn: &mut Conn,
    questions: &[MappedChange],
    manner: Manner,
) -> Result<bool, ApplyError> {
    for MappedChange { table, after, seen, .. } in questions {
        let Some(after) = after else { continue };
        let target = &shared.tables[*table];
        let rows = target.lock_where(conn, target.key(), &[target.key_of(after)]).await?;
        let parents: Vec<&Row> = rows.iter().collect();
        let hanging = family::descendants(shared, conn, *table, &parents, may_hang).await?;
        let hanging: Vec<GivenBack> = hanging.into_iter().map(GivenBack::whole).collect();
        if !hanging.is_empty() && !family::give_back(shared, conn, hanging, (seen, manner.may_hold())).await? {
            return Ok(false);
        }
    }
    Ok(true)
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
