//! Reading messages back.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};

use chrono::NaiveDateTime;
use crossfade_model::{Message, StreamId, TableLayout};
use futures_util::TryStreamExt;
use sqlx::mysql::MySqlRow;
use sqlx::{MySql, QueryBuilder, Row};

use crate::block::{BlockError, FORMAT, StoredBlock, StoredLayout, filter_may_hold};
use crate::capture::LARGE_CHUNK_BYTES;
use crate::{Store, StoreError};

/// A block's row without its messages.
#[derive(Debug, Clone)]
pub(crate) struct BlockHead {
    pub stream: StreamId,
    pub first_seq: u64,
    pub last_seq: u64,
    pub captured_at: NaiveDateTime,
    /// Of its messages, without their large values.
    raw_bytes: u64,
    /// Pieces of large values, which are kept by themselves.
    large_parts: u32,
}

/// Blocks that follow each other are read together, up to so many and so many bytes: many are small, and each would cost a
/// journey to the store.
const MOST_BLOCKS_TOGETHER: usize = 256;
const MOST_BYTES_TOGETHER: u64 = 1 << 20;

const HEADS_AT_A_TIME: u32 = 128;

/// Heads of blocks that follow each other and are read at a time; one with large values stands alone.
fn together(heads: &[BlockHead]) -> impl Iterator<Item = &[BlockHead]> {
    let (mut blocks, mut bytes) = (1, heads.first().map_or(0, |head| head.raw_bytes));
    heads.chunk_by(move |head, next| {
        (blocks, bytes) = (blocks + 1, bytes + next.raw_bytes);
        let follows = head.stream == next.stream && head.last_seq + 1 == next.first_seq;
        let is_small = head.large_parts == 0 && next.large_parts == 0;
        let fits = follows && is_small && blocks <= MOST_BLOCKS_TOGETHER && bytes <= MOST_BYTES_TOGETHER;
        if !fits {
            (blocks, bytes) = (1, next.raw_bytes);
        }
        fits
    })
}

impl Store {
    /// The number of the stream's last captured message; 0 before the first.
    pub async fn last_seq(&self, stream: &StreamId) -> Result<u64, StoreError> {
        let last: Option<u64> = sqlx::query_scalar("SELECT last_seq FROM stream WHERE pair = ? AND stream = ?")
            .bind(&*self.pair)
            .bind(stream.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::during("read a stream"))?;
        last.ok_or_else(|| StoreError::UnknownStream(stream.clone()))
    }

    /// Messages from `from_seq` on, in order and without holes: at most `rows`, and as many as `bytes` of memory hold, but
    /// at least one if there is any. Reads whole blocks, so bounds near a block's size are cheapest.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if the store has later messages but not these.
    pub async fn read_messages(
        &self,
        stream: &StreamId,
        from_seq: u64,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<Message>, StoreError> {
        let (mut next, mut sum_bytes, mut wanted) = (from_seq, 0, Vec::new());
        // Heads first: they are small, and tell how many payloads the bounds allow.
        'bounds: loop {
            let heads = self.heads(stream, next, u64::MAX, HEADS_AT_A_TIME).await?;
            let are_all = heads.len() < HEADS_AT_A_TIME as usize;
            for head in heads {
                if head.first_seq > next {
                    return Err(StoreError::Missing { stream: stream.clone(), first: next, last: head.first_seq - 1 });
                }
                sum_bytes += head.raw_bytes as usize + head.large_parts as usize * LARGE_CHUNK_BYTES;
                if !wanted.is_empty() && ((head.last_seq - from_seq) as usize >= rows || sum_bytes > bytes) {
                    break 'bounds;
                }
                next = head.last_seq + 1;
                wanted.push(head);
            }
            if are_all {
                break;
            }
        }
        let (mut read, mut read_bytes): (Vec<Message>, _) = (Vec::new(), 0);
        for group in together(&wanted) {
            for message in self.messages_of(group).await?.into_iter().filter(|message| message.seq >= from_seq) {
                read_bytes += message.change.memory_bytes();
                if !read.is_empty() && (read.len() >= rows || read_bytes > bytes) {
                    return Ok(read);
                }
                read.push(message);
            }
        }
        Ok(read)
    }

    /// All messages with numbers from `first` to `last`, both inclusive.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if one of them is not there.
    pub async fn read_range(&self, stream: &StreamId, first: u64, last: u64) -> Result<Vec<Message>, StoreError> {
        let mut read = Vec::new();
        let mut next = first;
        for group in together(&self.heads(stream, first, last, u32::MAX).await?) {
            if group[0].first_seq > next {
                break;
            }
            let messages = self.messages_of(group).await?;
            read.extend(messages.into_iter().filter(|message| (next..=last).contains(&message.seq)));
            next = group[group.len() - 1].last_seq + 1;
        }
        if next <= last {
            return Err(StoreError::Missing { stream: stream.clone(), first: next, last });
        }
        Ok(read)
    }

    /// The messages of these numbers that are there, in order.
    pub async fn read_some(&self, stream: &StreamId, seqs: &BTreeSet<u64>) -> Result<Vec<Message>, StoreError> {
        let mut read = Vec::with_capacity(seqs.len());
        let (Some(first), Some(last)) = (seqs.first(), seqs.last()) else { return Ok(read) };
        let mut heads = self.heads(stream, *first, *last, u32::MAX).await?;
        heads.retain(|head| seqs.range(head.first_seq..=head.last_seq).next().is_some());
        for group in together(&heads) {
            let messages = self.messages_of(group).await?;
            read.extend(messages.into_iter().filter(|message| seqs.contains(&message.seq)));
        }
        Ok(read)
    }

    /// The messages with numbers from `first` to `last`, both inclusive, that `wanted` takes, from those blocks that may
    /// hold one of `key_hashes`. The filter knows only half of each hash, so `wanted` must look at the key.
    pub async fn read_messages_of_keys(
        &self,
        stream: &StreamId,
        first: u64,
        last: u64,
        key_hashes: &[u64],
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<Vec<Message>, StoreError> {
        let mut found = Vec::new();
        let keep = |message: Message| {
            if wanted(&message) {
                found.push(message);
            }
        };
        self.visit_messages_of_keys(stream, first, last, key_hashes, keep).await?;
        Ok(found)
    }

    /// As [`Store::read_messages_of_keys`], but gives one message after the other, in order, so that only a few blocks are in
    /// memory.
    pub async fn visit_messages_of_keys(
        &self,
        stream: &StreamId,
        first: u64,
        last: u64,
        key_hashes: &[u64],
        mut visit: impl FnMut(Message),
    ) -> Result<(), StoreError> {
        for group in together(&self.heads_of_keys(Some(stream), first, last, key_hashes).await?) {
            let messages = self.messages_of(group).await?;
            messages.into_iter().filter(|message| (first..=last).contains(&message.seq)).for_each(&mut visit);
        }
        Ok(())
    }

    /// Heads of the blocks with messages in `first..=last`, in order.
    pub(crate) async fn heads(
        &self,
        stream: &StreamId,
        first: u64,
        last: u64,
        limit: u32,
    ) -> Result<Vec<BlockHead>, StoreError> {
        let rows = sqlx::query(
            "SELECT stream, first_seq, last_seq, captured_at, raw_bytes, large_parts FROM message_block
             WHERE pair = ? AND stream = ? AND last_seq >= ? AND first_seq <= ? ORDER BY last_seq LIMIT ?",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(first)
        .bind(last)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::during("find messages"))?;
        rows.iter().map(BlockHead::of_row).collect()
    }

    /// Heads of the blocks of one stream, or of all, whose key filter may hold one of the hashes; by stream, in order.
    pub(crate) async fn heads_of_keys(
        &self,
        stream: Option<&StreamId>,
        first: u64,
        last: u64,
        key_hashes: &[u64],
    ) -> Result<Vec<BlockHead>, StoreError> {
        let mut heads = Vec::new();
        self.visit_key_filters(stream, first, last, |row, filter| {
            if key_hashes.iter().any(|hash| filter_may_hold(filter, *hash)) {
                heads.push(BlockHead::of_row(row)?);
            }
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        Ok(heads)
    }

    /// Gives the row of the head and the key filter of each block of one stream, or of all; by stream, in order, until it is told to
    /// stop.
    pub(crate) async fn visit_key_filters(
        &self,
        stream: Option<&StreamId>,
        first: u64,
        last: u64,
        mut visit: impl FnMut(&MySqlRow, &[u8]) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let during = || StoreError::during("find messages of a row");
        let mut query = QueryBuilder::<MySql>::new(
            "SELECT stream, first_seq, last_seq, captured_at, raw_bytes, large_parts, key_filter FROM message_block WHERE pair = ",
        );
        query.push_bind(&*self.pair);
        if let Some(stream) = stream {
            query.push(" AND stream = ").push_bind(stream.as_str());
        }
        query.push(" AND last_seq >= ").push_bind(first).push(" AND first_seq <= ").push_bind(last);
        query.push(" ORDER BY stream, last_seq");
        // Row by row: the filters of a big store are more than memory should hold.
        let mut rows = query.build().fetch(&self.patient);
        while let Some(row) = rows.try_next().await.map_err(during())? {
            if visit(&row, row.try_get("key_filter").map_err(during())?)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    pub(crate) async fn messages_of_block(&self, head: &BlockHead) -> Result<Vec<Message>, StoreError> {
        self.messages_of(std::slice::from_ref(head)).await
    }

    /// The messages of blocks of one stream that follow each other.
    async fn messages_of(&self, heads: &[BlockHead]) -> Result<Vec<Message>, StoreError> {
        let (Some(first), Some(last)) = (heads.first(), heads.last()) else { return Ok(Vec::new()) };
        let during = || StoreError::during("read messages");
        let rows = sqlx::query(
            "SELECT first_seq, format, seen, payload FROM message_block
             WHERE pair = ? AND stream = ? AND first_seq BETWEEN ? AND ? ORDER BY first_seq",
        )
        .bind(&*self.pair)
        .bind(first.stream.as_str())
        .bind(first.first_seq)
        .bind(last.first_seq)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        let first_seq = |row: &MySqlRow| row.try_get::<u64, _>("first_seq").map_err(during());
        let mut by_first = HashMap::new();
        for row in &rows {
            by_first.insert(first_seq(row)?, row);
        }
        let mut messages = Vec::new();
        for head in heads {
            let row = by_first.get(&head.first_seq).ok_or_else(|| StoreError::Missing {
                stream: head.stream.clone(),
                first: head.first_seq,
                last: head.last_seq,
            })?;
            messages.extend(self.decoded(head, row).await?);
        }
        Ok(messages)
    }

    async fn decoded(&self, head: &BlockHead, row: &MySqlRow) -> Result<Vec<Message>, StoreError> {
        let during = || StoreError::during("read messages");
        let corrupt = |reason| StoreError::Corrupt { stream: head.stream.clone(), first_seq: head.first_seq, reason };
        let format: u8 = row.try_get("format").map_err(during())?;
        if format != FORMAT {
            return Err(corrupt(format!("its format {format} is not known to this program")));
        }
        let seen: String = row.try_get("seen").map_err(during())?;
        let large = self.large_of(head, head.large_parts).await?;
        let block = StoredBlock {
            first_seq: head.first_seq,
            last_seq: head.last_seq,
            seen: &seen,
            payload: row.try_get("payload").map_err(during())?,
            large: &large,
        };
        let mut decoded = block.messages(&|id| self.known_layout(id));
        if let Err(BlockError::UnknownLayout(_)) = decoded {
            self.load_layouts().await?;
            decoded = block.messages(&|id| self.known_layout(id));
        }
        decoded.map_err(|error| match error {
            BlockError::UnknownLayout(id) => corrupt(format!("the store has no layout {id:016x}")),
            BlockError::Corrupt(reason) => corrupt(reason),
        })
    }

    async fn large_of(&self, head: &BlockHead, parts: u32) -> Result<Vec<u8>, StoreError> {
        let during = || StoreError::during("read large values");
        if parts == 0 {
            return Ok(Vec::new());
        }
        let parts: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT bytes FROM message_large WHERE pair = ? AND stream = ? AND first_seq = ? ORDER BY part",
        )
        .bind(&*self.pair)
        .bind(head.stream.as_str())
        .bind(head.first_seq)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        Ok(parts.concat())
    }

    async fn load_layouts(&self) -> Result<(), StoreError> {
        let during = || StoreError::during("read the columns of tables");
        let rows = sqlx::query("SELECT id, definition FROM layout WHERE pair = ?")
            .bind(&*self.pair)
            .fetch_all(&self.pool)
            .await
            .map_err(during())?;
        for row in &rows {
            let id: u64 = row.try_get(0).map_err(during())?;
            if self.known_layout(id).is_none() {
                let definition: &str = row.try_get(1).map_err(during())?;
                let stored = StoredLayout::parse(id, definition)
                    .map_err(|reason| StoreError::Unreadable { what: "layout of a table", reason })?;
                self.remember_layout(id, stored.layout);
            }
        }
        Ok(())
    }

    pub(crate) fn known_layout(&self, id: u64) -> Option<Arc<TableLayout>> {
        self.layouts.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(crate) fn remember_layout(&self, id: u64, layout: Arc<TableLayout>) {
        self.layouts.write().unwrap_or_else(PoisonError::into_inner).insert(id, layout);
    }
}

pub(crate) fn stream_of(text: &str) -> Result<StreamId, StoreError> {
    text.parse().map_err(|error| StoreError::Unreadable { what: "stream's name", reason: format!("{error}") })
}

impl BlockHead {
    pub fn of_row(row: &MySqlRow) -> Result<BlockHead, StoreError> {
        let during = || StoreError::during("find messages");
        Ok(BlockHead {
            stream: stream_of(row.try_get("stream").map_err(during())?)?,
            first_seq: row.try_get("first_seq").map_err(during())?,
            last_seq: row.try_get("last_seq").map_err(during())?,
            captured_at: row.try_get("captured_at").map_err(during())?,
            raw_bytes: u64::from(row.try_get::<u32, _>("raw_bytes").map_err(during())?),
            large_parts: row.try_get("large_parts").map_err(during())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of ten messages of the numbers that follow; each is told by its raw bytes and large parts.
    fn heads(blocks: &[(u64, u32)]) -> Vec<BlockHead> {
        let head = |(place, (raw_bytes, large_parts)): (u64, &(u64, u32))| BlockHead {
            stream: stream_of("forward/old").unwrap(),
            first_seq: place * 10 + 1,
            last_seq: place * 10 + 10,
            captured_at: NaiveDateTime::default(),
            raw_bytes: *raw_bytes,
            large_parts: *large_parts,
        };
        (0..).zip(blocks).map(head).collect()
    }

    fn sizes(heads: &[BlockHead]) -> Vec<usize> {
        together(heads).map(<[BlockHead]>::len).collect()
    }

    #[test]
    fn p8_what_is_read_together_is_bounded() {
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&heads(&[(100, 0); 600])), [256, 256, 88]);
        assert_eq!(sizes(&heads(&[(MOST_BYTES_TOGETHER / 2, 0); 5])), [2, 2, 1]);
        assert_eq!(sizes(&heads(&[(MOST_BYTES_TOGETHER * 4, 0), (100, 0), (100, 0)])), [1, 2]);
        // Large values are no part of the raw bytes.
        assert_eq!(sizes(&heads(&[(100, 0), (100, 0), (100, 16), (100, 16), (100, 0), (100, 0)])), [2, 1, 1, 2]);
    }

    #[test]
    fn only_blocks_that_follow_each_other_are_read_together() {
        let mut some = heads(&[(100, 0); 6]);
        some.remove(2);
        assert_eq!(sizes(&some), [2, 3]);
        some[3].stream = stream_of("reverse/new").unwrap();
        assert_eq!(sizes(&some), [2, 1, 1, 1]);
    }
}
