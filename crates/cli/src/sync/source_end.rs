//! Where the source's binlog ends, asked several times a second.

use std::time::{Duration, Instant};

use anyhow::Context;
use crossfade_applier::{beat, beat_seen};
use crossfade_binlog::BinlogEnd;
use crossfade_catalog::Purpose;
use crossfade_config::ServerUrl;
use crossfade_model::{Position, Side};
use mysql_async::Conn;

use crate::meeting::{Source, in_time};

/// A side is looked at anew this often: of several servers another one may take writes, and GTIDs can be switched on and off, so
/// that the end is told in the wrong kind until then.
const LOOK_ANEW_EVERY: Duration = Duration::from_secs(5);

/// A replica's position is found by a write on its primary, which is spared while nothing moves there.
const MEET_EVERY: Duration = Duration::from_secs(1);
const MEET_AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// The heartbeat row by which it is found.
const WRITER: &str = "report";

/// The end of what is to be read, as far as it is known.
pub struct SourceEnd {
    source: Source,
    primary: Option<Primary>,
    replica: Option<Conn>,
    meeting: Option<Meeting>,
}

struct Primary {
    conn: Conn,
    end: BinlogEnd,
    since: Instant,
}

impl Primary {
    async fn position(&mut self, side: Side) -> anyhow::Result<Position> {
        let position = in_time(self.end.position(&mut self.conn)).await?;
        position.with_context(|| format!("the binlog position of the {side} side cannot be read"))
    }
}

/// A heartbeat that was committed on the primary.
struct Meeting {
    counter: u64,
    began: Instant,
    /// The primary's own position after it.
    primary_at: Position,
    /// The replica's position, once the heartbeat has arrived there.
    met: Option<Position>,
}

impl SourceEnd {
    pub fn new(source: Source) -> SourceEnd {
        SourceEnd { source, primary: None, replica: None, meeting: None }
    }

    /// A position of the binlog that is read: what was committed on the source a moment ago is before it. `None` where that
    /// cannot be told now.
    pub async fn position(&mut self) -> Option<Position> {
        let asked = match self.source.replica.clone() {
            None => self.of_primary().await.map(Some),
            Some(replica) => self.of_replica(&replica).await,
        };
        match asked {
            Ok(position) => position,
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "the end of the source's binlog is not known");
                (self.primary, self.replica) = (None, None);
                None
            }
        }
    }

    async fn of_primary(&mut self) -> anyhow::Result<Position> {
        let side = self.source.side;
        let is_fresh = |primary: &Primary| primary.since.elapsed() < LOOK_ANEW_EVERY;
        if !self.primary.as_ref().is_some_and(is_fresh) {
            let known = self.primary.take().filter(|_| !self.source.servers.are_several());
            let mut conn = match known {
                Some(known) => known.conn,
                None => self.source.primary(Purpose::Apply).await?,
            };
            let end = in_time(BinlogEnd::ask(&mut conn, side.as_str())).await??;
            self.primary = Some(Primary { conn, end, since: Instant::now() });
        }
        self.primary.as_mut().context("not connected")?.position(side).await
    }

    /// `None` until a heartbeat has arrived after the primary has moved.
    async fn of_replica(&mut self, replica: &ServerUrl) -> anyhow::Result<Option<Position>> {
        let now = self.of_primary().await?;
        if self.replica.is_none() {
            self.replica = Some(self.source.connect_replica(replica).await?);
        }
        let (Some(primary), Some(replica)) = (&mut self.primary, &mut self.replica) else { return Ok(None) };
        if let Some(meeting) = &mut self.meeting {
            if meeting.met.is_none() {
                if in_time(beat_seen(replica, &self.source.pair, WRITER)).await?? < meeting.counter {
                    return Ok(None);
                }
                meeting.met = Some(self.source.end_of(replica).await?);
            }
            let age = meeting.began.elapsed();
            let is_still = now == meeting.primary_at && age < MEET_AT_LEAST_EVERY;
            if is_still || age < MEET_EVERY {
                return Ok(meeting.met.clone());
            }
        }
        let counter = in_time(beat(&mut primary.conn, &self.source.pair, WRITER)).await??;
        let primary_at = primary.position(self.source.side).await?;
        self.meeting = Some(Meeting { counter, began: Instant::now(), primary_at, met: None });
        Ok(None)
    }
}
