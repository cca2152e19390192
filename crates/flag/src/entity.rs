//! The side of one entity, usually a user, where they move one by one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Method;
use tokio::sync::{Mutex as Turn, Semaphore};
use tokio::time::Instant;

use crate::entity_document::{self, Told};
use crate::entity_guard::EntityGuard;
use crate::link::{Address, Connect, Link};
use crate::{FlagError, Side, document};

/// Longest key.
const KEY_MOST_BYTES: usize = 512;

/// So many questions are asked at a time, each over a connection of its own.
const AT_A_TIME: usize = 16;

/// The server waits no longer for a change; then it is asked again.
const WAIT_MOST: Duration = Duration::from_secs(10);

/// Where an entity is, from one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fact {
    pub side: Side,
    pub version: u64,
    pub fenced: bool,
    /// Before the question was sent.
    pub asked: Instant,
    pub valid_for: Duration,
}

impl Fact {
    fn is_valid(&self, now: Instant) -> bool {
        now < self.asked + self.valid_for
    }

    /// For who writes: what is on its way to the database when this is over, is there before anybody else may write.
    pub fn write_until(&self) -> Instant {
        self.asked + self.valid_for * 4 / 5
    }

    /// A write that begins now has some time for its work.
    fn lets_write(&self, now: Instant) -> bool {
        !self.fenced && now < self.asked + self.valid_for / 2
    }
}

/// See [`EntityClient::builder`].
#[derive(Clone)]
pub struct EntityBuilder {
    url: String,
    pair: Option<String>,
    fence_wait: Duration,
    ask_limit: Duration,
    most_known: usize,
    connect: Option<Connect>,
}

impl std::fmt::Debug for EntityBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntityBuilder").field("url", &self.url).field("pair", &self.pair).finish_non_exhaustive()
    }
}

impl EntityBuilder {
    /// The migration that must answer at the address. Without it, whichever does.
    pub fn pair(mut self, pair: impl Into<String>) -> EntityBuilder {
        self.pair = Some(pair.into());
        self
    }

    /// How long [`EntityClient::begin_write`] waits at a fence. 15 s unless set.
    pub fn fence_wait(mut self, wait: Duration) -> EntityBuilder {
        self.fence_wait = wait;
        self
    }

    /// How long an answer is waited for. 3 s unless set.
    pub fn ask_limit(mut self, limit: Duration) -> EntityBuilder {
        self.ask_limit = limit;
        self
    }

    /// Of how many entities answers are kept at a time. 10,000 unless set; 1 at least.
    pub fn most_known(mut self, most: usize) -> EntityBuilder {
        self.most_known = most;
        self
    }

    #[cfg(test)]
    pub(crate) fn over(mut self, connect: Connect) -> EntityBuilder {
        self.connect = Some(connect);
        self
    }

    /// Asks nothing yet.
    ///
    /// # Errors
    ///
    /// [`FlagError::Setup`], with all that is wrong.
    pub fn build(self) -> Result<EntityClient, FlagError> {
        let mut problems = Vec::new();
        let address = Address::parse(&self.url).map_err(|problem| problems.push(problem)).ok();
        if self.most_known == 0 {
            problems.push("`most_known` is 0: at least one entity must be known at a time".to_owned());
        }
        if self.ask_limit.is_zero() {
            problems.push("`ask_limit` is 0, and nothing is answered in no time".to_owned());
        }
        let Some(address) = address.filter(|_| problems.is_empty()) else {
            return Err(FlagError::Setup { problems });
        };
        let connect = self.connect.unwrap_or_else(|| address.tcp());
        let inner = Inner {
            address,
            connect,
            pair: self.pair,
            fence_wait: self.fence_wait,
            ask_limit: self.ask_limit,
            most_known: self.most_known,
            known: Mutex::default(),
            idle: Mutex::default(),
            room: Semaphore::new(AT_A_TIME),
        };
        Ok(EntityClient { inner: Arc::new(inner) })
    }
}

/// Who asks for the same entity meanwhile waits for that answer.
type Slot = Arc<Turn<Option<Fact>>>;

pub(crate) struct Inner {
    address: Address,
    connect: Connect,
    pair: Option<String>,
    fence_wait: Duration,
    ask_limit: Duration,
    most_known: usize,
    known: Mutex<HashMap<String, Slot>>,
    idle: Mutex<Vec<Link>>,
    room: Semaphore,
}

/// Asks which side an entity is on. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct EntityClient {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for EntityClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntityClient").field("pair", &self.inner.pair).finish_non_exhaustive()
    }
}

impl EntityClient {
    /// `url` is where `crossfade serve` answers, as for [`FlagClient`](crate::FlagClient::builder).
    pub fn builder(url: impl Into<String>) -> EntityBuilder {
        EntityBuilder {
            url: url.into(),
            pair: None,
            fence_wait: Duration::from_secs(15),
            ask_limit: Duration::from_secs(3),
            most_known: 10_000,
            connect: None,
        }
    }

    /// The side to read an entity from. Fences do not count for reads. Safe to cancel.
    ///
    /// # Errors
    ///
    /// [`FlagError::EntityUnknown`] where nothing valid is known and the server does not tell.
    pub async fn side(&self, id: &str) -> Result<Side, FlagError> {
        Ok(self.inner.fact(id, |fact, now| fact.is_valid(now)).await?.side)
    }

    /// Leave to write an entity. At a fence it waits for a later version, as long as `fence_wait`; it never ends a fence by its
    /// own clock. Safe to cancel.
    ///
    /// # Errors
    ///
    /// [`FlagError::EntityUnknown`] where nothing valid is known and the server does not tell; [`FlagError::EntityFenced`]. Nothing may be
    /// written then.
    pub async fn begin_write(&self, id: &str) -> Result<EntityGuard, FlagError> {
        let until = Instant::now() + self.inner.fence_wait;
        loop {
            let fact = self.inner.fact(id, |fact, now| fact.lets_write(now)).await?;
            if fact.lets_write(Instant::now()) {
                return Ok(EntityGuard::new(self.inner.clone(), id, fact));
            }
            let now = Instant::now();
            if now >= until {
                let (entity, version, waited) = (id.to_owned(), fact.version, self.inner.fence_wait);
                return Err(match fact.fenced {
                    true => FlagError::EntityFenced { entity, version, waited },
                    false => FlagError::EntityUnknown { reason: "every answer had run out when it came".to_owned() },
                });
            }
            if fact.fenced {
                self.inner.until_other(id, fact.version, (until - now).min(WAIT_MOST)).await?;
            }
        }
    }
}

impl Inner {
    /// What is known of an entity where that is good enough, else what the server says now.
    pub async fn fact(&self, id: &str, is_enough: impl Fn(&Fact, Instant) -> bool) -> Result<Fact, FlagError> {
        let slot = self.slot(id)?;
        let mut known = slot.lock().await;
        if let Some(fact) = known.filter(|fact| is_enough(fact, Instant::now())) {
            return Ok(fact);
        }
        let fact = self.ask(id, "", self.ask_limit).await?;
        let fact = fact.ok_or_else(|| unknown("it answers that nothing has changed, and was not asked for that"))?;
        *known = Some(fact);
        Ok(fact)
    }

    /// What the server says now, whatever is known.
    pub async fn fact_anew(&self, id: &str) -> Result<Fact, FlagError> {
        let begun = Instant::now();
        self.fact(id, |fact, _| fact.asked >= begun).await
    }

    /// Returns when the server knows a later version, or has waited so long.
    async fn until_other(&self, id: &str, version: u64, wait: Duration) -> Result<(), FlagError> {
        // Rounded up: who waits for less than a millisecond would ask again and again.
        let query = format!("?after={version}&wait={}ms", wait.as_millis() + 1);
        self.ask(id, &query, self.ask_limit + wait).await?;
        Ok(())
    }

    /// `None`: it is as it was.
    async fn ask(&self, id: &str, query: &str, limit: Duration) -> Result<Option<Fact>, FlagError> {
        let asked = Instant::now();
        // Never closed.
        let _permit = self.room.acquire().await;
        let idle = lock(&self.idle).pop();
        let mut link = idle.unwrap_or_else(|| Link::new(self.connect.clone(), self.address.clone()));
        let path = format!("/v1/entities/{}{query}", encoded(id));
        let left = limit.saturating_sub(asked.elapsed());
        let answer = link.ask(left, Method::GET, &path, String::new()).await.map_err(unknown)?;
        lock(&self.idle).push(link);
        match answer.status {
            200 => {}
            304 => return Ok(None),
            status => return Err(unknown(document::refusal(status, &answer.body))),
        }
        let (pair, told) = entity_document::parse(&answer.body, id).map_err(unknown)?;
        if let Some(wanted) = self.pair.as_ref().filter(|wanted| **wanted != pair) {
            return Err(unknown(format!("the pair `{pair}` answers there, and `{wanted}` is meant")));
        }
        let Told { side, version, fenced, valid_for } = told;
        Ok(Some(Fact { side, version, fenced, asked, valid_for }))
    }

    fn slot(&self, id: &str) -> Result<Slot, FlagError> {
        if !(1..=KEY_MOST_BYTES).contains(&id.len()) {
            return Err(FlagError::Setup { problems: vec![format!("a key has 1 to {KEY_MOST_BYTES} bytes")] });
        }
        let mut known = lock(&self.known);
        if let Some(slot) = known.get(id) {
            return Ok(slot.clone());
        }
        if known.len() >= self.most_known {
            let now = Instant::now();
            // One that somebody asks for at this moment stays.
            let is_of_use =
                |slot: &Slot| slot.try_lock().map_or(true, |fact| fact.is_some_and(|fact| fact.is_valid(now)));
            known.retain(|_, slot| is_of_use(slot));
            while known.len() >= self.most_known {
                let Some(any) = known.keys().next().cloned() else { break };
                known.remove(&any);
            }
        }
        Ok(known.entry(id.to_owned()).or_default().clone())
    }

    #[cfg(test)]
    pub fn known(&self) -> usize {
        lock(&self.known).len()
    }
}

#[cfg(test)]
impl EntityClient {
    pub(crate) fn known(&self) -> usize {
        self.inner.known()
    }
}

/// Nobody panics while he has it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unknown(reason: impl Into<String>) -> FlagError {
    FlagError::EntityUnknown { reason: reason.into() }
}

/// As a part of a path (RFC 3986, 2.3).
fn encoded(id: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    id.bytes().map(|byte| if is_plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_in_a_path_as_they_are() {
        assert_eq!(encoded("a-7_.~"), "a-7_.~");
        assert_eq!(encoded("a/b c?é"), "a%2Fb%20c%3F%C3%A9");
    }
}
