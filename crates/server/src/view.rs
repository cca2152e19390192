//! The status that all answers of one moment are given from.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::Status;

/// Answers that are asked for within this time are given from one look into the store.
const FRESH: Duration = Duration::from_secs(1);

/// Whoever asks whether something is ready does not wait long.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Reads the status anew, or tells why that cannot be done.
pub type Ask = Arc<dyn Fn() -> BoxFuture<'static, Result<Status, String>> + Send + Sync>;

/// A status that cannot be read, with the reason.
pub(crate) type Seen = Result<Arc<Status>, Arc<str>>;

/// Cheap to clone; clones look once for all.
#[derive(Clone)]
pub struct View {
    ask: Ask,
    ask_limit: Duration,
    seen: Arc<Mutex<Option<(Instant, Seen)>>>,
}

impl View {
    pub fn new(ask: Ask) -> View {
        View::with_limit(ask, ASK_LIMIT)
    }

    pub(crate) fn with_limit(ask: Ask, ask_limit: Duration) -> View {
        View { ask, ask_limit, seen: Arc::default() }
    }

    pub(crate) async fn look(&self) -> Seen {
        let mut seen = self.seen.lock().await;
        if let Some((at, status)) = &*seen
            && at.elapsed() < FRESH
        {
            return status.clone();
        }
        let asked = tokio::time::timeout(self.ask_limit, (self.ask)()).await;
        let status: Seen = match asked {
            Ok(Ok(status)) => Ok(Arc::new(status)),
            Ok(Err(reason)) => Err(reason.into()),
            Err(_) => Err(format!("the store does not answer within {:?}", self.ask_limit).into()),
        };
        *seen = Some((Instant::now(), status.clone()));
        status
    }
}
