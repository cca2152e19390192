//! What users wrote on the side that had no authority over an entity.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use crossfade_config::EntityReach;
use crossfade_message::{ListedMessage, MessageFilter, Store};
use crossfade_model::{Direction, EntityKey, Side, TableName};
use crossfade_rules::decide::AUTHORITY;
use mysql_async::Conn;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use super::rows::Rows;
use crate::pair::stream_of;

/// The newest of each table and direction are looked through.
const LOOKED_THROUGH: usize = 2_000;

/// One of these messages.
#[derive(Debug, Serialize)]
pub struct LateLine {
    /// Its message: `crossfade messages show` tells more.
    pub id: String,
    pub table: String,
    pub op: &'static str,
    pub row_key: Option<Box<RawValue>>,
    pub before_image: Option<Box<RawValue>>,
    pub after_image: Option<Box<RawValue>>,
    pub reason: String,
    pub committed_at: String,
}

/// Those of an entity, oldest first. `conns`: to the old side, and to the new one.
pub async fn late(
    store: &Store,
    rows: &Rows<'_>,
    conns: &mut [Conn; 2],
    key: &EntityKey,
) -> anyhow::Result<Vec<LateLine>> {
    let mut found = Vec::new();
    // Of parents that are gone by now, only their messages tell.
    let mut values: BTreeMap<(TableName, Side), BTreeSet<String>> = BTreeMap::new();
    for table in rows.tables() {
        for direction in [Direction::Forward, Direction::Reverse] {
            let side = direction.source();
            let (column, wanted) = match &table.reach {
                EntityReach::Key(column) => (column, BTreeSet::from([key.as_str().to_owned()])),
                EntityReach::Through { parent, via } => {
                    let mut wanted = values.get(&(parent.clone(), side)).cloned().unwrap_or_default();
                    wanted.extend(
                        rows.referred_values(&mut conns[usize::from(side == Side::New)], table, side, key).await?,
                    );
                    (via, wanted)
                }
            };
            let (name, column) = (rows.name(&table.old, side)?, rows.column_name(&table.old, side, column)?);
            let filter = MessageFilter {
                stream: Some(stream_of(direction)),
                table: Some(name),
                statuses: MessageFilter::CONFLICTS.to_vec(),
                since: None,
            };
            for message in store.list_messages(&filter, LOOKED_THROUGH).await? {
                let Some(reason) = message.reason.clone().filter(|reason| reason.starts_with(AUTHORITY)) else {
                    continue;
                };
                let images = images(&message);
                let holds = |image: &Map<String, Json>| {
                    image.get(&column).and_then(text).is_some_and(|text| wanted.contains(&text))
                };
                if !images.iter().any(holds) {
                    continue;
                }
                for child in rows.tables().into_iter().filter(|child| is_child(&child.reach, &table.old)) {
                    let referred = rows.referred_name(child, side)?;
                    let of_parent = values.entry((table.old.clone(), side)).or_default();
                    of_parent.extend(images.iter().filter_map(|image| image.get(&referred).and_then(text)));
                }
                found.push((message.committed_at, line(message, reason)));
            }
        }
    }
    found.sort_by_key(|(committed_at, _)| *committed_at);
    Ok(found.into_iter().map(|(_, line)| line).collect())
}

fn is_child(reach: &EntityReach, of: &TableName) -> bool {
    matches!(reach, EntityReach::Through { parent, .. } if parent == of)
}

fn line(message: ListedMessage, reason: String) -> LateLine {
    LateLine {
        id: message.id,
        table: format!("{}.{}", message.table_schema, message.table_name),
        op: message.op,
        row_key: message.row_key,
        before_image: message.before_image,
        after_image: message.after_image,
        reason,
        committed_at: message.committed_at.to_rfc3339(),
    }
}

fn images(message: &ListedMessage) -> Vec<Map<String, Json>> {
    let images = [&message.before_image, &message.after_image];
    images.into_iter().flatten().filter_map(|image| serde_json::from_str(image.get()).ok()).collect()
}

/// A value of an image as the text of a key.
fn text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Object(object) => {
            let bytes = BASE64.decode(object.get("$base64")?.as_str()?).ok()?;
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Some(format!("0x{digits}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_of_an_image_is_the_text_that_a_key_is() {
        assert_eq!(text(&json!(42)).as_deref(), Some("42"));
        assert_eq!(text(&json!("18446744073709551615")).as_deref(), Some("18446744073709551615"));
        assert_eq!(text(&json!({ "$base64": "AKs=" })).as_deref(), Some("0x00ab"));
        assert_eq!(text(&json!(null)), None);
    }
}
