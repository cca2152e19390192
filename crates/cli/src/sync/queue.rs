//! What is read and not yet captured, bounded by its bytes.

use std::sync::Arc;

use crossfade_binlog::TransactionPart;
use crossfade_model::RowChange;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Room is counted in pieces of this size, so that a number of 32 bits can say it.
const PIECE_BYTES: usize = 1 << 10;
/// What a part takes beside its changes, about.
const PART_BYTES: usize = 1 << 10;

struct Queued {
    part: TransactionPart,
    /// Gives the room back when the part is taken.
    _room: OwnedSemaphorePermit,
}

pub struct Sender {
    parts: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
    pieces: u32,
}

pub struct Receiver(mpsc::UnboundedReceiver<Queued>);

/// A queue that holds so many bytes of parts, and at least one part.
pub fn bounded(bytes: usize) -> (Sender, Receiver) {
    let (parts, receiver) = mpsc::unbounded_channel();
    let pieces = u32::try_from(bytes / PIECE_BYTES).unwrap_or(u32::MAX).max(1);
    let room = Arc::new(Semaphore::new(pieces as usize));
    (Sender { parts, room, pieces }, Receiver(receiver))
}

impl Sender {
    /// Waits for room; `false` when nobody takes parts any more.
    pub async fn send(&self, part: TransactionPart) -> bool {
        let bytes = PART_BYTES + part.changes.iter().map(RowChange::memory_bytes).sum::<usize>();
        let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX).min(self.pieces);
        let room = tokio::select! {
            () = self.parts.closed() => return false,
            room = self.room.clone().acquire_many_owned(pieces) => room,
        };
        let Ok(room) = room else { return false };
        self.parts.send(Queued { part, _room: room }).is_ok()
    }
}

impl Receiver {
    /// `None` when nobody sends any more.
    pub async fn recv(&mut self) -> Option<TransactionPart> {
        self.0.recv().await.map(|queued| queued.part)
    }

    pub fn try_recv(&mut self) -> Option<TransactionPart> {
        self.0.try_recv().ok().map(|queued| queued.part)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossfade_model::{Origin, Position, ResumePoint, TransactionHead};

    use super::*;

    fn part() -> TransactionPart {
        let end = Position::File { server: String::new(), file: String::new(), offset: 0 };
        TransactionPart {
            head: TransactionHead {
                source_position: "1".into(),
                committed_at_micros: 0,
                origin: Origin::User,
                seen: Arc::default(),
                end: end.clone(),
            },
            rows_before: 0,
            changes: Vec::new(),
            last: true,
            echoes: 0,
            echo_keys: vec![],
            heartbeats: Vec::new(),
            returned: Vec::new(),
            authority: Vec::new(),
            only_crossfade: false,
            bytes: 0,
            resume: ResumePoint { position: end, rows_done: 0 },
        }
    }

    #[tokio::test]
    async fn p8_what_does_not_fit_waits() {
        let (sender, mut receiver) = bounded(2 * PART_BYTES);
        assert!(sender.send(part()).await && sender.send(part()).await);
        assert!(tokio::time::timeout(Duration::from_millis(20), sender.send(part())).await.is_err());
        assert!(receiver.recv().await.is_some());
        assert!(sender.send(part()).await);
        assert!(receiver.try_recv().is_some() && receiver.try_recv().is_some() && receiver.try_recv().is_none());
        // A part larger than the whole queue goes when that is empty.
        let (small, mut taken) = bounded(1);
        assert!(small.send(part()).await && taken.recv().await.is_some());
        drop(receiver);
        assert!(!sender.send(part()).await);
        drop(small);
        assert!(taken.recv().await.is_none());
    }
}
