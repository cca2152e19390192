//! Waiting until all that users had committed on both sides has crossed.

use std::time::{Duration, Instant};

use crossfade_applier::beat;
use crossfade_catalog::{Purpose, Servers};
use crossfade_message::Store;
use crossfade_model::{Direction, Side, StreamId};

use crate::VerifyError;

/// The heartbeat row that is written on both sides.
const HEARTBEAT_WRITER: &str = "verify";

const POLL_EVERY: Duration = Duration::from_millis(20);

/// A process that was killed is taken over within this time.
const GRACE: Duration = Duration::from_secs(12);

/// Both sides, and the store that knows how far their streams are.
#[derive(Clone)]
pub(crate) struct Passage {
    pub store: Store,
    pub pair: String,
    pub old: Servers,
    pub new: Servers,
    pub patience: Duration,
}

/// Whether a mark was passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Everything that was committed on either side before has reached the other one, or is set aside.
    All,
    /// It was not within the time; why, for people.
    Not(String),
}

impl Passage {
    fn servers(&self, side: Side) -> &Servers {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    /// Marks both sides now, and waits until the streams have passed that. A direction that is declared off, or that never
    /// ran, carries nothing and is not waited for.
    pub async fn pass(&self) -> Result<Passed, VerifyError> {
        let mut marks = Vec::new();
        for direction in [Direction::Forward, Direction::Reverse] {
            if self.store.wish(direction).await?.is_some_and(|wish| wish.declared) {
                let side = direction.source();
                let mut conn = self.servers(side).connect(Purpose::Apply).await?;
                let counter = beat(&mut conn, &self.pair, HEARTBEAT_WRITER).await;
                let counter = counter.map_err(|source| VerifyError::Heartbeat { side, source })?;
                // It is committed; how the connection ends does not matter.
                let _ = conn.disconnect().await;
                marks.push((direction, counter));
            }
        }
        let begun = Instant::now();
        for (direction, counter) in marks {
            if let Passed::Not(why) = self.until_passed(direction, counter, begun).await? {
                return Ok(Passed::Not(why));
            }
        }
        Ok(Passed::All)
    }

    async fn until_passed(&self, direction: Direction, counter: u64, begun: Instant) -> Result<Passed, VerifyError> {
        let stream = StreamId::new(direction, direction.source().as_str());
        let mut awaited_seq = None;
        let mut dead_since: Option<Instant> = None;
        loop {
            let seq = match awaited_seq {
                Some(seq) => seq,
                None if self.store.heartbeat_passed(&stream, HEARTBEAT_WRITER).await? >= counter => {
                    *awaited_seq.insert(self.store.last_seq(&stream).await?)
                }
                None => u64::MAX,
            };
            if seq < u64::MAX && self.store.stream_state(&stream).await?.settled_seq >= seq {
                return Ok(Passed::All);
            }
            let leases = self.store.leases().await?;
            let is_live = leases.iter().any(|lease| lease.live && lease.subject == direction.as_str());
            let dead_for = if is_live {
                dead_since = None;
                Duration::ZERO
            } else {
                dead_since.get_or_insert_with(Instant::now).elapsed()
            };
            if dead_for >= GRACE.min(self.patience) {
                return Ok(Passed::Not(format!("{direction} does not run")));
            }
            if begun.elapsed() >= self.patience {
                let what = if seq == u64::MAX { "read" } else { "applied" };
                return Ok(Passed::Not(format!(
                    "{direction} had not {what} all that was committed when it was marked"
                )));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}
