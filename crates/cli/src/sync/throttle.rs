//! When a process's work waits for the databases: the limits that count, and the reason, for all to see.

use std::sync::Arc;
use std::time::Duration;

use crossfade_catalog::Servers;
use crossfade_config::{Settings, ThrottleLimits};
use crossfade_message::{Store, StoreError};
use crossfade_model::Direction;
use crossfade_throttle::{Throttle, Watch};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at both sides, and follows the limits, until `running` ends. The limits are followed no longer than what comes with
/// the throttle is kept.
pub async fn watch(
    settings: &Arc<Settings>,
    store: &Store,
    running: &CancellationToken,
) -> (Throttle, AbortOnDropHandle<()>) {
    let first = limits(settings, store).await.unwrap_or_else(|_| settings.throttle.limits.clone());
    let (sender, followed) = watch::channel(first);
    let (settings_here, store, stop) = (settings.clone(), store.clone(), running.clone());
    let following = AbortOnDropHandle::new(tokio::spawn(async move {
        while !stop.is_cancelled() {
            tokio::time::sleep(LOOK_EVERY).await;
            match limits(&settings_here, &store).await {
                Ok(limits) => {
                    sender.send_if_modified(|known| std::mem::replace(known, limits.clone()) != limits);
                }
                // Those that are known count on.
                Err(error) => tracing::debug!(%error, "limits cannot be read"),
            }
        }
    }));
    let watch = Watch {
        pair: settings.pair.clone(),
        old: Servers::new(settings.old.urls()),
        new: Servers::new(settings.new.urls()),
        replicas: settings.throttle.replicas.clone(),
        probe: settings.throttle.probe.clone(),
        limits: followed,
    };
    (watch.start(running.clone()), following)
}

/// Those of the configuration, and before them what was set since.
pub async fn limits(settings: &Settings, store: &Store) -> Result<ThrottleLimits, StoreError> {
    let mut limits = settings.throttle.limits.clone();
    for (name, value) in store.throttle_limits().await? {
        if let Err(error) = limits.set(&name, &value) {
            tracing::debug!(name, error, "a limit of another version");
        }
    }
    Ok(limits)
}

/// Keeps the reason why work waits in the store, until `running` ends.
pub async fn tell(
    throttle: Throttle,
    store: Store,
    direction: Direction,
    running: CancellationToken,
) -> anyhow::Result<()> {
    // What a process left that has died is replaced.
    let mut told = None;
    loop {
        let reason = throttle.reason().map(|reason| reason.to_string());
        if told.as_ref() != Some(&reason) {
            match store.set_throttled(direction.as_str(), reason.as_deref()).await {
                Ok(()) => {
                    match &reason {
                        Some(reason) => tracing::info!(reason, "work waits for the databases"),
                        None if told.is_some() => tracing::info!("work goes on"),
                        None => {}
                    }
                    told = Some(reason);
                }
                Err(error) => tracing::debug!(%error, "it cannot be told why work waits"),
            }
        }
        tokio::select! {
            () = running.cancelled() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    // Nothing waits where nobody is at work; and if this is lost, the next process says so.
    let _ = store.set_throttled(direction.as_str(), None).await;
    Ok(())
}
