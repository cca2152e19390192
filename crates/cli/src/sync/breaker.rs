//! When a row goes round: both directions stop, and the row's history is told.

use std::time::Duration;

use crossfade_applier::{Alarm, Crossing};
use crossfade_message::{ListedMessage, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::wishes::Watched;
use crate::command::messages::effective_clock;
use crate::failure::with_causes;

/// Between two attempts to reach a store that is away.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// This process obeys its own wish within half a second; a person who starts it again meanwhile is not waited for.
const OBEYED_WITHIN: Duration = Duration::from_secs(2);

pub async fn answer(
    mut alarms: mpsc::Receiver<Alarm>,
    store: Store,
    wishes: Watched,
    running: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let alarm = tokio::select! {
            () = running.cancelled() => return Ok(()),
            alarm = alarms.recv() => alarm,
        };
        // The applier has ended, and everything with it.
        let Some(Alarm { crossing, handled }) = alarm else { return Ok(()) };
        tell(&crossing);
        let reason = reason(&crossing);
        tokio::select! {
            () = running.cancelled() => return Ok(()),
            stopped = stop_both(&store, &reason) => stopped?,
        }
        let _ = tokio::time::timeout(OBEYED_WITHIN, wishes.until_rests()).await;
        // The applier may have ended meanwhile.
        let _ = handled.send(());
    }
}

async fn stop_both(store: &Store, reason: &str) -> anyhow::Result<()> {
    loop {
        match store.stop_both(reason).await {
            Ok(_) => return Ok(()),
            Err(error) if error.may_be_over_later() => {
                store.begin_sessions_anew();
                tracing::warn!(
                    error = with_causes(&error.into()),
                    "the store is away; nothing is applied until it has been told to stop both directions"
                );
                tokio::time::sleep(STORE_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn reason(crossing: &Crossing) -> String {
    let Crossing { table, row_key, crossings, window, .. } = crossing;
    format!(
        "one version of a row of {table} crossed {crossings} times within {} without a user's write: row {row_key}; \
         see `crossfade messages history`, find out what writes it back, then `crossfade start forward` and \
         `crossfade start reverse`",
        humantime::format_duration(*window)
    )
}

/// The row's history goes to standard error as it is, for the person who looks there first. Which row it is, the messages
/// and `status` tell: that is where logs are kept.
fn tell(crossing: &Crossing) {
    tracing::error!(table = %crossing.table, crossings = crossing.crossings, "a row goes round; both directions stop");
    eprintln!("history of a row of {}, which `crossfade messages show` names:", crossing.table);
    for message in &crossing.life {
        eprintln!("  {}", line(message));
    }
}

fn line(message: &ListedMessage) -> String {
    format!(
        "{} {} {} clock {} {}",
        message.committed_at.format("%Y-%m-%d %H:%M:%S%.6f"),
        message.id,
        message.op,
        effective_clock(message),
        message.status.as_str(),
    )
}
