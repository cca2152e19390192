//! A target that has lost its last transactions, as a restore or a fail-over makes it, and a store that has.
//!
//! What the target has lost of this direction's work is in the message table and is applied once more. What it has lost of
//! its users' own changes is nowhere but in the binlog that went with it, and, as far as the opposite direction had read that,
//! on the other side: the sides then differ, and only a person can say how they are to become equal. So before anything is
//! written to such a target, it is found out what the opposite direction had read there.

use std::time::Duration;

use anyhow::Context;
use crossfade_applier::{ApplyError, Standing, beats, opposite_stream};
use crossfade_catalog::{Purpose, ServerFacts};
use crossfade_config::Settings;
use crossfade_message::{Epoch, Store, StoreError, StreamState};
use crossfade_model::{GtidSet, Position, Seen, StreamId, StreamProgress};
use tokio_util::sync::CancellationToken;

use super::{at_side, report};
use crate::failure::{Failure, Kind, with_causes};
use crate::pair::connect_side;

/// After a target that is away.
const PAUSE: Duration = Duration::from_secs(1);
/// Messages that are looked at together, from the stream's end backwards.
const STEP: u64 = 2_000;

/// What the opposite direction's reader has read of what the target has lost.
enum Reading {
    /// Nothing.
    Unharmed,
    /// Transactions without a change by users. It must read again what follows them.
    Echoes(Position),
    /// What it cannot be made right after, in words.
    Beyond(String),
}

/// Compares target and store before the target is written to. Where the target is behind, the stream goes back to what it has.
///
/// # Errors
///
/// The store is older than the target, or the target has lost more than can be brought back.
pub async fn look(
    settings: &Settings,
    store: &Store,
    state: StreamState,
    stop: &CancellationToken,
) -> anyhow::Result<StreamState> {
    let stream = state.stream.clone();
    // The store first: what it knows of was on the target by then.
    let seen_there = match store.stream_state(&opposite_stream(&stream)).await {
        Err(StoreError::UnknownStream(_)) => 0,
        opposite => opposite?.seen.streams.get(stream.as_str()).map_or(0, StreamProgress::applied_through),
    };
    let standing = standing(settings, store, (&stream, state.epoch), stop).await?;
    let checkpoint = standing.youngest();
    if checkpoint > state.last_seq {
        return Err(ApplyError::CheckpointBeyondStream { stream, checkpoint, last_seq: state.last_seq }.into());
    }
    if standing.epoch > state.epoch.0 {
        return Err(ApplyError::StoreBehindTarget { stream, mine: state.epoch.0, found: standing.epoch }.into());
    }
    let applied = standing.progress.applied_through();
    if state.settled_seq <= checkpoint && seen_there <= applied {
        return Ok(state);
    }
    spare_opposite(settings, store, &stream, &standing).await?;
    if state.settled_seq <= applied {
        return Ok(state);
    }
    match store.read_messages(&stream, applied + 1, 1, 1).await {
        Err(StoreError::Missing { first, last, .. }) => return Err(purged(&stream, first, last)),
        read => read?,
    };
    let reason = format!(
        "{stream}: the target has lost what followed message {applied}; messages up to {} are applied to it once more",
        state.settled_seq
    );
    store.replay_after(&stream, applied, &reason).await?;
    tracing::warn!(%stream, after = applied, through = state.settled_seq, "the target has lost its last transactions (a restore \
        or a fail-over); what it lacks is applied once more");
    Ok(StreamState { settled_seq: applied, ..state })
}

/// The checkpoints as they stand; waits for a target that is away.
async fn standing(
    settings: &Settings,
    store: &Store,
    (stream, epoch): (&StreamId, Epoch),
    stop: &CancellationToken,
) -> anyhow::Result<Standing> {
    let target = at_side(settings, stream.direction().target()).servers;
    loop {
        match Standing::read(&target, &settings.pair, stream).await {
            Err(error) if error.remedy().passes() && !stop.is_cancelled() => {
                let error = with_causes(&error.into());
                tracing::warn!(error, "the target cannot be read; trying again");
                report::retrying(store, stream, epoch, error).await;
                tokio::time::sleep(PAUSE).await;
            }
            read => return Ok(read?),
        }
    }
}

/// Has the opposite stream go on from what the target still has; its reader must not take new transactions for lost ones.
async fn spare_opposite(
    settings: &Settings,
    store: &Store,
    stream: &StreamId,
    standing: &Standing,
) -> anyhow::Result<()> {
    let opposite = opposite_stream(stream);
    loop {
        let state = match store.stream_state(&opposite).await {
            Err(StoreError::UnknownStream(_)) => return Ok(()),
            state => state?,
        };
        match reading(settings, store, &state, standing, stream).await? {
            Reading::Unharmed => return Ok(()),
            Reading::Beyond(what) => return Err(lost(&opposite, &what)),
            Reading::Echoes(position) => {
                let mut seen = Seen::default();
                seen.streams.insert(stream.as_str().to_owned(), standing.progress.clone());
                if store.reread_from(&state, &position, &seen).await? {
                    let text =
                        format!("{opposite}: read again after {position}, since the source has lost what followed");
                    store.journal("replay", &text).await?;
                    return Ok(());
                }
                // Its process has moved it meanwhile.
            }
        }
    }
}

async fn reading(
    settings: &Settings,
    store: &Store,
    opposite: &StreamState,
    standing: &Standing,
    own: &StreamId,
) -> anyhow::Result<Reading> {
    let side = opposite.stream.direction().source();
    let source = at_side(settings, side);
    let mut conn = match &source.replica {
        Some(replica) => source.connect_replica(replica).await?,
        None => source.primary(Purpose::Binlog).await?,
    };
    let now = crossfade_binlog::current_position(&mut conn, side.as_str()).await?;
    let identity = ServerFacts::read(&mut conn).await?.identity;
    let read = &opposite.position.position;
    if crossfade_binlog::is_reached(&now, read) {
        let is_read = has_read_lost(settings, store, opposite, standing, own).await?;
        return Ok(if is_read {
            Reading::Beyond(format!("numbers up to {read} have been used anew"))
        } else {
            Reading::Unharmed
        });
    }
    let (Position::MySql { executed: read }, Position::MySql { executed: has }) = (read, &now) else {
        return Ok(Reading::Beyond(format!("it has read up to {read}, and the server is at {now}")));
    };
    let missing = read.subtract(has);
    if missing.sources().any(|(uuid, ..)| uuid == identity) {
        return Ok(Reading::Beyond(format!("the server may have used the numbers of {missing} anew")));
    }
    match changes_outside(store, opposite, has).await? {
        0 => Ok(Reading::Echoes(Position::MySql { executed: read.subtract(&missing) })),
        changes => {
            Ok(Reading::Beyond(format!("{changes} changes by its users, the last that {} has", opposite.stream)))
        }
    }
}

/// Whether the opposite reader has met a checkpoint or a heartbeat that the target no longer has.
async fn has_read_lost(
    settings: &Settings,
    store: &Store,
    opposite: &StreamState,
    standing: &Standing,
    own: &StreamId,
) -> anyhow::Result<bool> {
    let seen = opposite.seen.streams.get(own.as_str());
    if seen.is_some_and(|seen| seen.applied_through() > standing.progress.applied_through()) {
        return Ok(true);
    }
    // Where the node's rows are, which may be another server than the one whose binlog is read.
    let mut conn = connect_side(settings, opposite.stream.direction().source(), Purpose::Apply).await?;
    let found = beats(&mut conn, &settings.pair).await.context("the heartbeats on the target cannot be read")?;
    for (writer, counter) in found {
        if store.heartbeat_passed(&opposite.stream, &writer).await? > counter {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many of a stream's last messages come from transactions that the source does not have.
async fn changes_outside(store: &Store, stream: &StreamState, has: &GtidSet) -> anyhow::Result<u64> {
    let mut last = stream.last_seq;
    let mut changes = 0;
    while last > 0 {
        let first = last.saturating_sub(STEP - 1).max(1);
        let messages = match store.read_range(&stream.stream, first, last).await {
            // Purged: applied long ago.
            Err(StoreError::Missing { .. }) => return Ok(changes),
            messages => messages?,
        };
        for message in messages.iter().rev() {
            let transaction: GtidSet =
                message.source_position.parse().context("the place of a message cannot be read")?;
            if transaction.is_subset_of(has) {
                return Ok(changes);
            }
            changes += 1;
        }
        last = first - 1;
    }
    Ok(changes)
}

fn lost(opposite: &StreamId, what: &str) -> anyhow::Error {
    let side = opposite.direction().source();
    Failure::new(
        Kind::Finding,
        format!(
            "the {side} side has lost its last transactions (a restore or a fail-over), among them some that {opposite} had read \
             already: {what}"
        ),
        format!(
            "bring the {side} side back to its newest state; `crossfade messages list --stream {opposite}` shows what its users \
             had changed and the other side has. If it cannot be brought back, load both sides alike and begin as a new pair"
        ),
    )
    .into()
}

fn purged(stream: &StreamId, first: u64, last: u64) -> anyhow::Error {
    Failure::new(
        Kind::Finding,
        format!(
            "the target has lost transactions of {stream} (a restore or a fail-over), and messages {first} to {last} that it lacks \
             are purged"
        ),
        "bring the target back to a newer state, or load both sides alike and begin as a new pair; a longer `[store] retention` \
         keeps messages for longer",
    )
    .into()
}
