//! Copying twelve tables to an empty target.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use crossfade_testkit::{process, shop};
use mysql_async::prelude::Queryable;
use serde_json::Value;

use super::{Measured, Way, run};
use crate::args::Args;
use crate::contender::{Crossfade, Reverse};
use crate::figures::Used;
use crate::stage::{Side, Stage};
use crate::tool::{account, program};
use crate::usage::Usage;
use crate::workload::SCHEMA;

const LOOK_EVERY: Duration = Duration::from_millis(250);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

pub async fn measure(stage: &Stage, way: Way, args: &Args) -> Result<Measured> {
    // Reads all there is, so that nobody waits for the disk where others do not.
    let wanted = checksums(stage, Side::Source).await?;
    ensure!(checksums(stage, Side::Target).await? != wanted, "the target has everything before anybody has begun");
    let measured = match way {
        Way::Crossfade => by_crossfade(stage, args).await,
        Way::Mydumper => by_mydumper(stage, false, args).await,
        Way::MydumperLogged => by_mydumper(stage, true, args).await,
        Way::Mysqldump => by_mysqldump(stage, args).await,
        Way::TableChecksum => bail!("it copies nothing"),
    }?;
    let found = checksums(stage, Side::Target).await?;
    ensure!(found == wanted, "the target has {found:?} instead of {wanted:?}");
    Ok(measured)
}

async fn by_crossfade(stage: &Stage, args: &Args) -> Result<Measured> {
    let mut crossfade = Crossfade::prepare(stage, args, Reverse::Runs).await?;
    crossfade.begin()?;
    crossfade.until_runs().await?;
    let (program, config) = (args.crossfade()?, stage.config());
    let config = config.to_string_lossy().into_owned();
    let ask = async |words: &[&str]| {
        let words = [&["--config", config.as_str(), "backfill"], words].concat();
        process::run(&program, &words, &[], COMMAND_LIMIT).await
    };
    let (before, began) = (stage.usage()?, Instant::now());
    ask(&["start"]).await?;
    let took = loop {
        let asked = Instant::now();
        let status: Value = serde_json::from_str(&ask(&["status", "--json"]).await?).context("no JSON")?;
        let tables = status["tables"].as_array().map_or(&[][..], Vec::as_slice);
        if tables.len() == shop::TABLES.len() && tables.iter().all(|table| table["state"] == "copied") {
            break asked - began;
        }
        crossfade.must_run()?;
        ensure!(began.elapsed() < args.limit(), "not copied within {:?}: {status}", args.limit());
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let after = stage.usage()?;
    Ok(Measured { took, used: Used::between(before, after, Some(crossfade.end().await?)) })
}

async fn by_mydumper(stage: &Stage, is_logged: bool, args: &Args) -> Result<Measured> {
    let (dumper, loader) = (program("mydumper")?, program("myloader")?);
    let folder = stage.log("dump").display().to_string();
    let (before, began) = (stage.usage()?, Instant::now());
    let dumping = [format!("--database={SCHEMA}"), "--threads=2".to_owned(), format!("--outputdir={folder}")];
    let dumped = run(&dumper, &[account(stage.source()?).as_slice(), &dumping].concat(), stage, args).await?;
    let mut loading = vec![format!("--directory={folder}"), "--threads=2".to_owned(), "--overwrite-tables".to_owned()];
    if is_logged {
        loading.push("--enable-binlog".to_owned());
    }
    let loaded = run(&loader, &[account(stage.target()?).as_slice(), &loading].concat(), stage, args).await?;
    let took = began.elapsed();
    let tool = Usage {
        cpu_seconds: dumped.cpu_seconds + loaded.cpu_seconds,
        peak_bytes: dumped.peak_bytes.max(loaded.peak_bytes),
        ended: true,
    };
    Ok(Measured { took, used: Used::between(before, stage.usage()?, Some(tool)) })
}

async fn by_mysqldump(stage: &Stage, args: &Args) -> Result<Measured> {
    let words =
        |program: PathBuf, server| [&[program.display().to_string()], account(server).as_slice()].concat().join(" ");
    let from = words(program("mariadb-dump")?, stage.source()?);
    let to = words(program("mariadb")?, stage.target()?);
    let pipe = format!("set -o pipefail; {from} --single-transaction {SCHEMA} | {to} {SCHEMA}");
    let (before, began) = (stage.usage()?, Instant::now());
    let used = run(&program("bash")?, &["-c".to_owned(), pipe], stage, args).await?;
    // The memory is the shell's.
    let used = Usage { peak_bytes: 0, ..used };
    Ok(Measured { took: began.elapsed(), used: Used::between(before, stage.usage()?, Some(used)) })
}

/// One for each table of a side.
async fn checksums(stage: &Stage, side: Side) -> Result<Vec<(String, Option<u64>)>> {
    let tables: Vec<String> = shop::TABLES.iter().map(|table| format!("{SCHEMA}.{}", table.name)).collect();
    let mut connection = stage.server(side)?.connect().await?;
    Ok(connection.query(format!("CHECKSUM TABLE {}", tables.join(", "))).await?)
}
