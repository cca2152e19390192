//! Where the source's binlog ends, asked several times a second.

use std::time::{Duration, Instant};

use anyhow::Context;
use crossfade_applier::{beat, beat_seen};
use crossfade_catalog::Purpose;
use crossfade_config::ServerUrl;
use crossfade_model::Position;
use mysql_async::Conn;

use crate::meeting::{Source, in_time};

/// A side of several servers is looked at anew this often, since another one may take writes.
const RECONNECT_EVERY: Duration = Duration::from_secs(5);

/// A replica's position is found by a write on its primary, which is spared while nothing moves there.
const MEET_EVERY: Duration = Duration::from_secs(1);
const MEET_AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// The heartbeat row by which it is found.
const WRITER: &str = "report";

/// The end of what is to be read, as far as it is known.
pub struct SourceEnd {
    source: Source,
    primary: Option<(Conn, Instant)>,
    replica: Option<Conn>,
    meeting: Option<Meeting>,
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
        let is_old = |since: &Instant| self.source.servers.are_several() && since.elapsed() >= RECONNECT_EVERY;
        if self.primary.as_ref().is_some_and(|(_, since)| is_old(since)) {
            self.primary = None;
        }
        if self.primary.is_none() {
            self.primary = Some((self.source.primary(Purpose::Apply).await?, Instant::now()));
        }
        let (conn, _) = self.primary.as_mut().context("not connected")?;
        self.source.end_of(conn).await
    }

    /// `None` until a heartbeat has arrived after the primary has moved.
    async fn of_replica(&mut self, replica: &ServerUrl) -> anyhow::Result<Option<Position>> {
        let now = self.of_primary().await?;
        if self.replica.is_none() {
            self.replica = Some(self.source.connect_replica(replica).await?);
        }
        let (Some((primary, _)), Some(replica)) = (&mut self.primary, &mut self.replica) else { return Ok(None) };
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
        let counter = in_time(beat(primary, &self.source.pair, WRITER)).await??;
        let primary_at = self.source.end_of(primary).await?;
        self.meeting = Some(Meeting { counter, began: Instant::now(), primary_at, met: None });
        Ok(None)
    }
}
