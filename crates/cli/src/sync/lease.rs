//! The lease of a direction: who runs it, while others stand by.

use std::time::Duration;

use crossfade_message::{Epoch, Store};
use crossfade_model::Direction;
use tokio_util::sync::CancellationToken;

use crate::failure::with_causes;

/// A process that has not renewed for this long has lost its lease; together with [`RENEW_EVERY`] and the poll of those
/// standing by, a take-over ends within 10 seconds.
const TTL: Duration = Duration::from_secs(8);
const RENEW_EVERY: Duration = Duration::from_secs(3);
const POLL_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Lease {
    direction: Direction,
    epoch: Epoch,
}

impl Lease {
    /// Waits until the lease is free. `None` when asked to stop meanwhile.
    pub async fn acquire(
        store: &Store,
        direction: Direction,
        rules_hash: u64,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Lease>> {
        let holder = holder();
        let mut told = false;
        loop {
            if let Some(epoch) = store.lease_acquire(direction.as_str(), &holder, TTL, rules_hash).await? {
                return Ok(Some(Lease { direction, epoch }));
            }
            if break_if_dead(store, direction).await? {
                continue;
            }
            if !told {
                tracing::info!(%direction, "another process runs this direction; standing by");
                told = true;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(POLL_EVERY) => {}
            }
        }
    }

    /// Takes the lease if nobody holds it, or only somebody who is dead.
    pub async fn acquire_if_free(
        store: &Store,
        direction: Direction,
        rules_hash: u64,
    ) -> anyhow::Result<Option<Lease>> {
        let holder = holder();
        for _ in 0..2 {
            if let Some(epoch) = store.lease_acquire(direction.as_str(), &holder, TTL, rules_hash).await? {
                return Ok(Some(Lease { direction, epoch }));
            }
            if !break_if_dead(store, direction).await? {
                break;
            }
        }
        Ok(None)
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Renews until `running` ends. An error when the lease is gone: the process must then stop at once.
    pub async fn renew_until(self, store: Store, running: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = running.cancelled() => return Ok(()),
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
            match store.lease_renew(self.direction.as_str(), self.epoch, TTL).await {
                Ok(true) => {}
                Ok(false) => anyhow::bail!("another process has taken the {} direction over", self.direction),
                // The checkpoint's epoch fences; a store that is away is no reason to give up.
                Err(error) => {
                    let error = with_causes(&error.into());
                    tracing::warn!(error, "the lease could not be renewed; trying again");
                }
            }
        }
    }

    pub async fn release(&self, store: &Store) -> anyhow::Result<()> {
        match store.lease_release(self.direction.as_str(), self.epoch).await {
            Err(error) if !error.is_transient() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// A holder that ran on this machine and is no more need not be waited for.
async fn break_if_dead(store: &Store, direction: Direction) -> anyhow::Result<bool> {
    let leases = store.leases().await?;
    let Some(lease) = leases.iter().find(|lease| lease.live && lease.subject == direction.as_str()) else {
        return Ok(false);
    };
    let is_dead = is_dead(&lease.holder);
    if is_dead {
        tracing::info!(%direction, holder = lease.holder, "the last holder of the lease is dead; taking over");
        store.lease_break(direction.as_str(), &lease.holder).await?;
    }
    Ok(is_dead)
}

/// Whether a holder is a process of this machine that is no more. Of other machines nothing is known.
pub fn is_dead(holder: &str) -> bool {
    let mut parts = holder.rsplitn(3, '/');
    let (Some(_), Some(process), Some(machine)) = (parts.next(), parts.next(), parts.next()) else { return false };
    machine == this_machine()
        && process.parse::<u32>().is_ok_and(|process| !std::path::Path::new(&format!("/proc/{process}")).exists())
}

/// Unique to this run of this process: `<machine>/<process>/<random>`.
fn holder() -> String {
    let unique: u32 = rand::random();
    format!("{}/{}/{unique:08x}", this_machine(), std::process::id())
}

/// The host's name with the namespace that process ids count in: containers may share one and not the other.
fn this_machine() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned());
    format!("{host}:{}", namespace.unwrap_or_default())
}
