//! The task behind a client: it asks for the flag, keeps this instance registered, and takes it off the list in the end.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Method;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::document;
use crate::link::{Answer, Link};
use crate::state::{Limits, Next, Promise, State};

/// Between two questions that brought nothing new, unless that is too long for what is known to stay young.
const PAUSE: Duration = Duration::from_millis(100);

/// The server holds no question for twice as long.
const HOLD_MOST: Duration = Duration::from_secs(30);

/// After the first failure; each further one waits twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// An end that is not heard is no harm: the server finds out by itself.
const LEAVE_ATTEMPTS: u32 = 3;

/// What clients, guards and the task have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    pub fn new(state: State) -> Shared {
        Shared { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// Held for a moment only, never while anything is waited for.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what others may wait for.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changed.send_replace(());
        changed
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits for the next change that `changes` has not seen, until then at most.
    pub async fn wait(changes: &mut watch::Receiver<()>, until: Option<Instant>) {
        let changed = async {
            if changes.changed().await.is_err() {
                // Its sender is gone, which only happens where nobody waits.
                std::future::pending::<()>().await;
            }
        };
        match until {
            Some(until) => tokio::select! { () = changed => {}, () = tokio::time::sleep_until(until) => {} },
            None => changed.await,
        }
    }
}

/// What is asked how often, and how long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How long the server may wait for another version before it answers.
    hold: Duration,
    /// How long anything else may take.
    patience: Duration,
    pause: Duration,
    ttl: Duration,
}

impl Pace {
    /// One question may be lost before what is known is too old.
    pub fn of(limits: &Limits) -> Pace {
        let share = limits.max_age * 3 / 10;
        Pace { hold: share.min(HOLD_MOST), patience: share, pause: share.min(PAUSE), ttl: limits.ttl }
    }
}

struct Retry {
    next: Duration,
    most: Duration,
}

impl Retry {
    fn new(pace: &Pace) -> Retry {
        Retry { next: RETRY_FIRST.min(pace.patience), most: pace.patience }
    }

    fn after_failure(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(self.most);
        now
    }
}

/// Two connections, since a question for the flag may be held.
pub(crate) struct Links {
    pub asking: Link,
    pub promising: Link,
}

/// Ends when this instance has ended and nothing is written any more.
pub(crate) async fn follow(shared: Arc<Shared>, links: Links, name: String, pace: Pace) {
    /// However it ends, also with its runtime.
    struct Ended(Arc<Shared>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.change(State::end);
        }
    }
    let ended = Ended(shared);
    tokio::select! {
        never = ask(&ended.0, links.asking, &pace) => match never {},
        () = keep_registered(&ended.0, links.promising, &name, &pace) => {}
    }
}

async fn ask(shared: &Shared, mut link: Link, pace: &Pace) -> Infallible {
    let mut retry = Retry::new(pace);
    let mut hold = pace.hold;
    loop {
        let before = shared.state().version();
        let (path, limit) = match before {
            None => ("/v1/flag".to_owned(), pace.patience),
            Some(version) => {
                let path = format!("/v1/flag?after={version}&wait={}ms", hold.as_millis());
                (path, hold + pace.patience)
            }
        };
        let asked = Instant::now();
        let outcome = match link.ask(limit, Method::GET, &path, String::new()).await {
            Ok(answer) => take(shared, before, &answer, asked),
            Err(trouble) => Err(trouble),
        };
        let (is_news, has_failed) = shared.change(|state| {
            state.asking(&outcome);
            (state.version() != before, outcome.is_err())
        });
        // Who has not heard anything for a while asks for an answer at once.
        hold = if has_failed { Duration::ZERO } else { pace.hold };
        if has_failed {
            tokio::time::sleep(retry.after_failure()).await;
        } else {
            retry = Retry::new(pace);
            if !is_news {
                // A server that holds no question is not asked without end.
                tokio::time::sleep_until(asked + pace.pause).await;
            }
        }
    }
}

fn take(shared: &Shared, before: Option<u64>, answer: &Answer, asked: Instant) -> Result<(), String> {
    match (answer.status, before) {
        (200, _) => {
            let (pair, flag) = document::parse(&answer.body)?;
            shared.state().learn(&pair, flag, asked, Instant::now())
        }
        (304, Some(version)) => {
            shared.state().confirm(version, asked);
            Ok(())
        }
        (status, _) => Err(document::refusal(status, &answer.body)),
    }
}

async fn keep_registered(shared: &Shared, mut link: Link, name: &str, pace: &Pace) {
    let path = format!("/v1/flag/instances/{name}");
    let mut changes = shared.changes();
    let mut retry = Retry::new(pace);
    let mut not_before = Instant::now();
    loop {
        changes.borrow_and_update();
        let now = Instant::now();
        let next = shared.state().next(now);
        match next {
            Next::Leave => break,
            Next::Wait(until) => Shared::wait(&mut changes, until).await,
            Next::Promise(_) if now < not_before => Shared::wait(&mut changes, Some(not_before)).await,
            Next::Promise(promise) => {
                let outcome = self::promise(shared, &mut link, &path, promise, pace).await;
                shared.change(|state| state.promising(&outcome));
                match outcome {
                    Ok(()) => retry = Retry::new(pace),
                    Err(_) => not_before = Instant::now() + retry.after_failure(),
                }
            }
        }
    }
    for _ in 0..LEAVE_ATTEMPTS {
        if !shared.state().has_promised() {
            return;
        }
        let told = link.ask(pace.patience, Method::DELETE, &path, String::new()).await;
        if told.is_ok_and(|answer| answer.status == 204) {
            return;
        }
        tokio::time::sleep(retry.after_failure()).await;
    }
}

/// A version for which a promise is due stays one that can be promised while the question is on its way: no earlier guard is made.
async fn promise(shared: &Shared, link: &mut Link, path: &str, promise: Promise, pace: &Pace) -> Result<(), String> {
    shared.state().is_promising();
    let body = serde_json::json!({ "version": promise.version, "ttl_ms": pace.ttl.as_millis() as u64 });
    let asked = Instant::now();
    let answer = link.ask(pace.patience, Method::PUT, path, body.to_string()).await?;
    if answer.status != 200 {
        return Err(document::refusal(answer.status, &answer.body));
    }
    let (pair, flag) = document::parse(&answer.body)?;
    let answered = Instant::now();
    // What the flag was after the server knew of this instance, and that it does, count together: who is registered by a
    // flag from before may miss a fence that did not wait for him.
    let mut state = shared.state();
    state.learn(&pair, flag, asked, answered)?;
    state.promised(promise, asked, answered);
    Ok(())
}
