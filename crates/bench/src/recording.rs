//! A workload's binlog, written once, and the two stopped servers that every contender gets copies of.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server};
use crossfade_testkit::process;
use mysql_async::prelude::Queryable;
use serde::{Deserialize, Serialize};

use crate::args::Args;
use crate::machine;
use crate::stage::{PAIR, Side, server, write_config};
use crate::workload::{self, Part, Workload};

const INIT_LIMIT: Duration = Duration::from_secs(60);
/// Raise it when tables or workloads change.
const FORMAT: u32 = 5;
const FACTS: &str = "recording.json";

/// Two folders, `source` and `target`: each side after what its own users wrote and before anything of the other's, with
/// `crossfade init` done between the tables and the workload.
#[derive(Debug)]
pub struct Recording {
    pub flavor: Flavor,
    pub workload: Workload,
    pub changes: u64,
    pub folder: PathBuf,
    pub facts: Facts,
}

/// What each part of the workload has come to, in the order of [`Workload::parts`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts(Vec<Written>);

/// One part, in the binlog of the side that wrote it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Written {
    pub start: BinlogPlace,
    /// What [`Workload::progress`] and [`Workload::checksum`] give after it.
    pub progress: (u64, u64),
    pub checksum: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BinlogPlace {
    pub file: String,
    pub offset: u64,
}

/// Where a contender begins on the source, and on the target where users write there too.
#[derive(Debug, Clone)]
pub struct Starts {
    pub source: BinlogPlace,
    pub target: Option<BinlogPlace>,
}

impl Recording {
    /// Each part with what it has come to.
    pub fn parts(&self) -> impl Iterator<Item = (Part, &Written)> {
        self.workload.parts().iter().copied().zip(&self.facts.0)
    }

    /// Where only the source's users write: their changes, and the last one, which says that they are over.
    pub fn messages(&self) -> u64 {
        self.changes + 1
    }

    pub fn starts(&self) -> Result<Starts> {
        let place = |side| self.parts().find(|(part, _)| part.by == side).map(|(_, written)| written.start.clone());
        Ok(Starts { source: place(Side::Source).context("nothing was recorded")?, target: place(Side::Target) })
    }

    /// Takes the recording that an earlier run left, if it is of the same servers, size and store format.
    pub async fn find_or_make(flavor: Flavor, workload: Workload, args: &Args, crossfade: &Path) -> Result<Recording> {
        let name = format!("{flavor}-{}-{workload}-{}-{:08x}", machine::version(flavor)?, args.rows, fingerprint());
        let changes = workload.changes(args.rows);
        let recordings = args.folder.join("recordings");
        remove_outdated(&recordings)?;
        let folder = recordings.join(name.to_lowercase());
        if args.record {
            remove(&folder)?;
        }
        if let Ok(facts) = std::fs::read_to_string(folder.join(FACTS)) {
            let facts = serde_json::from_str(&facts).context("an earlier recording cannot be read; try --record")?;
            return Ok(Recording { flavor, workload, changes, folder, facts });
        }
        let began = Instant::now();
        remove(&folder)?;
        let facts = record(flavor, workload, args.rows, &folder, crossfade)
            .await
            .with_context(|| format!("cannot record {workload} on {flavor}"))?;
        std::fs::write(folder.join(FACTS), serde_json::to_string_pretty(&facts)?)?;
        crate::tell(format_args!(
            "{flavor} {workload}: recorded {changes} changes in {:.0} s",
            began.elapsed().as_secs_f64()
        ));
        Ok(Recording { flavor, workload, changes, folder, facts })
    }
}

async fn record(flavor: Flavor, workload: Workload, rows: u64, folder: &Path, crossfade: &Path) -> Result<Facts> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // How durable the servers are while the binlog is written changes nothing in it.
    let start = |side| server(flavor, side, folder).relaxed().start();
    let (source, target) = tokio::try_join!(start(Side::Source), start(Side::Target))?;
    for server in [&source, &target] {
        workload::load_base(&mut server.connect().await?, workload).await?;
    }
    init(crossfade, &write_config(folder, PAIR, [&source, &target], "")?).await?;
    let mut facts = Vec::new();
    for part in workload.parts() {
        let server = match part.by {
            Side::Source => &source,
            Side::Target => &target,
        };
        let mut conn = server.connect().await?;
        let start = binlog_end(server, &mut conn).await?;
        workload::write(&mut conn, workload, *part, rows).await?;
        let end = binlog_end(server, &mut conn).await?;
        ensure!(start.file == end.file, "the workload needs more than one binlog file");
        let progress = conn.query_first(workload.progress(*part)).await?.context("counts give one row")?;
        facts.push(Written { start, progress, checksum: checksum(&mut conn, workload, *part).await? });
        conn.disconnect().await?;
    }
    tokio::try_join!(source.stop(), target.stop())?;
    Ok(Facts(facts))
}

pub async fn init(crossfade: &Path, config: &Path) -> Result<()> {
    let config = config.to_string_lossy();
    process::run(crossfade, &["--config", &*config, "init"], &[], INIT_LIMIT).await?;
    Ok(())
}

/// Where a server's binlog ends.
pub async fn binlog_end(server: &Server, conn: &mut mysql_async::Conn) -> Result<BinlogPlace> {
    let statement = match server.flavor() {
        Flavor::MySql if server.version().at_least(8, 4) => "SHOW BINARY LOG STATUS",
        Flavor::MySql | Flavor::MariaDb => "SHOW MASTER STATUS",
    };
    let row: mysql_async::Row = conn.query_first(statement).await?.context("the binlog is off")?;
    let place = row.get::<String, _>(0).zip(row.get::<u64, _>(1));
    let place = place.map(|(file, offset)| BinlogPlace { file, offset });
    place.context("the server describes its binlog in an unknown way")
}

pub async fn checksum(conn: &mut mysql_async::Conn, workload: Workload, part: Part) -> Result<String> {
    conn.query_first(workload.checksum(part)).await?.context("a checksum gives one row")
}

/// Differs when the tables or the store's definition differ: then an earlier recording does not serve.
pub fn fingerprint() -> u32 {
    let mut hasher = DefaultHasher::new();
    FORMAT.hash(&mut hasher);
    for workload in Workload::ALL {
        workload.tables().hash(&mut hasher);
    }
    let mut files = sql_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sql"));
    files.sort();
    for file in files {
        std::fs::read(&file).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish() as u32
}

fn sql_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { sql_files(&path) } else { vec![path] }).collect()
}

/// Recordings are large, and one of other tables or of another store is of no use any more.
fn remove_outdated(recordings: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(recordings) else { return Ok(()) };
    let current = format!("-{:08x}", fingerprint());
    for path in entries.flatten().map(|entry| entry.path()) {
        if !path.to_string_lossy().ends_with(&current) {
            remove(&path)?;
        }
    }
    Ok(())
}

pub fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
