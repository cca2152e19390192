//! What the effective clocks of captured changes are rebuilt from, and how far they may be forgotten.

use crossfade_applier::opposite_stream;
use crossfade_message::{Store, StoreError, StreamState};
use crossfade_rules::{EffectiveClocks, TableMapping};

/// Messages of before this process that are looked at, at most. Takes a second or two.
const REMEMBERED_MESSAGES: u64 = 1_000_000;

/// Clocks as the process before this one had them, as far as they can still matter; of at least so many `rows`.
pub async fn remembered(
    store: &Store,
    mappings: &[TableMapping],
    state: &StreamState,
    rows: usize,
) -> Result<EffectiveClocks, StoreError> {
    let mut clocks = EffectiveClocks::with_memory(mappings, rows);
    let settled = settled_through(store, state).await?;
    clocks.settle(settled);
    let earliest = state.last_seq.saturating_sub(REMEMBERED_MESSAGES);
    if earliest > settled {
        let messages = earliest - settled;
        tracing::warn!(messages, "too far behind to remember the clocks of all messages that are under way");
    }
    let mut next = earliest.max(settled) + 1;
    while next <= state.last_seq {
        match store.read_messages(&state.stream, next, 2_000, 1 << 20).await {
            Ok(messages) => {
                let Some(last) = messages.last() else { break };
                next = last.seq + 1;
                clocks.remember(&messages);
            }
            // Purged: settled long ago.
            Err(StoreError::Missing { last, .. }) => next = last + 1,
            Err(error) => return Err(error),
        }
    }
    Ok(clocks)
}

/// The last message that no change of the other side can be concurrent with, if this side's next change follows it.
///
/// What this side's reader has seen of the opposite stream is past for every change that it is still to capture. The first
/// change that it has not seen tells what of this stream was applied over there by then; later ones have seen more.
pub async fn settled_through(store: &Store, state: &StreamState) -> Result<u64, StoreError> {
    let opposite = opposite_stream(&state.stream);
    let seen_here = state.seen.streams.get(opposite.as_str()).map_or(0, |seen| seen.in_effect_through());
    let over_there = match store.stream_state(&opposite).await {
        Err(StoreError::UnknownStream(_)) => return Ok(0),
        over_there => over_there?,
    };
    let first_unseen = match over_there.last_seq {
        last if last <= seen_here => None,
        _ => store.read_messages(&opposite, seen_here + 1, 1, 1).await?.pop(),
    };
    let seen_there = first_unseen.as_ref().map_or(&over_there.seen, |message| &*message.seen);
    Ok(seen_there.streams.get(state.stream.as_str()).map_or(0, |seen| seen.in_effect_through()))
}
