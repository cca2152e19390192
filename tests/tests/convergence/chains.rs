//! P4 for rows that hang on each other inside one table: keys that shift in one statement, keys that both sides spell otherwise,
//! and rows that refer to others of their table.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;

use crate::orphans::{CLOCK, LIMIT, until_nothing_waits};

async fn chains(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "chains")).await?;
    migration
        .on_both(&[
            &format!(
                "CREATE TABLE {{schema}}.shifted (id INT PRIMARY KEY, code VARCHAR(9) UNIQUE, v VARCHAR(9), {CLOCK})"
            ),
            &format!("CREATE TABLE {{schema}}.spelled (id VARCHAR(9) PRIMARY KEY, v VARCHAR(9), {CLOCK})"),
            &format!(
                "CREATE TABLE {{schema}}.staff (id INT PRIMARY KEY, v INT, {CLOCK}, \
                 FOREIGN KEY (v) REFERENCES {{schema}}.staff (id) ON DELETE CASCADE)"
            ),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    let before = [
        "INSERT INTO {schema}.shifted (id, code, v) VALUES (1, 'a', ''), (2, 'b', ''), (3, 'c', ''), (4, 'd', '')",
        "INSERT INTO {schema}.spelled (id, v) VALUES ('Ada', 1), ('Bob', 1), ('Cyd', 1)",
        "INSERT INTO {schema}.staff (id, v) VALUES (1, NULL), (2, 1), (3, 2), (5, 1), (9, NULL)",
    ];
    migration.on(&migration.old, &before).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let earlier = [
        "UPDATE {schema}.shifted SET id = id + 1 ORDER BY id DESC",
        "UPDATE {schema}.spelled SET id = 'ada' WHERE id = 'Ada'",
        "UPDATE {schema}.spelled SET id = 'cyd' WHERE id = 'Cyd'",
        "DELETE FROM {schema}.staff WHERE id = 1",
    ];
    let meanwhile = [
        "UPDATE {schema}.shifted SET v = 'x' WHERE id = 2",
        "UPDATE {schema}.spelled SET v = 2 WHERE id IN ('Ada', 'Bob')",
        "UPDATE {schema}.spelled SET id = 'CYD' WHERE id = 'Cyd'",
        "INSERT INTO {schema}.staff (id, v) VALUES (4, 3)",
    ];
    migration.on(&migration.old, &earlier).await?;
    migration.on(&migration.new, &meanwhile).await?;
    migration.on(&migration.old, &["UPDATE {schema}.spelled SET id = 'bob' WHERE id = 'Bob'"]).await?;
    migration.go_on(&Direction::BOTH).await?;
    until_nothing_waits(&migration).await?;
    let wanted = [("shifted", "1: 2:x 4: 5:"), ("spelled", "Ada:2 bob:1 CYD:1"), ("staff", "1: 2:1 3:2 4:3 5:1 9:")];
    for (table, left) in wanted {
        let query = format!(
            "SELECT GROUP_CONCAT(id, ':', COALESCE(v, '') ORDER BY id SEPARATOR ' ') FROM {}.{table}",
            sql::name(&migration.schema)
        );
        let found: Option<String> = migration.old.get_conn().await?.query_first(query).await?;
        ensure!(found.as_deref() == Some(left), "{found:?} are left of {table}, not {left}");
    }
    migration.stop_both().await
}

on_both_brands! {
    chains: p4_chains_on_mysql, p4_chains_on_mariadb;
}
