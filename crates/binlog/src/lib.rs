//! A source's binlog as an async stream of whole transactions of row changes.

mod assembly;
pub mod decode;
mod dump;
mod error;
mod event_type;
mod group;
mod lexer;
mod options;
mod part;
mod query;
mod reader;
mod route;
mod source;
mod statement;
mod synced;
mod transaction;
mod work;
mod xa;

pub use error::{BinlogError, Place, StopReason};
pub use options::ReaderOptions;
pub use part::{HeartbeatSeen, Notice, TransactionPart};
pub use reader::BinlogReader;
pub use source::{current_file_position, current_position, is_reached};
pub use synced::{SyncedTable, SyncedTables};
