//! What a server says of itself.

use std::time::{Duration, Instant};

use crossfade_catalog::{CatalogError, Dialect, Purpose, ServerFacts, Servers};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

/// The writer of the heartbeats by which commits are measured.
const WRITER: &str = "throttle";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error(transparent)]
    Connect(#[from] CatalogError),
    #[error(transparent)]
    Query(#[from] mysql_async::Error),
    #[error("it does not replicate")]
    NoReplica,
    #[error("its replication stands still")]
    StandsStill,
    #[error("it does not say how many threads run")]
    Threads,
}

struct Connected {
    conn: Conn,
    dialect: Dialect,
    /// Of the side's primary, when it was made.
    moves: u64,
}

/// A server, with a connection that is kept from look to look.
pub(crate) struct Server {
    servers: Servers,
    conn: Option<Connected>,
}

impl Server {
    pub fn new(servers: Servers) -> Server {
        Server { servers, conn: None }
    }

    /// Of all clients, crossfade's own included.
    pub async fn threads_running(&mut self) -> Result<u64, ServerError> {
        let conn = &mut self.connected().await?.conn;
        let row: Option<(String, u64)> = conn.query_first("SHOW GLOBAL STATUS LIKE 'Threads_running'").await?;
        row.map(|(_, threads)| threads).ok_or(ServerError::Threads)
    }

    /// How long a small commit takes, where writes go.
    pub async fn commit_time(&mut self, pair: &str) -> Result<Duration, ServerError> {
        if let Some(known) = &mut self.conn
            && !self.servers.still_takes_writes(&mut known.conn, known.moves).await
        {
            self.conn = None;
        }
        let conn = &mut self.connected().await?.conn;
        let begun = Instant::now();
        conn.exec_drop(
            "INSERT INTO crossfade.heartbeat (pair, writer, counter, beat_at) VALUES (?, ?, 1, UTC_TIMESTAMP(6)) \
             ON DUPLICATE KEY UPDATE counter = counter + 1, beat_at = VALUES(beat_at)",
            (pair, WRITER),
        )
        .await?;
        Ok(begun.elapsed())
    }

    /// How far it is behind its source, by its own account; the most where it has several.
    pub async fn replica_lag(&mut self) -> Result<Duration, ServerError> {
        let Connected { conn, dialect, .. } = self.connected().await?;
        let rows: Vec<Row> = conn.query(dialect.replica_status()).await?;
        let mut lag = None;
        for mut row in rows {
            let named = ["Seconds_Behind_Source", "Seconds_Behind_Master"].into_iter().find_map(|name| {
                row.columns_ref().iter().position(|column| column.name_str().eq_ignore_ascii_case(name))
            });
            let seconds = named.and_then(|place| row.take_opt::<Option<u64>, usize>(place)?.ok()).flatten();
            lag = lag.max(Some(seconds.ok_or(ServerError::StandsStill)?));
        }
        lag.map(Duration::from_secs).ok_or(ServerError::NoReplica)
    }

    /// The next look begins with another connection.
    pub fn forget(&mut self) {
        self.conn = None;
    }

    async fn connected(&mut self) -> Result<&mut Connected, ServerError> {
        if self.conn.is_none() {
            let moves = self.servers.moves();
            let mut conn = self.servers.connect(Purpose::Catalog).await?;
            let dialect = ServerFacts::read(&mut conn).await?.dialect();
            self.conn = Some(Connected { conn, dialect, moves });
        }
        self.conn.as_mut().ok_or(ServerError::Threads)
    }
}
