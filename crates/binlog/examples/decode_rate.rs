//! How fast row events are decoded, alone: no server, no network.
//!
//! ```text
//! cargo run --release -p crossfade-binlog --example decode_rate -- <mysql|mariadb> <binlog file> [rounds]
//! ```
//!
//! Reads the file into memory, then decodes every row change of every event, dropping each as an applier would. Prints rows, rows
//! per second, bytes per row and CPU seconds of the best round. Tables must have been written with `binlog_row_metadata=FULL`.

use std::collections::HashMap;
use std::error::Error;
use std::time::Instant;

use crossfade_binlog::decode::file::FileEvents;
use crossfade_binlog::decode::{DecodeError, Flavor, RowsEvent, TableMap};

const TABLE_MAP: u8 = 19;

#[derive(Default)]
struct Round {
    rows: u64,
    cells: u64,
    row_bytes: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flavor, path) = match arguments.as_slice() {
        [flavor, path, ..] if flavor == "mysql" => (Flavor::MySql, path),
        [flavor, path, ..] if flavor == "mariadb" => (Flavor::MariaDb, path),
        _ => return Err("usage: decode_rate <mysql|mariadb> <binlog file> [rounds]".into()),
    };
    let rounds: u32 = arguments.get(2).map_or(Ok(5), |rounds| rounds.parse())?;
    let file = std::fs::read(path)?;

    let mut best = f64::INFINITY;
    for _ in 0..rounds.max(1) {
        let (cpu, wall) = (cpu_seconds(), Instant::now());
        let round = decode(&file, flavor)?;
        let (cpu, wall) = (cpu_seconds() - cpu, wall.elapsed().as_secs_f64());
        best = best.min(cpu);
        println!(
            "{} rows of {} bytes, {} cells: {:.0} rows/s, {wall:.3} s, {cpu:.3} CPU s",
            round.rows,
            round.row_bytes / round.rows.max(1),
            round.cells,
            round.rows as f64 / wall
        );
    }
    println!("best: {best:.3} CPU s");
    Ok(())
}

fn decode(file: &[u8], flavor: Flavor) -> Result<Round, DecodeError> {
    let mut round = Round::default();
    let mut maps: HashMap<u64, TableMap> = HashMap::new();
    let mut bodies: HashMap<u64, &[u8]> = HashMap::new();
    for event in FileEvents::new(file)? {
        let event = event?;
        if event.code == TABLE_MAP {
            let (id, _, _) = TableMap::peek(event.body)?;
            // The same table map comes before every statement; the plan stays.
            if bodies.insert(id, event.body) != Some(event.body) {
                maps.insert(id, TableMap::parse(event.body, flavor, None)?);
            }
        } else if RowsEvent::is_rows(event.code) {
            let rows = RowsEvent::parse(event.code, event.body, 0)?;
            round.row_bytes += event.body.len() as u64;
            let Some(map) = maps.get(&rows.table_id) else { continue };
            for change in map.changes(rows) {
                let change = change?;
                round.rows += 1;
                round.cells +=
                    [&change.before, &change.after].into_iter().flatten().map(|row| row.len() as u64).sum::<u64>();
                std::hint::black_box(&change);
            }
        }
    }
    Ok(round)
}

/// CPU time of this process so far, user and system.
fn cpu_seconds() -> f64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return 0.0 };
    // Fields 14 and 15 in clock ticks of a hundredth of a second, counted after the name in parentheses.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}
