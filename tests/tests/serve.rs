//! P7: over HTTP nothing is ready while it stands, waits or is retried, and the numbers are those of `status`. The flag is told as the
//! store has it, and whoever waits for it is told of each change.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Migration, Served, Setup, json, says};

const LIMIT: Duration = Duration::from_secs(60);

const CREATE: &str = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v INT, \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";

async fn only_what_runs_is_ready(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "serve")).await?;
    migration.on_both(&[CREATE]).await?;
    migration.init().await?;
    let mut served = Served::start(&migration).await?;
    served.until("/readyz", 503, "\"ready\":false").await?;
    migration.start_both().await?;
    served.until("/readyz", 200, "\"ready\":true").await?;

    // Both sides write one row at once.
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (1, 1)"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    served.until("/readyz", 503, "\"state\":\"paused\"").await?;
    migration.on(&migration.old, &["UPDATE {schema}.t SET v = 2"]).await?;
    migration.on(&migration.new, &["UPDATE {schema}.t SET v = 3"]).await?;
    migration.go_on(&Direction::BOTH).await?;
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(status.total("conflicts_lost") == 1, "{}", status.0);
    served.until("/readyz", 200, "\"ready\":true").await?;
    let lost = format!("{{stream=\"forward/old\",table=\"{}.t\",outcome=\"lost\"}} 1", migration.schema);
    served.until("/metrics", 200, &format!("crossfade_conflicts_total{lost}")).await?;
    served.until("/v1/status", 200, "\"last_seq\":2").await?;

    // A direction whose process is dead is not ready; the other one is.
    migration.expect_lines(KILLED);
    migration.process(Direction::Reverse)?.kill9().await?;
    served.until("/readyz", 503, "died without a word").await?;
    served.until("/readyz?direction=forward", 200, "\"ready\":true").await?;
    migration.stop(Direction::Forward).await?;
    served.until("/readyz?direction=forward", 503, "\"state\":\"stopped\"").await?;
    served.process.terminate()?;
    ensure!(served.process.wait(LIMIT).await?.success(), "serve did not end well");
    migration.forget();
    Ok(())
}

#[tokio::test]
async fn p7_only_what_runs_is_ready_on_mysql() -> Result<()> {
    only_what_runs_is_ready(Flavor::MySql).await
}

#[tokio::test]
async fn p7_only_what_runs_is_ready_on_mariadb() -> Result<()> {
    only_what_runs_is_ready(Flavor::MariaDb).await
}

async fn the_flag_is_told_as_the_store_has_it(flavor: Flavor) -> Result<()> {
    let migration = Migration::new(&Setup::new(flavor, "serve-flag")).await?;
    migration.on_both(&[CREATE]).await?;
    migration.init().await?;
    let mut served = Served::start(&migration).await?;
    served.until("/v1/flag", 200, "\"version\":0,\"flag\":0,\"phase\":\"old_only\",\"fenced\":false").await?;
    let registered = served.ask("PUT", "/v1/flag/instances/web-1", "{\"version\":0,\"ttl_ms\":60000}").await?;
    ensure!(registered.code == 200 && registered.body.contains("\"expires_in_ms\":"), "{registered:?}");
    let early = served.ask("PUT", "/v1/flag/instances/web-2", "{\"version\":1,\"ttl_ms\":60000}").await?;
    ensure!(early.code == 409, "{early:?}");
    let short = served.ask("PUT", "/v1/flag/instances/short", "{\"version\":0,\"ttl_ms\":100}").await?;
    ensure!(short.code == 200, "{short:?}");

    // A fence that is over when it is next looked at: two changes, of which nobody but the store knows the second.
    let pair = &migration.pair;
    let fence = format!(
        "INSERT INTO crossfade.flag_state (pair, version, flag, fenced_until, changed_at)
         VALUES ('{pair}', 1, 1, UTC_TIMESTAMP(6) + INTERVAL 4 SECOND, UTC_TIMESTAMP(6))"
    );
    let fence = [fence.as_str()];
    let (told, fenced) = tokio::join!(served.get("/v1/flag?after=0&wait=60s"), migration.on(&migration.new, &fence));
    fenced?;
    let told = told?;
    ensure!(
        told.code == 200 && told.body.contains("\"version\":1,") && told.body.contains("\"writes_to\":null"),
        "{told:?}"
    );
    let lifted = served.get("/v1/flag?after=1&wait=60s").await?;
    ensure!(lifted.code == 200 && lifted.body.contains("\"version\":2,"), "{lifted:?}");
    ensure!(lifted.body.contains("\"phase\":\"write_both\",\"fenced\":false"), "{lifted:?}");
    let same = served.get("/v1/flag?after=2&wait=200ms").await?;
    ensure!((same.code, same.body.as_str()) == (304, ""), "{same:?}");
    served.until("/metrics", 200, "crossfade_flag_instances{state=\"behind\"} 1").await?;
    served.until("/metrics", 200, "crossfade_flag_version 2").await?;

    let (code, shown) = json(&migration, &["flag", "get", "--json"]).await?;
    ensure!(code == Some(0) && shown["version"] == 2 && shown["writes_to"] == "old", "{shown}");
    let instances = shown["instances"].as_array().context("no list")?;
    ensure!(instances.len() == 1 && instances[0]["instance"] == "web-1" && instances[0]["version"] == 0, "{shown}");
    let left = instances[0]["expires_in_ms"].as_u64().context("no time")?;
    ensure!((1..60_000).contains(&left), "{shown}");
    says(&migration, &["flag", "get"], 0, &["write_both (1), version 2: read from old, written to old", "0 (behind)"])
        .await?;
    let gone = served.ask("DELETE", "/v1/flag/instances/web-1", "").await?;
    ensure!((gone.code, gone.body.as_str()) == (204, ""), "{gone:?}");
    says(&migration, &["flag", "get"], 0, &["no instance of an application is registered"]).await?;

    served.process.terminate()?;
    ensure!(served.process.wait(LIMIT).await?.success(), "serve did not end well");
    migration.forget();
    Ok(())
}

#[tokio::test]
async fn the_flag_is_told_as_the_store_has_it_on_mysql() -> Result<()> {
    the_flag_is_told_as_the_store_has_it(Flavor::MySql).await
}

#[tokio::test]
async fn the_flag_is_told_as_the_store_has_it_on_mariadb() -> Result<()> {
    the_flag_is_told_as_the_store_has_it(Flavor::MariaDb).await
}
