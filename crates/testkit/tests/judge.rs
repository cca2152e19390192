//! The judge must see every kind of damage, and the writers must do what they count. On real servers of both brands.

use std::time::Duration;

use anyhow::Result;
use crossfade_servers::{Flavor, SharedPair};
use crossfade_testkit::userdb::UserDb;
use crossfade_testkit::workload::{Mix, Settings, Side, Workload};
use crossfade_testkit::{binlog_window, compare, sql};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

async fn pools(flavor: Flavor) -> Result<(&'static SharedPair, Pool, Pool)> {
    let pair = SharedPair::get(flavor).await;
    Ok((pair, sql::pool(&pair.old().root_url(), 8)?, sql::pool(&pair.new().root_url(), 8)?))
}

async fn run(pool: &Pool, statement: &str) -> Result<()> {
    Ok(pool.get_conn().await?.query_drop(statement).await?)
}

/// One row with every type; each damage changes one column.
const TYPES: &str = "CREATE TABLE {t} (
    a INT NOT NULL, b VARCHAR(20) CHARACTER SET utf8mb4 NOT NULL, text_null TEXT NULL, small FLOAT, big DOUBLE, exact DECIMAL(20, 6),
    bits BIT(10), flags SET('x', 'y'), choice ENUM('x', 'y'), raw VARBINARY(20), fixed BINARY(4), at TIMESTAMP(6) NULL,
    whenever DATETIME(3), span TIME(2), doc JSON, latin VARCHAR(20) CHARACTER SET latin1, wide BIGINT UNSIGNED, place GEOMETRY,
    long_text LONGTEXT, PRIMARY KEY (a, b))";
const ROW: &str =
    "INSERT INTO {t} VALUES (1, 'k', '', 0.1, 0.1, 1.5, b'101', 'x', 'x', X'0001', X'01', '2020-01-01 00:00:00.000001',
    '0001-01-01 00:00:00.001', '-00:00:00.01', '{\"a\": 1}', 'é', 18446744073709551615, ST_GeomFromText('POINT(1 2)'),
    REPEAT('x', 2000000))";
const DAMAGES: [(&str, &str); 17] = [
    ("text_null", "NULL"),
    ("small", "0.10000001"),
    ("big", "0.30000000000000004 - 0.2"),
    ("exact", "1.500001"),
    ("bits", "b'111'"),
    ("flags", "'x,y'"),
    ("choice", "'y'"),
    ("raw", "X'000100'"),
    ("fixed", "X'0100000A'"),
    ("at", "'2020-01-01 00:00:00.000002'"),
    ("whenever", "'0001-01-01 00:00:00.002'"),
    ("span", "'00:00:00.01'"),
    ("doc", "'{\"a\": \"1\"}'"),
    ("latin", "'e'"),
    ("wide", "18446744073709551614"),
    ("place", "ST_GeomFromText('POINT(1 3)')"),
    ("long_text", "CONCAT(REPEAT('x', 1999999), 'y')"),
];

async fn every_damage_is_seen(flavor: Flavor) -> Result<()> {
    let (pair, old, new) = pools(flavor).await?;
    let schema = pair.create_schema("damage").await?;
    let table = sql::full_name(&schema, "every`type");
    for pool in [&old, &new] {
        run(pool, &TYPES.replace("{t}", &table)).await?;
        run(pool, &ROW.replace("{t}", &table)).await?;
        run(pool, &format!("INSERT INTO {table} (a, b) VALUES (10, 'A'), (2, 'b'), (2, 'B b')")).await?;
    }
    let comparison = compare::schemas(&old, &new, &schema).await?;
    assert!(comparison.is_equal() && comparison.rows_compared() == 4, "{comparison}");

    for (column, damage) in DAMAGES {
        run(&new, &format!("UPDATE {table} SET {column} = {damage} WHERE a = 1")).await?;
        let comparison = compare::schemas(&old, &new, &schema).await?;
        let columns: Vec<&String> = comparison.tables[0].different_columns.keys().collect();
        assert_eq!(columns, [column], "{comparison}");
        run(&new, &format!("DELETE FROM {table} WHERE a = 1")).await?;
        run(&new, &ROW.replace("{t}", &table)).await?;
    }
    run(&new, &format!("DELETE FROM {table} WHERE a = 2 AND b = 'b'")).await?;
    run(&old, &format!("DELETE FROM {table} WHERE a = 10")).await?;
    let comparison = compare::schemas(&old, &new, &schema).await?;
    let found = &comparison.tables[0];
    assert_eq!((found.missing_on_new, found.missing_on_old, found.different), (1, 1, 0), "{comparison}");
    assert_eq!((found.rows_old, found.rows_new, comparison.differences()), (3, 3, 2));
    Ok(())
}

#[tokio::test]
async fn every_damage_is_seen_on_mysql() -> Result<()> {
    every_damage_is_seen(Flavor::MySql).await
}

#[tokio::test]
async fn every_damage_is_seen_on_mariadb() -> Result<()> {
    every_damage_is_seen(Flavor::MariaDb).await
}

async fn character_sets_and_lost_keys(flavor: Flavor) -> Result<()> {
    let (pair, old, new) = pools(flavor).await?;
    let schema = pair.create_schema("charsets").await?;
    let keyless = sql::full_name(&schema, "keyless");
    for (pool, charset) in [(&old, "latin1"), (&new, "utf8mb4")] {
        let name = sql::full_name(&schema, "names");
        run(pool, &format!("CREATE TABLE {name} (n VARCHAR(10) CHARACTER SET {charset} PRIMARY KEY, v INT)")).await?;
        run(pool, &format!("INSERT INTO {name} VALUES ('Köln', 1), ('Zoë', 2), ('a', NULL)")).await?;
        run(pool, &format!("CREATE TABLE {keyless} (v INT, w VARCHAR(5))")).await?;
        run(pool, &format!("INSERT INTO {keyless} VALUES (1, 'x'), (1, 'x'), (NULL, ''), (3, NULL)")).await?;
    }
    let comparison = compare::schemas(&old, &new, &schema).await?;
    assert!(comparison.is_equal() && comparison.rows_compared() == 7, "{comparison}");
    run(&new, &format!("DELETE FROM {keyless} WHERE v = 1 LIMIT 1")).await?;
    let comparison = compare::schemas(&old, &new, &schema).await?;
    assert_eq!(comparison.differences(), 1, "one of two equal rows is missing: {comparison}");
    run(&old, &format!("ALTER TABLE {keyless} ADD COLUMN extra INT")).await?;
    let comparison = compare::schemas(&old, &new, &schema).await?;
    assert!(comparison.tables.iter().any(|table| table.columns_on_one_side == ["extra"]), "{comparison}");
    Ok(())
}

#[tokio::test]
async fn character_sets_and_lost_keys_on_mysql() -> Result<()> {
    character_sets_and_lost_keys(Flavor::MySql).await
}

#[tokio::test]
async fn character_sets_and_lost_keys_on_mariadb() -> Result<()> {
    character_sets_and_lost_keys(Flavor::MariaDb).await
}

async fn writers_do_what_they_count(flavor: Flavor) -> Result<()> {
    let (pair, old, new) = pools(flavor).await?;
    let data = UserDb { schema: pair.schema("users"), users: 600, seed: 5 };
    for pool in [&old, &new] {
        data.create(pool).await?;
        assert!(data.load(pool, |_| ()).await? > 600 * 3);
    }
    let comparison = compare::schemas(&old, &new, &data.schema).await?;
    assert!(comparison.is_equal(), "{comparison}");

    let before = binlog_window::now(&old).await?;
    let mut settings = Settings { limit: Some(1500), ..Settings::new(&data.schema, Side::Old, data.users) };
    let counts = Workload::start(&old, &settings)?.complete(Duration::from_secs(60)).await?;
    assert!(counts.transactions > 1000 && counts.changes > counts.transactions, "{counts:?}");
    assert!(counts.hot_changes > 100 && counts.rolled_back > 10 && counts.uncertain == 0, "{counts:?}");
    let mut events = binlog_window::row_events(&old, &before, &["crossfade"]).await?;
    // Other tests use the server as well.
    events.retain(|table, _| table.starts_with(&format!("{}.", data.schema)));
    assert_eq!(events.len(), 5, "all tables were written: {events:?}");
    assert!(!compare::schemas(&old, &new, &data.schema).await?.is_equal());

    let after = binlog_window::now(&old).await?;
    assert!(binlog_window::row_events(&old, &after, &["crossfade"]).await?.is_empty());

    settings = Settings { mix: Mix::conflicts(), rate: Some(100.0), limit: None, run: 1, ..settings };
    let workload = Workload::start(&old, &settings)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    workload.pause().await;
    let quiet = binlog_window::now(&old).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(workload.is_running() && binlog_window::now(&old).await? == quiet, "nobody writes during a pause");
    workload.resume();
    let counts = workload.finish().await?;
    let attempts = counts.transactions + counts.lost_races;
    assert!((20..=130).contains(&attempts) && counts.changes == counts.hot_changes, "the rate is kept: {counts:?}");
    Ok(())
}

#[tokio::test]
async fn writers_do_what_they_count_on_mysql() -> Result<()> {
    writers_do_what_they_count(Flavor::MySql).await
}

#[tokio::test]
async fn writers_do_what_they_count_on_mariadb() -> Result<()> {
    writers_do_what_they_count(Flavor::MariaDb).await
}
