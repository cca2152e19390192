//! Splitting a table into chunks: ranges of its key that are read one after another.
//!
//! The server finds the bounds and compares with them; here they are only carried. So a key may have any type that a key can
//! have, and text is compared under the collation of its column.
//!
//! Ranges that follow each other leave no row out, whatever a server thinks of the order of their bounds: every row is in
//! the first range whose end it does not exceed, since it exceeded all ends before. So the bounds that one server found
//! split the same table on another one as well, under another collation too; only the chunks may be of other sizes there.

mod key_column;
mod range;
mod size;
mod space;
mod walk;

pub use range::{KeyBound, KeyPart, KeyRange};
pub use size::ChunkSize;
pub use space::KeySpace;
pub use walk::ChunkWalk;
