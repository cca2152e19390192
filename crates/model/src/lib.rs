//! The nouns of crossfade: sides and streams, positions and GTID sets, values, rows, changes, table shapes.
//!
//! Everything here is plain data. Nothing does I/O, nothing knows a database driver, and two equal values mean the
//! same thing on both sides of a migration. Parsing is the only thing that can fail, and says what it could not read.

mod change;
mod clock;
mod entity;
mod executed;
mod family;
mod gtid;
mod merge;
mod name;
mod phase;
mod position;
mod seen;
mod shape;
mod value;

pub use change::{Message, Origin, Row, RowChange, RowOp, TableLayout, TransactionHead};
pub use clock::Clock;
pub use entity::{EntityKey, Given, KEY_MAX_BYTES};
pub use executed::{Executed, MariaDbState};
pub use family::FamilyPolicy;
pub use gtid::{GtidSet, Interval, MariaDbGtidPosition, ParseGtidError};
pub use merge::MergeRule;
pub use name::{Direction, MessageId, ParseNameError, Side, StreamId, TableName, quote_identifier};
pub use phase::Phase;
pub use position::{ParsePositionError, Position, ResumePoint};
pub use seen::{FIRST_SIDE_LANE, LaneProgress, Seen, StreamProgress};
pub use shape::{Column, ColumnKind, ForeignKey, ReferentialAction, TableShape, UniqueKey};
pub use value::{CalendarDate, JsonDocument, OpaqueKind, OpaqueNode, TimeOfDay, Value};
