//! What the server's binlog files say about the tables of a schema.

use std::collections::HashMap;

use crossfade_binlog::decode::file::FileEvents;
use crossfade_binlog::decode::{DecodeError, Flavor, RowsEvent, TableMap};
use crossfade_model::{RowChange, TableShape};
use crossfade_servers::Server;

const TABLE_MAP: u8 = 19;

/// The bytes of all binlog files, in order.
pub fn files(server: &Server) -> Vec<Vec<u8>> {
    paths(server).iter().map(|path| std::fs::read(path).unwrap()).collect()
}

pub fn paths(server: &Server) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(server.data_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.strip_prefix("binlog.").is_some_and(|number| number.chars().all(|digit| digit.is_ascii_digit()))
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "the server writes a binlog");
    paths
}

pub fn dialect(server: &Server) -> Flavor {
    match server.flavor() {
        crossfade_servers::Flavor::MySql => Flavor::MySql,
        crossfade_servers::Flavor::MariaDb => Flavor::MariaDb,
    }
}

/// A table map with the rows events that follow it, as raw bodies.
pub struct Raw {
    pub map: Vec<u8>,
    pub rows: Vec<(u8, Vec<u8>)>,
}

/// Events of one schema by table, in the order of the log.
pub fn events(server: &Server, schema: &str) -> HashMap<String, Vec<Raw>> {
    let mut found: HashMap<String, Vec<Raw>> = HashMap::new();
    for file in files(server) {
        let mut maps: HashMap<u64, String> = HashMap::new();
        for event in FileEvents::new(&file).unwrap() {
            let event = match event {
                Ok(event) => event,
                // The server is writing the last event at this moment.
                Err(DecodeError::Truncated { .. }) => break,
                Err(error) => panic!("the file cannot be read: {error}"),
            };
            if event.code == TABLE_MAP {
                let (id, of_schema, table) = TableMap::peek(event.body).unwrap();
                maps.remove(&id);
                if of_schema == schema {
                    maps.insert(id, table.to_owned());
                    found.entry(table.to_owned()).or_default().push(Raw { map: event.body.to_vec(), rows: Vec::new() });
                }
            } else if RowsEvent::is_rows(event.code) {
                let id = RowsEvent::peek_table_id(event.body).unwrap();
                let Some(table) = maps.get(&id) else { continue };
                let raw = found.get_mut(table).and_then(|raws| raws.last_mut()).unwrap();
                raw.rows.push((event.code, event.body.to_vec()));
            }
        }
    }
    found
}

/// All changes of a table, decoded. Also asserts that counting agrees with decoding.
pub fn changes(raws: &[Raw], flavor: Flavor, tracked: Option<&TableShape>) -> Result<Vec<RowChange>, DecodeError> {
    let mut changes = Vec::new();
    for raw in raws {
        let map = TableMap::parse(&raw.map, flavor, tracked)?;
        for (code, body) in &raw.rows {
            let event = RowsEvent::parse(*code, body, 0)?;
            let counted = map.count(&event)?;
            if let Ok(without_definition) = event.count(&raw.map) {
                assert_eq!(without_definition, counted);
            }
            let before = changes.len();
            for change in map.changes(event) {
                changes.push(change?);
            }
            assert_eq!((changes.len() - before) as u64, counted);
        }
    }
    Ok(changes)
}

/// A table map event as MySQL 5.7 would have written it: without optional metadata.
pub fn without_metadata(map: &[u8]) -> Vec<u8> {
    let mut at = 8;
    for _ in 0..2 {
        at += 1 + usize::from(map[at]) + 1;
    }
    let (columns, len) = packed(&map[at..]);
    at += len + columns;
    let (metadata, len) = packed(&map[at..]);
    at += len + metadata + columns.div_ceil(8);
    map[..at].to_vec()
}

fn packed(bytes: &[u8]) -> (usize, usize) {
    match bytes[0] {
        252 => (usize::from(u16::from_le_bytes([bytes[1], bytes[2]])), 3),
        small => (usize::from(small), 1),
    }
}
