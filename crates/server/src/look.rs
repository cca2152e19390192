//! One look at a time, for all who want to know the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// What was seen, or why it cannot be.
pub(crate) type Seen<T> = Result<T, Arc<str>>;

pub(crate) struct Look<T> {
    limit: Duration,
    /// With the time at which that look began.
    last: Mutex<Option<(Instant, Seen<T>)>>,
}

impl<T: Clone> Look<T> {
    /// A look that takes longer than `limit` has seen nothing.
    pub fn new(limit: Duration) -> Look<T> {
        Look { limit, last: Mutex::default() }
    }

    /// What a look sees that has begun at `since` or later, and when it has begun: the last one, where that is young enough, or
    /// else a new one, which all who wait meanwhile may share. Safe to cancel.
    pub async fn since(&self, since: Instant, ask: impl Future<Output = Result<T, String>>) -> (Instant, Seen<T>) {
        let mut last = self.last.lock().await;
        if let Some(last) = last.as_ref().filter(|(begun, _)| *begun >= since) {
            return last.clone();
        }
        let begun = Instant::now();
        let seen = match tokio::time::timeout(self.limit, ask).await {
            Ok(seen) => seen.map_err(Arc::from),
            Err(_) => Err(format!("the store does not answer within {:?}", self.limit).into()),
        };
        *last = Some((begun, seen.clone()));
        (begun, seen)
    }
}

/// So long ago, or now where no time was so long ago.
pub(crate) fn ago(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(duration).unwrap_or(now)
}
