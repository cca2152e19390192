//! The lease of a direction: who runs it, while others stand by.

use std::time::{Duration, Instant};

use crossfade_message::{Epoch, LeaseStatus, Store, StoreError};
use crossfade_model::Direction;

use super::outset::Outset;
use crate::failure::{Failure, Kind, with_causes};

/// A process that has not renewed for this long has lost its lease; together with [`RENEW_EVERY`] and the poll of those
/// standing by, a take-over ends within 10 seconds.
const TTL: Duration = Duration::from_secs(8);
const RENEW_EVERY: Duration = Duration::from_secs(3);
const POLL_EVERY: Duration = Duration::from_secs(1);

/// How often a process that stands by says so, and how long that is believed.
const STAND_BY_EVERY: Duration = Duration::from_secs(4);
const STAND_BY_TTL: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Lease {
    direction: Direction,
    epoch: Epoch,
}

impl Lease {
    /// Waits until the lease is free; a holder that has it gets it anew. `None` when asked to stop meanwhile.
    pub async fn acquire(store: &Store, outset: &Outset<'_>, rules_hash: u64) -> anyhow::Result<Option<Lease>> {
        let Outset { direction, holder, .. } = *outset;
        let acquired = Lease::wait(store, outset, rules_hash).await;
        // What cannot be taken back runs out by itself.
        if let Err(error) = store.stand_down(direction.as_str(), holder).await {
            tracing::debug!(%error, "the store still says that this process stands by");
        }
        acquired
    }

    async fn wait(store: &Store, outset: &Outset<'_>, rules_hash: u64) -> anyhow::Result<Option<Lease>> {
        let Outset { direction, holder, waits, stop } = *outset;
        let (mut told_at, mut trouble): (Option<Instant>, Option<String>) = (None, None);
        loop {
            match try_to_take(store, direction, holder, rules_hash, &mut told_at).await {
                Ok(Taken::Yes(epoch)) => return Ok(Some(Lease { direction, epoch })),
                Ok(Taken::Broken) => continue,
                Ok(Taken::No) => {}
                // A process that stands by does so also where the store is away for a while.
                Err(error) if error.is_transient() => {
                    tracing::warn!(error = with_causes(&error.into()), "the store is away; standing by");
                }
                Err(error) if waits && error.is_to_be_mended() => {
                    store.begin_sessions_anew();
                    let hint = error.hint();
                    let what = with_causes(&error.into());
                    if trouble.as_ref() != Some(&what) {
                        tracing::error!(hint, "{what}; standing by until that is mended");
                    }
                    trouble = Some(what);
                }
                Err(error) => return Err(error.into()),
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

    /// Renews until dropped. Returns an error when the lease is gone: the process must then stop at once.
    pub async fn renew(self, store: Store) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            match store.lease_renew(self.direction.as_str(), self.epoch, TTL).await {
                Ok(true) => {}
                Ok(false) => {
                    let message = format!("another process has taken the {} direction over", self.direction);
                    let hint = "nothing to do: start this process again and it stands by";
                    return Err(Failure::new(Kind::Internal, message, hint).into());
                }
                // The checkpoint's epoch fences; a store that is away is no reason to give up.
                Err(error) => {
                    if error.is_to_be_mended() {
                        store.begin_sessions_anew();
                    }
                    let error = with_causes(&error.into());
                    tracing::warn!(error, "the lease could not be renewed; trying again");
                }
            }
        }
    }

    pub async fn release(&self, store: &Store) -> anyhow::Result<()> {
        match store.lease_release(self.direction.as_str(), self.epoch).await {
            Err(error) if !error.may_be_over_later() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

enum Taken {
    Yes(Epoch),
    /// The holder was found dead: the lease is free now.
    Broken,
    No,
}

/// Takes the lease if it is free, and tells that this process stands by if it is not.
async fn try_to_take(
    store: &Store,
    direction: Direction,
    holder: &str,
    rules_hash: u64,
    told_at: &mut Option<Instant>,
) -> Result<Taken, StoreError> {
    if let Some(epoch) = store.lease_acquire(direction.as_str(), holder, TTL, rules_hash).await? {
        return Ok(Taken::Yes(epoch));
    }
    if break_if_dead(store, direction).await? {
        return Ok(Taken::Broken);
    }
    if told_at.is_none() {
        tracing::info!(%direction, "another process runs this direction; standing by");
    }
    if told_at.is_none_or(|at| at.elapsed() >= STAND_BY_EVERY) {
        store.stand_by(direction.as_str(), holder, STAND_BY_TTL, rules_hash).await?;
        *told_at = Some(Instant::now());
    }
    Ok(Taken::No)
}

/// A holder that ran on this machine and is no more need not be waited for.
async fn break_if_dead(store: &Store, direction: Direction) -> Result<bool, StoreError> {
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

/// A lease has run out that its holder has not given up, who is not known to be dead.
pub fn is_silent(lease: &LeaseStatus) -> bool {
    !lease.live && !lease.holder.is_empty() && !is_dead(&lease.holder)
}

/// A lease outlives its holder by some seconds; that one of this machine is dead is seen at once.
pub fn is_held(lease: &LeaseStatus) -> bool {
    lease.live && !is_dead(&lease.holder)
}

/// Who runs which direction.
pub async fn runners(store: &Store) -> Result<Vec<LeaseStatus>, StoreError> {
    Ok(store.leases().await?.into_iter().filter(is_held).collect())
}

/// Who runs this direction.
pub async fn runner(store: &Store, direction: Direction) -> Result<Option<LeaseStatus>, StoreError> {
    Ok(runners(store).await?.into_iter().find(|lease| lease.subject == direction.as_str()))
}

/// Whether a holder is a process of this machine that is no more. Of other machines nothing is known.
pub fn is_dead(holder: &str) -> bool {
    let mut parts = holder.rsplitn(3, '/');
    let (Some(_), Some(process), Some(machine)) = (parts.next(), parts.next(), parts.next()) else { return false };
    machine == this_machine()
        && process.parse::<u32>().is_ok_and(|process| !std::path::Path::new(&format!("/proc/{process}")).exists())
}

/// Unique to this run of this process: `<machine>/<process>/<random>`.
pub fn holder() -> String {
    let unique: u32 = rand::random();
    format!("{}/{}/{unique:08x}", this_machine(), std::process::id())
}

/// The host's name, with what tells machines of one name apart, and the namespace that process ids count in: containers may
/// share one and not the other. Outside containers, the namespace has the same number everywhere.
fn this_machine() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned());
    format!("{host}:{}:{}", boot.get(..8).unwrap_or_default(), namespace.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No process has a number as large (proc_pid_max is 2^22 at most).
    const NOBODY: &str = "99999999/0badcafe";

    #[test]
    fn p2_only_of_this_machine_is_it_known_who_is_dead() {
        assert!(!is_dead(&holder()));
        assert!(is_dead(&format!("{}/{NOBODY}", this_machine())));
        // Another machine of the same name, such as a clone: its process lives where nobody here can see it.
        let mut parts = this_machine();
        let boot = parts.find(':').map(|at| at + 1..at + 9).unwrap();
        parts.replace_range(boot, "00000000");
        assert!(!is_dead(&format!("{parts}/{NOBODY}")));
        assert!(!is_dead(NOBODY) && !is_dead(""));
    }
}
