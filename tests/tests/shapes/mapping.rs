//! Two sides that name and order things differently, and tables that go one way.

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::compare::{self, TablePair};
use crossfade_testkit::sql;
use crossfade_tests::{Migration, Setup};
use mysql_async::prelude::Queryable;
use mysql_async::{Pool, Row};

use crate::CLOCK;
use crate::scenario::{self, QUIET_LIMIT};

const TABLES: &str = r#"
[[table]]
old = "{schema}.people"
new = "`{schema}-new.x`.`per``sons`"
clock = "updated_at"
columns = { full_name = "Name", born = "born on" }

[[table]]
old = "{schema}.same_*"
new = "`{schema}-new.x`.same_*"

[[table]]
name = "{schema}.log"
one_way = true

[[table]]
name = "{schema}.wide"
one_way = true
"#;

/// A migration whose new side has a schema `<schema>-new.x` too.
struct Renamed {
    migration: Migration,
    schema: String,
}

impl Renamed {
    async fn new(flavor: Flavor) -> Result<Renamed> {
        let setup = Setup { tables: TABLES.to_owned(), ..Setup::new(flavor, "mapping") };
        let migration = Migration::new(&setup).await?;
        migration.expect_lines(&["has columns that are not mapped and not carried"]);
        let schema = format!("{}-new.x", migration.schema);
        migration.new.get_conn().await?.query_drop(format!("CREATE DATABASE {}", sql::name(&schema))).await?;
        Ok(Renamed { migration, schema })
    }

    async fn on_old(&self, statements: &[&str]) -> Result<()> {
        run(&self.migration.old, &self.migration.schema, statements).await
    }

    /// In the new side's own schema.
    async fn on_new(&self, statements: &[&str]) -> Result<()> {
        run(&self.migration.new, &self.schema, statements).await
    }

    async fn are_equal(&self, old: &str, new: (&str, &str), rows: u64, only_on_old: &[&str]) -> Result<()> {
        let pair = TablePair {
            old: (self.migration.schema.clone(), old.to_owned()),
            new: (new.0.to_owned(), new.1.to_owned()),
        };
        let found = compare::tables(&self.migration.old, &self.migration.new, &[pair]).await?;
        let table = &found.tables[0];
        ensure!(table.differences() == 0 && table.columns_on_one_side == only_on_old, "{old} differs: {found}");
        ensure!(table.rows_compared == rows, "{} rows of {old}, not {rows}", table.rows_compared);
        Ok(())
    }
}

async fn run(pool: &Pool, schema: &str, statements: &[&str]) -> Result<()> {
    let mut conn = pool.get_conn().await?;
    conn.query_drop(format!("USE {}", sql::name(schema))).await?;
    for statement in statements {
        let statement = statement.replace("{clock}", CLOCK);
        conn.query_drop(&statement).await.with_context(|| statement)?;
    }
    conn.disconnect().await?;
    Ok(())
}

async fn one_number(pool: &Pool, schema: &str, question: &str) -> Result<u64> {
    let question = question.replace("{schema}", &sql::name(schema));
    pool.get_conn().await?.query_first(&question).await?.with_context(|| question)
}

/// Other schema, table and column names, another order of columns and labels, columns that only one side has.
async fn renamed_both_ways(flavor: Flavor) -> Result<()> {
    let mut renamed = Renamed::new(flavor).await?;
    renamed
        .on_old(&[
            "CREATE TABLE people (id INT PRIMARY KEY, full_name VARCHAR(50) CHARACTER SET latin1, born DATE, \
             state ENUM('a','b','c') NOT NULL, flags SET('x','y','z'), remark TEXT, {clock})",
            "CREATE TABLE same_one (id INT PRIMARY KEY, v INT)",
            "CREATE TABLE same_two (id INT PRIMARY KEY, v INT, UNIQUE KEY (v))",
            "CREATE TABLE log (a INT)",
            "CREATE TABLE wide (id INT PRIMARY KEY)",
        ])
        .await?;
    renamed
        .on_new(&[
            "CREATE TABLE `per``sons` ({clock}, flags SET('z','x','y'), `born on` DATE, extra INT NOT NULL DEFAULT 7, \
             Name VARCHAR(50) CHARACTER SET utf8mb4, nick VARCHAR(20), state ENUM('c','b','a') NOT NULL, id INT PRIMARY KEY)",
            "CREATE TABLE same_one (v INT, id INT PRIMARY KEY)",
            "CREATE TABLE same_two (id INT PRIMARY KEY, v INT, UNIQUE KEY (v))",
            "CREATE VIEW like_old AS SELECT id, Name AS full_name, `born on` AS born, state, updated_at FROM `per``sons`",
        ])
        .await?;
    let own = renamed.migration.schema.clone();
    run(&renamed.migration.new, &own, &["CREATE TABLE log (a INT)", "CREATE TABLE wide (id INT PRIMARY KEY)"]).await?;
    renamed.migration.init().await?;
    renamed.migration.start_both().await?;

    renamed
        .on_old(&[
            "INSERT INTO people (id, full_name, born, state, flags, remark) VALUES (1, 'Adèle', '1990-01-01', 'a', 'x,z', \
             'stays'), (2, 'Bob', NULL, 'b', '', NULL), (3, 'Chloé', '2001-02-03', 'c', NULL, 'goes')",
            "INSERT INTO same_one VALUES (1, 1), (2, 2)",
            "INSERT INTO same_two VALUES (1, 1), (2, 2)",
        ])
        .await?;
    renamed.migration.status().until_quiet(QUIET_LIMIT).await?;
    renamed
        .on_new(&[
            "UPDATE `per``sons` SET Name = 'Zoë', extra = 8, nick = 'zo', flags = 'y,z' WHERE id = 1",
            "DELETE FROM `per``sons` WHERE id = 3",
            "INSERT INTO `per``sons` (id, Name, state, nick) VALUES (4, 'Dürer', 'c', 'al')",
            "UPDATE same_one SET id = 3, v = 4 WHERE id = 2",
            "BEGIN",
            "UPDATE same_two SET v = NULL WHERE id = 1",
            "UPDATE same_two SET v = 1 WHERE id = 2",
            "COMMIT",
        ])
        .await?;
    renamed.migration.status().until_quiet(QUIET_LIMIT).await?;
    renamed
        .on_old(&[
            "UPDATE people SET full_name = UPPER(full_name), state = 'b' WHERE id IN (1, 4)",
            "UPDATE people SET remark = 'only here' WHERE id = 4",
        ])
        .await?;
    let migration = &renamed.migration;
    let status = migration.status().until_quiet(QUIET_LIMIT).await.with_context(|| migration.log_ends())?;
    scenario::crossed(&status, 7 + 3, 3 + 1 + 2)?;
    scenario::echoed(&status)?;
    renamed.are_equal("people", (&renamed.schema, "like_old"), 3, &["flags", "remark"]).await?;
    // The members are the same, though each side lists them in its own order.
    let flags = "SELECT COUNT(*) FROM {schema}.TABLE WHERE (id, flags) IN ((1, 'y,z'), (2, '')) OR flags IS NULL";
    let (old, new) = (flags.replace("TABLE", "people"), flags.replace("TABLE", "`per``sons`").replace("y,z", "z,y"));
    ensure!(one_number(&migration.old, &migration.schema, &old).await? == 3, "the flags of old changed");
    ensure!(one_number(&migration.new, &renamed.schema, &new).await? == 3, "the flags of new differ");
    renamed.are_equal("same_one", (&renamed.schema, "same_one"), 2, &[]).await?;
    renamed.are_equal("same_two", (&renamed.schema, "same_two"), 2, &[]).await?;
    // What the other side does not have is left as it is.
    let kept = "SELECT COUNT(*) FROM {schema}.people WHERE (id, remark) IN ((1, 'stays'), (4, 'only here'))";
    ensure!(one_number(&migration.old, &migration.schema, kept).await? == 2, "a remark is gone");
    let kept = "SELECT COUNT(*) FROM {schema}.`per``sons` WHERE (id, extra, nick) IN ((1, 8, 'zo'), (4, 7, 'al')) OR extra = 7";
    ensure!(one_number(&migration.new, &renamed.schema, kept).await? == 3, "an extra column was touched");
    println!("{flavor:?}: renamed tables and columns: 10 changes forward, 6 in reverse, 7 rows equal");
    renamed.migration.stop_both().await
}

/// Rows that only all of their values tell apart, some of them equal; and a table whose columns are wider on new.
async fn one_way(flavor: Flavor) -> Result<()> {
    let document = if flavor == Flavor::MySql { "JSON" } else { "LONGTEXT" };
    let log = format!(
        "CREATE TABLE log (a INT, ci VARCHAR(20), f FLOAT, d DOUBLE, n DECIMAL(20,5), t DATETIME(3), ts TIMESTAMP(6) NULL, \
         tm TIME(2), y YEAR, b BIT(9), e ENUM('x','y'), s SET('p','q'), bin BINARY(3), bl BLOB, \
         k VARCHAR(20) CHARACTER SET gbk, g GEOMETRY, j {document}, l TEXT CHARACTER SET latin1)"
    );
    let wide_on_old = "CREATE TABLE wide (id INT PRIMARY KEY, i SMALLINT UNSIGNED, t VARCHAR(10) CHARACTER SET latin1, \
                       e ENUM('a','b'), d DATE, n DECIMAL(5,2), f FLOAT, vb VARBINARY(5), y YEAR, st SET('p','q'))";
    let wide_on_new = "CREATE TABLE wide (y INT, id BIGINT PRIMARY KEY, i INT, t TEXT CHARACTER SET utf8mb4, e VARCHAR(5), \
                       d DATETIME, n DECIMAL(12,4), f DOUBLE, vb BLOB, st VARCHAR(20))";
    let mut renamed = Renamed::new(flavor).await?;
    let people = "(id INT PRIMARY KEY, {clock}";
    renamed.on_old(&[&log, wide_on_old, &format!("CREATE TABLE people {people}, full_name INT, born INT)")]).await?;
    renamed.on_new(&[&format!("CREATE TABLE `per``sons` {people}, Name INT, `born on` INT)")]).await?;
    let own = renamed.migration.schema.clone();
    run(&renamed.migration.new, &own, &[&log, wide_on_new]).await?;
    renamed.migration.init().await?;
    renamed.migration.start_both().await?;

    let full = "1, 'Abc', 1.1, -0.1, -12.5, '2026-01-01 01:02:03.5', '2026-03-29 02:30:00.000001', '-30:00:00.25', 2026, \
                257, 'x', 'p,q', x'0100', x'00ff', '漢字', ST_GeomFromText('POINT(1 2)'), '{\"a\": [1, 2.5]}', 'é'";
    let null = format!("2{}", ", NULL".repeat(17));
    renamed
        .on_old(&[
            &format!("INSERT INTO log VALUES ({full}), ({full}), ({full}), ({null}), ({null})"),
            // Another row for whoever looks with the collation.
            "INSERT INTO log (a, ci, l) VALUES (3, 'same', 'e'), (3, 'SAME', 'É'), (3, 'säme ', 'e')",
            "INSERT INTO log (a) SELECT 5 FROM log WHERE a < 3",
            // One of several equal rows is changed, another goes.
            "UPDATE log SET ci = 'changed' WHERE a = 1 LIMIT 1",
            "DELETE FROM log WHERE a = 1 AND ci = 'abc' LIMIT 1",
            "UPDATE log SET n = 7 WHERE a = 2 LIMIT 1",
            "DELETE FROM log WHERE a = 2 AND n IS NULL",
            "UPDATE log SET n = 1 WHERE l = 'e' AND ci = BINARY 'same'",
            "DELETE FROM log WHERE BINARY ci = 'SAME'",
            "UPDATE log SET e = 'y', y = 0, j = '[]', k = 'a' WHERE a = 1 AND ci = 'abc'",
            "DELETE FROM log WHERE a = 5 LIMIT 2",
            "INSERT INTO wide VALUES (1, 65535, 'é', 'b', '2026-01-02', -1.25, 1.5, x'00ff', 2026, 'p,q'), \
             (2, 0, '', 'a', '1000-01-01', 999.99, -0.25, '', 0, ''), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
            "UPDATE wide SET id = 4, t = 'ÿ' WHERE id = 2",
            "DELETE FROM wide WHERE id = 3",
        ])
        .await?;
    let migration = &renamed.migration;
    let status = migration.status().until_quiet(QUIET_LIMIT).await.with_context(|| migration.log_ends())?;
    scenario::crossed(&status, 5 + 3 + 5 + 7 + 2 + 3 + 2, 0)?;
    renamed.are_equal("log", (&own, "log"), 8, &[]).await?;
    let question = format!(
        "SELECT CONCAT_WS('|', id, i, HEX(CONVERT(t USING utf8mb4)), HEX(CONVERT(e USING utf8mb4)), CAST(d AS DATETIME), \
         CAST(n AS DECIMAL(12,4)), CAST(f AS DOUBLE), HEX(vb), y + 0, CONVERT(st USING utf8mb4)) FROM {}.wide ORDER BY id",
        sql::name(&own)
    );
    let old: Vec<String> = migration.old.get_conn().await?.query(&question).await?;
    let new: Vec<String> = migration.new.get_conn().await?.query(&question).await?;
    ensure!(old == new && old.len() == 2, "wide differs: {old:?} on old, {new:?} on new");

    // What is written on new stays there.
    run(&migration.new, &own, &["INSERT INTO log (a) VALUES (99)", "DELETE FROM wide WHERE id = 1"]).await?;
    let status = migration.status().until_quiet(QUIET_LIMIT).await?;
    ensure!(status.number("reverse", "last_seq") == 0, "a change went back: {}", status.0);
    let rows: Vec<Row> = migration.old.get_conn().await?.query(&question).await?;
    ensure!(rows.len() == 2, "a row of old is gone");
    println!("{flavor:?}: one way: 27 changes, 10 rows equal, none back");
    renamed.migration.stop_both().await
}

#[tokio::test]
async fn p4_sides_that_differ_on_mysql() -> Result<()> {
    tokio::try_join!(renamed_both_ways(Flavor::MySql), one_way(Flavor::MySql)).map(drop)
}

#[tokio::test]
async fn p4_sides_that_differ_on_mariadb() -> Result<()> {
    tokio::try_join!(renamed_both_ways(Flavor::MariaDb), one_way(Flavor::MariaDb)).map(drop)
}
