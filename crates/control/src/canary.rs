//! The proof, once more, that each process recognises what the other one writes.

use std::time::Duration;

use crossfade_applier::{canary_writer, opposite_stream};
use crossfade_message::{Store, StoreError};
use crossfade_model::Direction;

use crate::ControlError;
use crate::side::stream_of;
use crate::waits::Waits;

const ASK_EVERY: Duration = Duration::from_millis(50);

pub(crate) const BOTH: [Direction; 2] = [Direction::Forward, Direction::Reverse];

/// The last canaries of both processes. To be taken before the change is begun, since that makes them send new ones.
pub(crate) async fn sung(store: &Store) -> Result<[u64; 2], StoreError> {
    let mut counters = [0; 2];
    for (counter, direction) in counters.iter_mut().zip(BOTH) {
        *counter = store.canary(&stream_of(direction)).await?.map_or(0, |canary| canary.counter);
    }
    Ok(counters)
}

/// Waits until both directions have sent later ones, and each was recognised by the other direction.
pub(crate) async fn until_proved(store: &Store, before: [u64; 2], waits: &Waits) -> Result<(), ControlError> {
    for (direction, before) in BOTH.into_iter().zip(before) {
        let stream = stream_of(direction);
        let (opposite, writer) = (opposite_stream(&stream), canary_writer(&stream));
        loop {
            let canary = store.canary(&stream).await?;
            match canary.filter(|canary| canary.counter > before) {
                None => waits.note(format!("{direction} had not sent a canary to {}", direction.target())),
                Some(canary) if canary.lost.is_some() => {
                    let on = direction.target();
                    return Err(ControlError::Refused(format!(
                        "what {direction} writes is not recognised on the {on} side any more; its process says more"
                    )));
                }
                Some(canary) if store.heartbeat_passed(&opposite, &writer).await? >= canary.counter => break,
                Some(_) => waits.note(format!("{opposite} had not read the canary of {direction}")),
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
    Ok(())
}
