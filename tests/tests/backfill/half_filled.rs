//! A new side that has rows already, and changes that come before what they depend on is copied.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::prelude::Queryable;

use crate::progress::Copies;

const LIMIT: Duration = Duration::from_secs(120);
const CLOCK: &str = "updated_at DATETIME(6) NOT NULL";

async fn rows_of_the_new_side_count(flavor: Flavor) -> Result<()> {
    let tables =
        "[[table]]\nname = \"{schema}.clockless\"\n\n[[table]]\nname = \"{schema}.*\"\nclock = \"updated_at\"\n";
    let setup = Setup { tables: tables.to_owned(), ..Setup::new(flavor, "backfill_half") };
    let mut migration = Migration::new(&setup).await?;
    migration
        .on_both(&[
            "USE {schema}",
            &format!("CREATE TABLE clocked (id INT PRIMARY KEY, v VARCHAR(20), mail VARCHAR(20) UNIQUE, {CLOCK})"),
            "CREATE TABLE clockless (id INT PRIMARY KEY, v VARCHAR(20))",
        ])
        .await?;
    let of_old = [
        "USE {schema}",
        "INSERT INTO clocked VALUES (1, 'old', 'a', '2026-01-01'), (2, 'old', 'b', '2026-01-05'), \
         (3, 'old', 'c', '2026-01-05'), (4, 'same', 'd', '2026-01-01'), (5, 'old', 'e', '2026-01-01')",
        "INSERT INTO clockless VALUES (1, 'old'), (2, 'old'), (3, 'same')",
    ];
    migration.on(&migration.old, &of_old).await?;
    let of_new = [
        "USE {schema}",
        // Older, newer, the same; and another row has a unique value.
        "INSERT INTO clocked VALUES (2, 'new', 'b', '2026-01-02'), (3, 'new', 'c', '2026-01-09'), \
         (4, 'same', 'd', '2026-01-01'), (9, 'new', 'e', '2026-01-01')",
        "INSERT INTO clockless VALUES (2, 'new'), (3, 'same')",
    ];
    migration.on(&migration.new, &of_new).await?;
    migration.init().await?;
    // All is compared once after the copying.
    migration.expect_lines(&["rows differ between the sides"]);
    migration.start(Direction::Forward, &[])?;
    migration.crossfade(&["backfill", "start"]).await?;
    let copies = until("all but the refused row is copied", LIMIT, || async {
        let copies = Copies::read(&migration).await?;
        let done = copies.tables().iter().all(|table| table["state"] == "copied") && copies.total("refused") == 1;
        Ok(if done { Progress::Reached(copies) } else { Progress::NotYet(copies.0.to_string()) })
    })
    .await?;
    let mut connection = migration.new.get_conn().await?;
    let rows: Vec<(u32, String)> =
        connection.query(format!("SELECT id, v FROM `{}`.clocked ORDER BY id", migration.schema)).await?;
    let expected = [(1, "old"), (2, "old"), (3, "new"), (4, "same"), (9, "new")];
    ensure!(rows.iter().map(|(id, v)| (*id, v.as_str())).eq(expected), "{rows:?}");
    let rows: Vec<(u32, String)> =
        connection.query(format!("SELECT id, v FROM `{}`.clockless ORDER BY id", migration.schema)).await?;
    ensure!(rows.iter().map(|(id, v)| (*id, v.as_str())).eq([(1, "old"), (2, "new"), (3, "same")]), "{rows:?}");
    for (field, clocked, clockless) in
        [("filled", 1, 1), ("replaced", 1, 0), ("same", 1, 1), ("kept", 1, 1), ("refused", 1, 0)]
    {
        ensure!(copies.of(".clocked", field) == clocked && copies.of(".clockless", field) == clockless, "{}", copies.0);
    }
    // People are shown which rows these are, and the command says by its exit code that there are some.
    let clocked = copies.tables().iter().find(|table| table["kept_rows"][0]["key"]["id"] == 3);
    ensure!(clocked.is_some_and(|table| table["refused_rows"][0]["key"]["id"] == 5), "{}", copies.0);
    let (code, output, _) = migration.crossfade_any(&["backfill", "status"]).await?;
    ensure!(code == Some(1) && output.contains("is refused"), "{code:?}: {output}");

    // What refused a row is mended, and the row comes by itself.
    migration.on(&migration.new, &["DELETE FROM {schema}.clocked WHERE id = 9"]).await?;
    let copies = Copies::until_copied(&migration, LIMIT).await?;
    ensure!(copies.of(".clocked", "filled") == 2, "{}", copies.0);
    migration.stop(Direction::Forward).await?;
    migration.forget();
    Ok(())
}

/// Changes of children come before their parents are copied, and parents go before they are copied, with what hangs on them.
async fn families_meet(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "backfill_family")).await?;
    migration
        .on_both(&[
            "USE {schema}",
            &format!("CREATE TABLE parent (id INT PRIMARY KEY, v INT, {CLOCK})"),
            &format!(
                "CREATE TABLE child (id INT PRIMARY KEY, parent_id INT NOT NULL, v INT, {CLOCK}, \
                 FOREIGN KEY (parent_id) REFERENCES parent (id) ON DELETE CASCADE)"
            ),
            &format!(
                "CREATE TABLE friend (id INT PRIMARY KEY, parent_id INT NULL, v INT, {CLOCK}, \
                 FOREIGN KEY (parent_id) REFERENCES parent (id) ON DELETE SET NULL)"
            ),
            &format!(
                "CREATE TABLE tree (id INT PRIMARY KEY, up INT NULL, {CLOCK}, FOREIGN KEY (up) REFERENCES tree (id))"
            ),
        ])
        .await?;
    let ids = |row: fn(u32) -> String| (1..=1_200).map(row).collect::<Vec<_>>().join(",");
    let parents = format!("INSERT INTO parent VALUES {}", ids(|id| format!("({id}, 0, '2026-01-01')")));
    let children = format!("INSERT INTO child VALUES {}", ids(|id| format!("({id}, {}, 0, '2026-01-01')", id / 2 + 1)));
    let friends = format!("INSERT INTO friend VALUES {}", ids(|id| format!("({id}, {}, 0, '2026-01-01')", id / 2 + 1)));
    // Every row refers to one that comes after it.
    let tree = (1..=1_200).rev().map(|id| match id {
        1_200 => "(1200, NULL, '2026-01-01')".to_owned(),
        id => format!("({id}, {}, '2026-01-01')", id + 1),
    });
    let tree = format!("INSERT INTO tree VALUES {}", tree.collect::<Vec<_>>().join(","));
    migration.on(&migration.old, &["USE {schema}", &parents, &children, &friends, &tree]).await?;
    migration.init().await?;
    // It is known what is to be copied, and nothing is yet.
    migration.crossfade(&["backfill", "start"]).await?;
    migration.crossfade(&["backfill", "pause"]).await?;
    migration.start_both().await?;
    let changes = [
        "USE {schema}",
        "INSERT INTO child VALUES (5001, 700, 1, '2026-02-01'), (5002, 701, 1, '2026-02-01')",
        "UPDATE child SET v = 1, updated_at = '2026-02-01' WHERE id BETWEEN 10 AND 19",
        "UPDATE friend SET v = 1, updated_at = '2026-02-01' WHERE id BETWEEN 10 AND 19",
        "DELETE FROM parent WHERE id = 7 OR id = 701",
        "INSERT INTO parent VALUES (7, 9, '2026-02-01')",
    ];
    migration.on(&migration.old, &changes).await?;
    let crossed = migration.crossfade_any(&["status", "--wait", "60s", "--json"]).await?;
    ensure!(crossed.0 == Some(0), "what came before its parent was set aside: {} {}", crossed.1, crossed.2);
    let mut connection = migration.new.get_conn().await?;
    let asked = format!("SELECT COUNT(*) FROM `{}`.child", migration.schema);
    let early: Option<u64> = connection.query_first(asked).await?;
    ensure!(early.is_some_and(|rows| rows >= 5), "no child came before its parent: {early:?}");
    migration.crossfade(&["backfill", "resume"]).await?;
    let copies = Copies::until_copied(&migration, LIMIT).await?;
    let (status, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() > 4_500 && copies.total("kept") == 0, "{comparison}\n{}", copies.0);
    ensure!(status.total("open_failures") == 0, "{}", status.0);
    migration.stop_both().await
}

#[tokio::test]
async fn p6_rows_of_the_new_side_count_on_mysql() -> Result<()> {
    rows_of_the_new_side_count(Flavor::MySql).await
}

#[tokio::test]
async fn p6_rows_of_the_new_side_count_on_mariadb() -> Result<()> {
    rows_of_the_new_side_count(Flavor::MariaDb).await
}

#[tokio::test]
async fn p7_families_meet_on_mysql() -> Result<()> {
    families_meet(Flavor::MySql).await
}

#[tokio::test]
async fn p7_families_meet_on_mariadb() -> Result<()> {
    families_meet(Flavor::MariaDb).await
}
