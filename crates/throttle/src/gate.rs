//! What work asks before it goes on.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
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
    passing: Arc<Passing>,
}

#[derive(Debug, Default)]
struct Shared {
    asked: Option<Instant>,
    owed: Owed,
}

/// Rows that have passed before the rate allowed it.
#[derive(Debug)]
struct Owed {
    rows: f64,
    since: Instant,
}

impl Default for Owed {
    fn default() -> Owed {
        Owed { rows: 0.0, since: Instant::now() }
    }
}

impl Owed {
    /// Lets so many rows more pass if nothing is owed, and else tells how long that lasts.
    fn ask(&mut self, rows: u64, now: Instant, rows_per_second: Option<u32>) -> Duration {
        let since = std::mem::replace(&mut self.since, now);
        let Some(rate) = rows_per_second.map(|rate| f64::from(rate.max(1))) else {
            self.rows = 0.0;
            return Duration::ZERO;
        };
        let owed = (self.rows - rate * (now - since).as_secs_f64()).max(0.0);
        if owed < 1.0 {
            self.rows = owed + rows as f64;
            return Duration::ZERO;
        }
        self.rows = owed;
        Duration::from_secs_f64(owed / rate)
    }

    fn give_back(&mut self, rows: u64) {
        self.rows = (self.rows - rows as f64).max(0.0);
    }
}

/// Rows pass one request after the other.
#[derive(Debug, Default)]
struct Passing {
    turn: tokio::sync::Mutex<()>,
    /// Fewer rows have passed than were asked for.
    fewer: Notify,
}

impl Throttle {
    /// Keeps nobody waiting.
    pub fn open() -> Throttle {
        Throttle::of(watch::channel(Seen::default()).1)
    }

    pub(crate) fn of(seen: watch::Receiver<Seen>) -> Throttle {
        Throttle { seen, shared: Arc::default(), passing: Arc::default() }
    }

    /// How many rows a second may be copied or compared, where that is bounded.
    pub fn rows_per_second(&self) -> Option<u32> {
        self.seen.borrow().rows_per_second
    }

    /// Of so many rows those that are to be asked for at once: no more than a second's, so that the databases see a steady load.
    pub fn at_once(&self, rows: u64) -> u64 {
        self.rows_per_second().map_or(rows, |rate| rows.min(u64::from(rate.max(1))))
    }

    /// Waits until so many rows may be copied or compared. Whoever asked first goes first.
    pub async fn until_rows_may_pass(&self, rows: u64) {
        let _turn = self.passing.turn.lock().await;
        let mut seen = self.seen.clone();
        loop {
            self.until_open(|_| true, |_| {}).await;
            // Somebody may set another rate, or none, while this waits.
            let rate = self.rows_per_second();
            let wait = self.shared().owed.ask(rows, Instant::now(), rate);
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait.min(AT_WORK / 2)) => {}
                () = self.passing.fewer.notified() => {}
                Ok(_) = seen.wait_for(|seen| seen.rows_per_second != rate) => {}
            }
        }
    }

    /// So many rows of those that were asked for have not come: others may pass instead.
    pub fn give_back(&self, rows: u64) {
        self.shared().owed.give_back(rows);
        self.passing.fewer.notify_one();
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

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        // Each change leaves it whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
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
        throttle.until_rows_may_pass(1).await;
        throttle.until_changes_may_pass(Side::New, |_| panic!("new has room again")).await;
    }

    /// A bound for each test that waits for what must come at once; and rows that nobody waits for so long.
    const SOON: Duration = Duration::from_millis(500);
    const MANY_ROWS: u64 = 100_000;

    fn with_rate(rows_per_second: Option<u32>) -> (watch::Sender<Seen>, Throttle) {
        let (sender, seen) = watch::channel(Seen { reasons: vec![], rows_per_second });
        (sender, Throttle::of(seen))
    }

    async fn passes_soon(throttle: &Throttle, rows: u64) -> bool {
        tokio::time::timeout(SOON, throttle.until_rows_may_pass(rows)).await.is_ok()
    }

    #[tokio::test]
    async fn p10_rows_pass_at_the_rate_that_is_set() {
        let (_sender, throttle) = with_rate(Some(1_000));
        let begun = Instant::now();
        for _ in 0..4 {
            throttle.until_rows_may_pass(100).await;
        }
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(295), "{took:?}: each but the last takes a tenth of a second");
        assert!(passes_soon(&throttle, MANY_ROWS).await);
        assert!(!passes_soon(&throttle, 1).await);
    }

    #[tokio::test]
    async fn p10_another_rate_counts_at_once_also_for_whoever_waits() {
        let (sender, throttle) = with_rate(Some(1_000));
        for other in [None, Some(10_000_000)] {
            sender.send_modify(|seen| seen.rows_per_second = Some(1_000));
            throttle.until_rows_may_pass(MANY_ROWS).await;
            let (passes, ()) = tokio::join!(passes_soon(&throttle, 1), async {
                tokio::time::sleep(SOON / 10).await;
                sender.send_modify(|seen| seen.rows_per_second = other);
            });
            assert!(passes, "{other:?}");
            sender.send_modify(|seen| seen.rows_per_second = None);
            assert!(passes_soon(&throttle, MANY_ROWS).await);
            sender.send_modify(|seen| seen.rows_per_second = Some(1_000));
            assert!(passes_soon(&throttle, MANY_ROWS).await, "there was no rate for those before");
            sender.send_modify(|seen| seen.rows_per_second = other);
            assert!(passes_soon(&throttle, 1).await, "{other:?}, set while nobody waits");
        }
    }

    #[tokio::test]
    async fn p10_rows_that_were_asked_for_and_do_not_come_keep_nobody_waiting() {
        let (_sender, throttle) = with_rate(Some(1_000));
        throttle.until_rows_may_pass(MANY_ROWS).await;
        let begun = Instant::now();
        let (passes, ()) = tokio::join!(passes_soon(&throttle, 100), async {
            tokio::time::sleep(SOON / 10).await;
            throttle.give_back(MANY_ROWS - 200);
        });
        assert!(passes);
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(195), "{took:?}: 200 have come");
        // Nothing is saved up.
        throttle.give_back(MANY_ROWS);
        throttle.until_rows_may_pass(MANY_ROWS).await;
        assert!(!passes_soon(&throttle, 1).await);
    }

    #[test]
    fn no_more_than_a_second_s_rows_are_asked_for_at_once() {
        let at_once = |rate| with_rate(rate).1.at_once(50);
        assert_eq!([None, Some(100), Some(20), Some(0)].map(at_once), [50, 50, 20, 1]);
    }

    #[tokio::test]
    async fn p10_a_side_that_has_too_much_to_do_keeps_rows_waiting_that_the_rate_lets_pass() {
        let (sender, throttle) = with_rate(Some(1_000));
        throttle.until_rows_may_pass(100).await;
        let (passes, ()) = tokio::join!(passes_soon(&throttle, 1), async {
            sender.send_modify(|seen| seen.reasons.push(reason(None)));
        });
        assert!(!passes);
    }
}
