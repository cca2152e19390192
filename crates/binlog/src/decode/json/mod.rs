//! MySQL's binary JSON: to the text that the server prints, and lists of changes to documents.

mod binary;
mod diff;
mod double;
mod path;
mod text;
mod tree;

use crossfade_model::JsonDocument;

/// A stored document as text.
pub(super) fn document(bytes: &[u8]) -> Result<JsonDocument, &'static str> {
    text::print(&binary::read(bytes)?)
}

/// A stored document after the changes that a partial update lists.
pub(super) fn changed(before: &[u8], changes: &[u8]) -> Result<JsonDocument, &'static str> {
    let mut tree = binary::read(before)?;
    diff::apply(&mut tree, changes)?;
    text::print(&tree)
}
