//! Numbers that stand for key values inside one plan.

use crossfade_model::Value;

use crate::digest::hash_bytes;
use crate::key::{Fineness, render};

/// Makes tokens; keeps its buffer.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    bytes: Vec<u8>,
}

impl Tokens {
    /// The token of a key's values, `None` where a part is NULL, since NULLs are never equal in a unique or foreign key
    /// (MySQL manual, "CREATE INDEX Statement"). Equal values under one table's key have equal tokens.
    pub fn of(
        &mut self,
        fineness: Fineness,
        (table, key): (usize, usize),
        columns: &[usize],
        row: &[Value],
    ) -> Option<u64> {
        self.bytes.clear();
        self.bytes.extend_from_slice(&(table as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(key as u32).to_le_bytes());
        for column in columns {
            let value = row.get(*column).filter(|value| !value.is_null())?;
            render(fineness, value, &mut self.bytes);
        }
        Some(hash_bytes(&self.bytes))
    }
}

/// Stands for whatever rows of a table may have gone without a message.
pub(super) fn silent_token(table: usize) -> u64 {
    hash_bytes(&[b"gone".as_slice(), &table.to_le_bytes()].concat())
}

/// The same values in the same columns.
pub(super) fn same_values(columns: &[usize], a: &[Value], b: &[Value]) -> bool {
    columns.iter().all(|column| a.get(*column) == b.get(*column))
}
