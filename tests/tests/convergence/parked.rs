//! What the random work has found about rows that are set aside, each in as few steps as show it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_tests::{Migration, Setup};

const LIMIT: Duration = Duration::from_secs(60);

const CLOCK: &str = "changed_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

async fn until_status(migration: &Migration, what: &str, is_reached: impl Fn(&Status) -> bool) -> Result<()> {
    until(what, LIMIT, || async {
        let status = migration.status().read().await?;
        Ok(if is_reached(&status) { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

/// Both sides give one unique value to different parents. Then one of the two is deleted and comes back with another
/// value: whatever children a delete takes with it, nobody needs to wait any more.
async fn a_parent_that_came_back_otherwise_waits_no_longer(flavor: Flavor) -> Result<()> {
    let setup = Setup::new(flavor, "came_back");
    let setup = Setup { tables: setup.tables.replace("updated_at", "changed_at"), ..setup };
    let mut migration = Migration::new(&setup).await?;
    let places =
        format!("CREATE TABLE {{schema}}.places (id INT PRIMARY KEY, code VARCHAR(20) NOT NULL UNIQUE, {CLOCK})");
    let notes = format!(
        "CREATE TABLE {{schema}}.notes (id INT PRIMARY KEY, place INT, {CLOCK}, \
         FOREIGN KEY (place) REFERENCES {{schema}}.places (id) ON DELETE CASCADE)"
    );
    migration.on_both(&[&places, &notes]).await?;
    migration.init().await?;
    migration.start_both().await?;
    for direction in ["forward", "reverse"] {
        migration.crossfade(&["stop", direction]).await?;
    }
    migration.on(&migration.old, &["INSERT INTO {schema}.places (id, code) VALUES (7, 'x')"]).await?;
    migration.on(&migration.new, &["INSERT INTO {schema}.places (id, code) VALUES (10, 'x')"]).await?;
    for direction in ["forward", "reverse"] {
        migration.crossfade(&["start", direction]).await?;
    }
    until_status(&migration, "both parked", |status| status.total("open_failures") == 2).await?;
    let returns = [
        "BEGIN",
        "DELETE FROM {schema}.places WHERE id = 10",
        "INSERT INTO {schema}.places (id, code) VALUES (10, 'y')",
        "INSERT INTO {schema}.notes (id, place) VALUES (1, 10)",
        "COMMIT",
    ];
    migration.on(&migration.new, &returns).await?;
    until_status(&migration, "nothing set aside", |status| {
        status.total("open_failures") == 0 && status.total("held") == 0
    })
    .await?;
    let (_, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() == 3, "rows are missing: {comparison}");
    migration.stop_both().await
}

#[tokio::test]
async fn p7_a_parent_that_came_back_on_mysql() -> Result<()> {
    a_parent_that_came_back_otherwise_waits_no_longer(Flavor::MySql).await
}

#[tokio::test]
async fn p7_a_parent_that_came_back_on_mariadb() -> Result<()> {
    a_parent_that_came_back_otherwise_waits_no_longer(Flavor::MariaDb).await
}
