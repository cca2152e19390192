//! Copying what was there before, as a part of the forward process.

use std::sync::Arc;

use crossfade_applier::{ProgressView, Uncopied, Wishes};
use crossfade_backfill::{Backfill, Limits, Windows};
use crossfade_binlog::EchoWatch;
use crossfade_catalog::Servers;
use crossfade_message::Store;
use crossfade_model::{Direction, Side};
use crossfade_throttle::Throttle;
use tokio::sync::watch;

use super::failpoint::Probe;
use crate::pair::Pair;

/// What of the process the copying needs.
pub struct Parts {
    pub epoch: u64,
    pub source: Servers,
    pub windows: Arc<Windows>,
    pub uncopied: Uncopied,
    pub applied: watch::Receiver<ProgressView>,
    pub wishes: watch::Receiver<Wishes>,
    pub throttle: Throttle,
    pub probe: Probe,
}

/// All chunks under way may take so much of the memory limit; a row stands there about three times.
const MEMORY_SHARE: u64 = 24;

pub fn of(pair: &Pair, store: &Store, parts: Parts) -> Backfill {
    let settings = &pair.settings;
    let Parts { epoch, source, windows, uncopied, applied, wishes, throttle, probe } = parts;
    let mappings = pair.mappings(Direction::Forward);
    let shapes = &pair.side(Side::Old).shapes;
    let workers = settings.backfill.workers;
    let share = settings.memory.limit_bytes / MEMORY_SHARE / u64::from(workers);
    let chunk_bytes = settings.backfill.chunk_bytes.min(share);
    Backfill {
        pair: settings.pair.clone(),
        store: store.clone(),
        epoch,
        source,
        replica: settings.backfill.from.clone().map(|url| Servers::new(vec![url])),
        source_shapes: mappings.iter().filter_map(|mapping| shapes.get(&mapping.source).cloned()).collect(),
        mappings: mappings.into(),
        windows,
        uncopied,
        applied,
        wishes,
        throttle,
        limits: Limits {
            workers,
            chunk_time: settings.backfill.chunk_time,
            chunk_bytes: usize::try_from(chunk_bytes).unwrap_or(usize::MAX),
        },
        probe,
    }
}

/// While a chunk is being read, rows that the opposite direction writes count, too.
pub fn echo_watch(windows: &Arc<Windows>) -> EchoWatch {
    let (watched, keys) = (windows.clone(), windows.clone());
    EchoWatch::new(move || watched.are_open(), move |change, into| keys.keys_of(change, into))
}
