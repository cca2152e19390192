//! What work asks before it goes on.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossfade_model::Side;
use tokio::sync::watch;

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
}

#[derive(Debug, Default)]
struct Shared {
    /// The rows that were asked for so far are through by then.
    rows_through: Option<Instant>,
    asked: Option<Instant>,
}

impl Throttle {
    /// Keeps nobody waiting.
    pub fn open() -> Throttle {
        Throttle::of(watch::channel(Seen::default()).1)
    }

    pub(crate) fn of(seen: watch::Receiver<Seen>) -> Throttle {
        Throttle { seen, shared: Arc::default() }
    }

    /// Waits until so many rows may be copied or compared.
    pub async fn until_rows_may_pass(&self, rows: u64) {
        self.until_open(|_| true, |_| {}).await;
        let Some(rate) = self.seen.borrow().rows_per_second else { return };
        let begins = {
            let mut shared = self.shared();
            let now = Instant::now();
            let begins = shared.rows_through.map_or(now, |through| through.max(now));
            shared.rows_through = Some(begins + Duration::from_secs_f64(rows as f64 / f64::from(rate.max(1))));
            begins
        };
        // Somebody may set another rate, or none, meanwhile.
        let mut seen = self.seen.clone();
        tokio::select! {
            () = tokio::time::sleep_until(begins.into()) => {}
            Ok(_) = seen.wait_for(|seen| seen.rows_per_second != Some(rate)) => self.shared().rows_through = None,
        }
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

    #[tokio::test]
    async fn p10_rows_pass_at_the_rate_that_is_set() {
        let (sender, seen) = watch::channel(Seen { reasons: vec![], rows_per_second: Some(1_000) });
        let throttle = Throttle::of(seen);
        throttle.until_rows_may_pass(500).await;
        let waits = throttle.until_rows_may_pass(500);
        assert!(
            tokio::time::timeout(Duration::from_millis(300), waits).await.is_err(),
            "the first rows take half a second"
        );
        sender.send_replace(Seen::default());
        throttle.until_rows_may_pass(1_000_000).await;
    }
}
