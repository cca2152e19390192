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

/// Two rows with one unique value, each on its own side, while nobody applies.
struct Clash<'s> {
    name: &'static str,
    tables: &'s [&'s str],
    /// What both sides have.
    before: &'s [&'s str],
    on_old: &'s [&'s str],
    on_new: &'s [&'s str],
    /// So many messages are then set aside.
    parked: u64,
}

impl Clash<'_> {
    async fn begin(&self, flavor: Flavor) -> Result<Migration> {
        let setup = Setup::new(flavor, self.name);
        let setup = Setup { tables: setup.tables.replace("updated_at", "changed_at"), ..setup };
        let mut migration = Migration::new(&setup).await?;
        for table in self.tables {
            migration.on_both(&[&table.replace("{clock}", CLOCK)]).await?;
        }
        migration.init().await?;
        migration.start_both().await?;
        migration.on(&migration.old, self.before).await?;
        migration.until_quiet_and_equal(LIMIT).await?;
        migration.apart(self.on_old, self.on_new).await?;
        until_status(&migration, "both parked", |status| status.total("open_failures") == self.parked).await?;
        Ok(migration)
    }
}

async fn until_nothing_is_aside(migration: &Migration, rows: u64) -> Result<()> {
    until_status(migration, "nothing set aside", |status| status.total("open_failures") + status.total("held") == 0)
        .await?;
    let (_, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() == rows, "rows are missing: {comparison}");
    Ok(())
}

/// One of the two rows is deleted and comes back with another value: whatever children a delete takes with it, nobody
/// needs to wait any more.
async fn a_parent_that_came_back_otherwise_waits_no_longer(flavor: Flavor) -> Result<()> {
    let clash = Clash {
        name: "came_back",
        tables: &[
            "CREATE TABLE {schema}.places (id INT PRIMARY KEY, code VARCHAR(20) NOT NULL UNIQUE, {clock})",
            "CREATE TABLE {schema}.notes (id INT PRIMARY KEY, place INT, {clock}, \
             FOREIGN KEY (place) REFERENCES {schema}.places (id) ON DELETE CASCADE)",
        ],
        before: &[],
        on_old: &["INSERT INTO {schema}.places (id, code) VALUES (7, 'x')"],
        on_new: &["INSERT INTO {schema}.places (id, code) VALUES (10, 'x')"],
        parked: 2,
    };
    let mut migration = clash.begin(flavor).await?;
    let returns = [
        "BEGIN",
        "DELETE FROM {schema}.places WHERE id = 10",
        "INSERT INTO {schema}.places (id, code) VALUES (10, 'y')",
        "INSERT INTO {schema}.notes (id, place) VALUES (1, 10)",
        "COMMIT",
    ];
    migration.on(&migration.new, &returns).await?;
    until_nothing_is_aside(&migration, 3).await?;
    migration.stop_both().await
}

/// A row left its key for one under which the target refuses it, and another took the key. When the other side mends its
/// row, both go through without anybody touching them.
async fn a_refused_move_is_tried_again(flavor: Flavor) -> Result<()> {
    let clash = Clash {
        name: "refused_move",
        tables: &["CREATE TABLE {schema}.t (id INT PRIMARY KEY, label VARCHAR(20) NOT NULL UNIQUE, {clock})"],
        before: &["INSERT INTO {schema}.t (id, label) VALUES (1, 'one')"],
        on_old: &[
            "BEGIN",
            "UPDATE {schema}.t SET id = 10, label = 'x' WHERE id = 1",
            "INSERT INTO {schema}.t (id, label) VALUES (1, 'another')",
            "COMMIT",
        ],
        on_new: &["INSERT INTO {schema}.t (id, label) VALUES (30, 'x')"],
        parked: 3,
    };
    let mut migration = clash.begin(flavor).await?;
    migration.on(&migration.new, &["UPDATE {schema}.t SET label = 'y' WHERE id = 30"]).await?;
    until_nothing_is_aside(&migration, 3).await?;
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

#[tokio::test]
async fn p7_a_refused_move_on_mysql() -> Result<()> {
    a_refused_move_is_tried_again(Flavor::MySql).await
}

#[tokio::test]
async fn p7_a_refused_move_on_mariadb() -> Result<()> {
    a_refused_move_is_tried_again(Flavor::MariaDb).await
}
