//! Reads a whole binlog from a server and prints how fast: `stream_rate mysql://user:password@host:port schema.table`.
//!
//! Decoding alone is measured by `decode_rate`; this is the way of a row through connection, framing, decoding and
//! transactions.

use std::sync::Arc;
use std::time::Instant;

use crossfade_binlog::{BinlogReader, ReaderOptions, SyncedTables, current_position};
use crossfade_catalog::{Purpose, connect, table_shape};
use crossfade_config::ServerUrl;
use crossfade_model::{Direction, GtidSet, MariaDbGtidPosition, Position, TableName};

type AnyError = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: stream_rate mysql://user:password@host:port schema.table";
    let url = arguments.next().ok_or(usage)?;
    let table = arguments.next().ok_or(usage)?;
    let url = ServerUrl::parse(&url).map_err(|(message, _)| message)?;
    let (schema, table) = table.split_once('.').ok_or(usage)?;
    let mut conn = connect(&url, Purpose::Catalog).await?;
    let shape = table_shape(&mut conn, &TableName::new(schema, table)).await?.ok_or("no such table")?;
    let end = current_position(&mut conn, &url.address()).await?;
    let start = match &end {
        Position::MySql { .. } => Position::MySql { executed: GtidSet::default() },
        Position::MariaDb { .. } => Position::MariaDb { gtid: MariaDbGtidPosition::default() },
        Position::File { .. } => return Err("the server has no GTIDs".into()),
    };
    let mut tables = SyncedTables::new();
    tables.insert_whole(Arc::new(shape));
    let mut reader = BinlogReader::open(ReaderOptions::new(url, "rate", Direction::Forward, tables, start)).await?;
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let (mut transactions, mut changes, mut bytes) = (0_u64, 0_u64, 0_u64);
    while let Some(part) = reader.next_until(&end).await? {
        transactions += u64::from(part.last);
        changes += part.changes.len() as u64;
        bytes += part.bytes;
    }
    let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "{changes} row changes, {transactions} transactions, {bytes} bytes in {wall:.2} s, {cpu:.2} CPU s: \
         {:.0} rows per CPU second",
        changes as f64 / cpu
    );
    Ok(())
}

/// User and system time of this process, from the kernel's count of clock ticks (100 a second on Linux).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}
