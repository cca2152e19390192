//! Children that come by messages, many at once, before one of their parents is copied.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;

use crate::progress::Copies;

const LIMIT: Duration = Duration::from_secs(120);
const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

const TABLES: [&str; 4] = [
    "CREATE TABLE to_come (id INT PRIMARY KEY, {clock})",
    "CREATE TABLE there (id INT PRIMARY KEY, {clock})",
    "CREATE TABLE child (id INT PRIMARY KEY, to_come_id INT NULL, there_id INT NOT NULL, v INT, {clock}, \
     FOREIGN KEY (to_come_id) REFERENCES to_come (id) ON DELETE CASCADE, FOREIGN KEY (there_id) REFERENCES there (id))",
    "CREATE TABLE grandchild (id INT PRIMARY KEY, child_id INT NOT NULL, v INT, {clock}, \
     FOREIGN KEY (child_id) REFERENCES child (id) ON DELETE CASCADE)",
];

/// So many children refer to rows that are yet to be copied, one in twenty also to one that a user of new has deleted.
const CHILDREN: u64 = 600;

async fn children_come_before_a_parent(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "before_parents")).await?;
    let tables: Vec<String> = TABLES.iter().map(|table| table.replace("{clock}", CLOCK)).collect();
    let create: Vec<&str> = ["USE {schema}"].into_iter().chain(tables.iter().map(String::as_str)).collect();
    migration.on_both(&create).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.to_come (id) VALUES (1), (2), (3), (4), (5)"]).await?;
    migration.init().await?;
    migration.crossfade(&["backfill", "start", "--table", &format!("{}.to_come", migration.schema)]).await?;
    migration.crossfade(&["backfill", "pause"]).await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.there (id) VALUES (1), (2)"]).await?;
    migration.crossfade(&["status", "--wait", "60s"]).await?;

    let children: Vec<String> =
        (1..=CHILDREN).map(|id| format!("({id}, {}, {}, 0)", id % 5 + 1, 1 + u64::from(id % 20 == 0))).collect();
    let children = format!("INSERT INTO child (id, to_come_id, there_id, v) VALUES {}", children.join(","));
    migration.apart(&["USE {schema}", &children], &["DELETE FROM {schema}.there WHERE id = 2"]).await?;
    migration.crossfade(&["status", "--wait", "60s"]).await?;
    let seen = "SELECT CONCAT_WS(' ', (SELECT COUNT(*) FROM {schema}.to_come), (SELECT COUNT(*) FROM {schema}.child), \
                (SELECT COUNT(*) FROM {schema}.child c JOIN {schema}.there t ON t.id = c.there_id))";
    let seen: Option<String> =
        migration.new.get_conn().await?.query_first(seen.replace("{schema}", &migration.schema)).await?;
    ensure!(seen == Some(format!("0 {CHILDREN} {CHILDREN}")), "copied, children, children with a parent: {seen:?}");

    // They change, they get children, some go and some let go, all before their parents come.
    let grandchildren: Vec<String> = (1..=CHILDREN).map(|id| format!("({id}, {id}, 0)")).collect();
    let grandchildren = format!("INSERT INTO grandchild (id, child_id, v) VALUES {}", grandchildren.join(","));
    migration.rest(&[Direction::Forward]).await?;
    let changes = [
        "USE {schema}",
        &grandchildren,
        "UPDATE child SET v = 1",
        "DELETE FROM child WHERE id <= 50",
        "UPDATE child SET to_come_id = NULL WHERE id > 550",
        "DELETE FROM to_come WHERE id = 5",
    ];
    migration.on(&migration.old, &changes).await?;
    migration.go_on(&[Direction::Forward]).await?;
    migration.crossfade(&["status", "--wait", "60s"]).await?;
    migration.crossfade(&["backfill", "resume"]).await?;
    Copies::until_copied(&migration, LIMIT).await?;
    let (status, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() > 900, "{comparison}");
    ensure!(status.total("open_failures") == 0, "{}", status.0);
    migration.stop_both().await
}

on_both_brands! {
    p7_children_come_before_a_parent => children_come_before_a_parent,
}
