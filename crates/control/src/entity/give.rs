//! Both nodes are told who has authority over entities that are decided; then users write them again.

use std::time::{Duration, Instant};

use crossfade_applier::give_authority;
use crossfade_catalog::Purpose;
use crossfade_config::Settings;
use crossfade_message::{BatchStep, EntityBatch, OpenBatch, Store};
use crossfade_model::{Direction, EntityKey, Given, Side};

use crate::ControlError;
use crate::drain;
use crate::side::{connect, in_time, stream_to};
use crate::waits::Waits;

const TRY_EVERY: Duration = Duration::from_millis(200);

/// Users wait meanwhile; a direction that has died since would keep them for good.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Writes down on both nodes who has authority over what is decided, and lets users write it. Repeatable; whoever does it at the
/// same time changes nothing twice. A node that is away is tried again for so long.
pub(super) async fn give_decided(
    settings: &Settings,
    store: &Store,
    holder: &str,
    open: &OpenBatch,
    (fenced, patience): (Option<Instant>, Duration),
) -> Result<Option<u64>, ControlError> {
    if open.decided.is_empty() {
        return Ok(None);
    }
    let since = Instant::now();
    loop {
        match give_both(settings, &open.batch, &open.decided).await {
            Ok(()) => break,
            Err(error) if since.elapsed() >= patience => return Err(error),
            Err(error) => tracing::debug!(%error, "a side has not been told yet who has authority"),
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
    // Whoever finishes it for a dead tool does not wait: the fence has been long enough.
    if fenced.is_some() {
        let undoing = until_late_writes_are_undone(settings, store, open.batch.to);
        if tokio::time::timeout(ANSWERED_WITHIN, undoing).await.ok().transpose()?.is_none() {
            tracing::warn!(batch = open.batch.id, "users write again before all that was written late may be undone");
        }
    }
    let keys: Vec<EntityKey> = open.decided.iter().map(|(key, _)| key.clone()).collect();
    let pause_ms = fenced.map(|fenced| u64::try_from(fenced.elapsed().as_millis()).unwrap_or(u64::MAX));
    store.step_entities(&open.batch, holder, &keys, BatchStep::Lift { pause_ms }).await?;
    Ok(pause_ms)
}

/// What was written on the side that entities come to, before it was told there who has authority, is late. Its undoing is there
/// before users write: else it would meet what they write.
async fn until_late_writes_are_undone(settings: &Settings, store: &Store, to: Side) -> Result<(), ControlError> {
    let (away, back) = match to {
        Side::Old => (Direction::Forward, Direction::Reverse),
        Side::New => (Direction::Reverse, Direction::Forward),
    };
    let waits = Waits::default();
    for direction in [away, back] {
        let last_seq = drain::until_read_up_to_now(settings, store, direction, &waits).await?;
        drain::until_passed(settings, direction, last_seq, &waits).await?;
    }
    Ok(())
}

async fn give_both(settings: &Settings, batch: &EntityBatch, decided: &[(EntityKey, u64)]) -> Result<(), ControlError> {
    let given: Vec<Given> =
        decided.iter().map(|(key, version)| Given { entity: key.clone(), side: batch.to, version: *version }).collect();
    let (old, new) = tokio::join!(give(settings, Side::Old, &given), give(settings, Side::New, &given));
    old.and(new)
}

async fn give(settings: &Settings, side: Side, given: &[Given]) -> Result<(), ControlError> {
    let mut conn = connect(settings, side, Purpose::Apply).await?;
    let stream = stream_to(side);
    let giving = give_authority(&mut conn, &settings.pair, &stream, given);
    in_time(side, giving).await?.map_err(|source| ControlError::Authority { side, source })?;
    // It is written; how the connection ends does not matter.
    let _ = conn.disconnect().await;
    Ok(())
}
