//! How much of a stream is captured and not yet applied.

use std::collections::VecDeque;

use crossfade_applier::ProgressView;
use crossfade_message::{BacklogBlock, Store, StoreError, StreamState};
use tokio::sync::watch;

/// Reading goes on when so much of the bound is free again, so that it does not begin anew with every batch.
const FREE_SHARE: u64 = 4;

pub struct Backlog {
    bound_bytes: u64,
    /// What is not applied to its end, oldest first.
    blocks: VecDeque<BacklogBlock>,
    bytes: u64,
    is_full: bool,
    committed_to_micros: i64,
    applied: watch::Receiver<ProgressView>,
}

impl Backlog {
    /// As the store has it.
    pub async fn read(
        store: &Store,
        state: &StreamState,
        bound_bytes: u64,
        applied: watch::Receiver<ProgressView>,
    ) -> Result<Backlog, StoreError> {
        let blocks: VecDeque<BacklogBlock> = store.backlog(&state.stream, state.settled_seq).await?.into();
        let bytes = blocks.iter().map(|block| block.bytes).sum();
        let committed_to_micros = blocks.back().map_or(0, |block| block.committed_to_micros);
        Ok(Backlog { bound_bytes, blocks, bytes, is_full: false, committed_to_micros, applied })
    }

    /// Reads anew what the store has.
    pub async fn reread(&mut self, store: &Store, state: &StreamState) -> Result<(), StoreError> {
        let applied = self.applied.clone();
        let read = Backlog::read(store, state, self.bound_bytes, applied).await?;
        *self = Backlog { is_full: self.is_full, ..read };
        Ok(())
    }

    /// Takes note of what was just captured.
    pub fn add(&mut self, block: BacklogBlock) {
        self.bytes += block.bytes;
        self.committed_to_micros = block.committed_to_micros;
        self.blocks.push_back(block);
    }

    pub fn bound_bytes(&self) -> u64 {
        self.bound_bytes
    }

    /// When the source committed the last change of the backlog that was read; 0 where none is known.
    pub fn committed_to_micros(&self) -> i64 {
        self.committed_to_micros
    }

    /// It has reached the bound, and not yet shrunk by a good part of it.
    pub fn is_full(&mut self) -> bool {
        let applied = self.applied.borrow_and_update().applied_seq;
        while let Some(block) = self.blocks.front().filter(|block| block.last_seq <= applied) {
            self.bytes -= block.bytes;
            self.blocks.pop_front();
        }
        let enough = if self.is_full { self.bound_bytes - self.bound_bytes / FREE_SHARE } else { self.bound_bytes };
        self.is_full = self.bytes >= enough;
        self.is_full
    }

    /// Returns once it is not full.
    pub async fn has_room(&mut self) {
        while self.is_full() {
            if self.applied.changed().await.is_err() {
                // The applier has ended, and with it soon the process.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(last_seq: u64, bytes: u64) -> BacklogBlock {
        BacklogBlock { last_seq, bytes, committed_to_micros: last_seq as i64 }
    }

    #[tokio::test]
    async fn p8_a_full_backlog_has_room_when_a_quarter_is_applied() {
        let (progress, applied) = watch::channel(ProgressView::default());
        let (blocks, bytes) = (VecDeque::new(), 0);
        let mut backlog = Backlog { bound_bytes: 100, blocks, bytes, is_full: false, committed_to_micros: 0, applied };
        for seq in 1..=9 {
            backlog.add(block(seq, 10));
            assert!(!backlog.is_full());
        }
        backlog.add(block(10, 10));
        assert!(backlog.is_full());
        progress.send_modify(|view| view.applied_seq = 2);
        assert!(backlog.is_full(), "it would be full again at once");
        let (roomy, ()) = tokio::join!(backlog.has_room(), async {
            progress.send_modify(|view| view.applied_seq = 3);
        });
        let () = roomy;
        assert!(!backlog.is_full());
        backlog.add(block(11, 29));
        assert!(!backlog.is_full());
        backlog.add(block(12, 1));
        assert!(backlog.is_full());
        assert_eq!(backlog.committed_to_micros(), 12);
    }
}
