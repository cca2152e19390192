//! Waiting until a direction has brought over everything before a position.

use std::time::Duration;

use crossfade_applier::Standing;
use crossfade_binlog::is_reached;
use crossfade_catalog::Servers;
use crossfade_config::Settings;
use crossfade_message::Store;
use crossfade_model::{Direction, Position};

use crate::ControlError;
use crate::side::{in_time, stream_of};
use crate::waits::Waits;

const ASK_EVERY: Duration = Duration::from_millis(10);

/// Waits until all that was committed on the direction's source before `position` is captured, and has taken effect on its target.
///
/// # Errors
///
/// [`ControlError::Refused`] where a change was set aside: it has not crossed, and nobody knows when it will.
pub(crate) async fn until_drained(
    settings: &Settings,
    store: &Store,
    direction: Direction,
    position: &Position,
    waits: &Waits,
) -> Result<(), ControlError> {
    let stream = stream_of(direction);
    let last_seq = loop {
        let state = store.stream_state(&stream).await?;
        if is_reached(&state.position.position, position) {
            break state.last_seq;
        }
        waits.note(format!("{stream} had not been read up to {position}"));
        tokio::time::sleep(ASK_EVERY).await;
    };
    let side = direction.target();
    let target = Servers::new(settings.side(side).urls());
    loop {
        let standing = in_time(side, Standing::read(&target, &settings.pair, &stream)).await?;
        let progress = standing.map_err(|source| ControlError::Checkpoint { side, source })?.progress;
        if progress.in_effect_through() >= last_seq {
            break;
        }
        if progress.applied_through() >= last_seq {
            return Err(aside(direction));
        }
        waits.note(format!("{stream} had applied {} of {last_seq} messages", progress.applied_through()));
        tokio::time::sleep(ASK_EVERY).await;
    }
    let statuses = store.stream_statuses().await?;
    let is_aside =
        statuses.iter().any(|status| status.stream == stream.as_str() && status.open_failures + status.held > 0);
    if is_aside { Err(aside(direction)) } else { Ok(()) }
}

fn aside(direction: Direction) -> ControlError {
    ControlError::Refused(format!(
        "a change that users made on {} was set aside and has not crossed; `crossfade messages list --status failed` (or `held`) \
         shows it",
        direction.source()
    ))
}
