//! Images that a person has corrected: they are applied in place of what was captured, through the same judgement.
//!
//! The source keeps what its user wrote, so the sides would stay different. What the person changed therefore goes back
//! to the source as a change of the opposite stream, as if a user of the target had made it right after the message.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossfade_message::{Edit, Outcome, Status};
use crossfade_model::{Message, Origin, Row, RowChange, RowOp};
use crossfade_rules::{MappedChange, TableMapping};
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::family::send_back;
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
    /// Places of the columns that the person changed.
    columns: Vec<usize>,
}

/// Puts corrected images in place of the captured ones.
pub(crate) fn stand_in(
    messages: &mut [Message],
    edits: &BTreeMap<u64, Edit>,
    mappings: &Arc<[TableMapping]>,
) -> Result<Vec<EditedMessage>, ApplyError> {
    let mut edited = Vec::new();
    for message in messages {
        let Some(edit) = edits.get(&message.seq) else { continue };
        let corrected = Message { change: edit.message.change.clone(), ..message.clone() };
        let captured = std::mem::replace(message, corrected.clone());
        let mapped = Mapper::new(mappings.clone()).map(vec![captured, corrected])?;
        let mut images = mapped.into_iter().map(|MappedChange { after, .. }| after);
        if let (Some(Some(captured)), Some(Some(corrected))) = (images.next(), images.next()) {
            let columns = (0..captured.len()).filter(|column| captured[*column] != corrected[*column]).collect();
            edited.push(EditedMessage {
                seq: message.seq,
                request: edit.request,
                by: edit.by.clone(),
                captured,
                columns,
            });
        }
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
        if !left.merged {
            outcomes.push(edited.outcome(&shared.mappings[left.table]));
        }
        returning.extend(edited.change_back(shared, conn, &left).await?);
    }
    shared.store.record_outcomes(&shared.owner.stream, &outcomes).await?;
    let messages: Vec<Message> = returning.into_iter().zip(1..).map(|(change, seq)| returned(change, seq)).collect();
    send_back(shared, conn, &messages).await
}

impl EditedMessage {
    fn outcome(&self, mapping: &TableMapping) -> Outcome {
        let names: Vec<&str> = self.columns.iter().map(|column| mapping.columns[*column].source.as_str()).collect();
        Outcome {
            seq: self.seq,
            table: mapping.source.clone(),
            status: Status::Applied,
            reason: format!("with the values that {} gave for {}", self.by, names.join(", ")),
            winner: None,
            source_clock: None,
            target_clock: None,
        }
    }

    /// From the row as the source has it to the row as it is here now; `None` where nothing is to go back.
    async fn change_back(
        &self,
        shared: &Shared,
        conn: &mut Conn,
        left: &LeftRow<'_>,
    ) -> Result<Option<RowChange>, ApplyError> {
        let (mapping, target) = (&shared.mappings[left.table], &shared.tables[left.table]);
        let comes_back = shared.lookup.lock().await.opposite_mappings.iter().any(|back| back.source == mapping.target);
        if !comes_back {
            return Ok(None);
        }
        let key = target.key_of(left.row);
        let after = if left.merged {
            target.lock_where(conn, target.key(), std::slice::from_ref(&key)).await?.pop()
        } else {
            // It may have gone with its parent.
            let found = target.lock(conn, std::slice::from_ref(&key), false).await?;
            found[0].is_some().then(|| left.row.clone())
        };
        let Some(after) = after else { return Ok(None) };
        let mut before = after.clone();
        for column in &self.columns {
            before[*column] = self.captured[*column].clone();
        }
        let change = |(before, after)| RowChange {
            layout: shared.layouts[left.table].clone(),
            op: RowOp::Update,
            before: Some(before),
            after: Some(after),
            event_index: 0,
        };
        Ok((before != after).then_some((before, after)).map(change))
    }
}

/// Only the change itself counts; the rest is filled in where it is captured.
fn returned(change: RowChange, seq: u64) -> Message {
    Message {
        seq,
        change,
        origin: Origin::User,
        seen: Arc::default(),
        committed_at_micros: 0,
        source_position: "".into(),
        effective: None,
    }
}
