//! `crossfade messages history`: the life of one row on both sides, in one order.

use std::sync::Arc;

use crossfade_config::Settings;
use crossfade_message::ListedMessage;
use crossfade_model::{ColumnKind, Direction, Message, TableName, Value};
use crossfade_rules::TableMapping;
use crossfade_rules::key::{change_has_key, folded_hash};
use serde_json::value::RawValue;

use super::messages::{counted, effective_clock, operation, seen, table_name};
use super::{add_row, new_table, open_known_store, print_json, print_table, value};
use crate::args::HistoryArgs;
use crate::failure::{Failure, Kind};
use crate::pair::Pair;

/// A change is shown up to so many characters; `messages show` has all of it.
const CHANGE_CHARS: usize = 100;

pub async fn run(settings: Arc<Settings>, args: &HistoryArgs) -> anyhow::Result<()> {
    let name = table_name(&args.table)?;
    let pair = Pair::read_as_is(settings.clone()).await?;
    let mapping = mapping_of(&pair, &name)?;
    let key = key_values(mapping, &args.key)?;
    let values: Vec<&Value> = key.iter().collect();
    let hash = folded_hash(&mapping.identity, &values);
    let store = open_known_store(&settings).await?;
    let life = store.history(&[hash], |message| touches(&pair, message, mapping, hash)).await?;
    let messages: Vec<ListedMessage> = life.into_iter().map(|event| event.listed).collect();
    if args.output.json {
        return print_json(&messages);
    }
    print(&messages);
    Ok(())
}

fn print(messages: &[ListedMessage]) {
    let header = ["committed (UTC)", "message", "op", "key", "status", "clock", "seen", "winner", "change", "reason"];
    let mut table = new_table(&header);
    for message in messages {
        add_row(
            &mut table,
            [
                message.committed_at.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
                message.id.clone(),
                operation(message),
                message.row_key.as_ref().map_or_else(String::new, |key| key.get().to_owned()),
                message.status.as_str().to_owned(),
                effective_clock(message),
                seen(message),
                message.winner.clone().unwrap_or_else(|| "-".to_owned()),
                change(message),
                message.reason.clone().unwrap_or_default(),
            ],
        );
    }
    print_table(&table);
    eprintln!("{}", counted(messages.len()));
}

/// What a change did: the columns that it changed, or the whole row that came or went.
fn change(message: &ListedMessage) -> String {
    let text = match (&message.before_image, &message.after_image) {
        (Some(before), Some(after)) => changed_columns(before, after),
        (None, Some(row)) | (Some(row), None) => row.get().to_owned(),
        (None, None) => String::new(),
    };
    match text.char_indices().nth(CHANGE_CHARS) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

fn changed_columns(before: &RawValue, after: &RawValue) -> String {
    let object = |image: &RawValue| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(image.get());
    let (Ok(before), Ok(after)) = (object(before), object(after)) else { return after.get().to_owned() };
    let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(value));
    changed.map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
}

fn mapping_of<'p>(pair: &'p Pair, name: &TableName) -> anyhow::Result<&'p TableMapping> {
    let mapping = pair.synced(name).ok_or_else(|| pair.not_synced(name))?;
    if mapping.keyless {
        let hint = "`crossfade messages list --table` lists all its changes";
        return Err(Failure::new(Kind::Usage, format!("{name} has no key to tell its rows by"), hint).into());
    }
    Ok(mapping)
}

/// The key as typed by a person, with the types of the table's key columns.
fn key_values(mapping: &TableMapping, parts: &[String]) -> anyhow::Result<Vec<Value>> {
    let columns: Vec<&str> = mapping.row_key.iter().map(|index| mapping.columns[*index].source.as_str()).collect();
    if columns.len() != parts.len() {
        return Err(Failure::new(
            Kind::Usage,
            format!("the key of {} has {} columns, {} were given", mapping.source, columns.len(), parts.len()),
            format!("give {}, in this order", columns.join(", ")),
        )
        .into());
    }
    let of_column = |((index, text), column): ((&usize, &String), &&str)| {
        typed(&mapping.columns[*index].source_kind, text).map_err(|why| {
            let hint = "write it as `messages list` shows it, bytes as 0x and hexadecimal digits";
            let message = format!("`{text}` is no value of the key column {column}: {why}");
            Failure::new(Kind::Usage, message, hint).into()
        })
    };
    mapping.row_key.iter().zip(parts).zip(&columns).map(of_column).collect()
}

/// A value of a column. Bytes that are not written as hexadecimal digits are taken as they stand.
fn typed(kind: &ColumnKind, text: &str) -> Result<Value, String> {
    let is_of_bytes = matches!(kind, ColumnKind::Bytes { .. } | ColumnKind::Geometry | ColumnKind::Vector);
    if !is_of_bytes || text.starts_with("0x") || text.starts_with("0X") {
        return value::from_text(kind, text);
    }
    let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    value::from_text(kind, &format!("0x{digits}"))
}

/// Whether a message, of either direction, is of the row whose key folds to `hash`.
fn touches(pair: &Pair, message: &Message, mapping: &TableMapping, hash: u64) -> bool {
    let mappings = [Direction::Forward, Direction::Reverse].into_iter().flat_map(|direction| pair.mappings(direction));
    let mut of_table = mappings.filter(|candidate| candidate.identity == mapping.identity);
    of_table.any(|candidate| change_has_key(candidate, &message.change, hash))
}

#[cfg(test)]
mod tests {
    use crossfade_model::{CalendarDate, TimeOfDay};

    use super::*;

    fn same_key(kind: &ColumnKind, text: &str, value: &Value) -> bool {
        let table = TableName::new("app", "users");
        let typed = typed(kind, text).expect("a value");
        folded_hash(&table, &[&typed]) == folded_hash(&table, &[value])
    }

    #[test]
    fn a_typed_key_finds_the_stored_one() {
        let date = CalendarDate { year: 2024, month: 2, day: 29 };
        let noon = TimeOfDay { hour: 12, minute: 0, second: 1, micros: 500_000 };
        let integer = ColumnKind::Integer { bytes: 8, unsigned: true };
        assert!(same_key(&integer, "18446744073709551615", &Value::UInt(u64::MAX)));
        assert!(same_key(&integer, "42", &Value::UInt(42)));
        assert!(same_key(&ColumnKind::Decimal { precision: 9, scale: 2 }, "4.50", &Value::Decimal("4.5".to_owned())));
        assert!(same_key(&ColumnKind::Text { charset: "utf8mb4".to_owned() }, "Ada", &Value::Text("ada".to_owned())));
        assert!(same_key(&ColumnKind::Bytes { fixed_len: 4 }, "0x0aFF", &Value::Bytes(vec![10, 255, 0, 0])));
        assert!(same_key(&ColumnKind::Bytes { fixed_len: 0 }, "ab", &Value::Bytes(b"ab".to_vec())));
        assert!(same_key(&ColumnKind::Bytes { fixed_len: 4 }, "ab", &Value::Bytes(vec![b'a', b'b', 0, 0])));
        assert!(same_key(&ColumnKind::Year, "2024", &Value::Year(2024)));
        assert!(same_key(&ColumnKind::Bit { bits: 9 }, "300", &Value::Bit(300)));
        assert!(same_key(&ColumnKind::Date, "2024-02-29", &Value::Date(date)));
        assert!(same_key(&ColumnKind::Date, "0000-00-00", &Value::Date(CalendarDate::default())));
        let datetime = ColumnKind::Datetime { fraction_digits: 6 };
        assert!(same_key(&datetime, "2024-02-29 12:00:01.5", &Value::Datetime(date, noon)));
        let timestamp = ColumnKind::Timestamp { fraction_digits: 6 };
        assert!(same_key(&timestamp, "2024-02-29T12:00:01.500000", &Value::Timestamp(1_709_208_001_500_000)));
        let time = Value::Time { negative: true, hours: 838, minute: 59, second: 58, micros: 10 };
        assert!(same_key(&ColumnKind::Time { fraction_digits: 6 }, "-838:59:58.00001", &time));
    }

    #[test]
    fn what_is_no_value_of_the_column_is_refused() {
        let date = ColumnKind::Datetime { fraction_digits: 0 };
        for (kind, text) in [
            (&ColumnKind::Year, "two"),
            (&ColumnKind::Double, "1,5"),
            (&ColumnKind::Bytes { fixed_len: 0 }, "0xabc"),
            (&ColumnKind::Bytes { fixed_len: 0 }, "0xzz"),
            (&date, "yesterday"),
            (&ColumnKind::Time { fraction_digits: 0 }, "noon"),
        ] {
            assert!(typed(kind, text).is_err(), "{text}");
        }
    }
}
