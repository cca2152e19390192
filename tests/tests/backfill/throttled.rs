//! Work waits while the databases have too much to do, says why, and goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::prelude::Queryable;

use crate::progress::Copies;

const LIMIT: Duration = Duration::from_secs(60);
const CLOCK: &str = "updated_at DATETIME(6) NOT NULL DEFAULT '2026-01-01'";

/// Waits until the copying waits for something.
async fn until_waits_for(migration: &Migration, what: &str) -> Result<Copies> {
    until("the copying waits", LIMIT, || async {
        let copies = Copies::read(migration).await?;
        let waits = copies.0["waits_for"].as_str().is_some_and(|reason| reason.contains(what));
        Ok(if waits { Progress::Reached(copies) } else { Progress::NotYet(copies.0.to_string()) })
    })
    .await
    .with_context(|| format!("for `{what}`; {}", migration.log_ends()))
}

async fn work_waits(flavor: Flavor, name: &'static str) -> Result<()> {
    let load = std::env::temp_dir().join(format!("crossfade-test-load-{}-{flavor:?}", std::process::id()));
    let settings = format!("[throttle]\nprobe = \"cat {}\"\nprobe_limit = 80\n", load.display());
    let mut migration = Migration::new(&Setup { settings, ..Setup::new(flavor, name) }).await?;
    migration.on_both(&[&format!("CREATE TABLE {{schema}}.t (id INT PRIMARY KEY, v INT, {CLOCK})")]).await?;
    let rows = (1..=1_000).map(|id| format!("({id}, 0)")).collect::<Vec<_>>().join(",");
    migration.on(&migration.old, &[&format!("INSERT INTO {{schema}}.t (id, v) VALUES {rows}")]).await?;
    migration.init().await?;
    migration.start(Direction::Forward, &[])?;
    migration.crossfade(&["backfill", "start"]).await?;

    // Nobody knows how the load is.
    until_waits_for(&migration, "the probe cannot be read").await?;
    std::fs::write(&load, "93.5 percent")?;
    let copies = until_waits_for(&migration, "the probe says 93.5, more than 80").await?;
    ensure!(copies.total("rows") == 0, "{}", copies.0);
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (5000, 1)"]).await?;
    until("applying waits as well", LIMIT, || async {
        let status = migration.status().read().await?;
        let line = &status.0["streams"][0];
        let waits = line["state"] == "catching-up" && line["reason"].as_str().is_some_and(|why| why.contains("93.5"));
        Ok(if waits { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await?;
    let there = format!("SELECT COUNT(*) FROM `{}`.t", migration.schema);
    let found: Option<u64> = migration.new.get_conn().await?.query_first(&there).await?;
    ensure!(found == Some(0), "{found:?} rows were written all the same");

    std::fs::write(&load, "12")?;
    Copies::until_copied(&migration, LIMIT).await?;
    until("the change on the new side", LIMIT, || async {
        let found: Option<u64> = migration.new.get_conn().await?.query_first(&there).await?;
        Ok(if found == Some(1_001) { Progress::Reached(()) } else { Progress::NotYet(format!("{found:?}")) })
    })
    .await?;
    ensure!(migration.compare().await?.is_equal());

    // The limit is set while the process runs, and reset.
    let (code, _, errors) = migration.crossfade_any(&["throttle", "set", "probe_limit=few"]).await?;
    ensure!(code == Some(2) && errors.contains("is not a whole number"), "{code:?}: {errors}");
    migration.crossfade(&["throttle", "set", "probe_limit=10"]).await?;
    let waits = |what: &'static str| {
        let migration = &migration;
        until("the new limit counts", LIMIT, move || async move {
            let shown = migration.crossfade(&["throttle", "get"]).await?;
            Ok(if shown.contains(what) { Progress::Reached(()) } else { Progress::NotYet(shown) })
        })
    };
    waits("the probe says 12, more than 10").await?;
    migration.crossfade(&["throttle", "reset"]).await?;
    waits("nothing waits").await?;
    migration.stop(Direction::Forward).await?;
    migration.forget();
    std::fs::remove_file(load)?;
    Ok(())
}

#[tokio::test]
async fn p10_work_waits_on_mysql() -> Result<()> {
    work_waits(Flavor::MySql, "throttled").await
}

#[tokio::test]
async fn p10_work_waits_on_mariadb() -> Result<()> {
    work_waits(Flavor::MariaDb, "throttled").await
}
