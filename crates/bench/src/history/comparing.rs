//! Comparing twelve tables of two sides that are equal.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use crossfade_testkit::process;
use mysql_async::prelude::Queryable;
use serde_json::Value;

use super::loaded::Loaded;
use super::{Measured, Way, run};
use crate::args::Args;
use crate::contender::{Crossfade, Replication, Reverse};
use crate::figures::Used;
use crate::recording::Starts;
use crate::stage::{Side, Stage};
use crate::tool::program;
use crate::workload::SCHEMA;

pub async fn measure(stage: &Stage, way: Way, loaded: &Loaded, args: &Args) -> Result<Measured> {
    // Reads all there is, so that nobody waits for the disk where others do not.
    for side in Side::BOTH {
        warm_up(stage, side).await?;
    }
    match way {
        Way::Crossfade => by_crossfade(stage, loaded, args).await,
        Way::TableChecksum => by_table_checksum(stage, loaded, args).await,
        Way::Mydumper | Way::MydumperLogged | Way::Mysqldump => bail!("it compares nothing"),
    }
}

async fn by_crossfade(stage: &Stage, loaded: &Loaded, args: &Args) -> Result<Measured> {
    let mut crossfade = Crossfade::prepare(stage, args, Reverse::Runs).await?;
    crossfade.begin()?;
    crossfade.until_runs().await?;
    let config = stage.config().to_string_lossy().into_owned();
    let words = ["--config", config.as_str(), "verify", "--json"];
    let (before, began) = (stage.usage()?, Instant::now());
    let output = process::run(&args.crossfade()?, &words, &[], args.limit()).await?;
    let (took, after) = (began.elapsed(), stage.usage()?);
    let report: Value = serde_json::from_str(&output).context("no JSON")?;
    ensure!(report["rows_old"].as_u64() == Some(loaded.rows) && report["mismatches"] == 0, "{report}");
    // The command's own share, which works in the servers, is not known; that of the processes, which wait, is.
    crossfade.end().await?;
    Ok(Measured { took, used: Used::between(before, after, None) })
}

/// The target is the source's replica, which computes the sums as well, by statements that it gets through the binlog.
async fn by_table_checksum(stage: &Stage, loaded: &Loaded, args: &Args) -> Result<Measured> {
    let checksum = program("pt-table-checksum")?;
    let (source, target) = (stage.source()?, stage.target()?);
    let mut replication = Replication::prepare(stage, 1, &Starts { source: loaded.end.clone(), target: None }).await?;
    replication.begin().await?;
    let place = |server: &crossfade_servers::Server| {
        format!("h=127.0.0.1,P={},u=root,p={}", server.port(), server.root_password())
    };
    let mut connection = source.connect().await?;
    for statement in [
        "CREATE DATABASE percona".to_owned(),
        "CREATE TABLE percona.dsns (id INT PRIMARY KEY AUTO_INCREMENT, parent_id INT, dsn VARCHAR(255) NOT NULL)"
            .to_owned(),
        format!("INSERT INTO percona.dsns (dsn) VALUES ('{}')", place(target)),
    ] {
        connection.query_drop(statement).await?;
    }
    let words = [
        place(source),
        format!("--databases={SCHEMA}"),
        format!("--recursion-method=dsn={},D=percona,t=dsns", place(source)),
        "--no-check-binlog-format".to_owned(),
        "--no-version-check".to_owned(),
    ];
    let (before, began) = (stage.usage()?, Instant::now());
    let tool = run(&checksum, &words, stage, args).await?;
    let (took, after) = (began.elapsed(), stage.usage()?);
    let counted: Option<u64> =
        connection.query_first("SELECT CAST(SUM(this_cnt) AS UNSIGNED) FROM percona.checksums").await?;
    ensure!(counted == Some(loaded.rows), "pt-table-checksum counted {counted:?} rows of {}", loaded.rows);
    replication.must_run().await?;
    replication.end().await?;
    Ok(Measured { took, used: Used::between(before, after, Some(tool)) })
}

async fn warm_up(stage: &Stage, side: Side) -> Result<()> {
    let mut connection = stage.server(side)?.connect().await?;
    for table in crossfade_testkit::shop::TABLES {
        connection.query_drop(format!("CHECKSUM TABLE {SCHEMA}.{}", table.name)).await?;
    }
    Ok(())
}
