//! The status that all answers of one moment are given from.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::Status;
use crate::look::{Look, Seen, ago};

/// Answers that are asked for within this time are given from one look into the store.
pub(crate) const FRESH: Duration = Duration::from_secs(1);

/// Whoever asks whether something is ready does not wait long.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Reads the status anew, or tells why that cannot be done.
pub type Ask = Arc<dyn Fn() -> BoxFuture<'static, Result<Status, String>> + Send + Sync>;

/// Cheap to clone; clones look once for all.
#[derive(Clone)]
pub struct View {
    ask: Ask,
    look: Arc<Look<Arc<Status>>>,
}

impl View {
    pub fn new(ask: Ask) -> View {
        View::with_limit(ask, ASK_LIMIT)
    }

    pub(crate) fn with_limit(ask: Ask, ask_limit: Duration) -> View {
        View { ask, look: Arc::new(Look::new(ask_limit)) }
    }

    pub(crate) async fn look(&self) -> Seen<Arc<Status>> {
        let ask = async { (self.ask)().await.map(Arc::new) };
        self.look.since(ago(FRESH), ask).await.1
    }
}
