//! Servers that hold the rows already, made once: everybody gets copies of them.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use crossfade_servers::{Flavor, Server};
use crossfade_testkit::shop::{self, Rows};
use mysql_async::prelude::Queryable;
use serde::{Deserialize, Serialize};

use super::Work;
use crate::args::Args;
use crate::machine;
use crate::recording::{BinlogPlace, binlog_end, fingerprint, init, remove};
use crate::stage::{PAIR, Side, server, write_config};
use crate::workload::SCHEMA;

const FACTS: &str = "loaded.json";
/// Rows that both sides have are equal to the second.
const LOADED_AT: u64 = 1_767_225_600;

/// Two folders, `source` and `target`, with `crossfade init` done. The source has all rows; the target has them where
/// they are to be compared, and empty tables where they are to be copied.
#[derive(Debug)]
pub struct Loaded {
    pub folder: PathBuf,
    pub rows: u64,
    /// Where the source's binlog ends.
    pub end: BinlogPlace,
}

#[derive(Serialize, Deserialize)]
struct Facts {
    rows: u64,
    end: BinlogPlace,
}

impl Loaded {
    /// Takes what an earlier run left, if it is of the same servers, size and store format.
    pub async fn find_or_make(flavor: Flavor, work: Work, args: &Args) -> Result<Loaded> {
        let rows = args.history_rows;
        let name = format!("{flavor}-{}-{work}-{rows}-{:08x}", machine::version(flavor)?, fingerprint());
        let folder = args.folder.join("recordings").join(name.to_lowercase());
        if args.record {
            remove(&folder)?;
        }
        let facts = match std::fs::read_to_string(folder.join(FACTS)) {
            Ok(facts) => {
                serde_json::from_str(&facts).context("what an earlier run left cannot be read; try --record")?
            }
            Err(_) => {
                remove(&folder)?;
                let began = Instant::now();
                let facts = load(flavor, work, args, &folder).await.with_context(|| format!("cannot load {flavor}"))?;
                std::fs::write(folder.join(FACTS), serde_json::to_string_pretty(&facts)?)?;
                let seconds = began.elapsed().as_secs_f64();
                crate::tell(format_args!("{flavor} {work}: loaded {} rows in {seconds:.0} s", facts.rows));
                facts
            }
        };
        let Facts { rows, end } = facts;
        Ok(Loaded { folder, rows, end })
    }
}

async fn load(flavor: Flavor, work: Work, args: &Args, folder: &std::path::Path) -> Result<Facts> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let start = |side| server(flavor, side, folder).relaxed().start();
    let (source, target) = tokio::try_join!(start(Side::Source), start(Side::Target))?;
    let rows = fill(&source, args.history_rows).await?;
    fill(&target, if work == Work::Comparing { args.history_rows } else { 0 }).await?;
    init(&args.crossfade()?, &write_config(folder, PAIR, [&source, &target], "")?).await?;
    let mut connection = source.connect().await?;
    let end = binlog_end(&source, &mut connection).await?;
    connection.disconnect().await?;
    tokio::try_join!(source.stop(), target.stop())?;
    Ok(Facts { rows, end })
}

/// The tables with so many rows, without a trace in the binlog.
async fn fill(server: &Server, rows: u64) -> Result<u64> {
    let mut connection = server.connect().await?;
    for statement in [
        "SET sql_log_bin = 0".to_owned(),
        format!("SET timestamp = {LOADED_AT}"),
        format!("CREATE DATABASE {SCHEMA}"),
        format!("USE {SCHEMA}"),
    ] {
        connection.query_drop(statement).await?;
    }
    for statement in shop::definitions() {
        connection.query_drop(statement).await?;
    }
    let loaded = if rows == 0 { 0 } else { shop::load(&mut connection, Rows::new(rows)).await? };
    connection.disconnect().await?;
    Ok(loaded)
}
