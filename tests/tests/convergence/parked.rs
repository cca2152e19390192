//! What the random work has found about rows that are set aside, each in as few steps as show it.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::sql;
use crossfade_tests::{Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;

use crate::orphans::{CLOCK, LIMIT, until_status};

/// Two rows with one unique value, each on its own side, while nobody applies.
struct Clash<'s> {
    name: &'static str,
    tables: &'s [&'s str],
    /// The configuration leaves this table out.
    skipped: Option<&'s str>,
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
        let skip = |table| format!("[[table]]\nname = \"{{schema}}.{table}\"\nskip = true\n\n");
        let setup = Setup { tables: self.skipped.map(skip).unwrap_or_default() + &setup.tables, ..setup };
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
        skipped: None,
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
        skipped: None,
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

/// A row is moved from a key that a table which is not synced refers to, to where the target refuses it: it stays, and who comes
/// after it goes on.
async fn a_row_that_is_kept_where_it_was(flavor: Flavor) -> Result<()> {
    let clash = Clash {
        name: "kept",
        tables: &[
            "CREATE TABLE {schema}.places (id INT PRIMARY KEY, code VARCHAR(20) NOT NULL UNIQUE, {clock})",
            "CREATE TABLE {schema}.not_synced (id INT PRIMARY KEY, place INT, \
             FOREIGN KEY (place) REFERENCES {schema}.places (id))",
        ],
        skipped: Some("not_synced"),
        before: &["INSERT INTO {schema}.places (id, code) VALUES (1, 'one')"],
        on_old: &[
            "UPDATE {schema}.places SET id = 11, code = 'x' WHERE id = 1",
            "INSERT INTO {schema}.places (id, code) VALUES (2, 'two')",
        ],
        on_new: &[
            "INSERT INTO {schema}.not_synced (id, place) VALUES (1, 1)",
            "INSERT INTO {schema}.places (id, code) VALUES (30, 'x')",
        ],
        parked: 2,
    };
    let mut migration = clash.begin(flavor).await?;
    until_status(&migration, "the rest gone through", |status| {
        let of = |name: &str| status.number("forward", name);
        of("settled_seq") == of("last_seq") && status.is_caught_up()
    })
    .await?;
    let there = format!("SELECT GROUP_CONCAT(id ORDER BY id) FROM {}.places", sql::name(&migration.schema));
    let there: Option<String> = migration.new.get_conn().await?.query_first(there).await?;
    ensure!(there.as_deref() == Some("1,2,30"), "{there:?} are there");
    let room = ["DELETE FROM {schema}.not_synced", "UPDATE {schema}.places SET code = 'y' WHERE id = 30"];
    migration.on(&migration.new, &room).await?;
    until_nothing_is_aside(&migration, 3).await?;
    migration.stop_both().await
}

on_both_brands! {
    a_parent_that_came_back_otherwise_waits_no_longer: p7_a_parent_that_came_back_on_mysql,
        p7_a_parent_that_came_back_on_mariadb;
    a_refused_move_is_tried_again: p7_a_refused_move_on_mysql, p7_a_refused_move_on_mariadb;
    a_row_that_is_kept_where_it_was: p7_a_row_that_is_kept_where_it_was_on_mysql,
        p7_a_row_that_is_kept_where_it_was_on_mariadb;
}
