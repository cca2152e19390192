//! What of a table is copied, as the store keeps it.

use std::sync::Arc;
use std::time::Duration;

use crossfade_applier::ChunkWritten;
use crossfade_catalog::chunk::KeyBound;
use crossfade_message::{ChunkDone, CopyCounts, CopyOwner, NotedRow};
use crossfade_model::Row;
use crossfade_rules::chunk::row_hash;

use crate::error::BackfillError;
use crate::source::SourceTable;
use crate::worker::Shared;

/// A chunk that is written.
pub(crate) struct WrittenChunk {
    pub through: Option<KeyBound>,
    pub read: u64,
    pub left_out: u64,
    pub written: ChunkWritten,
    /// The rows that were refused or kept, by the places in `written`.
    pub rows: Vec<Row>,
    pub took: Duration,
}

/// Counts a table's chunks.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub shared: Arc<Shared>,
    pub table: usize,
    pub source: Arc<SourceTable>,
    pub owner: CopyOwner,
}

impl Ledger {
    /// `tried`: the chunk is of rows that were refused before.
    pub async fn count(
        &self,
        chunk: WrittenChunk,
        rows_per_second: f64,
        tried: &[NotedRow],
    ) -> Result<(), BackfillError> {
        let WrittenChunk { through, read, left_out, written, rows, took: _ } = chunk;
        let kept = written.kept.len() as u64;
        let noted = self.noted(&written, &rows, tried);
        let refused = |hash: u64| noted.iter().any(|row| row.key_hash == hash && row.error.is_some());
        let settled = tried.iter().map(|row| row.key_hash).filter(|hash| !refused(*hash)).collect();
        // Rows that are tried again were counted when they were read first.
        let counts = CopyCounts {
            read: if tried.is_empty() { read } else { 0 },
            filled: written.filled,
            replaced: written.replaced,
            same: written.same,
            kept,
            changed: if tried.is_empty() { left_out + written.concurrent } else { 0 },
        };
        let through = through.as_ref().map(shown);
        let done = ChunkDone { through, counts, rows_per_second, noted, settled };
        Ok(self.shared.store.chunk_done(&self.owner, &done).await?)
    }

    fn noted(&self, written: &ChunkWritten, rows: &[Row], tried: &[NotedRow]) -> Vec<NotedRow> {
        let mapping = &self.shared.mappings[self.table];
        let note = |place: usize, error: Option<String>| {
            let row = rows.get(place)?;
            let key_hash = row_hash(mapping, row);
            let before = tried.iter().find(|noted| noted.key_hash == key_hash).map_or(0, |noted| noted.attempts);
            Some(NotedRow { key_hash, key: self.source.key_of(row), error, attempts: before + 1 })
        };
        let refused = written.refused.iter().filter_map(|(place, refusal)| note(*place, Some(refusal.to_string())));
        refused.chain(written.kept.iter().filter_map(|place| note(*place, None))).collect()
    }
}

/// A bound as the store keeps it.
pub(crate) fn shown(bound: &KeyBound) -> String {
    // Texts only, so there is nothing that could fail.
    serde_json::to_string(bound).unwrap_or_default()
}

pub(crate) fn bound(shown: Option<&str>) -> Result<Option<KeyBound>, BackfillError> {
    shown.map(|shown| serde_json::from_str(shown).map_err(|_| BackfillError::Bound)).transpose()
}
