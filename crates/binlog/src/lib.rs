//! A source's binlog as an async stream of whole transactions of row changes.
//!
//! # What it is for
//!
//! [`BinlogReader`] follows one MySQL or MariaDB server from a GTID set, a MariaDB GTID position, or a file and offset, and
//! gives every transaction that was committed there after it: who wrote it, what its writer had seen of the opposite direction,
//! when it was committed, the changes of the synced tables, and the position behind it. [`decode`] turns row events into
//! typed values; it does no I/O and can be used alone.
//!
//! # What it promises
//!
//! - Transactions come whole and in order. One that is larger than the memory bound comes in parts; each says how many of the
//!   transaction's changes are before it, so that a reader can start in the middle.
//! - What crossfade itself wrote is recognised by the checkpoint row that comes first in a transaction; of such a transaction
//!   only that row is decoded. The mark of another pair is a user's change like any other.
//! - Nothing that may carry rows is skipped silently: what is not understood stops the stream.
//! - Rows of XA transactions come at their COMMIT, wherever their PREPARE was: what is not in memory is read again.
//! - Lost and dead connections are made again. Checksums are verified where the server has them.
//! - Calls can be cancelled at any time.
//!
//! # How it fails
//!
//! With a [`BinlogError`] that names server or file, offset and transaction, and whose [`hint`](BinlogError::hint) says what a
//! person can do. No error holds row values. Errors that pass are dealt with inside; after any other the reader stands at its
//! last position and can be asked again.
//!
//! # Bounds
//!
//! A part holds about [`ReaderOptions::part_bytes`] of changes, prepared transactions [`ReaderOptions::prepared_bytes`]. Beside
//! that stands the event at hand; a transaction that MySQL compressed stands there compressed, at most 1 GiB
//! (`max_allowed_packet`), with one unpacked event of it, and is never unpacked as a whole, unless the source's account wants an
//! authentication that only the driver knows, which is warned of. Offsets beyond 4 GiB of a file can be read through, but not
//! started from.

mod assembly;
mod checkpoint;
pub mod decode;
mod dump;
mod echo;
mod error;
mod event;
mod event_type;
mod group;
mod lexer;
mod link;
mod options;
mod part;
mod query;
mod reader;
mod retention;
mod route;
mod source;
mod statement;
mod synced;
mod transaction;
mod work;
mod xa;

pub use echo::{EchoKey, EchoWatch};
pub use error::{BinlogError, Place, StopReason};
pub use options::ReaderOptions;
pub use part::{HeartbeatSeen, Notice, TransactionPart};
pub use reader::BinlogReader;
pub use retention::{Unread, unread};
pub use source::{BinlogEnd, current_file_position, current_position, is_reached, position_of};
pub use synced::{SyncedTable, SyncedTables};
