//! Which side serves an entity, for applications of which users move one by one.
//!
//! Every answer is what the store said *after* the question had come, and says for how long it may be used: counted from when it
//! was asked, nobody is told otherwise within that time. A fence is a new version, and is waited out by who moves the entity.

pub(crate) mod answers;

use std::sync::Arc;
use std::time::Duration;

use crossfade_message::EntityAnswer;
use crossfade_model::{EntityKey, Side};
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two looks for who waits.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Applications do not write without an answer.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// The store is asked so many questions at a time, however many come.
const AT_A_TIME: usize = 32;

/// What of the store is needed. Errors are for people.
pub trait EntityStore: Send + Sync {
    fn entity<'a>(&'a self, key: &'a EntityKey) -> BoxFuture<'a, Result<EntityAnswer, String>>;
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Entities {
    pair: Arc<str>,
    /// `None`: nothing moves by itself.
    store: Option<Arc<dyn EntityStore>>,
    room: Arc<Semaphore>,
    /// Ends all waiting.
    stop: CancellationToken,
}

/// What is told of an entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntityDocument {
    pub pair: String,
    pub entity: String,
    /// Users read and write it there.
    pub side: Side,
    pub version: u64,
    /// Nobody writes it for a moment.
    pub fenced: bool,
    /// Counted from when the question was asked.
    pub valid_for_ms: u64,
}

impl Entities {
    /// Without a store, there are none.
    pub fn new(pair: &str, store: Option<Arc<dyn EntityStore>>) -> Entities {
        Entities { pair: pair.into(), store, room: Arc::new(Semaphore::new(AT_A_TIME)), stop: CancellationToken::new() }
    }

    pub(crate) fn stopped_by(self, stop: CancellationToken) -> Entities {
        Entities { stop, ..self }
    }

    /// The answer as it is now.
    async fn now(&self, store: &dyn EntityStore, key: &EntityKey) -> Result<EntityAnswer, String> {
        let asked = async {
            // Never closed.
            let _permit = self.room.acquire().await;
            store.entity(key).await
        };
        let late = || Err(format!("the store does not answer within {ASK_LIMIT:?}"));
        tokio::time::timeout(ASK_LIMIT, asked).await.unwrap_or_else(|_| late())
    }

    /// The answer as soon as its version is another one than `known`, or as it is after `wait`.
    async fn other_than(
        &self,
        store: &dyn EntityStore,
        key: &EntityKey,
        known: Option<u64>,
        wait: Duration,
    ) -> Result<EntityAnswer, String> {
        let until = Instant::now() + wait;
        loop {
            let begun = Instant::now();
            let answer = self.now(store, key).await?;
            if Some(answer.version) != known || begun >= until || self.stop.is_cancelled() {
                return Ok(answer);
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.min(begun + LOOK_EVERY)) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    fn document(&self, key: &EntityKey, answer: EntityAnswer) -> EntityDocument {
        EntityDocument {
            pair: self.pair.to_string(),
            entity: key.as_str().to_owned(),
            side: answer.side,
            version: answer.version,
            fenced: answer.fenced,
            valid_for_ms: u64::try_from(answer.valid_for.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests;
