//! Waiting until the opposite reader has captured everything that users of the target committed before now.
//!
//! A wait commits a heartbeat on the target and polls the store until the opposite stream has captured it. All waits
//! that begin before the heartbeat is written share it, so many lanes cost one commit.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossfade_catalog::{Purpose, Servers};
use crossfade_message::Store;
use crossfade_model::StreamId;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::applier::Wishes;
use crate::counters::Counters;
use crate::error::{ApplyError, with_causes};
use crate::session;

/// A wait that has taken this long tells that the opposite reader is away, or far behind, …
const STALLED_AFTER: Duration = Duration::from_secs(3);

/// … unless it is always late, as one that reads a replica may be: then it is waited for up to so long, also under locks.
const LONGEST: Duration = Duration::from_secs(30);

/// Asks for a wait. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hold {
    requests: mpsc::Sender<oneshot::Sender<Waited>>,
    reader: Arc<Mutex<Reader>>,
    counters: Arc<Counters>,
    went_back: Arc<WentBack>,
}

/// How often changes were sent back to the source, and how many of these the opposite reader has captured.
#[derive(Debug, Default)]
struct WentBack {
    sent: AtomicU64,
    captured: AtomicU64,
}

/// The opposite reader, as waits have met it.
#[derive(Debug, Default)]
struct Reader {
    /// Since when the wait takes that is under way.
    awaited_since: Option<Instant>,
    /// How long the last wait took that has ended.
    late_by: Duration,
}

impl Reader {
    fn ends_wait(&mut self, waited: Waited) {
        if let Some(since) = self.awaited_since.take()
            && waited == Waited::Captured
        {
            self.late_by = since.elapsed();
        }
    }
}

/// How a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    Captured,
    /// The opposite direction is declared off: nothing more of it counts, and nobody waits for it.
    DeclaredOff,
    TooLong,
}

impl Waited {
    /// Whoever has waited may go on.
    pub fn is_enough(self) -> bool {
        self != Waited::TooLong
    }
}

/// Counts how long one asker waited, also where he gave up.
struct Timed<'h> {
    begun: Instant,
    counters: &'h Counters,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let waited = self.begun.elapsed();
        self.counters.note_wait(waited);
        // Only within `timed_without_waits` is that of interest.
        let _ = WAITED.try_with(|before| before.set(before.get() + waited));
    }
}

tokio::task_local! {
    /// How long the work of a task has waited.
    static WAITED: Cell<Duration>;
}

/// Carries work out, and tells how long that took without its waits for the opposite reader.
pub(crate) async fn timed_without_waits<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let timed = async {
        let done = work.await;
        (done, begun.elapsed().saturating_sub(WAITED.with(Cell::get)))
    };
    WAITED.scope(Cell::default(), timed).await
}

/// The wait's worker has ended with the process.
#[derive(Debug)]
struct HoldClosed;

impl Hold {
    /// Returns the handle and the worker, which runs until `stop` or until an error that does not pass.
    pub fn new(worker: HoldWorker, counters: Arc<Counters>) -> (Hold, impl Future<Output = Result<(), ApplyError>>) {
        let (requests, receiver) = mpsc::channel(64);
        let reader: Arc<Mutex<Reader>> = Arc::default();
        let went_back = Arc::default();
        (Hold { requests, reader: reader.clone(), counters, went_back }, worker.run(receiver, reader))
    }

    /// The opposite reader has not answered for so long that nobody should wait for it in place.
    pub fn is_stalled(&self) -> bool {
        let since = self.reader().awaited_since;
        since.is_some_and(|since| since.elapsed() >= self.patience())
    }

    /// How long a wait may take of which nobody thinks ill.
    pub fn patience(&self) -> Duration {
        (self.reader().late_by * 2).clamp(STALLED_AFTER, LONGEST)
    }

    /// How long locks may be held so that a reader that is as late as it was last gets there: it may have to pass the mark of a
    /// wait that is under way before.
    pub fn enough_under_locks(&self) -> Duration {
        (self.reader().late_by * 3).min(LONGEST)
    }

    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`captured_up_to_now`](Self::captured_up_to_now), for no longer than `limit`.
    pub async fn captured_within(&self, limit: Duration) -> Result<Waited, ApplyError> {
        match tokio::time::timeout(limit, self.captured_up_to_now()).await {
            Err(_) => Ok(Waited::TooLong),
            Ok(Err(HoldClosed)) => Err(ApplyError::HoldEnded),
            Ok(Ok(waited)) => Ok(waited),
        }
    }

    /// The same for a session in mid-transaction, which is kept alive meanwhile.
    pub async fn captured_under_locks(&self, conn: &mut Conn, limit: Duration) -> Result<Waited, ApplyError> {
        session::while_alive(conn, self.captured_within(limit)).await?
    }

    /// Returns once every user transaction that had committed on the target when this was called is in the opposite
    /// stream's messages, or that stream's direction is declared off. Waits for as long as that takes; cancel by dropping.
    async fn captured_up_to_now(&self) -> Result<Waited, HoldClosed> {
        let _timed = Timed { begun: Instant::now(), counters: &self.counters };
        let sent = self.went_back.sent.load(SeqCst);
        let (done, wait) = oneshot::channel();
        self.requests.send(done).await.map_err(|_| HoldClosed)?;
        let waited = wait.await.map_err(|_| HoldClosed)?;
        if waited == Waited::Captured {
            self.went_back.captured.fetch_max(sent, SeqCst);
        }
        Ok(waited)
    }

    /// A change goes back to the source, to be captured by the opposite reader. Called before its transaction commits and
    /// after.
    pub fn note_sent_back(&self) {
        self.went_back.sent.fetch_add(1, SeqCst);
    }

    /// How often that was noted.
    pub fn sent_back(&self) -> u64 {
        self.went_back.sent.load(SeqCst)
    }

    /// Something that went back may not be captured yet. It may leave a row as its source knows it, so that sight tells
    /// nothing.
    pub fn awaits_what_went_back(&self) -> bool {
        self.went_back.captured.load(SeqCst) < self.went_back.sent.load(SeqCst)
    }
}

pub(crate) struct HoldWorker {
    pub store: Store,
    pub target: Servers,
    pub pair: String,
    /// Names the heartbeat's row: the stream that waits.
    pub writer: StreamId,
    /// The stream that must capture it.
    pub opposite: StreamId,
    pub wishes: watch::Receiver<Wishes>,
    pub stop: CancellationToken,
}

/// Writes a heartbeat on a node and returns its counter. When a reader of the node has passed it, everything that was
/// committed there before has been read.
pub async fn beat(conn: &mut Conn, pair: &str, writer: &str) -> Result<u64, mysql_async::Error> {
    conn.exec_drop(
        "INSERT INTO crossfade.heartbeat (pair, writer, counter, beat_at) \
         VALUES (?, ?, LAST_INSERT_ID(1), UTC_TIMESTAMP(6)) \
         ON DUPLICATE KEY UPDATE counter = LAST_INSERT_ID(counter + 1), beat_at = UTC_TIMESTAMP(6)",
        (pair, writer),
    )
    .await?;
    Ok(conn.last_insert_id().unwrap_or(1))
}

/// The counter of a writer's heartbeat on a node, or on a replica of it, where the row may have yet to arrive with its table.
pub async fn beat_seen(conn: &mut Conn, pair: &str, writer: &str) -> Result<u64, mysql_async::Error> {
    const NO_SUCH_DATABASE: u16 = 1049;
    const NO_SUCH_TABLE: u16 = 1146;
    let question = "SELECT counter FROM crossfade.heartbeat WHERE pair = ? AND writer = ?";
    match conn.exec_first(question, (pair, writer)).await {
        Err(mysql_async::Error::Server(error)) if [NO_SUCH_DATABASE, NO_SUCH_TABLE].contains(&error.code) => Ok(0),
        counter => Ok(counter?.unwrap_or(0)),
    }
}

/// The counters of all heartbeats that the pair has on a node, by their writers.
pub async fn beats(conn: &mut Conn, pair: &str) -> Result<Vec<(String, u64)>, mysql_async::Error> {
    conn.exec("SELECT writer, counter FROM crossfade.heartbeat WHERE pair = ?", (pair,)).await
}

/// When the store is asked whether a heartbeat has been passed: first when most of the time has gone by that it usually takes, then
/// without a pause, since the runtime's clock knows whole milliseconds only, and later more and more slowly.
#[derive(Debug, Default)]
struct Looks {
    usual: Duration,
}

impl Looks {
    const FIRST_WITHIN: Duration = Duration::from_millis(20);
    const CLOSELY_FOR: Duration = Duration::from_millis(4);
    const LONGEST_PAUSE: Duration = Duration::from_millis(50);

    /// Before the next look, after so long a wait.
    fn pause(&self, waited: Duration) -> Duration {
        let first = (self.usual * 3 / 4).min(Looks::FIRST_WITHIN);
        if waited < first {
            first - waited
        } else if waited < first + Looks::CLOSELY_FOR {
            Duration::ZERO
        } else {
            (waited / 5).min(Looks::LONGEST_PAUSE)
        }
    }

    /// So long a wait came to its end. Where the first look saw it, it may have ended long before.
    fn note(&mut self, waited: Duration, looks: u32) {
        let took = if looks == 1 { waited / 2 } else { waited };
        self.usual = (self.usual * 3 + took.min(Looks::FIRST_WITHIN * 2)) / 4;
    }
}

impl HoldWorker {
    async fn run(
        self,
        mut requests: mpsc::Receiver<oneshot::Sender<Waited>>,
        reader: Arc<Mutex<Reader>>,
    ) -> Result<(), ApplyError> {
        let reader = || reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut conn: Option<(Conn, u64)> = None;
        let mut looks = Looks::default();
        loop {
            let first = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                request = requests.recv() => match request {
                    Some(request) => request,
                    None => return Ok(()),
                },
            };
            let mut waiting = vec![first];
            while let Ok(more) = requests.try_recv() {
                waiting.push(more);
            }
            reader().awaited_since = Some(Instant::now());
            let waited = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                waited = self.beat_until_captured(&mut conn, &mut looks) => waited?,
            };
            reader().ends_wait(waited);
            for request in waiting {
                // The asker may have given up meanwhile.
                let _ = request.send(waited);
            }
        }
    }

    async fn beat_until_captured(
        &self,
        conn: &mut Option<(Conn, u64)>,
        looks: &mut Looks,
    ) -> Result<Waited, ApplyError> {
        loop {
            match self.beat(conn).await {
                Ok(counter) => return self.wait_for(counter, looks).await,
                Err(error) if !error.may_be_over_later() => return Err(error),
                Err(error) => {
                    *conn = None;
                    tracing::warn!(error = with_causes(&error), "the heartbeat on the target failed; trying again");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    async fn beat(&self, slot: &mut Option<(Conn, u64)>) -> Result<u64, ApplyError> {
        if let Some((conn, moves)) = slot
            && !self.target.still_takes_writes(conn, *moves).await
        {
            *slot = None;
        }
        if slot.is_none() {
            let moves = self.target.moves();
            *slot = Some((self.target.connect(Purpose::Apply).await?, moves));
        }
        let Some((conn, _)) = slot.as_mut() else { unreachable!("filled above") };
        Ok(session::answered(beat(conn, &self.pair, self.writer.as_str())).await?)
    }

    /// Nobody who is declared off is waited for, also where that is said while a wait is under way.
    async fn wait_for(&self, counter: u64, looks: &mut Looks) -> Result<Waited, ApplyError> {
        let began = Instant::now();
        let mut looked = 0;
        while self.wishes.borrow().opposite_declared {
            let pause = looks.pause(began.elapsed());
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            looked += 1;
            match self.store.heartbeat_passed(&self.opposite, self.writer.as_str()).await {
                Ok(passed) if passed >= counter => {
                    looks.note(began.elapsed(), looked);
                    return Ok(Waited::Captured);
                }
                Ok(_) => {}
                Err(error) if !error.may_be_over_later() => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(error = with_causes(&error), "the store cannot be read; trying again");
                    if error.is_to_be_mended() {
                        self.store.begin_sessions_anew();
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
        Ok(Waited::DeclaredOff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn looks_begin_when_it_is_about_time_and_become_rare() {
        let mut looks = Looks::default();
        assert_eq!(looks.pause(millis(0)), millis(0), "nothing is known yet");
        (0..20).for_each(|_| looks.note(millis(8), 2));
        let first = looks.pause(millis(0));
        assert!((millis(5)..=millis(6)).contains(&first), "{first:?}");
        assert_eq!(looks.pause(millis(7)), millis(0), "closely where it is due");
        assert_eq!(looks.pause(millis(20)), millis(4));
        assert_eq!(looks.pause(millis(10_000)), millis(50));
        looks.note(millis(60_000), 100);
        assert!(looks.pause(millis(0)) <= millis(13), "a reader that was late once is soon looked for again");
        (0..50).for_each(|_| looks.note(millis(60_000), 100));
        assert_eq!(looks.pause(millis(0)), millis(20), "not even one that is always late is waited for blindly");
    }

    #[test]
    fn a_first_look_that_comes_too_late_comes_sooner_the_next_time() {
        let mut looks = Looks { usual: millis(12) };
        // The reader passes after 2 ms; the first look sees it, a millisecond after it was due.
        for _ in 0..20 {
            let first = looks.pause(millis(0)) + millis(1);
            looks.note(first.max(millis(2)), if first >= millis(2) { 1 } else { 3 });
        }
        assert!(looks.pause(millis(0)) <= millis(2), "{:?}", looks.pause(millis(0)));
    }
}
