//! Waiting until a direction has brought over everything before a position.

use std::time::Duration;

use crossfade_applier::{Standing, beat};
use crossfade_binlog::is_reached;
use crossfade_catalog::{Purpose, Servers};
use crossfade_config::Settings;
use crossfade_message::Store;
use crossfade_model::{Direction, Position, StreamId, StreamProgress};

use crate::ControlError;
use crate::side::{connect, during, in_time, stream_of};
use crate::waits::Waits;

const ASK_EVERY: Duration = Duration::from_millis(10);

const HEARTBEAT_WRITER: &str = "entity";

/// Waits until all that was committed on the direction's source before `position` is captured, and has taken effect on its target.
///
/// # Errors
///
/// [`ControlError::Refused`] where the target refuses a change: it has not crossed, and nobody knows when it will.
pub(crate) async fn until_drained(
    settings: &Settings,
    store: &Store,
    direction: Direction,
    position: &Position,
    waits: &Waits,
) -> Result<(), ControlError> {
    let last_seq = until_captured(store, &stream_of(direction), position, waits).await?;
    until_in_effect(settings, store, direction, last_seq, waits).await
}

/// Waits until all messages up to this one have taken effect on the target.
///
/// # Errors
///
/// As [`until_drained`].
pub(crate) async fn until_in_effect(
    settings: &Settings,
    store: &Store,
    direction: Direction,
    last_seq: u64,
    waits: &Waits,
) -> Result<(), ControlError> {
    until_passed(settings, direction, last_seq, waits).await?;
    let stream = stream_of(direction);
    while progress(settings, direction, &stream).await?.in_effect_through() < last_seq {
        refuse_refused(store, direction, &stream).await?;
        waits.note(format!("a change of {stream} was held until the other direction has read what users wrote"));
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(())
}

/// Waits until the target has passed all messages up to this one: has taken each, or set it aside.
pub(crate) async fn until_passed(
    settings: &Settings,
    direction: Direction,
    last_seq: u64,
    waits: &Waits,
) -> Result<(), ControlError> {
    let stream = stream_of(direction);
    loop {
        let applied = progress(settings, direction, &stream).await?.applied_through();
        if applied >= last_seq {
            return Ok(());
        }
        waits.note(format!("{stream} had applied {applied} of {last_seq} messages"));
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// The last message of what was committed on the direction's source before this call, or a later one, once it is captured: when its
/// reader has passed a heartbeat that was written there now.
pub(crate) async fn until_read_up_to_now(
    settings: &Settings,
    store: &Store,
    direction: Direction,
    waits: &Waits,
) -> Result<u64, ControlError> {
    let (side, stream) = (direction.source(), stream_of(direction));
    waits.note(format!("{side} did not take a heartbeat"));
    let mut conn = connect(settings, side, Purpose::Apply).await?;
    let beaten = in_time(side, beat(&mut conn, &settings.pair, HEARTBEAT_WRITER)).await?;
    let counter = beaten.map_err(during(side, "take a heartbeat"))?;
    // It is committed; how the connection ends does not matter.
    let _ = conn.disconnect().await;
    waits.note(format!("{stream} had not been read up to now"));
    while store.heartbeat_passed(&stream, HEARTBEAT_WRITER).await? < counter {
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(store.last_seq(&stream).await?)
}

/// The last message that was committed before `position`, or a later one, once it is captured.
async fn until_captured(
    store: &Store,
    stream: &StreamId,
    position: &Position,
    waits: &Waits,
) -> Result<u64, ControlError> {
    loop {
        let state = store.stream_state(stream).await?;
        if is_reached(&state.position.position, position) {
            return Ok(state.last_seq);
        }
        waits.note(format!("{stream} had not been read up to {position}"));
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn progress(
    settings: &Settings,
    direction: Direction,
    stream: &StreamId,
) -> Result<StreamProgress, ControlError> {
    let side = direction.target();
    let target = Servers::new(settings.side(side).urls());
    let standing = in_time(side, Standing::read(&target, &settings.pair, stream)).await?;
    Ok(standing.map_err(|source| ControlError::Checkpoint { side, source })?.progress)
}

/// What is held goes on by itself within moments; what the target refuses does not.
async fn refuse_refused(store: &Store, direction: Direction, stream: &StreamId) -> Result<(), ControlError> {
    let statuses = store.stream_statuses().await?;
    if statuses.iter().all(|status| status.stream != stream.as_str() || status.open_failures == 0) {
        return Ok(());
    }
    Err(ControlError::Refused(format!(
        "a change that users made on {} was refused by {} and has not crossed; `crossfade messages list --status failed` shows it",
        direction.source(),
        direction.target()
    )))
}
