//! How the memory of one process is shared out, so that all of it together stays under `[memory] limit`.

use crossfade_config::Settings;

/// What each part of the process may hold. Changes take more than they are counted for (allocations have heads and gaps, and a
/// change that is written stands there as parameters and as a packet, too), so the shares leave about half of the limit free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Read and not yet captured.
    pub queue_bytes: usize,
    /// Of a source transaction that is handed on in parts.
    pub part_bytes: usize,
    /// Rows of prepared XA transactions, which are read again where this does not hold them.
    pub prepared_bytes: usize,
    /// Captured together.
    pub capture_bytes: usize,
    /// Captured, and kept for the applier, which reads what does not fit from the store.
    pub feed_bytes: usize,
    /// Applied together; the batch after it is planned meanwhile.
    pub batch_bytes: usize,
    /// What users of the target did and changes on their way have not seen.
    pub index_bytes: usize,
    /// Rows whose clocks capture remembers, at least.
    pub clock_rows: usize,
}

/// What is not worth more memory.
const MOST_PART_BYTES: u64 = 1 << 20;
const MOST_PREPARED_BYTES: u64 = 64 << 20;
const MOST_CAPTURE_BYTES: u64 = 4 << 20;
const MOST_CLOCK_ROWS: u64 = 200_000;

impl Shares {
    pub fn of(settings: &Settings) -> Shares {
        let limit = settings.memory.limit_bytes;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Shares {
            queue_bytes: size(limit / 32),
            part_bytes: size((limit / 128).min(MOST_PART_BYTES)),
            prepared_bytes: size((limit / 16).min(MOST_PREPARED_BYTES)),
            capture_bytes: size((limit / 64).min(MOST_CAPTURE_BYTES)),
            feed_bytes: size(limit / 16),
            batch_bytes: size((limit / 32).min(settings.apply.batch_bytes)),
            index_bytes: size(limit / 8),
            clock_rows: size((limit / 2_048).min(MOST_CLOCK_ROWS)),
        }
    }
}
