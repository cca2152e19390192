//! Rows of crossfade's own tables: how far the opposite direction has applied, and that it is alive.

use std::collections::BTreeSet;

use crossfade_model::{
    Direction, EntityKey, FIRST_SIDE_LANE, Given, LaneProgress, RowChange, RowOp, Seen, Side, StreamId, Value,
};

use crate::HeartbeatSeen;
use crate::decode::DecodeError;

/// The lane of the row that is none: its column `parked` lists the stream's messages that the lanes have passed and that
/// have not taken effect.
const PARKED_LANE: u16 = u16::MAX;
const PARKED: &str = "parked";

/// A row of `crossfade.checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub stream: String,
    told: Told,
}

/// What a row of `crossfade.checkpoint` says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Lane(u16, LaneProgress),
    /// All of the stream's messages that are set aside now; takes the place of what was said before.
    Parked(BTreeSet<u64>),
    Nothing,
}

impl Checkpoint {
    /// `None` where the row is another pair's or direction's, or not what this version writes.
    ///
    /// # Errors
    ///
    /// A list of parked messages that cannot be read: to go on without it would be to take them for applied.
    pub fn of(change: &RowChange, pair: &str, direction: Direction) -> Result<Option<Checkpoint>, DecodeError> {
        let small = |column| number(change, column).and_then(|number| u16::try_from(number).ok());
        let (Some(stream), Some(lane)) = (text(change, "stream"), small("lane")) else { return Ok(None) };
        let ours = stream.parse::<StreamId>().is_ok_and(|stream| stream.direction() == direction);
        if !ours || text(change, "pair").as_deref() != Some(pair) {
            return Ok(None);
        }
        if lane == PARKED_LANE {
            return Ok(Some(Checkpoint { stream, told: Told::Parked(parked(change)?) }));
        }
        if lane >= FIRST_SIDE_LANE {
            return Ok(Some(Checkpoint { stream, told: Told::Nothing }));
        }
        let progress = || {
            Some(LaneProgress {
                seq: number(change, "seq")?,
                batch_first: number(change, "batch_first")?,
                batch_last: number(change, "batch_last")?,
                lanes: small("lanes")?,
            })
        };
        Ok(progress().map(|progress| Checkpoint { stream, told: Told::Lane(lane, progress) }))
    }

    pub fn note_in(self, seen: &mut Seen) {
        match self.told {
            Told::Lane(lane, progress) => {
                seen.streams.entry(self.stream).or_default().lanes.insert(lane, progress);
            }
            Told::Parked(parked) => seen.streams.entry(self.stream).or_default().parked = parked,
            Told::Nothing => {}
        }
    }
}

/// The numbers of a JSON array. A table of an earlier version has no such column, and NULL says that there are none.
fn parked(change: &RowChange) -> Result<BTreeSet<u64>, DecodeError> {
    match value(change, PARKED) {
        None | Some(Value::Null) => return Ok(BTreeSet::new()),
        Some(_) => {}
    }
    let numbers = text(change, PARKED).and_then(|list| serde_json::from_str(&list).ok());
    numbers.ok_or_else(|| DecodeError::Value {
        table: change.layout.name.clone(),
        column: PARKED.to_owned(),
        what: "something else than an array of message numbers",
    })
}

/// The pair, writer and counter of a row of `crossfade.heartbeat`.
pub(crate) fn heartbeat_of(change: &RowChange) -> Option<(String, HeartbeatSeen)> {
    let seen = HeartbeatSeen { writer: text(change, "writer")?, counter: number(change, "counter")? };
    Some((text(change, "pair")?, seen))
}

/// The token of a row of `crossfade.returned`; `None` where the row is another pair's or for the other direction's stream.
pub(crate) fn returned_token(change: &RowChange, pair: &str, direction: Direction) -> Option<u64> {
    let ours = text(change, "stream")?.parse::<StreamId>().is_ok_and(|stream| stream.direction() == direction);
    (ours && text(change, "pair").as_deref() == Some(pair)).then(|| number(change, "token")).flatten()
}

/// What a row of `crossfade.authority` gives; `None` where the row is another pair's, or is taken away.
///
/// # Errors
///
/// A row that cannot be read: to go on without it would be to judge by the authority of before.
pub(crate) fn authority_of(change: &RowChange, pair: &str) -> Result<Option<Given>, DecodeError> {
    if change.op == RowOp::Delete || text(change, "pair").as_deref() != Some(pair) {
        return Ok(None);
    }
    let entity = text(change, "entity").and_then(|key| match key.is_empty() {
        true => Some(EntityKey::rest()),
        false => EntityKey::parse(&key),
    });
    let side = match number(change, "side") {
        Some(0) => Some(Side::Old),
        Some(1) => Some(Side::New),
        _ => None,
    };
    let given = || Some(Given { entity: entity?, side: side?, version: number(change, "version")? });
    let unreadable = || DecodeError::Value {
        table: change.layout.name.clone(),
        column: "side".to_owned(),
        what: "something else than the authority over an entity",
    };
    given().map(Some).ok_or_else(unreadable)
}

/// A row's value of a column, by name.
fn value<'a>(change: &'a RowChange, column: &str) -> Option<&'a Value> {
    let at = change.layout.columns.iter().position(|name| &**name == column)?;
    change.last_image().get(at)
}

fn text(change: &RowChange, column: &str) -> Option<String> {
    match value(change, column)? {
        Value::Text(text) => Some(text.clone()),
        Value::Json(document) => Some(document.text.clone()),
        Value::Bytes(bytes) | Value::Encoded { bytes, .. } => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}

fn number(change: &RowChange, column: &str) -> Option<u64> {
    match value(change, column)? {
        Value::UInt(number) => Some(*number),
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}
