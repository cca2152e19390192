//! `mysql_cdc`, which shares no code with the decoder, reads the same files and must say the same.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;

use crossfade_model::{ColumnKind, RowChange, Value};
use crossfade_servers::Server;
use mysql_cdc::binlog_reader::BinlogReader;
use mysql_cdc::events::binlog_event::BinlogEvent;
use mysql_cdc::events::row_events::mysql_value::MySqlValue;

use super::log;
use super::matrix::{Written, shape};

type Cells = Vec<Option<MySqlValue>>;

/// Images by table, in the order of the log; what could not be read counts as an error of its table.
#[derive(Default)]
struct Reading {
    images: HashMap<String, Vec<Cells>>,
    errors: usize,
}

fn read(server: &Server, schema: &str) -> Reading {
    let mut reading = Reading::default();
    for path in log::paths(server) {
        let mut tables: HashMap<u64, String> = HashMap::new();
        for event in BinlogReader::new(File::open(path).unwrap()).unwrap() {
            let images: (u64, Vec<Cells>) = match event {
                Err(_) => {
                    reading.errors += 1;
                    continue;
                }
                Ok((_, BinlogEvent::TableMapEvent(map))) => {
                    tables.remove(&map.table_id);
                    if map.database_name == schema {
                        tables.insert(map.table_id, map.table_name);
                    }
                    continue;
                }
                Ok((_, BinlogEvent::WriteRowsEvent(rows))) => {
                    (rows.table_id, rows.rows.into_iter().map(|row| row.cells).collect())
                }
                Ok((_, BinlogEvent::DeleteRowsEvent(rows))) => {
                    (rows.table_id, rows.rows.into_iter().map(|row| row.cells).collect())
                }
                Ok((_, BinlogEvent::UpdateRowsEvent(rows))) => {
                    let both = rows.rows.into_iter().flat_map(|row| [row.before_update.cells, row.after_update.cells]);
                    (rows.table_id, both.collect())
                }
                Ok(_) => continue,
            };
            if let Some(table) = tables.get(&images.0) {
                reading.images.entry(table.clone()).or_default().extend(images.1);
            }
        }
    }
    reading
}

pub fn compare(server: &Server, schema: &str, written: &[Written], events: &HashMap<String, Vec<log::Raw>>) {
    let mut reading = read(server, schema);
    let mut agreed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    for one in written {
        let table = one.table.split_once('.').unwrap().1;
        let tracked =
            one.case.tracked.clone().map(|kind| {
                shape(&one.table, &[("id", ColumnKind::Integer { bytes: 4, unsigned: false }), ("c", kind)])
            });
        let ours = log::changes(&events[table], log::dialect(server), tracked.as_ref()).unwrap();
        let ours: Vec<(&RowChange, &Vec<Value>)> = ours
            .iter()
            .flat_map(|change| change.before.iter().chain(change.after.iter()).map(move |image| (change, image)))
            .collect();
        let theirs = reading.images.remove(table).unwrap_or_default();
        if theirs.len() != ours.len() {
            *left_out.entry(format!("{}: it cannot read these rows", one.case.group)).or_default() += ours.len();
            continue;
        }
        for ((change, ours), theirs) in ours.iter().zip(&theirs) {
            for place in 0..2 {
                match says(&ours[place], &change.layout.kinds[place], theirs[place].as_ref()) {
                    Ok(true) => *agreed.entry(&one.case.group).or_default() += 1,
                    Ok(false) => panic!("{}: {:?} against {:?}", one.case.sql_type, ours[place], theirs[place]),
                    Err(reason) => *left_out.entry(format!("{}: {reason}", one.case.group)).or_default() += 1,
                }
            }
        }
    }
    println!("\nsecond reader (mysql_cdc 0.2.1), {}: cells that agree", server.version());
    agreed.iter().for_each(|(group, cells)| println!("{group:<28} {cells:>8}"));
    println!("left out, cells:");
    left_out.iter().for_each(|(reason, cells)| println!("{cells:>8}  {reason}"));
    for reason in left_out.keys() {
        assert!(may_be_left_out(reason), "left out without a known reason: {reason}");
    }
    for group in
        ["BIGINT UNSIGNED", "MEDIUMINT", "DECIMAL", "DATETIME", "TIMESTAMP", "BLOB", "ENUM", "SET", "BIT", "DOUBLE"]
    {
        assert!(agreed.get(group).copied().unwrap_or_default() > 0, "{group} was not compared");
    }
    assert!(agreed.values().sum::<usize>() > 4_000);
}

/// What the second reader is known not to read: bytes that are not UTF-8 in types that it takes for text, negative times, and
/// the types that it does not know.
fn may_be_left_out(reason: &str) -> bool {
    let known = ["BINARY", "VARBINARY", "TIME, negative", "YEAR", "JSON", "VECTOR", "INET4", "INET6", "UUID"];
    let group = reason.split(':').next().unwrap_or_default();
    let not_utf8 = |name: &str| !matches!(name, "utf8mb3" | "utf8mb4");
    known.contains(&group)
        || group.starts_with("COMPRESSED")
        || group.strip_prefix("text in ").is_some_and(not_utf8)
        || group.strip_prefix("labels in ").is_some_and(not_utf8)
}

/// Whether both say the same; an error is the reason why they cannot be compared.
fn says(ours: &Value, kind: &ColumnKind, theirs: Option<&MySqlValue>) -> Result<bool, &'static str> {
    use MySqlValue as Theirs;
    let Some(theirs) = theirs else { return Ok(ours.is_null()) };
    let whole = |ours: &Value| match ours {
        Value::Int(number) => Some(*number as u64),
        Value::UInt(number) => Some(*number),
        _ => None,
    };
    let low = |bits: u32| whole(ours).map(|number| number << (64 - bits) >> (64 - bits));
    Ok(match (ours, theirs) {
        (_, Theirs::TinyInt(number)) => low(8) == Some(u64::from(*number)),
        (_, Theirs::SmallInt(number)) => low(16) == Some(u64::from(*number)),
        (_, Theirs::MediumInt(number)) => low(24) == Some(u64::from(*number)),
        (_, Theirs::Int(number)) => low(32) == Some(u64::from(*number)),
        (_, Theirs::BigInt(number)) => whole(ours) == Some(*number),
        (Value::Float(ours), Theirs::Float(theirs)) => ours.to_bits() == theirs.to_bits(),
        (Value::Double(ours), Theirs::Double(theirs)) => ours.to_bits() == theirs.to_bits(),
        (Value::Decimal(ours), Theirs::Decimal(theirs)) => ours == theirs,
        (Value::Text(ours), Theirs::String(theirs)) => match kind {
            ColumnKind::Text { charset } if !charset.starts_with("utf8") && !ours.is_ascii() => {
                return Err("it takes every text for UTF-8");
            }
            ColumnKind::Text { charset } if charset.starts_with("u") && !charset.starts_with("utf8") => {
                return Err("it takes every text for UTF-8");
            }
            ColumnKind::Text { .. } => ours == theirs,
            _ => return Err("it does not know the type"),
        },
        (Value::Encoded { bytes, .. }, Theirs::String(theirs)) => bytes == theirs.as_bytes(),
        (Value::Bytes(ours), Theirs::String(theirs)) => {
            ours.starts_with(theirs.as_bytes()) && ours[theirs.len()..].iter().all(|byte| *byte == 0)
        }
        (Value::Bytes(ours) | Value::Geometry(ours), Theirs::Blob(theirs)) => ours == theirs,
        (Value::Encoded { bytes, .. }, Theirs::Blob(theirs)) => bytes == theirs,
        (Value::Text(ours), Theirs::Blob(theirs)) => match kind {
            ColumnKind::Text { charset } if charset.starts_with("utf8") || charset == "ascii" => {
                ours.as_bytes() == theirs
            }
            _ => return Err("it gives stored bytes, ours is decoded"),
        },
        (Value::Json(_), Theirs::Blob(_)) => return Err("it does not decode the binary form"),
        (Value::Bit(ours), Theirs::Bit(theirs)) => {
            // Most significant first.
            (0..theirs.len()).all(|bit| theirs[theirs.len() - 1 - bit] == (ours >> bit & 1 == 1))
        }
        (Value::Enum(ours), Theirs::Enum(theirs)) => match kind {
            ColumnKind::Enum { labels } => {
                let label = (*theirs as usize).checked_sub(1).map_or("", |place| labels[place].as_str());
                ours == label
            }
            _ => false,
        },
        (Value::Set(ours), Theirs::Set(theirs)) => match kind {
            ColumnKind::Set { labels } => {
                let chosen = labels.iter().enumerate().filter(|(place, _)| theirs >> place & 1 == 1);
                ours.split(',').filter(|label| !label.is_empty()).eq(chosen.map(|(_, label)| label.as_str()))
            }
            _ => false,
        },
        (Value::Year(0), Theirs::Year(_)) => return Err("it takes year 0000 for 1900"),
        (Value::Year(ours), Theirs::Year(theirs)) => ours == theirs,
        (Value::Date(ours), Theirs::Date(theirs)) => {
            (ours.year, ours.month, ours.day) == (theirs.year, theirs.month, theirs.day)
        }
        (Value::Time { hours, minute, second, micros, .. }, Theirs::Time(theirs)) => {
            (i32::from(*hours), *minute, *second, micros / 1000)
                == (i32::from(theirs.hour), theirs.minute, theirs.second, theirs.millis)
        }
        (Value::Datetime(date, time), Theirs::DateTime(theirs)) => {
            (date.year, date.month, date.day) == (theirs.year, theirs.month, theirs.day)
                && (time.hour, time.minute, time.second, time.micros / 1000)
                    == (theirs.hour, theirs.minute, theirs.second, theirs.millis)
        }
        (Value::Timestamp(ours), Theirs::Timestamp(theirs)) => u64::try_from(ours / 1000) == Ok(*theirs),
        _ => return Err("it gives another type"),
    })
}
