//! What a server does to children by itself, perhaps without a word in its binlog, while they are being copied, or before their
//! parents are.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::prelude::Queryable;

use crate::progress::Copies;

const LIMIT: Duration = Duration::from_secs(120);
const CLOCK: &str = "updated_at DATETIME(6) NOT NULL DEFAULT '2026-01-01'";

/// Parents that the children refer to: by their id, or by their code.
const PARENT: &str = "CREATE TABLE parent (id INT PRIMARY KEY, code VARCHAR(20) NOT NULL UNIQUE, v INT, {clock})";

/// A child of each kind, and what the parents' server does meanwhile that changes it.
const KINDS: [(&str, &str, &[&str]); 4] = [
    (
        "goes",
        "CREATE TABLE goes (id INT PRIMARY KEY, parent_id INT NOT NULL, {clock}, \
         FOREIGN KEY (parent_id) REFERENCES parent (id) ON DELETE CASCADE)",
        // The parent comes again, so that the target would take the child.
        &["DELETE FROM parent WHERE id = 5", "INSERT INTO parent (id, code, v) VALUES (5, 'c5', 9)"],
    ),
    (
        "lets_go",
        "CREATE TABLE lets_go (id INT PRIMARY KEY, parent_id INT NULL, {clock}, \
         FOREIGN KEY (parent_id) REFERENCES parent (id) ON DELETE SET NULL)",
        &["DELETE FROM parent WHERE id = 6", "INSERT INTO parent (id, code, v) VALUES (6, 'c6', 9)"],
    ),
    (
        "follows",
        "CREATE TABLE follows (id INT PRIMARY KEY, code VARCHAR(20) NOT NULL, {clock}, \
         FOREIGN KEY (code) REFERENCES parent (code) ON UPDATE CASCADE)",
        // Another parent takes the code.
        &["UPDATE parent SET code = 'X67' WHERE id = 67", "UPDATE parent SET code = 'C67' WHERE id = 68"],
    ),
    (
        "tree",
        "CREATE TABLE tree (id INT PRIMARY KEY, up INT NULL, {clock}, \
         FOREIGN KEY (up) REFERENCES tree (id) ON DELETE CASCADE)",
        // Its rows are written whether their parents are there or not.
        &["DELETE FROM tree WHERE id = 3"],
    ),
];

fn created(statement: &str) -> String {
    statement.replace("{clock}", CLOCK)
}

fn rows(of: fn(u32) -> String) -> String {
    (1..=120).map(of).collect::<Vec<_>>().join(",")
}

/// A server whose cascades are in no binlog, though it is one that could write them.
async fn unlogged_mysql() -> Result<&'static SharedPair> {
    static PAIR: tokio::sync::OnceCell<&SharedPair> = tokio::sync::OnceCell::const_new();
    let start = || SharedPair::own(Server::builder(Flavor::MySql).relaxed().option("innodb_native_foreign_keys", "ON"));
    Ok(*PAIR.get_or_try_init(start).await?)
}

async fn children_change_while_they_are_read(servers: &'static SharedPair, name: &'static str) -> Result<()> {
    // Tables are copied one by one; one that waits for its turn would be told to differ.
    let settings = "[verify]\nafter_backfill = false\n".to_owned();
    let setup = Setup { settings, ..Setup::new(servers.flavor(), name) };
    let mut migration = Migration::on_servers(&setup, servers).await?;
    migration.on_both(&["USE {schema}", &created(PARENT)]).await?;
    for (_, create, _) in KINDS {
        migration.on_both(&["USE {schema}", &created(create)]).await?;
    }
    let of_old = [
        format!("INSERT INTO parent (id, code, v) VALUES {}", rows(|id| format!("({id}, 'c{id}', 0)"))),
        format!("INSERT INTO goes (id, parent_id) VALUES {}", rows(|id| format!("({id}, {})", id / 3 + 1))),
        format!("INSERT INTO lets_go (id, parent_id) VALUES {}", rows(|id| format!("({id}, {})", id / 3 + 1))),
        format!("INSERT INTO follows (id, code) VALUES {}", rows(|id| format!("({id}, 'c{}')", id / 3 + 61))),
        // Twelve chains of ten; servers cascade no further than fifteen rows down.
        format!(
            "INSERT INTO tree (id, up) VALUES {}",
            rows(|id| format!("({id}, {})", if id > 12 { (id - 12).to_string() } else { "NULL".to_owned() }))
        ),
    ];
    migration
        .on(&migration.old, &["USE {schema}"].into_iter().chain(of_old.iter().map(String::as_str)).collect::<Vec<_>>())
        .await?;
    migration.init().await?;
    let table = |name: &str| format!("{}.{name}", migration.schema);
    let tables: Vec<(String, &[&str])> = KINDS.iter().map(|(name, _, changes)| (table(name), *changes)).collect();
    let parent = table("parent");
    migration.start_both().await?;
    migration.crossfade(&["backfill", "start", "--table", &parent]).await?;
    Copies::until_copied(&migration, LIMIT).await?;
    for (table, changes) in &tables {
        migration.stop(Direction::Forward).await?;
        migration.start(Direction::Forward, &[("CROSSFADE_FAILPOINT", "between-marks:1:stop")])?;
        migration.crossfade(&["backfill", "start", "--table", table]).await?;
        migration.process(Direction::Forward)?.until_frozen(LIMIT).await?;
        migration.on(&migration.old, &["USE {schema}"].iter().chain(*changes).copied().collect::<Vec<_>>()).await?;
        migration.process(Direction::Forward)?.resume()?;
        let copies = Copies::until_copied(&migration, LIMIT).await?;
        let changed = copies.tables().iter().find(|line| line["table"] == **table).map(|line| line["changed"].as_u64());
        println!("{table}: {changed:?} rows were changed between the marks");
    }
    let (_, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() > 500, "{comparison}");
    let mut connection = migration.new.get_conn().await?;
    for (query, expected) in [
        ("SELECT COUNT(*) FROM goes WHERE parent_id = 5", 0),
        ("SELECT COUNT(*) FROM lets_go WHERE parent_id IS NULL", 6),
        ("SELECT COUNT(*) FROM follows WHERE code = 'X67'", 3),
        ("SELECT COUNT(*) FROM tree WHERE id MOD 12 = 3", 0),
    ] {
        let query = query.replace("FROM ", &format!("FROM `{}`.", migration.schema));
        let found: Option<u64> = connection.query_first(&query).await?;
        ensure!(found == Some(expected), "{query}: {found:?}");
    }
    migration.stop_both().await
}

/// Children come by messages before their parents are copied, and follow what these change.
async fn children_follow_parents_that_are_yet_to_come(servers: &'static SharedPair, name: &'static str) -> Result<()> {
    let mut migration = Migration::on_servers(&Setup::new(servers.flavor(), name), servers).await?;
    let tables = [
        PARENT,
        "CREATE TABLE follows (id INT PRIMARY KEY, code VARCHAR(20) NOT NULL UNIQUE, v INT, {clock}, \
         FOREIGN KEY (code) REFERENCES parent (code) ON UPDATE CASCADE)",
        "CREATE TABLE grandchild (code VARCHAR(20) PRIMARY KEY, v INT, {clock}, \
         FOREIGN KEY (code) REFERENCES follows (code) ON UPDATE CASCADE)",
        "CREATE TABLE lets_go (id INT PRIMARY KEY, code VARCHAR(20) NULL, v INT, {clock}, \
         FOREIGN KEY (code) REFERENCES parent (code) ON UPDATE SET NULL)",
    ];
    let tables: Vec<String> = ["USE {schema}"].into_iter().chain(tables).map(created).collect();
    migration.on_both(&tables.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let parents = format!("INSERT INTO parent (id, code, v) VALUES {}", rows(|id| format!("({id}, 'c{id}', 0)")));
    let children = format!("INSERT INTO follows (id, code, v) VALUES {}", rows(|id| format!("({id}, 'c{id}', 0)")));
    migration.on(&migration.old, &["USE {schema}", &parents, &children]).await?;
    migration.init().await?;
    migration.crossfade(&["backfill", "start"]).await?;
    migration.crossfade(&["backfill", "pause"]).await?;
    migration.start_both().await?;
    let arrivals = [
        "USE {schema}",
        "UPDATE follows SET v = 1, updated_at = '2026-02-01' WHERE id IN (3, 4)",
        "INSERT INTO grandchild (code, v) VALUES ('c3', 1)",
        "INSERT INTO lets_go (id, code, v) VALUES (1, 'c3', 1), (2, 'c4', 1)",
    ];
    migration.on(&migration.old, &arrivals).await?;
    let crossed = migration.crossfade_any(&["status", "--wait", "60s", "--json"]).await?;
    ensure!(crossed.0 == Some(0), "what came before its parent was set aside: {} {}", crossed.1, crossed.2);
    migration.on(&migration.old, &["USE {schema}", "UPDATE parent SET code = 'x3', v = 1 WHERE id = 3"]).await?;
    let crossed = migration.crossfade_any(&["status", "--wait", "60s", "--json"]).await?;
    ensure!(crossed.0 == Some(0), "a parent's change was set aside: {} {}", crossed.1, crossed.2);
    let mut connection = migration.new.get_conn().await?;
    let query = format!(
        "SELECT CONCAT_WS(' ', (SELECT code FROM `{0}`.follows WHERE id = 3), (SELECT GROUP_CONCAT(code) FROM `{0}`.grandchild), \
         (SELECT GROUP_CONCAT(COALESCE(code, '-') ORDER BY id) FROM `{0}`.lets_go))",
        migration.schema
    );
    let found: Option<String> = connection.query_first(query).await?;
    ensure!(found.as_deref() == Some("x3 x3 -,c4"), "nothing followed: {found:?}");
    migration.crossfade(&["backfill", "resume"]).await?;
    let copies = Copies::until_copied(&migration, LIMIT).await?;
    let (status, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() > 240 && copies.total("kept") == 0, "{comparison}\n{}", copies.0);
    ensure!(status.total("open_failures") == 0, "{}", status.0);
    migration.stop_both().await
}

#[tokio::test]
async fn p6_children_change_while_they_are_read_on_mysql() -> Result<()> {
    children_change_while_they_are_read(SharedPair::get(Flavor::MySql).await, "backfill_cascade").await
}

#[tokio::test]
async fn p6_children_change_while_they_are_read_on_mysql_without_a_word() -> Result<()> {
    children_change_while_they_are_read(unlogged_mysql().await?, "backfill_cascade").await
}

#[tokio::test]
async fn p6_children_change_while_they_are_read_on_mariadb() -> Result<()> {
    children_change_while_they_are_read(SharedPair::get(Flavor::MariaDb).await, "backfill_cascade").await
}

#[tokio::test]
async fn p4_children_follow_parents_that_are_yet_to_come_on_mysql() -> Result<()> {
    children_follow_parents_that_are_yet_to_come(SharedPair::get(Flavor::MySql).await, "backfill_follow").await
}

#[tokio::test]
async fn p4_children_follow_parents_that_are_yet_to_come_on_mysql_without_a_word() -> Result<()> {
    children_follow_parents_that_are_yet_to_come(unlogged_mysql().await?, "backfill_follow").await
}

#[tokio::test]
async fn p4_children_follow_parents_that_are_yet_to_come_on_mariadb() -> Result<()> {
    children_follow_parents_that_are_yet_to_come(SharedPair::get(Flavor::MariaDb).await, "backfill_follow").await
}
