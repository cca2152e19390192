//! The proof that the tag of what this process writes arrives where the opposite process reads.
//!
//! At its start and from time to time, a process commits a canary on its target and tells the store where the target
//! stood then. The opposite process, which reads the target, finds the canary with its tag before it has read up to
//! there, or tells that it is lost. A direction whose tag is lost stops: what it writes would come back as users' changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::Utc;
use crossfade_applier::{Wishes, canary_writer, opposite_stream};
use crossfade_catalog::Purpose;
use crossfade_config::Settings;
use crossfade_message::{LostTag, Store, StoreError, TagProof};
use crossfade_model::StreamId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::capture::CaptureView;
use super::wishes::Watched;
use crate::failure::{Failure, Kind};
use crate::meeting::{Source, in_time};

/// How often the verdict on a canary is asked for: quickly at first, more slowly where nobody reads.
const ASK_EVERY: Duration = Duration::from_millis(200);
const ASK_EVERY_LATER: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(5);

/// How often the reader of the target looks for a new canary.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After a target or a store that was away.
const PAUSE: Duration = Duration::from_secs(2);

/// Canaries of one process, at most.
const EPOCH_SHIFT: u32 = 24;

/// The lease epoch of the process that sent a canary.
pub fn epoch_of(counter: u64) -> u64 {
    counter >> EPOCH_SHIFT
}

/// How far the proof is.
#[derive(Debug, Clone)]
pub struct Proof {
    pub shown: TagProof,
    /// The tag was lost when it was looked for last, so nothing is applied before it has been seen again.
    pub was_lost: bool,
}

/// Who sends canaries, and where.
pub struct Sender {
    pub settings: Arc<Settings>,
    pub target: Source,
    /// Of the direction's lease.
    pub epoch: u64,
}

/// Has the tag of one stream's process proved.
pub struct Canary {
    sender: Sender,
    store: Store,
    stream: StreamId,
    wishes: Watched,
    proof: watch::Sender<Proof>,
    /// The change of sides that is under way: each asks for a new proof.
    switching: watch::Receiver<Option<u64>>,
    sung: u64,
}

/// What the opposite reader says of a canary.
enum Verdict {
    Proved,
    Lost(LostTag),
    Open(String),
}

impl Canary {
    /// `before` is what the last process of the stream knew.
    pub async fn new(
        sender: Sender,
        store: &Store,
        stream: &StreamId,
        wishes: Watched,
        before: TagProof,
        switching: watch::Receiver<Option<u64>>,
    ) -> Result<(Canary, watch::Receiver<Proof>), StoreError> {
        let was_lost = store.canary(stream).await?.is_some_and(|canary| canary.lost.is_some());
        let open = Some("this process has not proved it yet".to_owned());
        let (proof, seen) = watch::channel(Proof { shown: TagProof { open, ..before }, was_lost });
        let (store, stream) = (store.clone(), stream.clone());
        Ok((Canary { sender, store, stream, wishes, proof, switching, sung: 0 }, seen))
    }

    /// Runs until `running` ends.
    ///
    /// # Errors
    ///
    /// The tag is lost.
    pub async fn run(mut self, running: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = running.cancelled() => Ok(()),
            lost = self.prove_for_ever() => lost,
        }
    }

    async fn prove_for_ever(&mut self) -> anyhow::Result<()> {
        loop {
            self.wishes.until_applies().await;
            match self.sing().await {
                Ok(counter) => self.until_proved(counter).await?,
                Err(error) => {
                    // A server that is away, or a lock. Where that lasts, the applier says so.
                    tracing::debug!(error = format!("{error:#}"), "no canary could be sent");
                    self.leave_open(&format!("no canary could be sent: {error:#}"));
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            }
            // A direction that rests has the proof renewed when it is started again.
            tokio::select! {
                () = tokio::time::sleep(self.sender.settings.apply.canary_every) => {}
                () = self.wishes.until_rests() => {}
                () = until_switch(&mut self.switching) => {}
            }
        }
    }

    /// Commits a canary on the target and announces it.
    async fn sing(&mut self) -> anyhow::Result<u64> {
        self.sung += 1;
        let Sender { settings, target, epoch } = &self.sender;
        // Each process counts on from where all before it were: the epoch grows with each.
        let counter = (epoch << EPOCH_SHIFT) | self.sung;
        let mut conn = target.primary(Purpose::Apply).await?;
        let singing = crossfade_applier::sing(&mut conn, &settings.pair, &self.stream, *epoch, counter);
        in_time(singing).await??;
        // Of the binlog that is read, which may be another server's: the canary is surely before this position.
        let position = target.position_after(&mut conn, &canary_writer(&self.stream), counter).await?;
        // Its place is known by now; how the connection ends does not matter.
        let _ = conn.disconnect().await;
        self.store.announce_canary(&self.stream, counter, &position).await.context("the canary is not announced")?;
        Ok(counter)
    }

    async fn until_proved(&self, counter: u64) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            match self.verdict(counter).await {
                Ok(Verdict::Proved) => {
                    let shown = TagProof { proved_at: Some(Utc::now()), open: None };
                    self.proof.send_replace(Proof { shown, was_lost: false });
                    return Ok(());
                }
                Ok(Verdict::Lost(how)) => return Err(self.lost(how)),
                // It takes a moment where all is well.
                Ok(Verdict::Open(why)) if since.elapsed() >= SOON => self.leave_open(&why),
                Ok(Verdict::Open(_)) => {}
                Err(error) => tracing::debug!(%error, "the verdict on a canary cannot be read"),
            }
            tokio::time::sleep(if since.elapsed() < SOON { ASK_EVERY } else { ASK_EVERY_LATER }).await;
        }
    }

    async fn verdict(&self, counter: u64) -> Result<Verdict, StoreError> {
        let opposite = opposite_stream(&self.stream);
        if self.store.heartbeat_passed(&opposite, &canary_writer(&self.stream)).await? >= counter {
            return Ok(Verdict::Proved);
        }
        let announced = self.store.canary(&self.stream).await?;
        if let Some(lost) = announced.filter(|canary| canary.counter == counter).and_then(|canary| canary.lost) {
            return Ok(Verdict::Lost(lost));
        }
        let direction = opposite.direction();
        let is_declared = self.store.wish(direction).await?.is_some_and(|wish| wish.declared);
        let runs = super::runner(&self.store, direction).await?.is_some();
        Ok(Verdict::Open(match (is_declared, runs) {
            (false, _) => format!("{direction} is declared off"),
            (true, false) => format!("{direction} does not run"),
            (true, true) => format!("{direction} has not read that far yet"),
        }))
    }

    fn leave_open(&self, why: &str) {
        self.proof.send_if_modified(|proof| {
            let is_new = proof.shown.open.as_deref() != Some(why);
            proof.shown.open = Some(why.to_owned());
            is_new
        });
    }

    fn lost(&self, how: LostTag) -> anyhow::Error {
        let opposite = opposite_stream(&self.stream);
        let found = match how {
            LostTag::Hidden => "has read past a canary without finding it",
            LostTag::Untagged => "has found a canary without the checkpoint row before it",
        };
        Failure::new(
            Kind::Finding,
            format!(
                "what this process writes is not recognised on the {} side: {opposite} {found} (a binlog filter on the \
                 schema `crossfade`, `sql_log_bin = 0`, or a proxy hides it)",
                self.stream.direction().target()
            ),
            "remove `crossfade` from `binlog-ignore-db`, or add it to `binlog-do-db`, there and on a replica whose binlog \
             is read; see that nothing sets `sql_log_bin = 0` for the account, as `init_connect` may. Nothing is lost: \
             then start this process again",
        )
        .into()
    }
}

/// Returns when users are about to change sides, once for each time.
async fn until_switch(switching: &mut watch::Receiver<Option<u64>>) {
    while switching.changed().await.is_ok() {
        if switching.borrow_and_update().is_some() {
            return;
        }
    }
    std::future::pending().await
}

/// Returns when changes may be applied: at once, unless the tag was lost when it was looked for last. Nobody could take
/// them for users' while the opposite direction is declared off.
pub async fn until_harmless(mut proof: watch::Receiver<Proof>, mut wishes: watch::Receiver<Wishes>) {
    while proof.borrow_and_update().was_lost && wishes.borrow_and_update().opposite_declared {
        tokio::select! {
            changed = proof.changed() => if changed.is_err() { return },
            changed = wishes.changed() => if changed.is_err() { return },
        }
    }
}

/// Looks for the canaries of the opposite stream's process in what this process reads, until `running` ends.
pub async fn look_for(
    store: Store,
    stream: StreamId,
    captured: watch::Receiver<CaptureView>,
    running: CancellationToken,
) -> anyhow::Result<()> {
    let looking = async {
        let mut judged = 0;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match look(&store, &stream, &captured, judged).await {
                Ok(counter) => judged = counter,
                Err(error) => tracing::debug!(%error, "canaries cannot be looked for"),
            }
        }
    };
    tokio::select! {
        () = running.cancelled() => Ok(()),
        () = looking => Ok(()),
    }
}

/// Gives the counter of the last canary that is judged.
async fn look(
    store: &Store,
    stream: &StreamId,
    captured: &watch::Receiver<CaptureView>,
    judged: u64,
) -> Result<u64, StoreError> {
    let opposite = opposite_stream(stream);
    let Some(canary) = store.canary(&opposite).await? else { return Ok(judged) };
    if canary.counter <= judged || canary.lost.is_some() {
        return Ok(judged.max(canary.counter));
    }
    let (is_passed, is_untagged) = {
        let view = captured.borrow();
        let read = view.position.as_ref();
        let is_passed = read.is_some_and(|read| crossfade_binlog::is_reached(read, &canary.position));
        (is_passed, view.untagged_canary >= canary.counter)
    };
    if !is_passed && !is_untagged {
        return Ok(judged);
    }
    // What was read is captured before the position tells so, heartbeats included.
    if store.heartbeat_passed(stream, &canary_writer(&opposite)).await? < canary.counter {
        let lost = if is_untagged { LostTag::Untagged } else { LostTag::Hidden };
        tracing::error!(%opposite, ?lost, "the opposite process's tag does not arrive; it is told to stop");
        store.canary_lost(&opposite, canary.counter, lost).await?;
    }
    Ok(canary.counter)
}
