//! What a process needs before it can run, and waits for: the store, and both sides' definitions.
//!
//! Whoever starts processes again when they have ended need not know which server comes up first, and gives up after some
//! attempts: so a server that is away is waited for, also at the start. What only a person can mend ends the process, but for
//! what is the matter with a store that has let it in: that is waited for as it is later. The reason for either is kept in the
//! store, as far as nobody else runs the direction.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossfade_applier::ApplyError;
use crossfade_catalog::CatalogError;
use crossfade_config::Settings;
use crossfade_message::{Epoch, RULES_UNKNOWN, Store, StoreError};
use crossfade_model::Direction;
use tokio_util::sync::CancellationToken;

use super::lease::Lease;
use super::report;
use crate::command::refuse_ended;
use crate::failure::{hint, with_causes};
use crate::pair::{Pair, stream_of};
use crate::store_home;

const PAUSE: Duration = Duration::from_secs(1);

/// The same trouble is told again so late.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// A direction's process before it runs.
pub struct Outset<'a> {
    pub direction: Direction,
    /// Of the lease, once there is one.
    pub holder: &'a str,
    /// A run that is to end by itself has nobody who waits for it.
    pub waits: bool,
    pub stop: &'a CancellationToken,
}

/// Noted once everything runs: each part then waits for servers by itself.
#[derive(Default)]
pub struct Begun(AtomicBool);

impl Begun {
    pub fn note(&self) {
        self.0.store(true, Relaxed);
    }

    fn is_noted(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Outset<'_> {
    /// Names the server that has the store. `None` when asked to stop meanwhile.
    pub async fn find_store(&self, settings: Settings) -> anyhow::Result<Option<Arc<Settings>>> {
        let found = self.awaiting(async || {
            let mut found = settings.clone();
            store_home::find(&mut found).await?;
            Ok(found)
        });
        Ok(found.await?.map(Arc::new))
    }

    /// Both sides, once the store knows the pair and the sides can be read. `None` when asked to stop meanwhile.
    pub async fn pair(&self, settings: &Arc<Settings>, store: &Store) -> anyhow::Result<Option<Pair>> {
        let known = self.awaiting(async || {
            store.version_check().await?;
            store.stream_state(&stream_of(self.direction)).await?;
            refuse_ended(store).await
        });
        if known.await?.is_none() {
            return Ok(None);
        }
        match Pair::read(settings.clone()).await {
            Err(error) if self.waits && passes(&error) => self.wait_for_sides(settings, store, error).await,
            Err(error) => {
                tell_why(store, self.direction, &error).await;
                Err(error)
            }
            Ok(pair) => Ok(Some(pair)),
        }
    }

    /// Waits with the lease, so that `status` shows that somebody does; or stands by as long as another process has it. The
    /// lease stays: who runs takes it anew as the same holder, under the rules that are known then.
    async fn wait_for_sides(
        &self,
        settings: &Arc<Settings>,
        store: &Store,
        first: anyhow::Error,
    ) -> anyhow::Result<Option<Pair>> {
        let stream = stream_of(self.direction);
        tracing::warn!(hint = hint(&first), "{}; waiting for it", with_causes(&first));
        let taken = Lease::acquire(store, self, RULES_UNKNOWN).await?;
        let Some(lease) = taken else { return Ok(None) };
        report::retrying(store, &stream, lease.epoch(), with_causes(&first)).await;
        let reading = self.awaiting(async || {
            let read = Pair::read(settings.clone()).await;
            if let Err(error) = &read {
                report::retrying(store, &stream, lease.epoch(), with_causes(error)).await;
            }
            read
        });
        let read = tokio::select! {
            lost = lease.clone().renew(store.clone()) => lost.map(|()| None),
            read = reading => read,
        };
        match &read {
            Ok(Some(_)) => return read,
            Ok(None) => report::ended(store, &stream, lease.epoch()).await,
            Err(error) => report::failed(store, &stream, lease.epoch(), error).await,
        }
        lease.release(store).await?;
        read
    }

    /// Runs with the lease. Where a server goes away before the run has begun, that begins anew until the server is back.
    pub async fn until_begun(
        &self,
        store: &Store,
        epoch: Epoch,
        mut run: impl AsyncFnMut(&Begun) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut told: Option<String> = None;
        loop {
            let begun = Begun::default();
            match run(&begun).await {
                Err(error)
                    if self.waits && !begun.is_noted() && !self.stop.is_cancelled() && awaits_mending(&error) =>
                {
                    let (what, hint) = (with_causes(&error), hint(&error).unwrap_or_default());
                    if told.as_ref() != Some(&what) {
                        tracing::error!(hint, "{what}; waiting until that is mended");
                    }
                    store.begin_sessions_anew();
                    report::to_be_mended(store, &stream_of(self.direction), epoch, format!("{what}; {hint}")).await;
                    told = Some(what);
                }
                Err(error) if self.waits && !begun.is_noted() && passes(&error) && !self.stop.is_cancelled() => {
                    tracing::warn!(hint = hint(&error), "{}; waiting for it", with_causes(&error));
                    report::retrying(store, &stream_of(self.direction), epoch, with_causes(&error)).await;
                }
                ended => return ended,
            }
            tokio::select! {
                () = self.stop.cancelled() => {
                    report::ended(store, &stream_of(self.direction), epoch).await;
                    return Ok(());
                }
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Asks until there is an answer, or a failure that does not pass by itself. `None` when asked to stop meanwhile.
    async fn awaiting<T>(&self, mut ask: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        let mut told: Option<(Instant, String)> = None;
        loop {
            let asked = tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                asked = ask() => asked,
            };
            match asked {
                Err(error) if self.waits && passes(&error) => {
                    let text = with_causes(&error);
                    if told.as_ref().is_none_or(|(at, before)| at.elapsed() >= TELL_EVERY || *before != text) {
                        tracing::warn!(hint = hint(&error), "{text}; waiting for it");
                        told = Some((Instant::now(), text));
                    }
                }
                asked => return asked.map(Some),
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// Keeps the reason why a process could not even begin, unless another one runs the direction and speaks for it.
pub async fn tell_why(store: &Store, direction: Direction, error: &anyhow::Error) {
    if let Ok(Some(lease)) = Lease::acquire_if_free(store, direction, RULES_UNKNOWN).await {
        report::failed(store, &stream_of(direction), lease.epoch(), error).await;
        if let Err(error) = lease.release(store).await {
            tracing::debug!(error = format!("{error:#}"), "the lease runs out by itself");
        }
    }
}

/// A server is away, or none takes writes: it passes without anybody changing what is configured.
fn passes(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<CatalogError>().is_some_and(|error| error.remedy().passes())
            || cause.downcast_ref::<StoreError>().is_some_and(StoreError::is_transient)
            || cause.downcast_ref::<ApplyError>().is_some_and(|error| error.remedy().passes())
    })
}

/// The store's server lets nobody write until a person has mended it.
fn awaits_mending(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<StoreError>().is_some_and(StoreError::is_to_be_mended)
            || matches!(cause.downcast_ref(), Some(ApplyError::Store(error)) if error.is_to_be_mended())
    })
}
