//! The life of one row on both sides, in one order.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use crossfade_model::{Message, StreamId};

use crate::block::filter_may_hold;
use crate::listing::listed;
use crate::read::BlockHead;
use crate::{ListedMessage, Store, StoreError};

/// A message of the row, as it is and as people are shown it.
#[derive(Debug, Clone)]
pub struct LifeEvent {
    pub stream: StreamId,
    pub message: Message,
    pub listed: ListedMessage,
}

impl Store {
    /// A row's life in all streams: the messages that `wanted` takes from the blocks that may hold one of `key_hashes`.
    ///
    /// What has seen something stands after it, whatever the servers' clocks say; where neither has seen the other, the
    /// time of the commit decides. Messages of one stream keep their order.
    pub async fn history(
        &self,
        key_hashes: &[u64],
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<Vec<LifeEvent>, StoreError> {
        let heads = self.heads_of_keys(None, 0, u64::MAX, key_hashes).await?;
        self.life(heads, wanted).await
    }

    /// As [`history`](Store::history), of what was captured within `age` alone.
    pub async fn recent_history(
        &self,
        key_hashes: &[u64],
        age: Duration,
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<Vec<LifeEvent>, StoreError> {
        let mut heads = Vec::new();
        for (stream, first) in self.captured_within(age).await? {
            heads.extend(self.heads_of_keys(Some(&stream), first, u64::MAX, key_hashes).await?);
        }
        self.life(heads, wanted).await
    }

    /// Which of these keys other streams than `own` may have captured within `age`: no is certain, yes is likely.
    pub async fn captured_elsewhere(
        &self,
        own: &StreamId,
        key_hashes: impl IntoIterator<Item = u64>,
        age: Duration,
    ) -> Result<HashSet<u64>, StoreError> {
        let mut unknown: HashSet<u64> = key_hashes.into_iter().collect();
        let mut captured = HashSet::new();
        for (stream, first) in self.captured_within(age).await? {
            if stream == *own {
                continue;
            }
            self.visit_key_filters(Some(&stream), first, u64::MAX, |_, filter| {
                captured.extend(unknown.extract_if(|hash| filter_may_hold(filter, *hash)));
                Ok(if unknown.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
            .await?;
        }
        Ok(captured)
    }

    async fn life(
        &self,
        heads: Vec<BlockHead>,
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<Vec<LifeEvent>, StoreError> {
        let settled: HashMap<String, u64> =
            self.stream_statuses().await?.into_iter().map(|state| (state.stream, state.settled_seq)).collect();
        let mut streams: Vec<VecDeque<LifeEvent>> = Vec::new();
        for head in heads {
            let mut of_row = self.messages_of_block(&head).await?;
            of_row.retain(&wanted);
            if of_row.is_empty() {
                continue;
            }
            let endings = self.endings(&head.stream, head.first_seq, head.last_seq).await?;
            let settled_seq = settled.get(head.stream.as_str()).copied().unwrap_or(0);
            let same_stream = |events: &VecDeque<LifeEvent>| events.back().is_some_and(|e| e.stream == head.stream);
            if !streams.last().is_some_and(same_stream) {
                streams.push(VecDeque::new());
            }
            let events = of_row.into_iter().map(|message| LifeEvent {
                stream: head.stream.clone(),
                listed: listed(&head, &message, endings.get(&message.seq), settled_seq),
                message,
            });
            if let Some(stream) = streams.last_mut() {
                stream.extend(events);
            }
        }
        Ok(merge(streams))
    }

    /// All streams, each with the first message that was captured within `age`, or would be.
    async fn captured_within(&self, age: Duration) -> Result<Vec<(StreamId, u64)>, StoreError> {
        let mut firsts = Vec::new();
        for state in self.stream_statuses().await? {
            let stream = crate::read::stream_of(&state.stream)?;
            let last_before: Option<u64> = sqlx::query_scalar(
                "SELECT last_seq FROM message_block
                 WHERE pair = ? AND stream = ? AND captured_at < UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND
                 ORDER BY last_seq DESC LIMIT 1",
            )
            .bind(&*self.pair)
            .bind(stream.as_str())
            .bind(u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
            .fetch_optional(&self.patient)
            .await
            .map_err(StoreError::during("find messages of a row"))?;
            firsts.push((stream, last_before.unwrap_or(0) + 1));
        }
        Ok(firsts)
    }
}

/// Several streams, each in its own order, in one.
fn merge(mut streams: Vec<VecDeque<LifeEvent>>) -> Vec<LifeEvent> {
    let mut merged = Vec::new();
    loop {
        let heads: Vec<&LifeEvent> = streams.iter().filter_map(VecDeque::front).collect();
        // Two heads never have seen each other, so there is always one that has seen none.
        let is_free = |event: &&&LifeEvent| heads.iter().all(|other| !has_seen(event, other));
        let key = |event: &&&LifeEvent| (event.message.committed_at_micros, event.stream.clone());
        let next = heads.iter().filter(is_free).min_by_key(key).or_else(|| heads.iter().min_by_key(key));
        let Some(stream) = next.map(|event| event.stream.clone()) else { return merged };
        let queue = streams.iter_mut().find(|queue| queue.front().is_some_and(|event| event.stream == stream));
        merged.extend(queue.and_then(VecDeque::pop_front));
    }
}

/// A batch that was half done when the message was written counts as not seen.
fn has_seen(event: &LifeEvent, other: &LifeEvent) -> bool {
    let progress = event.message.seen.streams.get(other.stream.as_str());
    progress.is_some_and(|progress| {
        other.message.seq <= progress.applied_through() && !progress.parked.contains(&other.message.seq)
    })
}
