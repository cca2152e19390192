//! The reader: connection after connection, one stream of transactions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use crossfade_catalog::Servers;
use crossfade_config::ServerUrl;
use crossfade_model::{Position, ResumePoint, Seen, TableName, TableShape};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::assembly::{Assembly, Request};
use crate::dump::Dump;
use crate::error::Place;
use crate::source::{Source, is_reached};
use crate::work::{self, Connected};
use crate::{BinlogError, Notice, ReaderOptions, TransactionPart};

/// One source's binlog as a stream of transactions.
///
/// Connections that break are made again, from the last whole transaction or the counted rows of one, with growing pauses,
/// until they work. [`BinlogReader::next`] returns an error only when going on cannot help without somebody doing
/// something; calling it again then starts over from the last position.
pub struct BinlogReader {
    options: ReaderOptions,
    /// The server that is read, or was last.
    url: ServerUrl,
    assembly: Assembly,
    source: Option<Source>,
    dump: Option<Dump>,
    /// The binlog opened again at a prepared XA transaction whose COMMIT is being read.
    replay: Option<Dump>,
    task: Option<AbortOnDropHandle<Result<Done, BinlogError>>>,
    outage: Option<Outage>,
    /// Where an event was damaged last. Once may be the network's fault; twice at one place is not.
    damaged_at: Option<Box<Place>>,
    /// The server has said that it purged what comes next, and is asked once more what that is.
    purged: bool,
    notices: Vec<Notice>,
}

/// What a task has done.
enum Done {
    Connected(Box<Connected>),
    Shape(TableName, Option<Arc<TableShape>>),
    OwnShapes(Vec<Arc<TableShape>>),
    Prepared(Option<Box<Dump>>),
}

/// The time since a connection was lost.
struct Outage {
    after: String,
    /// Why the last attempt failed.
    last: String,
    attempts: u32,
    pauses: Box<dyn Iterator<Item = Duration> + Send + Sync>,
    retry_at: Instant,
}

impl BinlogReader {
    /// Connects, and refuses to start where the stream cannot be complete: another server than the position's, a purged
    /// position, a binlog that is off.
    ///
    /// # Errors
    ///
    /// Any [`BinlogError`], also one that passes: the first connection is tried once.
    pub async fn open(options: ReaderOptions) -> Result<BinlogReader, BinlogError> {
        let timeouts = (options.heartbeat, options.read_timeout);
        let connected = work::connect_to_one(servers(&options), options.start.position.clone(), timeouts).await?;
        let mut reader = BinlogReader {
            url: connected.url.clone(),
            assembly: Assembly::new(&options),
            options,
            source: None,
            dump: None,
            replay: None,
            task: None,
            outage: None,
            damaged_at: None,
            purged: false,
            notices: Vec::new(),
        };
        reader.connected(connected);
        Ok(reader)
    }

    /// The next transaction, or part of one. Waits as long as the source is idle or away.
    ///
    /// Cancel-safe: dropping the future loses nothing, and what it had begun goes on with the next call.
    ///
    /// # Errors
    ///
    /// What no new connection can mend. The next call begins again at [`BinlogReader::position`].
    pub async fn next(&mut self) -> Result<TransactionPart, BinlogError> {
        loop {
            if let Some(part) = self.assembly.take_part() {
                return Ok(part);
            }
            if let Err(error) = self.step().await {
                self.recover(error)?;
            }
        }
    }

    /// As [`BinlogReader::next`], but `None` as soon as everything before `target` has been returned: what an idle source
    /// never shows by another part.
    pub async fn next_until(&mut self, target: &Position) -> Result<Option<TransactionPart>, BinlogError> {
        loop {
            if let Some(part) = self.assembly.take_part() {
                return Ok(Some(part));
            }
            if self.reached(target) {
                return Ok(None);
            }
            if let Err(error) = self.step().await {
                self.recover(error)?;
            }
        }
    }

    /// As [`BinlogReader::next`], but `None` when nothing came in time.
    pub async fn next_within(&mut self, limit: Duration) -> Result<Option<TransactionPart>, BinlogError> {
        match tokio::time::timeout(limit, self.next()).await {
            Ok(part) => part.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Where a reader goes on when everything that [`BinlogReader::next`] returned is kept. On an idle source read by file and
    /// offset this moves on without parts, since files rotate.
    pub fn position(&self) -> ResumePoint {
        self.assembly.resume_point()
    }

    /// Whether everything before `target` has been returned.
    pub fn reached(&self, target: &Position) -> bool {
        self.assembly.has_no_part() && is_reached(self.assembly.position(), target)
    }

    /// What the opposite direction had applied on the source at [`BinlogReader::position`].
    pub fn seen(&self) -> &Arc<Seen> {
        self.assembly.seen()
    }

    /// Why there is no connection at the moment, if there is none.
    pub fn trouble(&self) -> Option<String> {
        self.outage.as_ref().map(|outage| match outage.attempts {
            0 => outage.after.clone(),
            attempts if outage.last == outage.after => format!("{} ({attempts} attempts since)", outage.after),
            attempts => format!("{} ({attempts} attempts since, the last: {})", outage.after, outage.last),
        })
    }

    /// The server that is read, or was last.
    pub fn server(&self) -> &ServerUrl {
        &self.url
    }

    /// Gives up the connection; the next call makes another, perhaps to another server.
    pub fn reconnect_elsewhere(&mut self) {
        (self.dump, self.replay, self.task) = (None, None, None);
        self.assembly.abandon();
    }

    /// What the operator should know, since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.notices.extend(self.assembly.take_notices());
        std::mem::take(&mut self.notices)
    }

    /// Does one thing: ends a task, starts one, or takes an event.
    async fn step(&mut self) -> Result<(), BinlogError> {
        if let Some(task) = &mut self.task {
            let done = task.await;
            self.task = None;
            // A task that panicked or was aborted with its runtime has done nothing.
            let done = done.map_err(|_| BinlogError::Ended { server: self.url.address() })?;
            return self.done(done?);
        }
        let (Some(dump), Some(source)) = (&mut self.dump, &self.source) else {
            return self.reconnect().await;
        };
        if let Some(request) = self.assembly.take_request() {
            return self.start(request);
        }
        if let Some(replay) = &mut self.replay {
            let frame = replay.next().await?;
            if self.assembly.replay(frame, source, &replay.file)? {
                self.replay = None;
            }
            return Ok(());
        }
        let frame = dump.next().await?;
        let proves_life = !frame.artificial || frame.event_type() == crate::event_type::HEARTBEAT;
        self.assembly.take(frame, source, (&dump.file, dump.place().offset))?;
        if proves_life {
            self.purged = false;
            self.outage = None;
        }
        Ok(())
    }

    fn start(&mut self, request: Request) -> Result<(), BinlogError> {
        let Some(source) = self.source.clone() else { return Ok(()) };
        let (url, timeouts) = (self.url.clone(), (self.options.heartbeat, self.options.read_timeout));
        let task = match request {
            Request::Shape(table) => tokio::spawn(async move {
                let shape = work::shape_of(&url, &table).await?;
                Ok(Done::Shape(table, shape))
            }),
            Request::OwnShapes => tokio::spawn(async move { work::own_shapes(&url).await.map(Done::OwnShapes) }),
            Request::Prepared { xid, known, commit } => tokio::spawn(async move {
                let dump = work::open_prepared(url, source, xid, known, commit, timeouts).await?;
                Ok(Done::Prepared(dump.map(Box::new)))
            }),
        };
        self.task = Some(AbortOnDropHandle::new(task));
        Ok(())
    }

    fn done(&mut self, done: Done) -> Result<(), BinlogError> {
        match done {
            Done::Connected(connected) => {
                self.connected(*connected);
                if let Some(outage) = &self.outage {
                    let notice = Notice::Reconnected { after: outage.after.clone(), attempts: outage.attempts };
                    tracing::info!(server = %self.url.address(), attempts = outage.attempts, "binlog connection made again");
                    self.notices.push(notice);
                }
                Ok(())
            }
            Done::Shape(table, shape) => self.assembly.renew(&table, shape),
            Done::OwnShapes(shapes) => {
                self.assembly.set_own_shapes(shapes);
                Ok(())
            }
            Done::Prepared(Some(dump)) => {
                self.replay = Some(*dump);
                Ok(())
            }
            Done::Prepared(None) => Err(self.assembly.prepared_is_gone()),
        }
    }

    fn connected(&mut self, connected: Connected) {
        let before = self.source.as_ref().map(|source| &source.facts.identity);
        self.assembly.restart(connected.own_shapes, before == Some(&connected.source.facts.identity));
        if self.url != connected.url {
            tracing::warn!(from = %self.url.address(), to = %connected.url.address(), "the binlog is read from another server now");
            self.url = connected.url;
        }
        self.source = Some(connected.source);
        self.dump = Some(connected.dump);
    }

    async fn reconnect(&mut self) -> Result<(), BinlogError> {
        if let Some(outage) = &mut self.outage {
            tokio::time::sleep_until(outage.retry_at).await;
            outage.attempts += 1;
        }
        let (servers, position) = (servers(&self.options), self.assembly.position().clone());
        let timeouts = (self.options.heartbeat, self.options.read_timeout);
        let connect = async move {
            work::connect_to_one(servers, position, timeouts)
                .await
                .map(|connected| Done::Connected(Box::new(connected)))
        };
        self.task = Some(AbortOnDropHandle::new(tokio::spawn(connect)));
        Ok(())
    }

    /// Drops the connection. Gives the error back unless another connection can help.
    fn recover(&mut self, error: BinlogError) -> Result<(), BinlogError> {
        (self.dump, self.replay, self.task) = (None, None, None);
        self.assembly.abandon();
        let helps = match &error {
            BinlogError::Corrupt { place, .. } => self.damaged_at.replace(place.clone()).as_ref() != Some(place),
            BinlogError::Purged { .. } => !std::mem::replace(&mut self.purged, true),
            error => error.is_transient(),
        };
        if !helps {
            self.outage = None;
            return Err(error);
        }
        let after = with_causes(&error);
        match &mut self.outage {
            None => {
                tracing::warn!(server = %self.url.address(), error = %after, "binlog connection lost");
                let mut pauses = Box::new(self.pauses());
                let pause = pauses.next().unwrap_or(self.options.backoff_longest);
                let last = after.clone();
                self.outage = Some(Outage { after, last, attempts: 0, pauses, retry_at: Instant::now() + pause });
            }
            Some(outage) => {
                tracing::debug!(server = %self.url.address(), error = %after, attempts = outage.attempts, "no binlog connection");
                let pause = outage.pauses.next().unwrap_or(self.options.backoff_longest);
                outage.retry_at = Instant::now() + pause;
                outage.last = after;
            }
        }
        Ok(())
    }

    fn pauses(&self) -> impl Iterator<Item = Duration> + Send + Sync + use<> {
        ExponentialBuilder::default()
            .with_min_delay(self.options.backoff_first)
            .with_max_delay(self.options.backoff_longest)
            .without_max_times()
            .with_jitter()
            .build()
    }
}

impl fmt::Debug for BinlogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BinlogReader")
            .field("server", &self.url)
            .field("position", &self.position())
            .field("trouble", &self.trouble())
            .finish_non_exhaustive()
    }
}

fn servers(options: &ReaderOptions) -> Servers {
    options.fail_over.clone().unwrap_or_else(|| options.server.clone().into())
}

/// An error with its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
