//! What `docker-compose.yml` arranges, without the containers: its account, with no more than the privileges that
//! `config/compose.sql` grants, can do everything that `check`, `init` and both directions need.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_testkit::process::{self, Process};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::{compare, sql};
use mysql_async::prelude::Queryable;

const LIMIT: Duration = Duration::from_secs(60);
const PASSWORDS: [(&str, &str); 2] = [("OLD_PASSWORD", "sync-password"), ("NEW_PASSWORD", "sync-password")];

fn read(file: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(path).with_context(|| file.to_owned())
}

/// The shown configuration, with the servers of this test in place of the containers.
fn write_configuration(servers: &SharedPair) -> Result<PathBuf> {
    let text = read("config/compose.toml")?
        .replace("@old:3306", &format!("@127.0.0.1:{}", servers.old().port()))
        .replace("@new:3306", &format!("@127.0.0.1:{}", servers.new().port()));
    let path = std::env::temp_dir().join(format!("crossfade-test-{}-containers.toml", std::process::id()));
    std::fs::write(&path, text)?;
    Ok(path)
}

async fn run_statements(pool: &mysql_async::Pool, text: &str) -> Result<()> {
    let mut connection = pool.get_conn().await?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
    for statement in lines.join("\n").split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
        connection.query_drop(statement).await.with_context(|| statement.to_owned())?;
    }
    Ok(())
}

#[tokio::test]
async fn the_containers_account_may_do_all_that_is_needed() -> Result<()> {
    let servers = SharedPair::get(Flavor::MySql).await;
    let old = sql::pool(&servers.old().root_url(), 2)?;
    let new = sql::pool(&servers.new().root_url(), 2)?;
    for pool in [&old, &new] {
        run_statements(pool, &read("config/compose.sql")?).await?;
    }
    let config = write_configuration(servers)?;
    let binary = crossfade_tests::binary();
    let config_text = config.to_string_lossy();

    let words = ["--config", &*config_text, "check", "--json"];
    let (code, output, errors) = process::run_any(&binary, &words, &PASSWORDS, LIMIT).await?;
    ensure!(matches!(code, Some(0 | 1)), "check ended with {code:?}: {output}{errors}");
    ensure!(!output.contains("GRANT"), "check misses privileges: {output}");
    process::run(&binary, &["--config", &*config_text, "init"], &PASSWORDS, LIMIT).await?;

    let log = config.with_extension("log.txt");
    let mut processes = Vec::new();
    for direction in ["forward", "reverse"] {
        let words = ["--config", &*config_text, "sync", direction];
        processes.push(Process::start(&binary, &words, &PASSWORDS, &log)?);
    }
    let one = "INSERT INTO app.users (email, name) VALUES ('a@example.com', 'Zoë')";
    old.get_conn().await?.query_drop(one).await?;
    // The shared servers have no auto-increment offsets, which the compose file sets.
    let other = "INSERT INTO app.users (id, email, name) VALUES (1000, 'b@example.com', 'Anna')";
    new.get_conn().await?.query_drop(other).await?;
    until("both rows on both sides", LIMIT, || async {
        let comparison = compare::schemas(&old, &new, "app").await?;
        let there = comparison.is_equal() && comparison.rows_compared() == 2;
        let log = process::log_end(&log, 20);
        Ok(if there { Progress::Reached(()) } else { Progress::NotYet(format!("{comparison}\n{log}")) })
    })
    .await?;
    for process in &mut processes {
        process.terminate()?;
        let status = process.wait(LIMIT).await?;
        ensure!(status.success(), "a direction ended with {status}: {}", process.log_end());
    }
    // What stays in a temporary folder does no harm.
    let _ = (std::fs::remove_file(&config), std::fs::remove_file(&log));
    Ok(())
}
