//! Binlogs that are purged before they were read: told beforehand, and afterwards exactly.

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Migration, Setup};

use crate::stage::{LIMIT, ask, builder, run, stream};

const CREATE: &str =
    "CREATE TABLE {schema}.t (id INT PRIMARY KEY, updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6))";

async fn unread_is_purged(flavor: Flavor) -> Result<()> {
    let keeps = builder(flavor).option("binlog_expire_logs_seconds", 7_200);
    let servers = SharedPair::own(keeps).await?;
    let mut migration = Migration::on_servers(&Setup::new(flavor, "purged"), servers).await?;
    migration.on_both(&[CREATE]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id) VALUES (9)"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop(Direction::Forward).await?;
    migration.on(&migration.old, &["DELETE FROM {schema}.t WHERE id = 9"]).await?;
    for id in 1..=3 {
        migration
            .on(&migration.old, &[&format!("INSERT INTO {{schema}}.t (id) VALUES ({id})"), "FLUSH BINARY LOGS"])
            .await?;
    }

    // Nobody reads, and the time runs.
    let left =
        |status: &crossfade_testkit::quiet::Status| stream(status, Direction::Forward)["unread_kept_seconds"].as_f64();
    let status = migration.status().read().await?;
    ensure!(left(&status).is_some_and(|seconds| (7_000.0..=7_200.0).contains(&seconds)), "{}", status.0);
    run(servers.old(), &["SET GLOBAL binlog_expire_logs_seconds = 3600"]).await?;
    let shown = migration.crossfade(&["status"]).await?;
    ensure!(shown.contains("forward/old: the source may purge what is not read yet in 59m"), "{shown}");

    let position = stream(&status, Direction::Forward)["position"].as_str().unwrap_or_default().to_owned();
    purge(servers.old()).await?;
    let gap = match flavor {
        Flavor::MySql => {
            let question = format!("SELECT GTID_SUBTRACT(@@GLOBAL.gtid_purged, '{position}')");
            format!("has purged transactions {}", ask::<String>(servers.old(), &question).await?.replace('\n', ""))
        }
        Flavor::MariaDb => {
            let last = position.rsplit('-').next().and_then(|last| last.parse::<u64>().ok()).unwrap_or(0);
            format!("-{} to ", last + 1)
        }
    };
    let (code, _, errors) = migration.crossfade_any(&["sync", "forward"]).await?;
    for word in [&gap, "which is not read yet", "hint: restore the purged binlog files", "crossfade backfill start"] {
        ensure!(code == Some(3) && errors.contains(word), "exit code {code:?}, `{word}` is not in: {errors}");
    }
    println!("{flavor:?}: {}", errors.lines().find(|line| line.contains("purged")).unwrap_or_default());
    let shown = migration.crossfade(&["status"]).await?;
    ensure!(shown.contains(&gap), "{shown}");
    migration.stop(Direction::Reverse).await?;
    begun_as_a_new_pair(&mut migration).await
}

/// What the hint says: another pair copies what the gap held, and a comparison mends what was deleted there.
async fn begun_as_a_new_pair(migration: &mut Migration) -> Result<()> {
    let config = migration.config();
    let text = std::fs::read_to_string(&config)?;
    let next = format!("{}-next", migration.pair);
    std::fs::write(&config, text.replace(&format!("\"{}\"", migration.pair), &format!("\"{next}\"")))?;
    migration.pair = next;
    migration.init().await?;
    migration.crossfade(&["backfill", "start"]).await?;
    // The comparison that follows the copying finds the row that is left.
    migration.expect_lines(&["rows differ between the sides"]);
    migration.start_both().await?;
    until("all is copied", LIMIT, || async {
        let shown = migration.crossfade(&["backfill", "status", "--json"]).await?;
        let status: serde_json::Value = serde_json::from_str(&shown)?;
        Ok(if status["tables"][0]["state"] == "copied" { Progress::Reached(()) } else { Progress::NotYet(shown) })
    })
    .await?;
    let (code, output, errors) = migration.crossfade_any(&["verify", "--repair", "old-wins"]).await?;
    ensure!(code == Some(0), "{code:?} {output} {errors}");
    let (_, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() == 3, "{comparison}");
    migration.stop_both().await
}

/// Purges all but the last file. MariaDB needs a file until what it wrote there is checkpointed.
async fn purge(server: &Server) -> Result<()> {
    let status = if server.flavor() == Flavor::MySql { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let row: mysql_async::Row = ask(server, status).await?;
    let last: String = row.get(0).unwrap_or_default();
    until("one file is left", LIMIT, || async {
        run(server, &[&format!("PURGE BINARY LOGS TO '{last}'")]).await?;
        let row: mysql_async::Row = ask(server, "SHOW BINARY LOGS").await?;
        let first: String = row.get(0).unwrap_or_default();
        Ok(if first == last { Progress::Reached(()) } else { Progress::NotYet(first) })
    })
    .await
}

#[tokio::test]
async fn p1_unread_is_purged_on_mysql() -> Result<()> {
    unread_is_purged(Flavor::MySql).await
}

#[tokio::test]
async fn p1_unread_is_purged_on_mariadb() -> Result<()> {
    unread_is_purged(Flavor::MariaDb).await
}
