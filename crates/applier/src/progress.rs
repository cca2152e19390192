//! How far the applier is, and what it waits for, as others may see it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::parking::Counts;

/// What an applier waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// The opposite direction's reader must first capture what users wrote on the target.
    OppositeReader,
    /// The target or the store refused for a reason that passes by itself.
    Retry(String),
}

/// What is known of an applier at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgressView {
    /// Every message up to this one is applied, lost or parked.
    pub applied_seq: u64,
    pub waiting: Option<Waiting>,
    /// Messages that the target refuses, and those that wait behind them.
    pub parked: usize,
    /// Messages that cannot be judged until the opposite direction tells what users did on the target.
    pub held: usize,
    /// Every batch from now on looks for concurrent changes. False while the opposite direction is declared off, and
    /// until a batch that was begun then has ended.
    pub looks_for_concurrent: bool,
}

#[derive(Clone)]
pub(crate) struct Progress {
    view: Arc<watch::Sender<ProgressView>>,
}

impl Progress {
    pub fn new() -> (Progress, watch::Receiver<ProgressView>) {
        let (view, receiver) = watch::channel(ProgressView::default());
        (Progress { view: Arc::new(view) }, receiver)
    }

    pub fn applied(&self, seq: u64) {
        self.view.send_modify(|view| view.applied_seq = view.applied_seq.max(seq));
    }

    pub fn set_aside(&self, counts: Counts) {
        self.view.send_modify(|view| (view.parked, view.held) = (counts.parked, counts.held));
    }

    /// Said between batches only.
    pub fn looks_for_concurrent(&self, looks: bool) {
        self.view.send_if_modified(|view| std::mem::replace(&mut view.looks_for_concurrent, looks) != looks);
    }

    /// The applier waits until the guard is dropped.
    pub fn wait(&self, waiting: Waiting) -> WaitingGuard {
        self.view.send_modify(|view| view.waiting = Some(waiting));
        WaitingGuard { view: self.view.clone() }
    }
}

pub(crate) struct WaitingGuard {
    view: Arc<watch::Sender<ProgressView>>,
}

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        self.view.send_modify(|view| view.waiting = None);
    }
}
