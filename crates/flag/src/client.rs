//! What an application holds.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::follow::{Links, Pace, Shared, follow};
use crate::link::{Address, Connect, Link};
use crate::state::{Admission, Limits, State};
use crate::{Flag, FlagError, Phase, WriteGuard};

/// The server remembers names up to this length, what is added included.
const NAME_MOST_CHARS: usize = 160;

/// The server refuses more.
const TTL_MOST: Duration = Duration::from_secs(300);
const MAX_AGE_LEAST: Duration = Duration::from_millis(100);

/// What counts for *reads* while the flag is not known. Writes are refused then, whatever this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fallback {
    /// Reads are refused too.
    #[default]
    Refuse,
    /// Reads go where they go in this phase.
    ReadAs(Phase),
}

/// See [`FlagClient::builder`].
#[derive(Clone)]
pub struct Builder {
    url: String,
    instance: Option<String>,
    pair: Option<String>,
    max_age: Duration,
    ttl: Duration,
    fallback: Fallback,
    fence_wait: Duration,
    connect_wait: Duration,
    connect: Option<Connect>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("url", &self.url).field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Builder {
    /// The name that people know this instance by: 1 to 160 of `a-z`, `A-Z`, `0-9`, `.`, `_` and `-`. Required. Eight letters are
    /// added, others at each start: two that bear one name by mistake, or one that was started again, do not speak for each other.
    pub fn instance(mut self, name: impl Into<String>) -> Builder {
        self.instance = Some(name.into());
        self
    }

    /// The migration that must answer at the address. Without it, the first one that does.
    pub fn pair(mut self, pair: impl Into<String>) -> Builder {
        self.pair = Some(pair.into());
        self
    }

    /// What was asked for longer ago is not used; at least 100 ms. 5 s unless set.
    pub fn max_age(mut self, max_age: Duration) -> Builder {
        self.max_age = max_age;
        self
    }

    /// How long a cutover waits for this instance after it was heard last; at least a fifth more than `max_age`, and 5 minutes at
    /// most. 10 s unless set. A write that has begun with a flag of nearly `max_age` has nine tenths of this, less `max_age`, to
    /// come to its end while the server is away.
    pub fn ttl(mut self, ttl: Duration) -> Builder {
        self.ttl = ttl;
        self
    }

    /// For reads while the flag is not known.
    pub fn fallback(mut self, fallback: Fallback) -> Builder {
        self.fallback = fallback;
        self
    }

    /// How long [`FlagClient::begin_write`] waits at a fence. 15 s unless set.
    pub fn fence_wait(mut self, wait: Duration) -> Builder {
        self.fence_wait = wait;
        self
    }

    /// How long [`Builder::connect`] waits. 10 s unless set.
    pub fn connect_wait(mut self, wait: Duration) -> Builder {
        self.connect_wait = wait;
        self
    }

    #[cfg(test)]
    pub(crate) fn over(mut self, connect: Connect) -> Builder {
        self.connect = Some(connect);
        self
    }

    /// Begins to follow, and waits until the flag is known and this instance is registered. Cancelled, it leaves nothing behind.
    ///
    /// # Errors
    ///
    /// [`FlagError::Setup`] at once; [`FlagError::Unknown`] where the server is not heard in time. Who wants to start without it
    /// uses [`Builder::start`].
    pub async fn connect(self) -> Result<FlagClient, FlagError> {
        let until = Instant::now() + self.connect_wait;
        let client = self.start()?;
        let mut changes = client.inner.shared.changes();
        loop {
            changes.borrow_and_update();
            let known = {
                let state = client.inner.shared.state();
                let registered = state.is_registered();
                state.flag(Instant::now()).map(|_| registered)
            };
            match known {
                Ok(true) => return Ok(client),
                Err(error) if Instant::now() >= until => return Err(error),
                Ok(false) if Instant::now() >= until => {
                    let trouble = client.trouble().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
                    let reason = format!("this instance could not be registered{trouble}");
                    return Err(FlagError::Unknown { reason });
                }
                _ => Shared::wait(&mut changes, Some(until)).await,
            }
        }
    }

    /// Begins to follow, in a task of the runtime in which it is called. Until the server was heard, the flag is not known.
    ///
    /// # Errors
    ///
    /// [`FlagError::Setup`], with all that is wrong.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn start(self) -> Result<FlagClient, FlagError> {
        let (address, name) = self.checked()?;
        let limits = Limits { max_age: self.max_age, ttl: self.ttl };
        let shared = Arc::new(Shared::new(State::new(limits, self.pair)));
        let connect = self.connect.unwrap_or_else(|| address.tcp());
        let links =
            Links { asking: Link::new(connect.clone(), address.clone()), promising: Link::new(connect, address) };
        tokio::spawn(follow(shared.clone(), links, name.clone(), Pace::of(&limits)));
        let inner = Inner { shared, name, fallback: self.fallback, fence_wait: self.fence_wait };
        Ok(FlagClient { inner: Arc::new(inner) })
    }

    fn checked(&self) -> Result<(Address, String), FlagError> {
        let mut problems = Vec::new();
        let address = Address::parse(&self.url).map_err(|problem| problems.push(problem)).ok();
        let name = self.instance.clone().unwrap_or_default();
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() {
            problems.push("`instance` is missing: the name of this instance, as people know it".to_owned());
        } else if name.len() > NAME_MOST_CHARS || !name.chars().all(is_allowed) {
            let allowed = format!("use 1 to {NAME_MOST_CHARS} of a-z, A-Z, 0-9, `.`, `_` and `-`");
            problems.push(format!("`instance` is no name: {allowed}"));
        }
        if self.max_age < MAX_AGE_LEAST {
            problems.push(format!("`max_age` of {:?} is less than {MAX_AGE_LEAST:?}", self.max_age));
        }
        if self.ttl > TTL_MOST {
            problems.push(format!("`ttl` of {:?} is more than {TTL_MOST:?}", self.ttl));
        }
        // An instance must have stopped by itself before it is not waited for any more.
        if self.ttl < self.max_age.saturating_mul(6) / 5 {
            problems.push(format!("`ttl` of {:?} is not a fifth more than `max_age` of {:?}", self.ttl, self.max_age));
        }
        match address {
            Some(address) if problems.is_empty() => Ok((address, format!("{name}-{:08x}", random()))),
            _ => Err(FlagError::Setup { problems }),
        }
    }
}

/// Another number each time; the standard library seeds its hashers by chance.
fn random() -> u32 {
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32
}

struct Inner {
    shared: Arc<Shared>,
    name: String,
    fallback: Fallback,
    fence_wait: Duration,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.change(State::close);
    }
}

/// Follows the flag of one migration. Cheap to clone; the instance ends with its last clone.
#[derive(Clone)]
pub struct FlagClient {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for FlagClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlagClient").field("instance", &self.inner.name).finish_non_exhaustive()
    }
}

impl FlagClient {
    /// `url` is where `crossfade serve` answers, as in `http://10.0.0.7:8420`. Only `http://` is spoken: put it where nobody else
    /// reads along, or behind something that encrypts on this machine.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder {
            url: url.into(),
            instance: None,
            pair: None,
            max_age: Duration::from_secs(5),
            ttl: Duration::from_secs(10),
            fallback: Fallback::Refuse,
            fence_wait: Duration::from_secs(15),
            connect_wait: Duration::from_secs(10),
            connect: None,
        }
    }

    /// Leave to write. At a fence it waits for a later version of the flag, as long as `fence_wait`; it never ends a fence by its
    /// own clock. Safe to cancel.
    ///
    /// # Errors
    ///
    /// [`FlagError::Unknown`] where what is known is older than `max_age`, or the server has not registered this instance for so
    /// long; [`FlagError::Fenced`]; [`FlagError::Closed`]. Nothing may be written then.
    pub async fn begin_write(&self) -> Result<WriteGuard, FlagError> {
        let shared = &self.inner.shared;
        let begun = Instant::now();
        let until = begun + self.inner.fence_wait;
        let mut changes = shared.changes();
        loop {
            changes.borrow_and_update();
            let now = Instant::now();
            let admission = shared.state().admit(now);
            match admission {
                Admission::Granted(leave) => return Ok(WriteGuard::new(shared.clone(), leave)),
                Admission::Refused(error) => return Err(error),
                Admission::Fenced(version, _) if now >= until => {
                    return Err(FlagError::Fenced { version, waited: self.inner.fence_wait });
                }
                Admission::Fenced(_, stale) => Shared::wait(&mut changes, Some(until.min(stale))).await,
            }
        }
    }

    /// Whether to read the new side; else the old one. Fences do not count for reads.
    ///
    /// # Errors
    ///
    /// [`FlagError::Unknown`] where what is known is older than `max_age`, and there is no [`Fallback::ReadAs`].
    pub fn is_read_new(&self) -> Result<bool, FlagError> {
        match (self.flag(), self.inner.fallback) {
            (Ok(flag), _) => Ok(flag.phase.is_read_new()),
            (Err(_), Fallback::ReadAs(phase)) => Ok(phase.is_read_new()),
            (Err(error), Fallback::Refuse) => Err(error),
        }
    }

    /// What the phase says of writes to old, to show it or to prepare for it. It is no leave to write: that is
    /// [`FlagClient::begin_write`]'s alone.
    ///
    /// # Errors
    ///
    /// [`FlagError::Unknown`]; there is no fallback for writes.
    pub fn is_write_old(&self) -> Result<bool, FlagError> {
        Ok(self.flag()?.phase.is_write_old())
    }

    /// As [`FlagClient::is_write_old`], of writes to new.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn is_write_new(&self) -> Result<bool, FlagError> {
        Ok(self.flag()?.phase.is_write_new())
    }

    /// # Errors
    ///
    /// [`FlagError::Unknown`]
    pub fn version(&self) -> Result<u64, FlagError> {
        Ok(self.flag()?.version)
    }

    /// # Errors
    ///
    /// [`FlagError::Unknown`]
    pub fn phase(&self) -> Result<Phase, FlagError> {
        Ok(self.flag()?.phase)
    }

    /// The flag of at most `max_age` ago.
    ///
    /// # Errors
    ///
    /// [`FlagError::Unknown`]
    pub fn flag(&self) -> Result<Flag, FlagError> {
        self.inner.shared.state().flag(Instant::now())
    }

    /// The name under which the server lists this instance.
    pub fn instance(&self) -> &str {
        &self.inner.name
    }

    /// What the last question to the server has failed with, if it did; for a log or a health check.
    pub fn trouble(&self) -> Option<String> {
        self.inner.shared.state().trouble()
    }

    /// Ends this instance, for all clones: no further write is let in; when the last guard is gone, the server is told. Returns
    /// when that has been tried. A second call waits with the first; cancelled, the ending goes on.
    ///
    /// Dropping the last clone does the same, without waiting for it.
    pub async fn close(&self) {
        let shared = &self.inner.shared;
        let mut changes = shared.changes();
        shared.change(State::close);
        loop {
            changes.borrow_and_update();
            if shared.state().has_ended() {
                return;
            }
            Shared::wait(&mut changes, None).await;
        }
    }
}
