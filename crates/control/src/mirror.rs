//! The flag on the nodes of both sides, for applications that read it there.

use crossfade_applier::mirror_flag;
use crossfade_catalog::Purpose;
use crossfade_config::Settings;
use crossfade_message::Flag;
use crossfade_model::Side;

use crate::ControlError;
use crate::side::{connect, in_time, stream_to};

/// Takes the flag over on a side, where it has an older one. Repeatable.
pub async fn mirror(settings: &Settings, side: Side, flag: &Flag) -> Result<(), ControlError> {
    let mut conn = connect(settings, side, Purpose::Apply).await?;
    let stream = stream_to(side);
    let mirroring = mirror_flag(&mut conn, &settings.pair, &stream, flag);
    in_time(side, mirroring).await?.map_err(|source| ControlError::Mirror { side, source })?;
    // It is written; how the connection ends does not matter.
    let _ = conn.disconnect().await;
    Ok(())
}

/// On both sides, at the same time.
pub(crate) async fn mirror_both(settings: &Settings, flag: &Flag) -> Result<(), ControlError> {
    let (old, new) = tokio::join!(mirror(settings, Side::Old, flag), mirror(settings, Side::New, flag));
    old.and(new)
}
