//! What is known, what was promised, and what follows from both. No I/O and no clock of its own: instants are passed in, and all
//! of it changes under one lock.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Flag, FlagError};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Nothing that was asked for longer ago is used.
    pub max_age: Duration,
    /// What is asked of the server: how long it waits for this instance after it was heard last.
    pub ttl: Duration,
}

impl Limits {
    /// How long after a promise was sent writes may still be under way. The rest of the time is for a COMMIT that is on its way,
    /// and for clocks that run at different rates.
    fn lease(&self) -> Duration {
        self.ttl - self.ttl / 10
    }

    /// How long after a promise was sent it is made again.
    fn renewal(&self) -> Duration {
        self.max_age * 2 / 5
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    flag: Flag,
    /// When the request was about to be sent whose answer has told it last.
    asked: Instant,
    /// When this version was first told: an earlier one that was asked for before that is an answer that came late.
    since: Instant,
}

/// What is said to the server: 'I write by this version or later ones, and by no earlier one any more'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Promise {
    pub version: u64,
    term: u64,
}

/// What there is to do for the registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Promise(Promise),
    /// Nothing before that, or before something changes.
    Wait(Option<Instant>),
    /// The instance has ended, and nothing is written any more.
    Leave,
}

/// Leave to write by a version, until it is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leave {
    pub id: u64,
    term: u64,
    pub flag: Flag,
}

#[derive(Debug)]
pub(crate) enum Admission {
    Granted(Leave),
    Refused(FlagError),
    /// By this version; to be asked again when something has changed, and at this time.
    Fenced(u64, Instant),
}

#[derive(Debug)]
pub(crate) struct State {
    limits: Limits,
    pair: Option<String>,
    known: Option<Known>,
    /// When the request was about to be sent that has registered this instance last.
    lease: Option<Instant>,
    /// What the server is known to have.
    acknowledged: Option<u64>,
    /// One more whenever the server may have thought this instance dead, or has gone back: no guard from before is valid then.
    term: u64,
    /// The version of each guard that lives.
    guards: BTreeMap<u64, u64>,
    next_guard: u64,
    has_promised: bool,
    closing: bool,
    ended: bool,
    trouble_asking: Option<String>,
    trouble_promising: Option<String>,
}

impl State {
    pub fn new(limits: Limits, pair: Option<String>) -> State {
        State {
            limits,
            pair,
            known: None,
            lease: None,
            acknowledged: None,
            term: 0,
            guards: BTreeMap::new(),
            next_guard: 0,
            has_promised: false,
            closing: false,
            ended: false,
            trouble_asking: None,
            trouble_promising: None,
        }
    }

    /// The last version that was told, however long ago.
    pub fn version(&self) -> Option<u64> {
        self.known.map(|known| known.flag.version)
    }

    /// Takes what an answer says, of a request that was about to be sent at `asked`.
    ///
    /// # Errors
    ///
    /// Why it is not believed.
    pub fn learn(&mut self, pair: &str, flag: Flag, asked: Instant, answered: Instant) -> Result<(), String> {
        match &self.pair {
            Some(own) if own != pair => return Err(format!("it tells of the pair `{pair}`, not of `{own}`")),
            Some(_) => {}
            None => self.pair = Some(pair.to_owned()),
        }
        let fresh = Known { flag, asked, since: answered };
        let Some(known) = &mut self.known else {
            self.known = Some(fresh);
            return Ok(());
        };
        if flag == known.flag {
            known.asked = known.asked.max(asked);
        } else if flag.version == known.flag.version {
            return Err(format!("version {} has changed without a new number", flag.version));
        } else if flag.version > known.flag.version {
            *known = fresh;
        } else if asked > known.since {
            // The store was restored, say: what was promised to it is forgotten there. Guards count as of the version from
            // which it goes on, or the next one would be acknowledged over them.
            *known = fresh;
            self.term += 1;
            self.lease = None;
            self.acknowledged = None;
            self.guards.values_mut().for_each(|version| *version = flag.version.min(*version));
        }
        Ok(())
    }

    /// The server has said that `version` is still the flag's.
    pub fn confirm(&mut self, version: u64, asked: Instant) {
        if let Some(known) = self.known.as_mut().filter(|known| known.flag.version == version) {
            known.asked = known.asked.max(asked);
        }
    }

    pub fn next(&self, now: Instant) -> Next {
        if self.closing && self.guards.is_empty() {
            return Next::Leave;
        }
        let Some(known) = self.known else { return Next::Wait(None) };
        let oldest_guard = self.guards.values().copied().min();
        let version = oldest_guard.map_or(known.flag.version, |oldest| oldest.min(known.flag.version));
        let due = match (self.lease, self.acknowledged) {
            (Some(lease), Some(acknowledged)) if acknowledged >= version => lease + self.limits.renewal(),
            _ => now,
        };
        if due > now { Next::Wait(Some(due)) } else { Next::Promise(Promise { version, term: self.term }) }
    }

    /// From now on the server may know this instance.
    pub fn is_promising(&mut self) {
        self.has_promised = true;
    }

    /// Whether the server may know this instance.
    pub fn has_promised(&self) -> bool {
        self.has_promised
    }

    /// The server has kept a promise. What it told with it is to be [learned](State::learn) before anybody else looks.
    pub fn promised(&mut self, promise: Promise, asked: Instant, answered: Instant) {
        if promise.term != self.term {
            return;
        }
        // Kept before the last one was over, or the server may have thought this instance dead for a moment.
        let has_lapsed = self.lease.is_some_and(|last| answered >= last + self.limits.lease());
        if has_lapsed {
            self.term += 1;
        }
        self.lease = Some(asked);
        self.acknowledged = Some(promise.version);
    }

    pub fn is_registered(&self) -> bool {
        self.lease.is_some()
    }

    pub fn admit(&mut self, now: Instant) -> Admission {
        if self.closing {
            return Admission::Refused(FlagError::Closed);
        }
        let (flag, lease) = match (self.flag(now), self.lease) {
            (Err(error), _) => return Admission::Refused(error),
            (Ok(flag), Some(lease)) if now < lease + self.limits.max_age => (flag, lease),
            (Ok(_), _) => {
                let reason = with_trouble("this instance is not registered".to_owned(), &self.trouble_promising);
                return Admission::Refused(FlagError::Unknown { reason });
            }
        };
        if flag.fenced {
            let asked = self.known.map_or(lease, |known| known.asked.min(lease));
            return Admission::Fenced(flag.version, asked + self.limits.max_age);
        }
        let id = self.next_guard;
        self.next_guard += 1;
        self.guards.insert(id, flag.version);
        Admission::Granted(Leave { id, term: self.term, flag })
    }

    /// Whether somebody may have waited for it.
    pub fn give_back(&mut self, leave: &Leave) -> bool {
        let version = self.guards.remove(&leave.id);
        self.closing || version != self.version()
    }

    /// Until when the server counts on this write, unless it hears of this instance again by then. `None`: it may have stopped.
    pub fn valid_until(&self, leave: &Leave, now: Instant) -> Option<Instant> {
        let until = self.lease? + self.limits.lease();
        (leave.term == self.term && now < until).then_some(until)
    }

    /// What is known, if it is young enough.
    pub fn flag(&self, now: Instant) -> Result<Flag, FlagError> {
        let unknown = |reason: String| FlagError::Unknown { reason: with_trouble(reason, &self.trouble_asking) };
        let Some(known) = self.known else { return Err(unknown("nobody has told it yet".to_owned())) };
        let age = now.saturating_duration_since(known.asked);
        if age >= self.limits.max_age {
            let (age, most) = (Duration::from_millis(age.as_millis() as u64), self.limits.max_age);
            return Err(unknown(format!("what was told last is {age:?} old, and {most:?} is the most")));
        }
        Ok(known.flag)
    }

    pub fn asking(&mut self, outcome: &Result<(), String>) {
        self.trouble_asking = outcome.as_ref().err().cloned();
    }

    pub fn promising(&mut self, outcome: &Result<(), String>) {
        self.trouble_promising = outcome.as_ref().err().cloned();
    }

    pub fn trouble(&self) -> Option<String> {
        self.trouble_asking.clone().or_else(|| self.trouble_promising.clone())
    }

    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Nobody asks any more.
    pub fn end(&mut self) {
        self.closing = true;
        self.ended = true;
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }
}

fn with_trouble(reason: String, trouble: &Option<String>) -> String {
    match trouble {
        Some(trouble) => format!("{reason} ({trouble})"),
        None => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Phase;

    fn flag(version: u64) -> Flag {
        Flag { version, phase: Phase::WriteBoth, fenced: false }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn state() -> State {
        State::new(Limits { max_age: ms(5_000), ttl: ms(10_000) }, None)
    }

    /// Registers it as of `asked`.
    fn register(state: &mut State, asked: Instant, answered: Instant) {
        let Next::Promise(promise) = state.next(asked) else { panic!("nothing is due: {state:?}") };
        state.promised(promise, asked, answered);
    }

    fn admitted(state: &mut State, now: Instant) -> Leave {
        match state.admit(now) {
            Admission::Granted(leave) => leave,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_version_is_as_old_as_the_question_that_it_answers() {
        let (mut state, begun) = (state(), Instant::now());
        for (version, asked) in [(5, begun), (6, begun + ms(1_000)), (3, begun + ms(4_000))] {
            assert_eq!(state.learn("p", flag(version), asked, asked + ms(2_000)), Ok(()));
            assert_eq!(state.flag(asked + ms(4_999)), Ok(flag(version)));
            assert!(state.flag(asked + ms(5_000)).is_err(), "{version}");
            state.confirm(version + 1, asked + ms(3_000));
            assert!(state.flag(asked + ms(5_000)).is_err(), "another version was confirmed");
        }
        state.confirm(3, begun + ms(6_000));
        assert_eq!(state.flag(begun + ms(10_999)), Ok(flag(3)));
    }

    #[test]
    fn an_answer_that_comes_late_takes_nothing_back() {
        let (mut state, begun) = (state(), Instant::now());
        assert_eq!(state.learn("p", flag(5), begun, begun + ms(10)), Ok(()));
        register(&mut state, begun + ms(20), begun + ms(40));
        assert_eq!(state.learn("p", flag(6), begun + ms(50), begun + ms(60)), Ok(()));
        let leave = admitted(&mut state, begun + ms(70));
        for asked in [30, 60] {
            assert_eq!(state.learn("p", flag(5), begun + ms(asked), begun + ms(100)), Ok(()));
            assert_eq!(state.version(), Some(6), "it was asked for before 6 was told");
            assert!(state.valid_until(&leave, begun + ms(100)).is_some());
        }
        assert_eq!(state.learn("p", flag(5), begun + ms(61), begun + ms(100)), Ok(()));
        assert_eq!(state.version(), Some(5));
        assert!(state.valid_until(&leave, begun + ms(100)).is_none());
        assert!(matches!(state.admit(begun + ms(100)), Admission::Refused(_)), "it is not registered there");
    }

    #[test]
    fn a_promise_from_before_the_flag_went_back_registers_nobody() {
        let (mut state, begun) = (state(), Instant::now());
        assert_eq!(state.learn("p", flag(5), begun, begun), Ok(()));
        let Next::Promise(promise) = state.next(begun) else { panic!("{state:?}") };
        assert_eq!(state.learn("p", flag(3), begun + ms(1), begun + ms(2)), Ok(()));
        state.promised(promise, begun, begun + ms(3));
        assert!(!state.is_registered());
        register(&mut state, begun + ms(4), begun + ms(5));
        assert_eq!(admitted(&mut state, begun + ms(6)).flag, flag(3));
    }

    #[test]
    fn a_promise_that_was_kept_too_late_begins_anew() {
        let (mut state, begun) = (state(), Instant::now());
        assert_eq!(state.learn("p", flag(5), begun, begun), Ok(()));
        register(&mut state, begun, begun + ms(1));
        let leave = admitted(&mut state, begun + ms(2));
        // Answered right before the end of the last one, and right after it.
        register(&mut state, begun + ms(8_000), begun + ms(8_999));
        assert_eq!(state.valid_until(&leave, begun + ms(9_000)), Some(begun + ms(17_000)));
        register(&mut state, begun + ms(16_000), begun + ms(17_000));
        assert_eq!(state.valid_until(&leave, begun + ms(17_000)), None);
        assert_eq!(state.next(begun + ms(17_000)), Next::Wait(Some(begun + ms(18_000))));
    }
}
