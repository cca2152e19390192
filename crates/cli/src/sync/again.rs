//! Reading a source again from a mark on: what followed it and is not in the message table is captured.
//!
//! What is there already is known by its place in the source's binlog, and is not captured twice; what was applied is not
//! applied twice, since the target's checkpoints say so. The saved position stays where it is meanwhile, so whoever is killed
//! may begin again, or go on without.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use anyhow::Context;
use crossfade_binlog::{BinlogError, BinlogReader, ReaderOptions, TransactionPart, is_reached};
use crossfade_message::{Mark, Store, StoreError, StreamState};
use crossfade_model::{Direction, GtidSet, MariaDbGtidPosition, Position, Seen};

use super::capture::Capture;
use crate::failure::{Failure, Kind};

/// Messages that are looked at together, from the stream's end backwards.
const STEP: u64 = 2_000;

/// Messages after a mark, at most; each takes some bytes of memory.
const MOST_MESSAGES: u64 = 5_000_000;

const TELL_EVERY: Duration = Duration::from_secs(10);

/// The mark of this name.
///
/// # Errors
///
/// There is none, or another pair has it; or a process runs the direction.
pub async fn find(store: &Store, direction: Direction, name: &str) -> anyhow::Result<Mark> {
    if let Some(runner) = super::runner(store, direction).await? {
        let message = format!("{direction} runs already ({}); it cannot go back to a mark meanwhile", runner.holder);
        return Err(refused(message, "stop its processes, then start one with `--from-mark`"));
    }
    let mut marks = store.marks().await?;
    if let Some(place) = marks.iter().position(|mark| mark.name == name) {
        return Ok(marks.swap_remove(place));
    }
    let names: Vec<&str> = marks.iter().map(|mark| mark.name.as_str()).collect();
    let hint = format!("`crossfade mark list` shows those of this pair: {}", names.join(", "));
    match store.pairs_with_mark(name).await?.first() {
        Some(pair) => Err(refused(format!("the mark `{name}` belongs to the pair `{pair}`"), hint)),
        None => Err(refused(format!("there is no mark `{name}`"), hint)),
    }
}

fn refused(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Failure::new(Kind::Finding, message, hint).into()
}

/// Reads from `mark` up to where the stream is, and captures what is missing; gives the number of such changes.
///
/// # Errors
///
/// What follows the mark is not there any more, at the source or in the message table; or it was not read yet, so that to
/// begin there would leave something out.
pub async fn read_again(capture: &mut Capture, mark: &Mark, options: ReaderOptions) -> anyhow::Result<u64> {
    let stream = capture.state.stream.clone();
    let from = match stream.direction() {
        Direction::Forward => &mark.old_position,
        Direction::Reverse => &mark.new_position,
    };
    let until = capture.state.position.position.clone();
    if !is_reached(&until, from) {
        let message = format!(
            "the mark `{}` is at {from}, and {stream} has read up to {until}: it has not come to the mark, or that was taken on \
             another server",
            mark.name
        );
        return Err(refused(
            message,
            "start it without `--from-mark`: it goes on where it was, and leaves nothing out",
        ));
    }
    let known = Known::after(from, &capture.store, &capture.state, &mark.name).await?;
    let messages = known.events.len();
    tracing::info!(%stream, mark = mark.name, %from, %until, messages, "reading again from the mark");
    // What the other direction had applied by then is found out as its checkpoints come by.
    let options = ReaderOptions { start: from.clone().into(), seen: Seen::default(), echo_watch: None, ..options };
    let is_purged = |error: BinlogError| match error {
        BinlogError::Purged { .. } => refused(
            format!("the source has purged what followed the mark `{}` ({error})", mark.name),
            "take a later mark, see `crossfade mark list`; or start it without `--from-mark`: it goes on where it was",
        ),
        error => error.into(),
    };
    let mut reader = BinlogReader::open(options).await.map_err(is_purged)?;
    let (mut found, mut told) = (0, Instant::now());
    let mut missing = Vec::new();
    let mut bytes = 0;
    while let Some(part) = next_within(&mut reader, &until, capture).await?.transpose().map_err(is_purged)? {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tracing::info!(%stream, at = %part.head.end, %until, found, "reading again");
        }
        let part = known.without_known(part);
        // The last transaction may have been captured in part; it is read again anyway.
        if part.changes.is_empty() || !is_reached(&until, &part.head.end) {
            continue;
        }
        found += part.changes.len() as u64;
        bytes += part.changes.iter().map(crossfade_model::RowChange::memory_bytes).sum::<usize>();
        missing.push(part);
        if bytes >= capture.shares.capture_bytes {
            capture.capture_late(std::mem::take(&mut missing)).await?;
            bytes = 0;
        }
    }
    capture.capture_late(missing).await?;
    let text = format!(
        "{stream} was read again from mark {} ({from}) to {until}: of {messages} events all are in the message table, {found} \
         changes were not",
        mark.name
    );
    capture.store.journal("mark", &text).await?;
    tracing::info!(%stream, mark = mark.name, found, "read again from the mark; what it holds is captured");
    Ok(found)
}

/// `None` when asked to stop.
async fn next_within(
    reader: &mut BinlogReader,
    until: &Position,
    capture: &Capture,
) -> anyhow::Result<Option<Result<TransactionPart, BinlogError>>> {
    tokio::select! {
        () = capture.stop.cancelled() => anyhow::bail!("asked to stop before all was read again"),
        part = reader.next_until(until) => Ok(part.transpose()),
    }
}

/// Row events after a mark that are in the message table.
struct Known {
    events: HashSet<u64>,
    hasher: RandomState,
}

impl Known {
    async fn after(from: &Position, store: &Store, state: &StreamState, mark: &str) -> anyhow::Result<Known> {
        let mut known = Known { events: HashSet::new(), hasher: RandomState::new() };
        let mut last = state.last_seq;
        while last > 0 {
            let first = last.saturating_sub(STEP - 1).max(1);
            let messages = match store.read_range(&state.stream, first, last).await {
                Err(StoreError::Missing { .. }) => {
                    let message = format!("messages that were captured after the mark `{mark}` are purged");
                    return Err(refused(
                        message,
                        "take a later mark, see `crossfade mark list`: what was captured since then could not be told from what \
                         was not; a longer `[store] retention` keeps messages for longer",
                    ));
                }
                messages => messages?,
            };
            for message in messages.iter().rev() {
                if is_before(from, &message.source_position).context("the place of a message cannot be read")? {
                    return Ok(known);
                }
                known.events.insert(known.hash(&message.source_position, message.change.event_index));
            }
            if state.last_seq - first > MOST_MESSAGES {
                let message = format!("more than {MOST_MESSAGES} messages were captured after the mark `{mark}`");
                return Err(refused(message, "take a later mark, see `crossfade mark list`"));
            }
            last = first - 1;
        }
        Ok(known)
    }

    fn hash(&self, place: &str, event_index: u32) -> u64 {
        self.hasher.hash_one((place, event_index))
    }

    fn without_known(&self, mut part: TransactionPart) -> TransactionPart {
        let place = part.head.source_position.clone();
        part.changes.retain(|change| !self.events.contains(&self.hash(&place, change.event_index)));
        part
    }
}

/// Whether a message's transaction, by its place as the message table has it, is before a position. `None`: not a place.
fn is_before(position: &Position, place: &str) -> Option<bool> {
    match position {
        Position::MySql { executed } => Some(place.parse::<GtidSet>().ok()?.is_subset_of(executed)),
        Position::MariaDb { gtid } => Some(place.parse::<MariaDbGtidPosition>().ok()?.is_at_or_before(gtid)),
        Position::File { server, .. } => {
            let (file, offset) = place.rsplit_once(':')?;
            let place = Position::File { server: server.clone(), file: file.to_owned(), offset: offset.parse().ok()? };
            // The place is where the transaction begins, and the position where the next one does.
            Some(&place != position && is_reached(position, &place))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_before_a_mark_or_not() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let mysql = Position::MySql { executed: format!("{uuid}:1-17").parse().unwrap() };
        let mariadb = Position::MariaDb { gtid: "0-1-17".parse().unwrap() };
        let file = Position::File { server: "s".to_owned(), file: "binlog.000010".to_owned(), offset: 500 };
        for (mark, place, expected) in [
            (&mysql, format!("{uuid}:17"), Some(true)),
            (&mysql, format!("{uuid}:18"), Some(false)),
            (&mariadb, "0-1-17".to_owned(), Some(true)),
            (&mariadb, "0-2-18".to_owned(), Some(false)),
            (&file, "binlog.000009:900".to_owned(), Some(true)),
            (&file, "binlog.000010:499".to_owned(), Some(true)),
            (&file, "binlog.000010:500".to_owned(), Some(false)),
            (&mysql, "somewhere".to_owned(), None),
        ] {
            assert_eq!(is_before(mark, &place), expected, "{mark} {place}");
        }
    }
}
