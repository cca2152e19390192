//! The process's part: it follows what is wished, and copies the tables whose turn it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossfade_applier::{Applier, Probe, ProgressView, Uncopied, Wishes};
use crossfade_catalog::Servers;
use crossfade_message::{BackfillWish, CopyState, DeferredIndex, DeferredState, Store, TableCopy};
use crossfade_model::{TableName, TableShape};
use crossfade_rules::TableMapping;
use crossfade_rules::chunk::{CopyOrder, Families};
use crossfade_throttle::Throttle;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::copy::Copy;
use crate::error::BackfillError;
use crate::history::{Done, History};
use crate::index::{build_indexes, drop_indexes, is_pending};
use crate::order::{costs, costs_id, ready, uncopied};
use crate::slot::Slots;
use crate::windows::{Place, Windows};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where nobody looks at a bar, the log tells how far the copying is.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How often it is kept how the copying gets on.
const NOTE_EVERY: Duration = Duration::from_secs(2);

/// After an error that passes by itself.
const PAUSE: Duration = Duration::from_secs(1);

/// How long rows that the target refuses are left before they are tried again; twice as long after each time.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(120);

/// Numbers of one process's marks, at most. They are higher than those of all processes before it.
const EPOCH_SHIFT: u32 = 32;

/// Bounds of the work.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Chunks that are read, wait and are written at a time, of all tables together.
    pub workers: u16,
    /// How long it is to take to read and write a chunk.
    pub chunk_time: Duration,
    pub chunk_bytes: usize,
}

/// What the work needs to know.
pub struct Backfill {
    pub pair: String,
    pub store: Store,
    /// Of the forward direction's lease.
    pub epoch: u64,
    pub source: Servers,
    pub target: Servers,
    /// A replica of the source that chunks are read from, if not at the source.
    pub replica: Option<Servers>,
    pub mappings: Arc<[TableMapping]>,
    /// As many as `mappings`: the source's definitions.
    pub source_shapes: Vec<Arc<TableShape>>,
    pub windows: Arc<Windows>,
    pub uncopied: Uncopied,
    pub applied: watch::Receiver<ProgressView>,
    pub wishes: watch::Receiver<Wishes>,
    /// Asked before each chunk.
    pub throttle: Throttle,
    pub limits: Limits,
    pub probe: Probe,
}

/// What all copies share.
pub(crate) struct Shared {
    pub store: Store,
    pub epoch: u64,
    pub target: Servers,
    pub mappings: Arc<[TableMapping]>,
    pub source_shapes: Vec<Arc<TableShape>>,
    pub order: CopyOrder,
    pub families: Families,
    pub windows: Arc<Windows>,
    pub slots: Arc<Slots>,
    /// One chunk of a table is written at a time.
    pub turns: Vec<Mutex<()>>,
    pub applied: watch::Receiver<ProgressView>,
    pub wishes: watch::Receiver<Wishes>,
    pub throttle: Throttle,
    pub limits: Limits,
    pub probe: Probe,
    numbers: AtomicU64,
}

impl Shared {
    /// Where chunks of a table are to be written.
    pub fn place_of(&self, table: usize) -> Place {
        if self.families.may_change_silently(table) { Place::OwnMark } else { Place::AnyMark }
    }

    /// As many as can be written beside each other. At least two, since one may fail again and again.
    pub fn tables_at_a_time(&self) -> usize {
        usize::from(self.limits.workers).max(2)
    }

    /// The numbers of a window's two marks, of which this is the first.
    pub fn next_number(&self) -> u64 {
        (self.epoch << EPOCH_SHIFT) + self.numbers.fetch_add(2, Ordering::Relaxed)
    }
}

/// When a table's refused rows are tried again.
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Backfill {
    /// Copies as long as it is wished, until `stop`. Never fails: what goes wrong stops its table, or is tried again.
    ///
    /// `applier` is the direction's own, before it runs.
    pub fn run(self, applier: &Applier, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let writers = (0..self.limits.workers).map(|worker| applier.chunk_writer(worker)).collect();
        let uncopied = self.uncopied.clone();
        let shared = Arc::new(Shared {
            slots: Arc::new(Slots::new(writers, &self.source, self.replica.as_ref(), &self.pair)),
            turns: self.mappings.iter().map(|_| Mutex::default()).collect(),
            order: CopyOrder::of(&self.mappings),
            families: Families::of(&self.mappings),
            store: self.store,
            epoch: self.epoch,
            target: self.target,
            mappings: self.mappings,
            source_shapes: self.source_shapes,
            windows: self.windows,
            applied: self.applied,
            wishes: self.wishes,
            throttle: self.throttle,
            limits: self.limits,
            probe: self.probe,
            numbers: AtomicU64::new(0),
        });
        let work = Work {
            shared,
            uncopied,
            tables: JoinSet::new(),
            at_work: BTreeMap::new(),
            retries: BTreeMap::new(),
            pace: None,
        };
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work.run() => {}
            }
        }
    }
}

/// The copies under way. Dropping it ends them; what is not committed is rolled back.
struct Work {
    shared: Arc<Shared>,
    uncopied: Uncopied,
    tables: JoinSet<TableName>,
    /// The round in which each table is copied.
    at_work: BTreeMap<TableName, u64>,
    retries: BTreeMap<TableName, Retry>,
    /// How the copying gets on, once it is read, and when that was kept last.
    pace: Option<(History, Instant)>,
}

impl Work {
    async fn run(mut self) {
        let mut is_adopted = false;
        let mut told = Instant::now();
        loop {
            let looked = self.look(&mut is_adopted, &mut told).await;
            if let Err(error) = looked {
                // The store is away, or not yet of this version; the reader and the applier tell.
                tracing::debug!(error = error.told(), "it is not known what is to be copied");
            }
            tokio::select! {
                Some(ended) = self.tables.join_next() => self.ended(ended),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn ended(&mut self, ended: Result<TableName, tokio::task::JoinError>) {
        match ended {
            Ok(table) => drop(self.at_work.remove(&table)),
            // Nobody knows which one it was; all begin again where they were.
            Err(error) => {
                if error.is_panic() {
                    tracing::error!("the copying of a table ended without a word; all tables are looked at anew");
                }
                self.tables.abort_all();
                self.at_work.clear();
            }
        }
    }

    async fn look(&mut self, is_adopted: &mut bool, told: &mut Instant) -> Result<(), BackfillError> {
        let store = self.shared.store.clone();
        if !*is_adopted {
            store.adopt_copies(self.shared.epoch).await?;
            *is_adopted = true;
        }
        let copies = store.copies().await?;
        self.uncopied.set(uncopied(&self.shared.mappings, &copies));
        let is_wished = store.backfill_wish().await? == Some(BackfillWish::Run);
        self.note_pace(&copies, is_wished).await?;
        let begins_anew = |copy: &&TableCopy| self.at_work.get(&copy.table).is_some_and(|round| *round != copy.round);
        if !is_wished || copies.iter().any(|copy| begins_anew(&copy)) {
            // What is under way is not committed, and is read again later.
            self.tables.abort_all();
            while self.tables.join_next().await.is_some() {}
            self.at_work.clear();
        }
        if !is_wished {
            return Ok(());
        }
        // Tables that came with a later start.
        store.adopt_copies(self.shared.epoch).await?;
        self.see_to_indexes(&copies, &store.deferred_indexes().await?);
        let is_copying = |copy: &&TableCopy| copy.state != CopyState::Copied;
        for (table, copy) in ready(&self.shared.mappings, &self.shared.order, &copies) {
            let are_copied = copies.iter().filter(is_copying).filter(|copy| self.at_work.contains_key(&copy.table));
            let has_room = !is_copying(&copy) || are_copied.count() < self.shared.tables_at_a_time();
            if has_room && !self.at_work.contains_key(&copy.table) && self.is_due(copy) {
                self.begin(table, copy);
            }
        }
        if told.elapsed() >= TELL_EVERY {
            *told = Instant::now();
            tell(&copies, self.pace.as_ref().map(|(history, _)| history));
        }
        Ok(())
    }

    /// Keeps how the copying gets on as long as there is something to copy.
    async fn note_pace(&mut self, copies: &[TableCopy], is_wished: bool) -> Result<(), BackfillError> {
        let store = &self.shared.store;
        let is_open = |copy: &TableCopy| !matches!(copy.state, CopyState::Copied | CopyState::Stopped);
        if !copies.iter().any(is_open) {
            // The next copying has a pace of its own.
            if self.pace.take().is_some() {
                store.keep_copy_history(self.shared.epoch, &History::default().to_json()).await?;
            }
            return Ok(());
        }
        let (history, kept_at) = match &mut self.pace {
            Some(pace) => (&mut pace.0, &mut pace.1),
            None => {
                let history = History::parse(store.copy_history().await?.as_deref());
                let long_ago = Instant::now().checked_sub(NOTE_EVERY).unwrap_or_else(Instant::now);
                let pace = self.pace.insert((history, long_ago));
                (&mut pace.0, &mut pace.1)
            }
        };
        if kept_at.elapsed() < NOTE_EVERY {
            return Ok(());
        }
        *kept_at = Instant::now();
        let (cost, left) = costs(&self.shared.mappings, copies);
        let rows = copies.iter().map(|copy| copy.counts.read).sum();
        let done = Done { rows, cost, applied: self.shared.applied.borrow().applied_seq };
        history.count_by(costs_id(&self.shared.mappings));
        history.bound(self.shared.throttle.rows_per_second());
        let was_at_work = history.note(now_micros(), is_wished, done, left);
        if !is_wished && !was_at_work {
            // A pause writes nothing.
            return Ok(());
        }
        Ok(store.keep_copy_history(self.shared.epoch, &history.to_json()).await?)
    }

    /// Indexes are dropped before their table's first chunk, and built after its last one.
    fn see_to_indexes(&mut self, copies: &[TableCopy], indexes: &[DeferredIndex]) {
        for copy in copies.iter().filter(|copy| !self.at_work.contains_key(&copy.table)).collect::<Vec<_>>() {
            let mine: Vec<DeferredIndex> = indexes.iter().filter(|index| index.table == copy.table).cloned().collect();
            let is_copied = copy.state == CopyState::Copied;
            let has = |wanted: fn(&DeferredIndex) -> bool| mine.iter().any(wanted);
            let has_work = match copy.state {
                CopyState::Waiting => has(|index| index.state == DeferredState::ToDrop),
                CopyState::Copied => has(is_pending),
                _ => false,
            };
            if !has_work {
                continue;
            }
            self.at_work.insert(copy.table.clone(), copy.round);
            let (shared, table) = (self.shared.clone(), copy.table.clone());
            self.tables.spawn(async move {
                let done = match is_copied {
                    true => build_indexes(&shared, &mine).await,
                    false => drop_indexes(&shared, &mine).await,
                };
                if let Err(error) = done {
                    tracing::info!(%table, error = error.told(), "its indexes are looked at again");
                    tokio::time::sleep(PAUSE).await;
                }
                table
            });
        }
    }

    /// Refused rows of a table that is copied are tried again after a while.
    fn is_due(&mut self, copy: &TableCopy) -> bool {
        if copy.state != CopyState::Copied {
            self.retries.remove(&copy.table);
            return true;
        }
        let now = Instant::now();
        let first = || Retry { at: now + FIRST_RETRY, pause: FIRST_RETRY };
        let retry = self.retries.entry(copy.table.clone()).or_insert_with(first);
        if now < retry.at {
            return false;
        }
        retry.pause = (retry.pause * 2).min(LAST_RETRY);
        retry.at = now + retry.pause;
        true
    }

    fn begin(&mut self, table: usize, copy: &TableCopy) {
        self.at_work.insert(copy.table.clone(), copy.round);
        let (shared, copy) = (self.shared.clone(), copy.clone());
        self.tables.spawn(async move {
            copy_table(shared, table, &copy).await;
            copy.table
        });
    }
}

/// Copies a table to its end, or until a person must do something.
async fn copy_table(shared: Arc<Shared>, table: usize, begun: &TableCopy) {
    let store = shared.store.clone();
    let owner = crossfade_message::CopyOwner { table: begun.table.clone(), round: begun.round, epoch: shared.epoch };
    let Some(mut copy) = Copy::new(shared, table, begun) else {
        let reason = "it has no key to be read by, or its definition has changed since the process started";
        stop(&store, &owner, reason).await;
        return;
    };
    let mut known = begun.clone();
    loop {
        let Err(error) = copy.run(&known).await else { return };
        if !error.passes() {
            return stop(&store, &owner, &error.told()).await;
        }
        copy.failed(&error);
        tracing::info!(table = %owner.table, error = error.told(), "a chunk is read again");
        tokio::time::sleep(PAUSE).await;
        match store.copies().await.map(|copies| copies.into_iter().find(|copy| copy.table == begun.table)) {
            Ok(Some(now)) if now.round == begun.round => known = now,
            // Somebody wants something else of it.
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "the store is away"),
        }
    }
}

/// A copy that is taken over, or begins anew, is no longer this one's to stop.
async fn stop(store: &Store, owner: &crossfade_message::CopyOwner, reason: &str) {
    match store.set_copy_state(owner, CopyState::Stopped, Some(reason)).await {
        Ok(()) => tracing::error!(table = %owner.table, reason, "the table is not copied further"),
        Err(error) => tracing::debug!(table = %owner.table, %error, reason, "a copy ended"),
    }
}

fn now_micros() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

fn tell(copies: &[TableCopy], history: Option<&History>) {
    let open: Vec<&TableCopy> = copies.iter().filter(|copy| copy.state != CopyState::Copied).collect();
    if open.is_empty() {
        return;
    }
    let total: u64 = copies.iter().map(|copy| copy.total_rows.unwrap_or(0).max(copy.counts.read)).sum();
    let read: u64 = copies.iter().map(|copy| copy.counts.read).sum();
    let speed = history.and_then(|history| history.speed(now_micros()));
    let left = speed.and_then(|speed| speed.seconds_left).map(|seconds| Duration::from_secs(seconds as u64));
    tracing::info!(
        tables = open.len(),
        rows = read,
        of = total,
        percent = read * 100 / total.max(1),
        rows_per_second = speed.map_or(0, |speed| speed.rows_per_second as u64),
        left = left.map(tracing::field::debug),
        "copying"
    );
}
