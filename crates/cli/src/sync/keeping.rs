//! How long the source still keeps what is not read: measured now and then, and told before it is too late.

use std::time::{Duration, Instant};

use crossfade_binlog::Unread;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::capture::CaptureView;
use crate::failure::with_causes;
use crate::meeting::Source;

const FIRST_LOOK: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// A person is told again after this time, if nothing has changed.
const TELL_EVERY: Duration = Duration::from_secs(600);

/// Looks until `running` ends. `None` where nothing is known, or where only the file is unread that is written now.
pub async fn watch_over(
    source: Source,
    captured: watch::Receiver<CaptureView>,
    keeps: watch::Sender<Option<Unread>>,
    running: CancellationToken,
) -> anyhow::Result<()> {
    let mut told: Option<Instant> = None;
    let mut pause = FIRST_LOOK;
    loop {
        tokio::select! {
            () = running.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = LOOK_EVERY;
        let Some(position) = captured.borrow().position.clone() else { continue };
        let found = match source.unread(&position).await {
            Ok(found) => found,
            // The reader meets the same trouble, and tells it.
            Err(error) => {
                tracing::debug!(error = with_causes(&error), "how long the source keeps its binlog is not known");
                continue;
            }
        };
        if let Some(unread) = found.as_ref().filter(|unread| unread.is_urgent())
            && told.is_none_or(|at| at.elapsed() >= TELL_EVERY)
        {
            told = Some(Instant::now());
            let (file, bytes) = (&unread.oldest_file, unread.bytes);
            let left =
                humantime::format_duration(Duration::from_secs(unread.left.unwrap_or_default().as_secs())).to_string();
            tracing::warn!(file, bytes, left, "the source may soon purge what is not read yet");
        }
        keeps.send_if_modified(|known| std::mem::replace(known, found.clone()) != found);
    }
}
