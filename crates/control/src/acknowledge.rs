//! Waiting for the instances of the applications.

use std::time::Duration;

use crossfade_message::{FlagInstance, Store};

use crate::ControlError;
use crate::waits::Waits;

const ASK_EVERY: Duration = Duration::from_millis(10);

/// As [`until_acknowledged`], of the pair's flag and then of the flags of its groups, which follow it.
pub(crate) async fn until_all_acknowledged(
    store: &Store,
    version: u64,
    waits: &Waits,
) -> Result<Vec<FlagInstance>, ControlError> {
    let mut instances = until_acknowledged(store, version, waits).await?;
    for group in store.groups().await? {
        let store = store.of_group(Some(&group));
        instances.extend(until_acknowledged(&store, store.flag().await?.version, waits).await?);
    }
    Ok(instances)
}

/// Waits until every instance whose time is not over has acknowledged this version of the flag, or a later one; gives those that
/// have.
pub(crate) async fn until_acknowledged(
    store: &Store,
    version: u64,
    waits: &Waits,
) -> Result<Vec<FlagInstance>, ControlError> {
    loop {
        let instances = store.flag_instances().await?;
        let late: Vec<&str> =
            instances.iter().filter(|one| one.version < version).map(|one| one.instance.as_str()).collect();
        if late.is_empty() {
            return Ok(instances);
        }
        waits.note(format!("{} had not acknowledged the flag", late.join(", ")));
        tokio::time::sleep(ASK_EVERY).await;
    }
}
