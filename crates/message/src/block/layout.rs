//! Table layouts as the store keeps them: once each, found by the hash of their definition.

use std::sync::Arc;

use crossfade_model::{ColumnKind, TableLayout, TableName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::json::push_string;

/// A layout with what messages of it have in common.
#[derive(Debug, Clone)]
pub(crate) struct StoredLayout {
    pub id: u64,
    pub layout: Arc<TableLayout>,
    pub definition: Arc<str>,
    /// `{"id":` and `,"name":` …: what stands before each column's value in an image.
    pub before_values: Arc<[Vec<u8>]>,
    /// `,"d":"schema","n":"table","o":"`
    pub opening: Arc<[u8]>,
    /// The same for the row key alone, in key order.
    pub before_key_values: Arc<[Vec<u8>]>,
}

#[derive(Serialize, Deserialize)]
struct Definition {
    schema: String,
    table: String,
    columns: Vec<String>,
    kinds: Vec<ColumnKind>,
    row_key: Vec<usize>,
}

impl StoredLayout {
    pub fn new(layout: &Arc<TableLayout>) -> StoredLayout {
        let definition = Definition {
            schema: layout.name.schema.to_string(),
            table: layout.name.table.to_string(),
            columns: layout.columns.iter().map(ToString::to_string).collect(),
            kinds: layout.kinds.clone(),
            row_key: layout.row_key.clone(),
        };
        // Strings and numbers only, so there is nothing that could fail.
        let definition = serde_json::to_string(&definition).unwrap_or_default();
        let digest = Sha256::digest(definition.as_bytes());
        let id = u64::from_be_bytes(digest[..8].try_into().unwrap_or_default());
        StoredLayout::prepared(id, layout.clone(), definition.into())
    }

    /// Reads back a definition; an error says what is wrong with it.
    pub fn parse(id: u64, definition: &str) -> Result<StoredLayout, String> {
        let parsed: Definition = serde_json::from_str(definition).map_err(|error| error.to_string())?;
        if parsed.kinds.len() != parsed.columns.len() {
            return Err(format!("{} kinds for {} columns", parsed.kinds.len(), parsed.columns.len()));
        }
        if parsed.row_key.iter().any(|column| *column >= parsed.columns.len()) {
            return Err("the row key names a column that does not exist".to_owned());
        }
        let layout = TableLayout {
            name: TableName::new(parsed.schema, parsed.table),
            columns: parsed.columns.into_iter().map(Arc::from).collect(),
            kinds: parsed.kinds,
            row_key: parsed.row_key,
        };
        Ok(StoredLayout::prepared(id, Arc::new(layout), definition.into()))
    }

    pub fn prepared(id: u64, layout: Arc<TableLayout>, definition: Arc<str>) -> StoredLayout {
        let mut opening = b",\"d\":".to_vec();
        push_string(&mut opening, &layout.name.schema);
        opening.extend_from_slice(b",\"n\":");
        push_string(&mut opening, &layout.name.table);
        opening.extend_from_slice(b",\"o\":\"");
        let before_values = before_values(layout.columns.iter());
        let before_key_values = before_values_of_key(&layout);
        StoredLayout { id, layout, definition, before_values, opening: opening.into(), before_key_values }
    }
}

fn before_values_of_key(layout: &TableLayout) -> Arc<[Vec<u8>]> {
    before_values(layout.row_key.iter().filter_map(|column| layout.columns.get(*column)))
}

fn before_values<'a>(columns: impl Iterator<Item = &'a Arc<str>>) -> Arc<[Vec<u8>]> {
    columns
        .enumerate()
        .map(|(number, name)| {
            let mut text = vec![if number == 0 { b'{' } else { b',' }];
            push_string(&mut text, name);
            text.push(b':');
            text
        })
        .collect()
}
