//! Where the binlog of a side must be read up to, in the terms of the server that is read.
//!
//! Where a side's binlog is read on the server that takes writes, or on one that has its GTIDs, that server's own position
//! serves. A replica that `binlog_url` names may number its transactions in another way. Its position is found by meeting: a
//! heartbeat is committed on the primary, and when the replica has it, what was committed before is in the replica's binlog.

use std::time::{Duration, Instant};

use anyhow::Context;
use crossfade_applier::{beat, beat_seen};
use crossfade_binlog::Unread;
use crossfade_catalog::{Purpose, Servers, connect};
use crossfade_config::{ServerUrl, Settings};
use crossfade_model::{Position, Side};
use mysql_async::Conn;

/// How often a replica is asked whether a heartbeat has arrived.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// How often a person is told that a replica has not got a heartbeat.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A question that takes a server longer is not answered any more.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A side as positions are taken there.
#[derive(Debug, Clone)]
pub struct Source {
    pub side: Side,
    pub pair: String,
    pub servers: Servers,
    /// The replica that is read in their place.
    pub replica: Option<ServerUrl>,
}

impl Source {
    pub fn new(settings: &Settings, side: Side, servers: Servers) -> Source {
        Source { side, pair: settings.pair.clone(), servers, replica: settings.side(side).binlog_url.clone() }
    }

    /// Everything that was committed on the side before this call is before this position of the binlog that is read.
    /// `writer` names the heartbeat. Waits for a replica as long as it takes.
    pub async fn position(&self, writer: &str) -> anyhow::Result<Position> {
        let Some(replica) = &self.replica else {
            let mut conn = self.primary(Purpose::Binlog).await?;
            return self.end_of(&mut conn).await;
        };
        let mut primary = self.primary(Purpose::Apply).await?;
        let counter =
            in_time(beat(&mut primary, &self.pair, writer)).await?.context("no heartbeat could be written")?;
        let mut conn = self.connect_replica(replica).await?;
        self.until_arrived(&mut conn, replica, writer, counter).await?;
        self.end_of(&mut conn).await
    }

    /// The position of the binlog that is read, once a heartbeat that was committed on the primary is before it. `conn` is a
    /// connection to the primary.
    pub async fn position_after(&self, conn: &mut Conn, writer: &str, counter: u64) -> anyhow::Result<Position> {
        let Some(replica) = &self.replica else { return self.end_of(conn).await };
        let mut conn = self.connect_replica(replica).await?;
        self.until_arrived(&mut conn, replica, writer, counter).await?;
        self.end_of(&mut conn).await
    }

    /// What of the binlog is not read by one who stands at `read`; `None` where that is only the file that is written now.
    pub async fn unread(&self, read: &Position) -> anyhow::Result<Option<Unread>> {
        let url = match &self.replica {
            Some(replica) => replica.clone(),
            None => self.servers.readable(read).await?.remove(0),
        };
        let unread = crossfade_binlog::unread(&url, read).await?;
        Ok((unread.files > 1).then_some(unread))
    }

    pub async fn primary(&self, purpose: Purpose) -> anyhow::Result<Conn> {
        self.servers.connect(purpose).await.with_context(|| format!("the {} side cannot be reached", self.side))
    }

    pub async fn connect_replica(&self, replica: &ServerUrl) -> anyhow::Result<Conn> {
        let connected = connect(replica, Purpose::Catalog).await;
        connected.with_context(|| format!("the replica of the {} side cannot be reached", self.side))
    }

    pub async fn end_of(&self, conn: &mut Conn) -> anyhow::Result<Position> {
        in_time(crossfade_binlog::current_position(conn, self.side.as_str()))
            .await?
            .with_context(|| format!("the binlog position of the {} side cannot be read", self.side))
    }

    async fn until_arrived(
        &self,
        conn: &mut Conn,
        replica: &ServerUrl,
        writer: &str,
        counter: u64,
    ) -> anyhow::Result<()> {
        let mut told = Instant::now();
        let read = || "the replica's heartbeats cannot be read";
        while in_time(beat_seen(conn, &self.pair, writer)).await?.with_context(read)? < counter {
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                let side = self.side;
                tracing::warn!(%side, replica = %replica.address(), "the replica has not got a heartbeat of its primary yet");
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }
}

/// Gives up a server that does not answer: a connection can be dead without its ends knowing. It must not be used again.
pub async fn in_time<T>(asked: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(ANSWER_LIMIT, asked).await.context("the server does not answer")
}
