//! What work asks before it goes on.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossfade_model::Side;
use tokio::sync::{Notify, watch};

/// Who has asked within this time is still at work.
const AT_WORK: Duration = Duration::from_secs(10);

/// Why work waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The side that has too much to do; `None` where that is not of one side.
    pub side: Option<Side>,
    pub text: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What was seen last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub reasons: Vec<Reason>,
    /// Rows that may be copied or compared in a second.
    pub rows_per_second: Option<u32>,
}

/// Asked before each piece of work. Cheap to clone; clones share what is seen, and the rate of rows.
#[derive(Debug, Clone)]
pub struct Throttle {
    seen: watch::Receiver<Seen>,
    shared: Arc<Mutex<Shared>>,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Shared {
    asked: Option<Instant>,
    owed: Owed,
}

/// Sleeps end late. So much unused time counts, so that the rate is reached all the same.
const MOST_CREDIT: Duration = Duration::from_millis(100);

/// Rows that were let pass ahead of the rate; they become fewer by the rate in each second from `since` on.
#[derive(Debug)]
struct Owed {
    /// Below 0 where there were fewer than the rate allowed.
    rows: f64,
    rows_per_second: f64,
    since: Instant,
}

impl Default for Owed {
    fn default() -> Owed {
        // Where nothing is owed, any rate will do.
        Owed { rows: 0.0, rows_per_second: 1.0, since: Instant::now() }
    }
}

impl Owed {
    /// Brings what is owed to this moment and rate, and tells how long it lasts from then on.
    fn settle(&mut self, now: Instant, rate: f64) -> Duration {
        let paid = self.rows_per_second * (now - self.since).as_secs_f64();
        let owed = (self.rows - paid) * worth(self.rows_per_second, rate);
        *self = Owed { rows: owed.max(-rate * MOST_CREDIT.as_secs_f64()), rows_per_second: rate, since: now };
        Duration::from_secs_f64(self.rows.max(0.0) / rate)
    }
}

/// What a row counts, that passed at one rate, when there is another. A lower one is for rows to come: what has passed is paid off
/// no later for it.
fn worth(then: f64, now: f64) -> f64 {
    (now / then).min(1.0)
}

/// Leave to copy or compare rows now. All are charged when it is given; when it is dropped, others may pass instead of those that
/// were not used.
#[derive(Debug)]
#[must_use]
pub struct Pass {
    rows: u64,
    used: u64,
    /// `None`: nothing bounds them.
    rows_per_second: Option<f64>,
    shared: Arc<Mutex<Shared>>,
    queue: Arc<Queue>,
}

impl Pass {
    /// No more than were asked for, nor than a second's, so that the databases see a steady load.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// So many have come; where they are more, others wait longer.
    pub fn used(mut self, rows: u64) {
        self.used = rows;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(rate) = self.rows_per_second else { return };
        let owed = &mut lock(&self.shared).owed;
        owed.rows += (self.used as f64 - self.rows as f64) * worth(rate, owed.rows_per_second);
        self.queue.given_back.notify_one();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Each change leaves it whole.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who waits for rows to pass. Whoever has the turn keeps it while it waits: so whoever asked first goes first.
#[derive(Debug, Default)]
struct Queue {
    turn: tokio::sync::Mutex<()>,
    /// Wakes whoever has the turn: less is owed than it reckoned with.
    given_back: Notify,
}

impl Throttle {
    /// Keeps nobody waiting.
    pub fn open() -> Throttle {
        Throttle::of(watch::channel(Seen::default()).1)
    }

    pub(crate) fn of(seen: watch::Receiver<Seen>) -> Throttle {
        Throttle { seen, shared: Arc::default(), queue: Arc::default() }
    }

    /// How many rows a second may be copied or compared, where that is bounded.
    pub fn rows_per_second(&self) -> Option<u32> {
        self.seen.borrow().rows_per_second
    }

    /// Waits until rows may be copied or compared, of so many that are wanted. Whoever asked first goes first; whoever is cancelled
    /// takes nothing, and leaves its turn to the next one.
    pub async fn until_rows_may_pass(&self, wanted: u64) -> Pass {
        let _turn = self.queue.turn.lock().await;
        let mut seen = self.seen.clone();
        loop {
            self.until_open(|_| true, |_| {}).await;
            // Somebody may set another rate, or none, while this waits.
            let bound = self.rows_per_second();
            let Some(rate) = bound.map(|rate| rate.max(1)) else {
                self.shared().owed = Owed::default();
                return self.pass(wanted, None);
            };
            let wait = self.shared().owed.settle(Instant::now(), f64::from(rate));
            if wait.is_zero() {
                return self.pass(wanted.min(rate.into()), Some(rate.into()));
            }
            tokio::select! {
                // It asks again in time to count as being at work.
                () = tokio::time::sleep(wait.min(AT_WORK / 2)) => {}
                () = self.queue.given_back.notified() => {}
                Ok(_) = seen.wait_for(|seen| seen.rows_per_second != bound) => {}
            }
        }
    }

    fn pass(&self, rows: u64, rows_per_second: Option<f64>) -> Pass {
        if rows_per_second.is_some() {
            self.shared().owed.rows += rows as f64;
        }
        Pass { rows, used: 0, rows_per_second, shared: self.shared.clone(), queue: self.queue.clone() }
    }

    /// Waits until a side can bear more changes. `tell` is given each reason why it cannot.
    pub async fn until_changes_may_pass(&self, to: Side, tell: impl FnMut(&Reason)) {
        self.until_open(|reason| reason.side.is_none_or(|side| side == to), tell).await;
    }

    /// Why copying and comparing wait.
    pub fn reason(&self) -> Option<Reason> {
        self.seen.borrow().reasons.first().cloned()
    }

    async fn until_open(&self, counts: impl Fn(&Reason) -> bool, mut tell: impl FnMut(&Reason)) {
        let mut seen = self.seen.clone();
        loop {
            self.shared().asked = Some(Instant::now());
            let reason = seen.borrow_and_update().reasons.iter().find(|reason| counts(reason)).cloned();
            let Some(reason) = reason else { return };
            tell(&reason);
            // Whoever looks ends with the process.
            let asks_again = tokio::time::sleep(AT_WORK / 2);
            tokio::select! {
                changed = seen.changed() => if changed.is_err() { return },
                () = asks_again => {}
            }
        }
    }

    /// Somebody is at work, or waits for it.
    pub(crate) fn is_asked(&self) -> bool {
        self.shared().asked.is_some_and(|asked| asked.elapsed() < AT_WORK)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(side: Option<Side>) -> Reason {
        Reason { side, text: "too much to do".to_owned() }
    }

    #[tokio::test]
    async fn p10_work_waits_while_a_side_has_too_much_to_do() {
        let (sender, seen) = watch::channel(Seen { reasons: vec![reason(Some(Side::New))], rows_per_second: None });
        let throttle = Throttle::of(seen);
        let soon = Duration::from_millis(50);
        throttle.until_changes_may_pass(Side::Old, |_| panic!("old has room")).await;
        let mut told = 0;
        let waits = throttle.until_changes_may_pass(Side::New, |_| told += 1);
        assert!(tokio::time::timeout(soon, waits).await.is_err());
        assert_eq!(told, 1);
        assert!(tokio::time::timeout(soon, throttle.until_rows_may_pass(1)).await.is_err());
        assert!(throttle.is_asked());
        sender.send_replace(Seen { reasons: vec![reason(None)], rows_per_second: None });
        assert!(tokio::time::timeout(soon, throttle.until_changes_may_pass(Side::Old, |_| {})).await.is_err());
        sender.send_replace(Seen::default());
        throttle.until_rows_may_pass(1).await.used(1);
        throttle.until_changes_may_pass(Side::New, |_| panic!("new has room again")).await;
    }

    /// A bound for each test that waits for what must come at once.
    const SOON: Duration = Duration::from_millis(500);

    fn with_rate(rows_per_second: Option<u32>) -> (watch::Sender<Seen>, Throttle) {
        let (sender, seen) = watch::channel(Seen { reasons: vec![], rows_per_second });
        (sender, Throttle::of(seen))
    }

    /// `None` where nothing passes soon.
    async fn passed_soon(throttle: &Throttle, wanted: u64) -> Option<Pass> {
        tokio::time::timeout(SOON, throttle.until_rows_may_pass(wanted)).await.ok()
    }

    /// So many pass and come; `false` where nothing passes soon.
    async fn come_soon(throttle: &Throttle, wanted: u64) -> bool {
        let pass = passed_soon(throttle, wanted).await;
        pass.map(|pass| pass.used(wanted)).is_some()
    }

    #[tokio::test]
    async fn p10_rows_pass_at_the_rate_that_is_set_however_few_are_asked_for_at_once() {
        for (rate, wanted) in [(1_000, 2), (1_000, 100), (50_000, 200)] {
            let (_sender, throttle) = with_rate(Some(rate));
            let (begun, mut rows) = (Instant::now(), 0);
            while begun.elapsed() < SOON {
                let pass = throttle.until_rows_may_pass(wanted).await;
                rows += pass.rows();
                let come = pass.rows();
                pass.used(come);
            }
            let reached = rows as f64 / f64::from(rate) / begun.elapsed().as_secs_f64();
            assert!((0.9..1.3).contains(&reached), "{reached} of {rate}, {wanted} at once");
        }
    }

    #[tokio::test]
    async fn p10_another_rate_counts_at_once_also_for_whoever_waits() {
        for other in [None, Some(10_000)] {
            let (sender, throttle) = with_rate(Some(10));
            throttle.until_rows_may_pass(10).await.used(10);
            let (pass, ()) = tokio::join!(passed_soon(&throttle, 1), async {
                tokio::time::sleep(SOON / 10).await;
                sender.send_modify(|seen| seen.rows_per_second = other);
            });
            assert!(pass.is_some(), "{other:?}");
        }
    }

    #[tokio::test]
    async fn p10_a_rate_is_for_rows_to_come() {
        let (sender, throttle) = with_rate(None);
        let unbounded = throttle.until_rows_may_pass(50_000).await;
        assert_eq!(unbounded.rows(), 50_000);
        sender.send_modify(|seen| seen.rows_per_second = Some(1_000));
        let pass = passed_soon(&throttle, 50_000).await.unwrap();
        assert_eq!(pass.rows(), 1_000, "a second's");
        // It was not charged, so nothing is given back for it.
        drop(unbounded);
        assert!(!come_soon(&throttle, 1).await);
        // Half a second is owed still, and not hours.
        sender.send_modify(|seen| seen.rows_per_second = Some(2));
        tokio::time::sleep(SOON).await;
        assert!(come_soon(&throttle, 2).await);
        pass.used(1_000);
        assert!(!come_soon(&throttle, 1).await);
    }

    #[tokio::test]
    async fn p10_whoever_waits_may_have_a_second_s_rows_of_the_rate_of_then() {
        let (sender, throttle) = with_rate(None);
        sender.send_modify(|seen| seen.reasons.push(reason(None)));
        let (pass, ()) = tokio::join!(passed_soon(&throttle, 50_000), async {
            tokio::time::sleep(SOON / 10).await;
            sender.send_modify(|seen| seen.rows_per_second = Some(100));
            sender.send_modify(|seen| seen.reasons.clear());
        });
        assert_eq!(pass.map(|pass| pass.rows()), Some(100));
    }

    #[tokio::test]
    async fn p10_rows_that_do_not_come_keep_nobody_waiting() {
        let (_sender, throttle) = with_rate(Some(1_000));
        let (first, begun) = (throttle.until_rows_may_pass(1_000).await, Instant::now());
        let (passes, ()) = tokio::join!(come_soon(&throttle, 100), async {
            tokio::time::sleep(SOON / 10).await;
            first.used(200);
        });
        assert!(passes);
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(190), "{took:?}: 200 have come");
        for _ in 0..3 {
            // As where a chunk cannot be read.
            drop(passed_soon(&throttle, 1_000).await.unwrap());
        }
        assert!(come_soon(&throttle, 1_000).await);
        assert!(!come_soon(&throttle, 1).await, "no more is saved up than a late sleep");
        // More came than had been let pass.
        let (_sender, throttle) = with_rate(Some(1_000));
        throttle.until_rows_may_pass(1).await.used(1_000);
        assert!(!come_soon(&throttle, 1).await);
    }

    #[tokio::test]
    async fn p10_a_side_that_has_too_much_to_do_keeps_rows_waiting_that_the_rate_lets_pass() {
        let (sender, throttle) = with_rate(Some(1_000));
        throttle.until_rows_may_pass(100).await.used(100);
        let (passes, ()) = tokio::join!(come_soon(&throttle, 1), async {
            sender.send_modify(|seen| seen.reasons.push(reason(None)));
        });
        assert!(!passes);
    }
}
