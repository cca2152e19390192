//! Message blocks: what one row of `message_block` holds.
//!
//! The payload is the JSON array that the view `message` unfolds, in the format of MySQL's `COMPRESS()`. Each message is
//! an object with these members, in this order; everything but `k`, `b`, `a`, `d`, `n`, `o` may change between versions:
//!
//! | member | meaning |
//! |---|---|
//! | `t` | layout id: names and kinds of the columns |
//! | `d`, `n`, `o` | schema, table, operation |
//! | `b`, `a` | before and after image, absent where the change has none |
//! | `k` | row key, absent for a keyless table |
//! | `g` | origin: `sync`, `returned`, `ruled` or `asked`; absent for `user` |
//! | `s` | index into the block's `seen` |
//! | `c`, `p`, `i` | commit time, source position, event index |
//! | `e` | effective clock, absent for none |
//! | `m` | commit time in microseconds, where `c` cannot say it |
//! | `x` | exact values, for those that JSON and the column's kind do not give back: `[image, column, base64]` |
//! | `l` | values that were moved out of the payload: `[image, column, offset, length]` |

mod calendar;
mod decode;
mod encode;
mod exact;
mod image;
mod json;
mod layout;
mod number;
mod packed;
mod scan;

use std::sync::Arc;

pub use decode::decode;
pub(crate) use decode::{BlockError, StoredBlock};
pub use encode::encode;
pub use image::{image_json, row_key_json};
pub(crate) use layout::StoredLayout;
pub(crate) use packed::PackedBlock;

/// Version of the payload's members.
pub(crate) const FORMAT: u8 = 1;

/// Messages from `first_seq` to `last_seq`, both inclusive, packed.
#[derive(Debug, Clone)]
pub struct Block {
    pub first_seq: u64,
    pub last_seq: u64,
    /// Microseconds since the epoch, of the earliest and latest commit in the block.
    pub committed_from: i64,
    pub committed_to: i64,
    pub source_position: Arc<str>,
    /// JSON array of the distinct `seen` of the block.
    pub seen: String,
    /// Sorted little-endian upper halves of the key hashes, each once.
    pub key_filter: Vec<u8>,
    pub raw_bytes: u32,
    pub payload: Vec<u8>,
    /// Values too big for the payload, zlib-compressed; empty for most blocks.
    pub large: Vec<u8>,
    pub(crate) layouts: Vec<StoredLayout>,
}

/// Whether a key filter may hold a key: no is certain, yes is likely.
pub(crate) fn filter_may_hold(filter: &[u8], hash: u64) -> bool {
    let wanted = (hash >> 32) as u32;
    let (entries, _) = filter.as_chunks::<4>();
    entries.binary_search_by_key(&wanted, |entry| u32::from_le_bytes(*entry)).is_ok()
}

#[cfg(test)]
mod tests;
