//! Waiting for a state: by `crossfade status --json`, until it says what is waited for.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::time::Instant;

use crate::process;

/// How often a state is asked for.
const POLL: Duration = Duration::from_millis(200);
/// A process publishes its numbers once a second.
const NUMBERS_SETTLE: Duration = Duration::from_millis(1500);
const NUMBERS: [&str; 5] = ["last_seq", "captured", "applied", "echoes", "conflicts_lost"];
/// How long one `status` may take.
const STATUS_LIMIT: Duration = Duration::from_secs(20);

/// Asks `probe` until it gives a value. After `limit` it fails with `what` and with what the probe said last.
pub async fn until<T, F, P>(what: &str, limit: Duration, mut probe: P) -> Result<T>
where
    P: FnMut() -> F,
    F: Future<Output = Result<Progress<T>>>,
{
    let end = Instant::now() + limit;
    loop {
        let last = match probe().await {
            Ok(Progress::Reached(value)) => return Ok(value),
            Ok(Progress::NotYet(state)) => state,
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= end {
            bail!("{what}: not reached within {limit:?}; the last state was: {last}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What a probe found.
#[derive(Debug)]
pub enum Progress<T> {
    Reached(T),
    /// Described for the message of a wait that fails.
    NotYet(String),
}

/// Reads `status --json` of one pair.
#[derive(Debug, Clone)]
pub struct StatusReader {
    pub binary: PathBuf,
    pub config: PathBuf,
}

/// One answer of `status --json`.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl StatusReader {
    pub fn new(binary: &Path, config: &Path) -> StatusReader {
        StatusReader { binary: binary.to_owned(), config: config.to_owned() }
    }

    pub async fn read(&self) -> Result<Status> {
        let config = self.config.to_string_lossy();
        let output = process::run(&self.binary, &["--config", &config, "status", "--json"], &[], STATUS_LIMIT).await?;
        Ok(Status(serde_json::from_str(&output).context("`status --json` gave something else than JSON")?))
    }

    /// Waits until both directions have captured and applied all that was written before this call, and then once more, so
    /// that what they wrote to either side has been read back there too. Nobody should be writing meanwhile.
    ///
    /// The numbers of the answer are the final ones: processes publish them a little later than the changes.
    pub async fn until_quiet(&self, limit: Duration) -> Result<Status> {
        self.caught_up(limit).await?;
        let mut before = self.caught_up(limit).await?;
        let end = Instant::now() + limit;
        while Instant::now() < end {
            tokio::time::sleep(NUMBERS_SETTLE).await;
            let status = self.read().await?;
            if NUMBERS.iter().all(|field| status.all(field) == before.all(field)) {
                return Ok(status);
            }
            before = status;
        }
        bail!("the numbers still change after {limit:?}: {}", before.0)
    }

    async fn caught_up(&self, limit: Duration) -> Result<Status> {
        let config = self.config.to_string_lossy();
        let wait = format!("{}s", limit.as_secs().max(1));
        let words = ["--config", &*config, "status", "--json", "--wait", &*wait];
        let output = process::run(&self.binary, &words, &[], limit + STATUS_LIMIT).await?;
        Ok(Status(serde_json::from_str(&output).context("`status --json` gave something else than JSON")?))
    }

    /// Waits until every stream runs, caught up or catching up.
    pub async fn until_running(&self, limit: Duration) -> Result<Status> {
        until("all streams running", limit, || async {
            let status = self.read().await?;
            let runs = |stream: &Value| stream["state"] == "running" || stream["state"] == "catching-up";
            let running = status.streams().iter().all(runs);
            Ok(if running && !status.streams().is_empty() {
                Progress::Reached(status)
            } else {
                Progress::NotYet(status.0.to_string())
            })
        })
        .await
    }
}

impl Status {
    pub fn streams(&self) -> &[Value] {
        self.0["streams"].as_array().map_or(&[], Vec::as_slice)
    }

    pub fn is_caught_up(&self) -> bool {
        !self.streams().is_empty() && self.streams().iter().all(|stream| stream["caught_up"] == true)
    }

    /// The state of a direction's first stream.
    pub fn state(&self, direction: &str) -> Option<&str> {
        let is_of = |stream: &&Value| {
            stream["stream"]
                .as_str()
                .and_then(|name| name.strip_prefix(direction))
                .is_some_and(|rest| rest.starts_with('/'))
        };
        self.streams().iter().find(is_of)?["state"].as_str()
    }

    /// A number of one direction, summed over its streams: `number("forward", "applied")`.
    pub fn number(&self, direction: &str, field: &str) -> u64 {
        let prefix = format!("{direction}/");
        self.streams()
            .iter()
            .filter(|stream| stream["stream"].as_str().is_some_and(|name| name.starts_with(&prefix)))
            .map(|stream| stream[field].as_u64().unwrap_or(0))
            .sum()
    }

    /// A number of every stream, in order.
    pub fn all(&self, field: &str) -> Vec<u64> {
        self.streams().iter().map(|stream| stream[field].as_u64().unwrap_or(0)).collect()
    }

    /// Summed over both directions.
    pub fn total(&self, field: &str) -> u64 {
        self.all(field).iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_summed_by_direction() {
        let status = Status(json!({"streams": [
            {"stream": "forward/old", "applied": 3, "caught_up": true},
            {"stream": "reverse/new-0", "applied": 4, "caught_up": true},
            {"stream": "reverse/new-1", "applied": 5, "caught_up": false},
        ]}));
        assert_eq!((status.number("forward", "applied"), status.number("reverse", "applied")), (3, 9));
        assert_eq!(status.total("applied"), 12);
        assert!(!status.is_caught_up());
        assert!(!Status(json!({"streams": []})).is_caught_up());
    }

    #[tokio::test]
    async fn a_wait_that_fails_tells_the_last_state() {
        let limit = Duration::from_millis(1);
        let error =
            until::<(), _, _>("the moon", limit, || async { Ok(Progress::NotYet("half".into())) }).await.unwrap_err();
        assert!(error.to_string().contains("the moon") && error.to_string().contains("half"), "{error}");
    }
}
