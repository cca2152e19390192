//! Whether the reader may go on. It rests while its backlog is full, but for what the opposite direction waits for: a
//! process that holds changes back until this reader has passed a heartbeat must get there, or two full backlogs would
//! wait for each other for ever.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossfade_applier::{ProgressView, beats, canary_writer, opposite_stream};
use crossfade_catalog::{Purpose, ServerFacts};
use crossfade_config::Settings;
use crossfade_message::{BacklogBlock, PassedHeartbeat, Store, StoreError, StreamState};
use crossfade_model::StreamId;
use mysql_async::Conn;
use tokio::sync::watch;

use super::backlog::Backlog;
use super::canary;
use super::purge::time_left;
use crate::meeting::Source;

/// How often a resting reader looks whether somebody waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A source that does not answer for so long keeps nobody waiting.
const ASKED_WITHIN: Duration = Duration::from_secs(2);
/// How often the operator is reminded of what the source purges.
const WARN_EVERY: Duration = Duration::from_secs(600);

pub struct Gate {
    backlog: Backlog,
    waiters: Waiters,
    warned_at: Option<Instant>,
}

impl Gate {
    pub async fn new(
        settings: &Settings,
        source: &Source,
        store: &Store,
        state: &StreamState,
        applied: watch::Receiver<ProgressView>,
    ) -> Result<Gate, StoreError> {
        let backlog = Backlog::read(store, state, settings.store.max_backlog_bytes, applied).await?;
        let waiters = Waiters {
            source: source.clone(),
            store: store.clone(),
            stream: state.stream.clone(),
            conn: None,
            wanted: BTreeMap::new(),
            passed: BTreeMap::new(),
        };
        Ok(Gate { backlog, waiters, warned_at: None })
    }

    /// The stream has moved without this process: its backlog is another.
    pub async fn moved(&mut self, state: &StreamState) -> Result<(), StoreError> {
        self.waiters.passed.clear();
        self.backlog.reread(&self.waiters.store, state).await
    }

    /// Takes note of what was captured.
    pub fn captured(&mut self, block: Option<BacklogBlock>, heartbeats: &[PassedHeartbeat]) {
        block.into_iter().for_each(|block| self.backlog.add(block));
        for beat in heartbeats {
            let passed = self.waiters.passed.entry(beat.writer.clone()).or_default();
            *passed = (*passed).max(beat.counter);
        }
    }

    /// Whether reading may go on now.
    pub fn is_open(&mut self) -> bool {
        !self.backlog.is_full() || self.waiters.is_awaited()
    }

    pub fn has_room(&mut self) -> bool {
        !self.backlog.is_full()
    }

    /// Returns once reading may go on.
    pub async fn opens(&mut self) {
        while !self.is_open() {
            self.warn().await;
            tokio::select! {
                () = self.backlog.has_room() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {
                    // What is asked for in vain is asked for again.
                    let _ = tokio::time::timeout(ASKED_WITHIN, self.waiters.look()).await;
                }
            }
        }
        if !self.backlog.is_full() {
            self.warned_at = None;
        }
    }

    /// Why reading rests.
    pub fn reason(&self) -> String {
        let bound = self.backlog.bound_bytes();
        format!(
            "reading rests, since the {} of `max_backlog` are captured and not yet applied; changes wait in the source's binlog",
            size(bound)
        )
    }

    /// How long the source keeps what is unread, by its settings; `None` where it never purges, or cannot be asked.
    pub async fn purged_in(&mut self) -> Option<Duration> {
        tokio::time::timeout(ASKED_WITHIN, self.ask_purged_in()).await.unwrap_or(None)
    }

    async fn ask_purged_in(&mut self) -> Option<Duration> {
        let unread_since = self.backlog.committed_to_micros();
        self.waiters.connection().await?;
        let mut conn = self.waiters.conn.take()?;
        let facts = ServerFacts::read(&mut conn).await.ok()?;
        self.waiters.conn = Some(conn);
        time_left(facts.binlog.retention, unread_since)
    }

    async fn warn(&mut self) {
        if self.warned_at.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            return;
        }
        self.warned_at = Some(Instant::now());
        let left = self.purged_in().await.map(|left| humantime::format_duration(left).to_string());
        let purged_in = left.as_deref().unwrap_or("not known: never, or the source could not be asked");
        tracing::warn!(purged_in, "{}", self.reason());
    }
}

/// Who waits until this reader has passed a heartbeat on its source.
struct Waiters {
    source: Source,
    store: Store,
    stream: StreamId,
    conn: Option<Conn>,
    /// Counters that somebody waits for, or has waited for.
    wanted: BTreeMap<String, u64>,
    passed: BTreeMap<String, u64>,
}

impl Waiters {
    fn is_awaited(&self) -> bool {
        self.wanted.iter().any(|(writer, counter)| self.passed.get(writer).is_none_or(|passed| passed < counter))
    }

    /// Looks at the source's heartbeats. A source that is away has nobody waiting for it.
    async fn look(&mut self) {
        let pair = self.source.pair.clone();
        if self.connection().await.is_none() {
            return;
        }
        // Kept again only when it has answered: an answer that nobody waited for would be taken for the next one.
        let Some(mut conn) = self.conn.take() else { return };
        let found = beats(&mut conn, &pair).await;
        if found.is_ok() {
            self.conn = Some(conn);
        }
        let looked = match found {
            Ok(found) => self.note(found).await.map_err(anyhow::Error::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = looked {
            tracing::debug!(error = format!("{error:#}"), "who waits for the reader cannot be told");
        }
    }

    async fn note(&mut self, found: Vec<(String, u64)>) -> Result<(), StoreError> {
        let opposite = opposite_stream(&self.stream);
        for (writer, counter) in found {
            let is_canary = writer == canary_writer(&opposite);
            if !is_canary && writer != opposite.as_str() {
                continue;
            }
            let passed = match self.passed.get(&writer) {
                Some(passed) => *passed,
                None => self.store.heartbeat_passed(&self.stream, &writer).await?,
            };
            self.passed.insert(writer.clone(), passed);
            // A process may apply nothing before its first canary has been seen; later ones are not urgent.
            if !is_canary || canary::epoch_of(counter) > canary::epoch_of(passed) {
                self.wanted.insert(writer, counter);
            }
        }
        Ok(())
    }

    async fn connection(&mut self) -> Option<&mut Conn> {
        if self.conn.is_none() {
            self.conn = self.source.primary(Purpose::Apply).await.ok();
        }
        self.conn.as_mut()
    }
}

/// In the greatest unit that gives a whole number.
fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = units.into_iter().find(|(shift, _)| bytes >> shift > 0 && bytes.trailing_zeros() >= *shift);
    fits.map_or_else(|| format!("{bytes} bytes"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_read_as_they_were_written() {
        for (bytes, text) in [(16 << 30, "16 GiB"), (64 << 10, "64 KiB"), (1_000_000, "1000000 bytes")] {
            assert_eq!(size(bytes), text);
        }
    }
}
