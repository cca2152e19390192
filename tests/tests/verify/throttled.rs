//! Comparing waits while the databases have too much to do, says why, and keeps to the rate of rows that is set.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// Of the comparison that was begun last: whether it has ended.
async fn has_ended(migration: &Migration) -> Result<Option<bool>> {
    let (code, output, _) = migration.crossfade_any(&["verify", "show", "--json"]).await?;
    if code != Some(0) {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str::<Value>(&output)?["verification"]["ended_at"].is_string()))
}

async fn comparing_waits(flavor: Flavor) -> Result<()> {
    let load = std::env::temp_dir().join(format!("crossfade-verify-load-{}-{flavor:?}", std::process::id()));
    let settings = format!("[throttle]\nprobe = \"cat {}\"\nprobe_limit = 80\n", load.display());
    let mut migration = Migration::new(&Setup { settings, ..Setup::new(flavor, "verify_throttled") }).await?;
    let rows = (1..=3_000).map(|id| format!("({id}, '2026-01-01')")).collect::<Vec<_>>().join(",");
    migration
        .on_both(&[
            "CREATE TABLE {schema}.t (id INT PRIMARY KEY, updated_at DATETIME(6) NOT NULL)",
            &format!("INSERT INTO {{schema}}.t VALUES {rows}"),
        ])
        .await?;
    migration.init().await?;
    migration.start(Direction::Forward, &[])?;
    std::fs::write(&load, "93.5 percent")?;
    let comparing = migration.crossfade_any(&["verify"]);
    let looking = async {
        let begun = async || {
            let ended = has_ended(&migration).await?;
            Ok(if ended.is_some() { Progress::Reached(()) } else { Progress::NotYet("nothing".to_owned()) })
        };
        until("a comparison has begun", LIMIT, begun).await?;
        // Everybody who looks is told why.
        until("the reason is told", LIMIT, async || {
            let shown = migration.crossfade(&["throttle", "get"]).await?;
            let is_told = shown.contains("the probe says 93.5, more than 80");
            Ok(if is_told { Progress::Reached(()) } else { Progress::NotYet(shown) })
        })
        .await?;
        ensure!(has_ended(&migration).await? == Some(false), "it has not waited");
        std::fs::write(&load, "12")?;
        anyhow::Ok(())
    };
    let (compared, looked) = tokio::join!(comparing, looking);
    looked.with_context(|| migration.log_ends())?;
    let (code, output, errors) = compared?;
    ensure!(code == Some(0) && output.contains("3000"), "{code:?}: {output}{errors}");
    ensure!(errors.contains("comparing waits for the databases") && errors.contains("93.5, more than 80"), "{errors}");

    migration.crossfade(&["throttle", "set", "rows_per_second=1000"]).await?;
    let begun = Instant::now();
    migration.crossfade(&["verify"]).await?;
    // The last chunk is read at once when its time has come.
    ensure!(begun.elapsed() > Duration::from_secs(1), "3,000 rows at 1,000 a second took {:?}", begun.elapsed());
    migration.stop(Direction::Forward).await?;
    migration.forget();
    std::fs::remove_file(load)?;
    Ok(())
}

on_both_brands! {
    p10_comparing_waits => comparing_waits,
}
