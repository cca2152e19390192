//! Copying what was there before, as a part of the forward process.

use std::sync::Arc;
use std::time::Duration;

use crossfade_applier::{ProgressView, Uncopied, Wishes};
use crossfade_backfill::{Backfill, Limits, Windows};
use crossfade_binlog::EchoWatch;
use crossfade_catalog::Servers;
use crossfade_config::Settings;
use crossfade_message::{CopyState, Store};
use crossfade_model::{Direction, Side};
use crossfade_throttle::Throttle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::failpoint::Probe;
use crate::command::mark;
use crate::failure::with_causes;
use crate::pair::Pair;

/// What of the process the copying needs.
pub struct Parts {
    pub epoch: u64,
    pub source: Servers,
    pub target: Servers,
    pub windows: Arc<Windows>,
    pub uncopied: Uncopied,
    pub applied: watch::Receiver<ProgressView>,
    pub wishes: watch::Receiver<Wishes>,
    pub throttle: Throttle,
    pub probe: Probe,
}

/// Marks that are taken when all is copied are named like this, with a number.
const MARK: &str = "backfill";

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All chunks under way may take so much of the memory limit; a row stands there about three times.
const MEMORY_SHARE: u64 = 24;

pub fn of(pair: &Pair, store: &Store, parts: Parts) -> Backfill {
    let settings = &pair.settings;
    let Parts { epoch, source, target, windows, uncopied, applied, wishes, throttle, probe } = parts;
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
        target,
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

/// Takes a mark whenever the last table is copied, until `running` ends.
pub async fn mark_ends(settings: Arc<Settings>, store: Store, running: CancellationToken) -> anyhow::Result<()> {
    let mut was_open = false;
    loop {
        tokio::select! {
            () = running.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        // What cannot be read is looked at again.
        let Ok(copies) = store.copies().await else { continue };
        let is_open = copies.iter().any(|copy| copy.state != CopyState::Copied);
        let ended_at = copies.iter().filter_map(|copy| copy.copied_at).max();
        let (false, Some(ended_at)) = (is_open, ended_at) else {
            was_open |= is_open;
            continue;
        };
        match take_mark(&settings, &store, was_open, ended_at).await {
            Ok(()) => was_open = false,
            Err(error) => tracing::debug!(error = with_causes(&error), "no mark could be taken"),
        }
    }
}

/// A process may have died between the last chunk and the mark.
async fn take_mark(
    settings: &Settings,
    store: &Store,
    was_open: bool,
    ended_at: chrono::DateTime<chrono::Utc>,
) -> anyhow::Result<()> {
    let of_backfill = store.marks().await?.into_iter().filter(|mark| mark.name.starts_with(MARK)).collect::<Vec<_>>();
    if !was_open && of_backfill.iter().any(|mark| mark.taken_at >= ended_at) {
        return Ok(());
    }
    let name = format!("{MARK}-{}", of_backfill.len() + 1);
    mark::keep(settings, store, &name, Some("all tables are copied")).await?;
    tracing::info!(mark = name, "all tables are copied; a mark is taken");
    Ok(())
}
