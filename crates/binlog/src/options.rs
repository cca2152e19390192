//! What a reader is told at its start.

use std::time::Duration;

use crossfade_catalog::Servers;
use crossfade_config::ServerUrl;
use crossfade_model::{Direction, ResumePoint, Seen};

use crate::echo::EchoWatch;

use crate::SyncedTables;

/// What to read, from where, and within which bounds.
#[derive(Debug, Clone)]
pub struct ReaderOptions {
    pub server: ServerUrl,
    /// Servers with the same data, `server` among them. One that has what was read takes the place of one that is away.
    pub fail_over: Option<Servers>,
    /// Only this pair's checkpoint rows mark a transaction as crossfade's own.
    pub pair: String,
    /// The direction that the stream belongs to; checkpoint rows of the opposite one are looked for.
    pub direction: Direction,
    pub tables: SyncedTables,
    pub start: ResumePoint,
    /// What the opposite direction had applied on the source at `start`.
    pub seen: Seen,
    /// Who wants to know which rows crossfade itself wrote.
    pub echo_watch: Option<EchoWatch>,
    /// Bound of the memory that one part's row changes take. A single row event may exceed it.
    pub part_bytes: usize,
    /// Bound of the memory that rows of prepared XA transactions take; above it they are read again at their commit.
    pub prepared_bytes: usize,
    /// How often an idle source says that it is alive.
    pub heartbeat: Duration,
    /// A connection silent for this long is dead; at least twice `heartbeat`.
    pub read_timeout: Duration,
    /// First and longest pause before connecting again.
    pub backoff_first: Duration,
    pub backoff_longest: Duration,
}

impl ReaderOptions {
    pub fn new(
        server: ServerUrl,
        pair: impl Into<String>,
        direction: Direction,
        tables: SyncedTables,
        start: impl Into<ResumePoint>,
    ) -> ReaderOptions {
        ReaderOptions {
            server,
            fail_over: None,
            pair: pair.into(),
            direction,
            tables,
            start: start.into(),
            seen: Seen::default(),
            echo_watch: None,
            part_bytes: 16 << 20,
            prepared_bytes: 64 << 20,
            heartbeat: Duration::from_secs(5),
            read_timeout: Duration::from_secs(15),
            backoff_first: Duration::from_millis(100),
            backoff_longest: Duration::from_secs(10),
        }
    }
}
