//! The read-write flag, for applications: what it says, who follows it, and which version each of them has acknowledged.
//!
//! - Every answer is what the store said *after* the question had come: who counts the age of an answer from when he asked is right.
//!   However many wait for a change, the store is asked by one at a time, and every 100 ms.
//! - The flag that is told to an instance with its registration was read after the store knew of the instance. So one that a
//!   fence did not wait for has been told of the fence.

pub(crate) mod answers;
pub(crate) mod asked;
mod document;

use std::sync::Arc;
use std::time::Duration;

use crossfade_message::{Flag, FlagInstance};
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::look::{Look, Seen, ago};
use crate::view::FRESH;

pub use document::{FlagDocument, InstanceLine};

/// Between two looks for who waits.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Applications do not write without an answer.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// What of the store is needed. Errors are for people.
pub trait FlagStore: Send + Sync {
    fn flag(&self) -> BoxFuture<'_, Result<Flag, String>>;

    /// An instance writes by this version or later ones, and stops by itself if it is not heard for `ttl`.
    fn acknowledge<'a>(&'a self, instance: &'a str, version: u64, ttl: Duration) -> BoxFuture<'a, Result<(), String>>;

    /// An instance writes no more. Without effect where it is not known.
    fn forget<'a>(&'a self, instance: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// Those whose time is not over, by name.
    fn instances(&self) -> BoxFuture<'_, Result<Vec<FlagInstance>, String>>;
}

/// Cheap to clone; clones look once for all.
#[derive(Clone)]
pub struct Flags {
    pair: Arc<str>,
    store: Arc<dyn FlagStore>,
    flag: Arc<Look<Flag>>,
    instances: Arc<Look<Arc<[FlagInstance]>>>,
    /// All who wait look at the same moments, counted from here.
    origin: Instant,
    /// Ends all waiting.
    stop: CancellationToken,
}

impl Flags {
    pub fn new(pair: &str, store: Arc<dyn FlagStore>) -> Flags {
        Flags {
            pair: pair.into(),
            store,
            flag: Arc::new(Look::new(ASK_LIMIT)),
            instances: Arc::new(Look::new(ASK_LIMIT)),
            origin: Instant::now(),
            stop: CancellationToken::new(),
        }
    }

    pub(crate) fn stopped_by(self, stop: CancellationToken) -> Flags {
        Flags { stop, ..self }
    }

    /// The flag as it is at `since` or later.
    async fn since(&self, since: Instant) -> (Instant, Seen<Flag>) {
        self.flag.since(since, self.store.flag()).await
    }

    /// The flag as soon as its version is another one than `known`, or as it is after `wait`.
    async fn other_than(&self, known: Option<u64>, wait: Duration) -> Seen<Flag> {
        let mut since = Instant::now();
        let until = since + wait;
        loop {
            let (begun, flag) = self.since(since).await;
            let flag = flag?;
            if Some(flag.version) != known || begun >= until || self.stop.is_cancelled() {
                return Ok(flag);
            }
            since = until.min(self.next_look(begun));
            tokio::select! {
                () = tokio::time::sleep_until(since) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// The first who comes then looks for all.
    fn next_look(&self, after: Instant) -> Instant {
        let passed = after.saturating_duration_since(self.origin).as_nanos() / LOOK_EVERY.as_nanos();
        self.origin + LOOK_EVERY * u32::try_from(passed + 1).unwrap_or(u32::MAX)
    }

    async fn acknowledge(&self, instance: &str, version: u64, ttl: Duration) -> Result<(), String> {
        in_time(self.store.acknowledge(instance, version, ttl)).await
    }

    async fn forget(&self, instance: &str) -> Result<(), String> {
        in_time(self.store.forget(instance)).await
    }

    async fn instances_since(&self, since: Instant) -> Seen<Arc<[FlagInstance]>> {
        let ask = async { self.store.instances().await.map(Arc::from) };
        self.instances.since(since, ask).await.1
    }

    /// For metrics: of a moment ago, and nothing where it cannot be read.
    pub(crate) async fn glance(&self) -> Option<(Flag, Arc<[FlagInstance]>)> {
        let flag = self.since(ago(FRESH)).await.1.ok()?;
        Some((flag, self.instances_since(ago(FRESH)).await.ok()?))
    }
}

async fn in_time(asked: BoxFuture<'_, Result<(), String>>) -> Result<(), String> {
    let late = || Err(format!("the store does not answer within {ASK_LIMIT:?}"));
    tokio::time::timeout(ASK_LIMIT, asked).await.unwrap_or_else(|_| late())
}

#[cfg(test)]
pub(crate) mod tests;
