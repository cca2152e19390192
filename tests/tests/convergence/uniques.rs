//! P4 for rows that have exchanged their unique values on one side, while the other side has changed them all: each of its
//! changes wins, and there is only a way round a circle to them.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;

use crate::orphans::{CLOCK, LIMIT, until_nothing_waits};

async fn begun(flavor: Flavor, name: &'static str, tables: &[&str], rows: &[&str]) -> Result<Migration> {
    let mut migration = Migration::new(&Setup::new(flavor, name)).await?;
    for table in tables {
        migration.on_both(&[&format!("CREATE TABLE {{schema}}.{table}, {CLOCK})")]).await?;
    }
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, rows).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    Ok(migration)
}

/// What both sides have in the end, of each table all columns but the clock.
async fn ends_with(migration: &mut Migration, wanted: &[(&str, &str, &str)]) -> Result<()> {
    migration.go_on(&Direction::BOTH).await?;
    until_nothing_waits(migration).await?;
    for (table, columns, left) in wanted {
        let query = format!(
            "SELECT GROUP_CONCAT(CONCAT_WS(':', {columns}) ORDER BY id SEPARATOR ' ') FROM {}.{table}",
            sql::name(&migration.schema)
        );
        let found: Option<String> = migration.old.get_conn().await?.query_first(query).await?;
        ensure!(found.as_deref() == Some(*left), "{found:?} are left of {table}, not {left}");
    }
    migration.stop_both().await
}

/// Two rows and three, values that may be NULL and values that may not, and keys of several columns.
async fn exchanged(flavor: Flavor) -> Result<()> {
    let tables = [
        "codes (id INT PRIMARY KEY, code VARCHAR(9) NOT NULL UNIQUE, v INT NOT NULL",
        "numbers (id INT PRIMARY KEY, n INT NOT NULL, m INT, v INT NOT NULL, UNIQUE (n), UNIQUE (m)",
        "seats (id INT PRIMARY KEY, line INT NOT NULL, seat INT NOT NULL, v INT NOT NULL, UNIQUE (line, seat)",
    ];
    let rows = [
        "INSERT INTO {schema}.codes (id, code, v) VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 0), (4, 'd', 0), (5, 'e', 0)",
        "INSERT INTO {schema}.numbers (id, n, m, v) VALUES (1, 1, 1, 0), (2, 2, 2, 0), (3, 3, NULL, 0)",
        "INSERT INTO {schema}.seats (id, line, seat, v) VALUES (1, 1, 1, 0), (2, 1, 2, 0)",
    ];
    let mut migration = begun(flavor, "exchanged", &tables, &rows).await?;
    let on_old = [
        "BEGIN",
        "UPDATE {schema}.codes SET code = '-' WHERE id = 1",
        "UPDATE {schema}.codes SET code = 'a' WHERE id = 2",
        "UPDATE {schema}.codes SET code = 'b' WHERE id = 1",
        "UPDATE {schema}.codes SET code = '-' WHERE id = 3",
        "UPDATE {schema}.codes SET code = 'c' WHERE id = 4",
        "UPDATE {schema}.codes SET code = 'd' WHERE id = 5",
        "UPDATE {schema}.codes SET code = 'e' WHERE id = 3",
        "UPDATE {schema}.numbers SET n = -1, m = NULL WHERE id = 1",
        "UPDATE {schema}.numbers SET n = 1, m = 1 WHERE id = 2",
        "UPDATE {schema}.numbers SET n = 2, m = 2 WHERE id = 1",
        "UPDATE {schema}.seats SET seat = 0 WHERE id = 1",
        "UPDATE {schema}.seats SET seat = 1 WHERE id = 2",
        "UPDATE {schema}.seats SET seat = 2 WHERE id = 1",
        "COMMIT",
    ];
    migration.on(&migration.old, &on_old).await?;
    let later = ["codes", "numbers", "seats"].map(|table| format!("UPDATE {{schema}}.{table} SET v = v + 1"));
    migration.on(&migration.new, &later.each_ref().map(String::as_str)).await?;
    let wanted = [
        ("codes", "id, code, v", "1:a:1 2:b:1 3:c:1 4:d:1 5:e:1"),
        ("numbers", "id, n, COALESCE(m, ''), v", "1:1:1:1 2:2:2:1 3:3::1"),
        ("seats", "id, line, seat, v", "1:1:1:1 2:1:2:1"),
    ];
    ends_with(&mut migration, &wanted).await
}

/// The changes that win arrive one after the other, each in a batch of its own.
async fn exchanged_one_by_one(flavor: Flavor) -> Result<()> {
    let tables = ["t (id INT PRIMARY KEY, code VARCHAR(9) NOT NULL UNIQUE, v INT NOT NULL"];
    let rows = ["INSERT INTO {schema}.t (id, code, v) VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 0)"];
    let mut migration = begun(flavor, "one_by_one", &tables, &rows).await?;
    let on_old = [
        "BEGIN",
        "UPDATE {schema}.t SET code = '-' WHERE id = 1",
        "UPDATE {schema}.t SET code = 'a' WHERE id = 2",
        "UPDATE {schema}.t SET code = 'b' WHERE id = 3",
        "UPDATE {schema}.t SET code = 'c' WHERE id = 1",
        "COMMIT",
    ];
    migration.on(&migration.old, &on_old).await?;
    for id in 1..=3 {
        migration.go_on(&[Direction::Reverse]).await?;
        migration.on(&migration.new, &[&format!("UPDATE {{schema}}.t SET v = 1 WHERE id = {id}")]).await?;
        let status = migration.status();
        crossfade_testkit::quiet::until("one more set aside", LIMIT, || async {
            let status = status.read().await?;
            Ok(match status.number("reverse", "open_failures") == id || id == 3 {
                true => crossfade_testkit::quiet::Progress::Reached(()),
                false => crossfade_testkit::quiet::Progress::NotYet(status.0.to_string()),
            })
        })
        .await?;
    }
    ends_with(&mut migration, &[("t", "id, code, v", "1:a:1 2:b:1 3:c:1")]).await
}

/// One row took what another gave up when it was deleted, and both are as they were on the side that wins.
async fn taken_over(flavor: Flavor) -> Result<()> {
    let tables = ["t (id INT PRIMARY KEY, code VARCHAR(9) NOT NULL UNIQUE, v INT NOT NULL"];
    let rows = ["INSERT INTO {schema}.t (id, code, v) VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 0), (4, 'd', 0)"];
    let mut migration = begun(flavor, "taken_over", &tables, &rows).await?;
    let on_old = [
        "DELETE FROM {schema}.t WHERE id = 1",
        "UPDATE {schema}.t SET code = 'a' WHERE id = 2",
        "INSERT INTO {schema}.t (id, code, v) VALUES (1, 'b', 0)",
        "DELETE FROM {schema}.t WHERE id = 3",
        "UPDATE {schema}.t SET code = 'c' WHERE id = 4",
    ];
    migration.on(&migration.old, &on_old).await?;
    migration.on(&migration.new, &["UPDATE {schema}.t SET v = v + 1"]).await?;
    ends_with(&mut migration, &[("t", "id, code, v", "1:a:1 2:b:1 3:c:1 4:d:1")]).await
}

/// A parent is to have the unique value of another one, which goes when its child has left it for the first: and that one is not
/// there before it has the value.
async fn parents_that_exchange(flavor: Flavor) -> Result<()> {
    let tables = [
        "places (id INT PRIMARY KEY, code VARCHAR(9) NOT NULL UNIQUE, v INT",
        "guests (id INT PRIMARY KEY, place INT, v INT, FOREIGN KEY (place) REFERENCES {schema}.places (id)",
    ];
    let rows = [
        "INSERT INTO {schema}.places (id, code) VALUES (5, 'x'), (7, 'y')",
        "INSERT INTO {schema}.guests (id, place) VALUES (1, 5)",
    ];
    let mut migration = begun(flavor, "parents_exchange", &tables, &rows).await?;
    migration.on(&migration.new, &["DELETE FROM {schema}.places WHERE id = 7"]).await?;
    let later = [
        "BEGIN",
        "UPDATE {schema}.guests SET place = 7 WHERE id = 1",
        "DELETE FROM {schema}.places WHERE id = 5",
        "UPDATE {schema}.places SET code = 'x' WHERE id = 7",
        "COMMIT",
    ];
    migration.on(&migration.old, &later).await?;
    ends_with(&mut migration, &[("places", "id, code", "7:x"), ("guests", "id, place", "1:7")]).await
}

/// The same among the rows of one table, where the child itself has what its parent is to have.
async fn a_child_has_the_value_of_its_parent(flavor: Flavor) -> Result<()> {
    let staff = "staff (id INT PRIMARY KEY, boss INT, code VARCHAR(9) NOT NULL UNIQUE, \
                 FOREIGN KEY (boss) REFERENCES {schema}.staff (id) ON DELETE CASCADE";
    let rows = ["INSERT INTO {schema}.staff (id, boss, code) VALUES (1, NULL, 'x'), (7, NULL, 'w')"];
    let mut migration = begun(flavor, "childs_value", &[staff], &rows).await?;
    migration.on(&migration.new, &["DELETE FROM {schema}.staff WHERE id = 7"]).await?;
    let later = [
        "BEGIN",
        "UPDATE {schema}.staff SET boss = 7, code = 'y' WHERE id = 1",
        "UPDATE {schema}.staff SET code = 'x' WHERE id = 7",
        "COMMIT",
    ];
    migration.on(&migration.old, &later).await?;
    ends_with(&mut migration, &[("staff", "id, COALESCE(boss, ''), code", "1:7:y 7::x")]).await
}

on_both_brands! {
    exchanged: p4_exchanged_on_mysql, p4_exchanged_on_mariadb;
    exchanged_one_by_one: p4_exchanged_one_by_one_on_mysql, p4_exchanged_one_by_one_on_mariadb;
    taken_over: p4_taken_over_on_mysql, p4_taken_over_on_mariadb;
    a_child_has_the_value_of_its_parent: p4_a_childs_value_on_mysql, p4_a_childs_value_on_mariadb;
    parents_that_exchange: p4_parents_that_exchange_on_mysql, p4_parents_that_exchange_on_mariadb;
}
