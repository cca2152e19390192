//! Images that a person has corrected: they are applied in place of what was captured, through the same judgement.
//!
//! The source keeps what its user wrote, so the sides would stay different. What the person changed therefore goes back
//! to the source as a change of the opposite stream, as if a user of the target had made it right after the message. It
//! does not where a later change of the row waits: that one says what the source has by now, and comes over in its turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossfade_message::{Edit, Outcome, Status};
use crossfade_model::{MergeRule, Message, Origin, Row, RowChange, RowOp, Value};
use crossfade_rules::key::folded_hash;
use crossfade_rules::merge::with_difference;
use crossfade_rules::{MappedChange, TableMapping};
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::family::{numbered, send_back};
use crate::judged::{JudgedLane, LeftRow};
use crate::lane::Shared;
use crate::mapped::Mapper;
use crate::parking::AsideMessages;

/// A message that is tried with a corrected image.
#[derive(Debug, Clone)]
pub(crate) struct EditedMessage {
    pub seq: u64,
    request: u64,
    by: String,
    /// The image as it was captured, in the order of the mapping's columns.
    captured: Row,
    /// The image as the person wants it.
    corrected: Row,
    /// Places of the columns that the person changed.
    columns: Vec<usize>,
    /// Later changes of its row wait behind it.
    is_followed: bool,
}

/// What becomes of the side where the change was made.
enum Back {
    Goes(Box<RowChange>),
    /// The reason why nothing goes back.
    Stays(&'static str),
}

/// Puts corrected images in place of the captured ones. `waiting` are the later messages that are tied to these.
pub(crate) fn stand_in(
    messages: &mut [Message],
    edits: &BTreeMap<u64, Edit>,
    waiting: &[Message],
    mappings: &Arc<[TableMapping]>,
) -> Result<Vec<EditedMessage>, ApplyError> {
    let mut edited = Vec::new();
    if !messages.iter().any(|message| edits.contains_key(&message.seq)) {
        return Ok(edited);
    }
    let later = Mapper::new(mappings.clone()).map(messages.iter().chain(waiting).cloned().collect())?;
    for message in messages {
        let Some(edit) = edits.get(&message.seq) else { continue };
        let corrected = Message { change: edit.message.change.clone(), ..message.clone() };
        let captured = std::mem::replace(message, corrected.clone());
        let mapped = Mapper::new(mappings.clone()).map(vec![captured, corrected])?;
        let table = mapped.first().map_or(0, |change| change.table);
        let mut images = mapped.into_iter().map(|MappedChange { after, .. }| after);
        let (Some(Some(captured)), Some(Some(corrected))) = (images.next(), images.next()) else { continue };
        let follows = |change: &&MappedChange| {
            change.seq > message.seq && change.table == table && is_of_row(&mappings[table], change, &captured)
        };
        edited.push(EditedMessage {
            seq: message.seq,
            request: edit.request,
            by: edit.by.clone(),
            columns: (0..captured.len()).filter(|column| captured[*column] != corrected[*column]).collect(),
            is_followed: later.iter().any(|change| follows(&change)),
            captured,
            corrected,
        });
    }
    Ok(edited)
}

/// Just before the commit: keeps which images are written, and sends back to the source what differs there.
pub(crate) async fn settle(
    shared: &Shared,
    conn: &mut Conn,
    lane: &JudgedLane<'_>,
    edited: &[EditedMessage],
    asides: &AsideMessages,
) -> Result<(), ApplyError> {
    let written: Vec<&EditedMessage> = edited.iter().filter(|edited| !asides.contains_key(&edited.seq)).collect();
    if written.is_empty() {
        return Ok(());
    }
    let requests: Vec<u64> = written.iter().map(|edited| edited.request).collect();
    shared.store.note_edits_used(&requests).await?;
    let (mut outcomes, mut returning) = (Vec::new(), Vec::new());
    for edited in written {
        // One that lost, or that a later change of its row has overtaken, leaves nothing behind.
        let Some(left) = lane.row_left_by(shared, edited.seq) else { continue };
        let back = edited.change_back(shared, conn, &left).await?;
        let source = shared.owner.stream.direction().source();
        let told = match &back {
            Back::Goes(_) => format!("which go back to {source}"),
            Back::Stays(why) => format!("which do not go back to {source}: {why}"),
        };
        if !left.merged {
            outcomes.push(edited.outcome(&shared.mappings[left.table], &told));
        }
        if let Back::Goes(change) = back {
            returning.push(*change);
        }
    }
    shared.store.record_outcomes(&shared.owner.stream, &outcomes).await?;
    send_back(shared, conn, &numbered(returning, Origin::User)).await
}

impl EditedMessage {
    fn outcome(&self, mapping: &TableMapping, told: &str) -> Outcome {
        let names: Vec<&str> = self.columns.iter().map(|column| mapping.columns[*column].source.as_str()).collect();
        Outcome::undisputed(
            self.seq,
            mapping.source.clone(),
            Status::Applied,
            format!("with the values that {} gave for {}, {told}", self.by, names.join(", ")),
        )
    }

    /// From the row as the source has it to the row as it is here now.
    async fn change_back(&self, shared: &Shared, conn: &mut Conn, left: &LeftRow<'_>) -> Result<Back, ApplyError> {
        let (mapping, target) = (&shared.mappings[left.table], &shared.tables[left.table]);
        if !shared.lookup.lock().await.opposite_mappings.iter().any(|back| back.source == mapping.target) {
            return Ok(Back::Stays("the table is carried one way only"));
        }
        if self.is_followed {
            return Ok(Back::Stays("a later change of the row waits"));
        }
        let key = target.key_of(left.row);
        let after = if left.merged {
            target.lock_where(conn, target.key(), std::slice::from_ref(&key)).await?.pop()
        } else {
            let found = target.lock_and_tell(conn, std::slice::from_ref(&key)).await?;
            found[0].then(|| left.row.clone())
        };
        let Some(after) = after else { return Ok(Back::Stays("the row has gone with its parent")) };
        let mut before = after.clone();
        for column in &self.columns {
            let (captured, corrected) = (&self.captured[*column], &self.corrected[*column]);
            before[*column] = source_value(mapping, *column, &after[*column], captured, corrected);
        }
        if before == after {
            return Ok(Back::Stays("newer values are there"));
        }
        let layout = shared.layouts[left.table].clone();
        let change = RowChange { layout, op: RowOp::Update, before: Some(before), after: Some(after), event_index: 0 };
        Ok(Back::Goes(Box::new(change)))
    }
}

/// What the source has in a column where `after` is to be. Of a sum that only the correction is missing: what users of the
/// target have added comes over by itself.
fn source_value(mapping: &TableMapping, column: usize, after: &Value, captured: &Value, corrected: &Value) -> Value {
    match mapping.merge.as_ref().and_then(|rules| rules.get(column)) {
        Some(MergeRule::SumDelta) => with_difference(after, corrected, captured),
        _ => captured.clone(),
    }
}

/// Whether a change is about the row of this image; keys that a server might take for one count as one.
fn is_of_row(mapping: &TableMapping, change: &MappedChange, row: &Row) -> bool {
    let hash = |image: &Row| {
        let key: Vec<&Value> = mapping.row_key.iter().map(|index| &image[*index]).collect();
        folded_hash(&mapping.identity, &key)
    };
    [&change.before, &change.after].into_iter().flatten().any(|image| hash(image) == hash(row))
}
