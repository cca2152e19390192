//! Both nodes are told who has authority over entities that are decided; then users write them again.

use std::time::{Duration, Instant};

use crossfade_applier::give_authority;
use crossfade_catalog::Purpose;
use crossfade_config::Settings;
use crossfade_message::{BatchStep, EntityBatch, OpenBatch, Store};
use crossfade_model::{EntityKey, Given, Side};

use crate::ControlError;
use crate::side::{connect, in_time, stream_to};

const TRY_EVERY: Duration = Duration::from_millis(200);

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
    let keys: Vec<EntityKey> = open.decided.iter().map(|(key, _)| key.clone()).collect();
    let pause_ms = fenced.map(|fenced| u64::try_from(fenced.elapsed().as_millis()).unwrap_or(u64::MAX));
    store.step_entities(&open.batch, holder, &keys, BatchStep::Lift { pause_ms }).await?;
    Ok(pause_ms)
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
