//! Decoding alone: a saved binlog in memory, one thread, nothing else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_binlog::decode::file::FileEvents;
use crossfade_binlog::decode::{self, DecodeError, RowsEvent, TableMap};
use crossfade_model::RowChange;
use crossfade_servers::Flavor;

use crate::args::Args;
use crate::figures::{DecodingRun, Spread};
use crate::recording::{BinlogPlace, binlog_end};
use crate::stage::{Side, server};
use crate::workload::{self, DECODED_ROW_BYTES, Workload};

/// Event type of a table map, the same in both brands.
const TABLE_MAP: u8 = 19;
/// Decoding is quick, so it can be repeated more often than the rest.
const ROUNDS: u32 = 7;

struct Decoded {
    rows: u64,
    bytes: u64,
}

/// Writes a binlog of `rows` rows of 300 bytes, and decodes it.
pub async fn measure(flavor: Flavor, args: &Args) -> Result<DecodingRun> {
    let (file, offset) = write(flavor, args).await?;
    let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    remove(&file)?;
    let measured = tokio::task::spawn_blocking(move || decode_often(&bytes, offset, flavor));
    measured.await.context("decoding ended")?
}

/// A saved binlog; what counts in it begins at the offset.
async fn write(flavor: Flavor, args: &Args) -> Result<(PathBuf, u64)> {
    let folder = args.folder.join(format!("decoding-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let server = server(flavor, Side::Source, &folder).relaxed().keep(false).start().await?;
    let mut conn = server.connect().await?;
    workload::load_base(&mut conn, Workload::Large).await?;
    let BinlogPlace { file, offset } = binlog_end(&server, &mut conn).await?;
    workload::insert_in_large_transactions(&mut conn, args.rows, DECODED_ROW_BYTES).await?;
    conn.disconnect().await?;
    server.stop().await?;
    let saved = folder.join(&file);
    std::fs::copy(server.data_dir().join(&file), &saved).context("cannot save the binlog")?;
    Ok((saved, offset))
}

fn remove(file: &Path) -> Result<()> {
    let folder = file.parent().context("the saved binlog is in a folder")?;
    std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

fn decode_often(file: &[u8], offset: u64, flavor: Flavor) -> Result<DecodingRun> {
    let mut rates = Vec::new();
    let mut last = Decoded { rows: 0, bytes: 0 };
    for _ in 0..ROUNDS {
        let before = cpu_time()?;
        last = decode(file, offset, flavor)?;
        rates.push(last.rows as f64 / (cpu_time()? - before).as_secs_f64());
    }
    ensure!(last.rows > 0, "the saved binlog has no rows");
    let spread = Spread::of(rates).context("decoded at least once")?;
    Ok(DecodingRun {
        flavor: flavor.to_string(),
        rows: last.rows,
        bytes_per_row: last.bytes / last.rows,
        rows_per_cpu_second: spread.median,
        lowest: spread.lowest,
        highest: spread.highest,
    })
}

/// Checks and decodes every row change after `offset`, and drops it, as one who has applied it would.
fn decode(file: &[u8], offset: u64, flavor: Flavor) -> Result<Decoded, DecodeError> {
    let mut rows = 0;
    let bytes = each_change(file, offset, flavor, |change| {
        std::hint::black_box(&change);
        rows += 1;
    })?;
    Ok(Decoded { rows, bytes })
}

/// Checks and decodes every row change of a binlog file after `offset`. Returns the bytes of their events.
pub fn each_change(
    file: &[u8],
    offset: u64,
    flavor: Flavor,
    mut on_change: impl FnMut(RowChange),
) -> Result<u64, DecodeError> {
    let flavor = match flavor {
        Flavor::MySql => decode::Flavor::MySql,
        Flavor::MariaDb => decode::Flavor::MariaDb,
    };
    let mut bytes = 0;
    let mut maps: HashMap<u64, (&[u8], TableMap)> = HashMap::new();
    for event in FileEvents::new(file)? {
        let event = event?;
        if event.offset < offset {
            continue;
        }
        if event.code == TABLE_MAP {
            let (id, _, _) = TableMap::peek(event.body)?;
            // The same one comes before every statement; its plan serves again.
            if maps.get(&id).is_none_or(|(body, _)| *body != event.body) {
                maps.insert(id, (event.body, TableMap::parse(event.body, flavor, None)?));
            }
        } else if RowsEvent::is_rows(event.code) {
            let rows = RowsEvent::parse(event.code, event.body, 0)?;
            bytes += event.body.len() as u64;
            let Some((_, map)) = maps.get(&rows.table_id) else { continue };
            for change in map.changes(rows) {
                on_change(change?);
            }
        }
    }
    Ok(bytes)
}

/// Of this thread alone, to the nanosecond.
fn cpu_time() -> Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    nanoseconds.map(Duration::from_nanos).with_context(|| format!("{path} is not as expected"))
}
