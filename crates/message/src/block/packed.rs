//! A block in one piece, with the layouts that its messages need.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crossfade_model::Message;
use serde::{Deserialize, Serialize};

use super::Block;
use super::decode::{BlockError, StoredBlock};
use super::json::decode_base64;
use super::layout::StoredLayout;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PackedBlock {
    first_seq: u64,
    last_seq: u64,
    seen: String,
    /// Base64, as is `large`.
    payload: String,
    large: String,
    /// Ids and definitions.
    layouts: Vec<(u64, String)>,
}

impl PackedBlock {
    pub fn of(block: &Block) -> PackedBlock {
        let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
        PackedBlock {
            first_seq: block.first_seq,
            last_seq: block.last_seq,
            seen: block.seen.to_string(),
            payload: base64(&block.payload),
            large: base64(&block.large),
            layouts: block.layouts.iter().map(|layout| (layout.id, layout.definition.to_string())).collect(),
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        // Texts and numbers only, so there is nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<PackedBlock, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    pub fn messages(&self) -> Result<Vec<Message>, String> {
        let bytes = |base64: &str| decode_base64(base64).ok_or_else(|| "its base64 is broken".to_owned());
        let layouts = self.layouts.iter().map(|(id, definition)| StoredLayout::parse(*id, definition));
        let layouts = layouts.collect::<Result<Vec<StoredLayout>, String>>()?;
        let stored = StoredBlock {
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            seen: &self.seen,
            payload: &bytes(&self.payload)?,
            large: &bytes(&self.large)?,
        };
        let layout = |id| layouts.iter().find(|layout| layout.id == id).map(|stored| stored.layout.clone());
        stored.messages(&layout).map_err(|error| match error {
            BlockError::UnknownLayout(id) => format!("layout {id:016x} is unknown"),
            BlockError::Corrupt(reason) => reason,
        })
    }
}
