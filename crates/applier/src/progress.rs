//! How far the applier is, and what it waits for, as others may see it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::parking::Counts;

/// What an applier waits for, the weightiest last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiting {
    /// The opposite direction's reader must first capture what users wrote on the target.
    OppositeReader,
    /// A database has too much to do.
    Throttle(String),
    /// The target or the store refused for a reason that passes by itself.
    Retry(String),
    /// The target cannot take changes until somebody mends it.
    Stopped(String),
}

/// What is known of an applier at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgressView {
    /// Every message up to this one is applied, lost or parked.
    pub applied_seq: u64,
    /// Of all that its lanes wait for, the weightiest.
    pub waiting: Option<Waiting>,
    /// Messages that the target refuses, and those that wait behind them.
    pub parked: usize,
    /// Messages that cannot be judged until the opposite direction tells what users did on the target.
    pub held: usize,
    /// No batch is under way, and none is begun before applying is wished again.
    pub rests: bool,
    /// Every batch from now on looks for concurrent changes. False while the opposite direction is declared off, and
    /// until a batch that was begun then has ended.
    pub looks_for_concurrent: bool,
}

#[derive(Clone)]
pub(crate) struct Progress {
    view: Arc<watch::Sender<ProgressView>>,
    waits: Arc<Mutex<Waits>>,
}

#[derive(Default)]
struct Waits {
    next: u64,
    open: BTreeMap<u64, Waiting>,
}

impl Progress {
    pub fn new() -> (Progress, watch::Receiver<ProgressView>) {
        let (view, receiver) = watch::channel(ProgressView::default());
        (Progress { view: Arc::new(view), waits: Arc::default() }, receiver)
    }

    pub fn applied(&self, seq: u64) {
        self.view.send_modify(|view| view.applied_seq = view.applied_seq.max(seq));
    }

    pub fn set_aside(&self, counts: Counts) {
        self.view.send_modify(|view| (view.parked, view.held) = (counts.parked, counts.held));
    }

    /// Said between batches only.
    pub fn rests(&self, rests: bool) {
        self.view.send_if_modified(|view| std::mem::replace(&mut view.rests, rests) != rests);
    }

    /// Said between batches only.
    pub fn looks_for_concurrent(&self, looks: bool) {
        self.view.send_if_modified(|view| std::mem::replace(&mut view.looks_for_concurrent, looks) != looks);
    }

    /// The applier waits until the guard is dropped. Several may wait at a time.
    pub fn wait(&self, waiting: Waiting) -> WaitingGuard {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let number = waits.next;
        waits.next += 1;
        waits.open.insert(number, waiting);
        self.tell(&waits);
        WaitingGuard { progress: self.clone(), number }
    }

    fn tell(&self, waits: &Waits) {
        let weightiest = waits.open.values().max().cloned();
        self.view.send_if_modified(|view| std::mem::replace(&mut view.waiting, weightiest.clone()) != weightiest);
    }
}

#[must_use = "waiting ends when the guard is dropped"]
pub(crate) struct WaitingGuard {
    progress: Progress,
    number: u64,
}

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        let mut waits = self.progress.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.open.remove(&self.number);
        self.progress.tell(&waits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weightiest_wait_is_told_until_it_ends() {
        let (progress, view) = Progress::new();
        let waiting = || view.borrow().waiting.clone();
        let retry = progress.wait(Waiting::Retry("the target is away".to_owned()));
        let held = progress.wait(Waiting::OppositeReader);
        assert_eq!(waiting(), Some(Waiting::Retry("the target is away".to_owned())));
        let again = progress.wait(Waiting::Retry("the target is away".to_owned()));
        drop(retry);
        assert!(matches!(waiting(), Some(Waiting::Retry(_))), "one lane of two has got through");
        drop(again);
        assert_eq!(waiting(), Some(Waiting::OppositeReader));
        drop(held);
        assert_eq!(waiting(), None);
    }
}
