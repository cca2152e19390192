//! Follows a side of several servers: which of them takes writes, and which must not be read any more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use crossfade_applier::opposite_stream;
use crossfade_catalog::{Servers, Standing};
use crossfade_config::ServerUrl;
use crossfade_message::Store;
use crossfade_model::{Executed, Position, Side, StreamId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::capture::CaptureView;
use crate::failure::with_causes;

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A replica that has not got so long what its primary has is not read from while others are there.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// One side of a process's stream.
pub struct Followed {
    pub side: Side,
    pub servers: Servers,
    pub stream: StreamId,
    pub store: Store,
    /// What this process has read, if the side is its source.
    pub captured: Option<watch::Receiver<CaptureView>>,
}

impl Followed {
    /// Runs until `running` ends; at once where the side has one server.
    ///
    /// # Errors
    ///
    /// A server that lost what was captured takes writes, or two do that have gone apart: a person must decide.
    pub async fn run(self, running: CancellationToken) -> anyhow::Result<()> {
        if !self.servers.are_several() {
            running.cancelled().await;
            return Ok(());
        }
        tokio::select! {
            () = running.cancelled() => Ok(()),
            ended = self.look_for_ever() => ended,
        }
    }

    async fn look_for_ever(&self) -> anyhow::Result<()> {
        let mut primary = None;
        let mut told = false;
        let mut past: VecDeque<(Instant, Executed)> = VecDeque::new();
        loop {
            if let Some(position) = self.captured().await {
                self.servers.must_have(&position);
            }
            match self.servers.primary().await {
                Ok(now) => {
                    if primary != Some(now) {
                        self.moved(primary.is_some(), &self.servers.urls()[now]);
                    }
                    (primary, told) = (Some(now), false);
                    judge_replicas(&self.servers, now, &self.servers.look().await, &mut past);
                }
                Err(error) if error.awaits_servers() => {
                    past.clear();
                    if !std::mem::replace(&mut told, true) {
                        let error = with_causes(&error.into());
                        tracing::warn!(side = %self.side, error, "no server of the side takes writes; waiting for one");
                    }
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("the {} side cannot be written to", self.side));
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn moved(&self, from_another: bool, to: &ServerUrl) {
        if from_another {
            tracing::warn!(side = %self.side, server = %to.address(), "another server of the side takes writes now");
        } else {
            tracing::info!(side = %self.side, server = %to.address(), "this server of the side takes writes");
        }
    }

    /// Up to where the side is known to be captured.
    async fn captured(&self) -> Option<Position> {
        match &self.captured {
            Some(view) => view.borrow().position.clone(),
            // A store that is away says nothing new.
            None => {
                let opposite = opposite_stream(&self.stream);
                let state = tokio::time::timeout(LOOK_EVERY, self.store.stream_state(&opposite)).await.ok()?;
                Some(state.ok()?.position.position)
            }
        }
    }
}

/// A replica must have what the primary had some time ago.
fn judge_replicas(
    servers: &Servers,
    primary: usize,
    looked: &Arc<Vec<Standing>>,
    past: &mut VecDeque<(Instant, Executed)>,
) {
    if let Some(Standing::There { executed, .. }) = looked.get(primary) {
        past.push_back((Instant::now(), executed.clone()));
    }
    while past.get(1).is_some_and(|(at, _)| at.elapsed() >= STALE_AFTER) {
        past.pop_front();
    }
    let due = past.front().filter(|(at, _)| at.elapsed() >= STALE_AFTER);
    for (at, standing) in looked.iter().enumerate() {
        let Standing::There { executed, .. } = standing else { continue };
        let lacks = due.is_some_and(|(_, had)| executed.lacks_of(had).is_some());
        let is_stale = at != primary && lacks;
        if is_stale && !servers.is_stale(&servers.urls()[at]) {
            let server = servers.urls()[at].address();
            tracing::warn!(server, "a replica does not get what its primary has; it is not read from");
        }
        servers.set_stale(at, is_stale);
    }
}
