//! Asking for something to be done with messages that are set aside, and waiting until it is.
//!
//! The process that runs the direction carries it out. Where none does, this one takes the lease and does it itself; where
//! that process dies meanwhile, too. Requests stay in the store, so nothing is forgotten whoever dies.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crossfade_message::{NewRequest, RequestEnd, Store};
use crossfade_model::{Direction, MessageId};
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Kind};
use crate::pair::Pair;
use crate::sync::{runner, serve};

/// How often ends are looked for.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked whether somebody carries the requests out.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Somebody who waits for so long without anything happening is told what for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A message and how a request for it ended; `None` where it has not.
pub type Answer = (MessageId, Option<RequestEnd>);

/// Requests under way.
struct Asking<'a> {
    pair: &'a Pair,
    store: &'a Store,
    stop: &'a CancellationToken,
    ids: Vec<u64>,
    directions: BTreeMap<u64, Direction>,
    bar: ProgressBar,
    /// When something ended last, or somebody was told.
    moved_at: Instant,
}

/// Makes requests and waits until all have ended, or until asked to stop: then those that nobody has begun are taken back.
///
/// # Errors
///
/// A direction rests, so nobody may carry anything out; or doing it here has failed. Nothing is asked for any more then, but
/// for what was begun.
pub async fn ask(
    pair: &Pair,
    store: &Store,
    requests: &[NewRequest],
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Answer>> {
    let directions: BTreeSet<Direction> = requests.iter().map(|request| request.id.stream.direction()).collect();
    for direction in directions {
        refuse_resting(store, direction).await?;
    }
    let ids = store.make_requests(requests, &person()).await?;
    let directions = ids.iter().copied().zip(requests.iter().map(|request| request.id.stream.direction())).collect();
    let bar = progress(ids.len() as u64);
    let mut asking = Asking { pair, store, stop, ids, directions, bar, moved_at: Instant::now() };
    let waited = asking.wait().await;
    asking.bar.finish_and_clear();
    if waited.is_err() || stop.is_cancelled() {
        asking.withdraw().await?;
    }
    waited?;
    let mut ends = store.request_ends(&asking.ids).await?;
    let answers = asking.ids.iter().zip(requests).map(|(id, request)| (request.id.clone(), ends.remove(id)));
    Ok(answers.collect())
}

impl Asking<'_> {
    async fn wait(&mut self) -> anyhow::Result<()> {
        let mut looked_at: Option<Instant> = None;
        loop {
            let open = self.open().await?;
            if open.is_empty() || self.stop.is_cancelled() {
                return Ok(());
            }
            if looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                for direction in open {
                    self.see_to(direction).await?;
                }
                looked_at = Some(Instant::now());
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(POLL_EVERY) => {}
            }
        }
    }

    /// The directions of requests that have not ended. A store that is away for a moment has not told of any end.
    async fn open(&mut self) -> anyhow::Result<BTreeSet<Direction>> {
        let ends = match self.store.request_ends(&self.ids).await {
            Err(error) if error.is_transient() => BTreeMap::new(),
            ends => ends?,
        };
        if ends.len() as u64 > self.bar.position() {
            self.moved_at = Instant::now();
        }
        self.bar.set_position(ends.len() as u64);
        let open = self.directions.iter().filter(|(id, _)| !ends.contains_key(*id));
        Ok(open.map(|(_, direction)| *direction).collect())
    }

    /// Sees that somebody carries a direction's requests out.
    async fn see_to(&mut self, direction: Direction) -> anyhow::Result<()> {
        refuse_resting(self.store, direction).await?;
        if let Some(runner) = runner(self.store, direction).await? {
            if self.moved_at.elapsed() >= PATIENCE {
                let holder = runner.holder;
                self.say(&format!("{direction}: waiting for its process ({holder}), which works between batches"));
                self.moved_at = Instant::now();
            }
            return Ok(());
        }
        let (bar, store, ids) = (self.bar.clone(), self.store, &self.ids);
        let watching = async {
            loop {
                tokio::time::sleep(POLL_EVERY).await;
                if let Ok(ends) = store.request_ends(ids).await {
                    bar.set_position(ends.len() as u64);
                }
            }
        };
        tokio::select! {
            served = serve(self.pair, self.store, direction, self.stop) => served,
            () = watching => Ok(()),
        }
    }

    fn say(&self, text: &str) {
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    async fn withdraw(&self) -> anyhow::Result<()> {
        let withdrawn = self.store.withdraw_requests(&self.ids).await?;
        let ended = self.store.request_ends(&self.ids).await?.len() as u64;
        let begun = self.ids.len() as u64 - withdrawn - ended;
        eprintln!("{ended} carried out, {withdrawn} taken back");
        if begun > 0 {
            eprintln!("{begun} were begun: the direction's process finishes them");
        }
        Ok(())
    }
}

/// What a person has stopped, nobody goes on with behind his back.
async fn refuse_resting(store: &Store, direction: Direction) -> anyhow::Result<()> {
    if store.wish(direction).await?.is_none_or(|wish| wish.apply) {
        return Ok(());
    }
    let message = format!("{direction} rests, so nothing may be applied");
    Err(Failure::new(Kind::Finding, message, format!("`crossfade start {direction}` ends that")).into())
}

fn progress(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{wide_bar:.cyan/blue} {human_pos} of {human_len}, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Who asks, for the journal: `alice@host`.
fn person() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok().filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| format!("uid {}", nix::unistd::getuid()));
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()).unwrap_or_default();
    format!("{user}@{host}")
}
