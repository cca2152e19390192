//! The flag on the nodes of both sides, for applications that read it there.

use crossfade_applier::mirror_flag;
use crossfade_catalog::Purpose;
use crossfade_config::Settings;
use crossfade_message::{Flag, Store};
use crossfade_model::Side;

use crate::ControlError;
use crate::side::{connect, in_time, stream_to};

/// Takes the flag over on a side, where it has an older one; gives the one that it has, where that is later. Repeatable.
pub async fn mirror(settings: &Settings, store: &Store, side: Side, flag: &Flag) -> Result<Option<Flag>, ControlError> {
    let mut conn = connect(settings, side, Purpose::Apply).await?;
    let stream = stream_to(side);
    let mirroring = mirror_flag(&mut conn, (&settings.pair, store.flag_key()), &stream, flag);
    let later = in_time(side, mirroring).await?.map_err(|source| ControlError::Mirror { side, source })?;
    // It is written; how the connection ends does not matter.
    let _ = conn.disconnect().await;
    Ok(later)
}

/// Takes the flag over on a side. Where the side has a later one than the store, the store was restored to an older state: it takes
/// that one over, since applications have been told it, in a version that is later still. Gives the flag that counts.
pub async fn mirror_or_adopt(settings: &Settings, store: &Store, side: Side, flag: Flag) -> Result<Flag, ControlError> {
    let Some(here) = mirror(settings, store, side, &flag).await? else { return Ok(flag) };
    // The last change may have come to one side alone.
    let there = mirror(settings, store, side.opposite(), &flag).await?;
    let later = there.filter(|there| there.version > here.version).unwrap_or(here);
    // It may have been changed, and written there, since it was read.
    let now = store.flag().await?;
    if now.version > later.version || now == later {
        return Ok(flag);
    }
    let Some(adopted) = store.adopt_flag(&later).await? else { return Ok(flag) };
    let (phase, version) = (adopted.phase, adopted.version);
    let text = format!("the store had an earlier flag than {side}: it has taken {phase} over as version {version}");
    tracing::warn!("{text}");
    store.journal("flag", &text).await?;
    mirror(settings, store, side, &adopted).await?;
    Ok(adopted)
}

/// The pair's flag, and the flags of its groups, which follow it.
pub(crate) async fn mirror_all(settings: &Settings, store: &Store, flag: &Flag) -> Result<(), ControlError> {
    mirror_both(settings, store, flag).await?;
    for group in store.groups().await? {
        let store = store.of_group(Some(&group));
        mirror_both(settings, &store, &store.flag().await?).await?;
    }
    Ok(())
}

/// On both sides, at the same time.
pub(crate) async fn mirror_both(settings: &Settings, store: &Store, flag: &Flag) -> Result<(), ControlError> {
    let (old, new) = tokio::join!(mirror(settings, store, Side::Old, flag), mirror(settings, store, Side::New, flag));
    old.and(new).map(|_| ())
}
