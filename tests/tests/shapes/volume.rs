//! Big transactions over several lanes, big rows, bulk loads, and a table that is altered meanwhile.

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{self, Progress};
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::prelude::Queryable;

use crate::CLOCK;
use crate::scenario::{self, QUIET_LIMIT};

const BIG_TRANSACTION: u64 = 20_000;
const LOADED: u64 = 5_000;
const BIG_ROW_BYTES: u64 = 5 << 20;

/// `count` numbers from `first`, as a table of one column `n`.
fn numbers(first: u64, count: u64) -> String {
    let digits = "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL \
                  SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let names = ["a", "b", "c", "e", "f"];
    let tables: Vec<String> = names.iter().map(|name| format!("{digits} {name}")).collect();
    format!(
        "(SELECT {first} + i AS n FROM (SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS i FROM {}) AS x \
         WHERE i < {count}) AS numbers",
        tables.join(" JOIN ")
    )
}

async fn big_things(flavor: Flavor) -> Result<()> {
    let setup = Setup { settings: "\n[apply]\nlanes = 4\n".to_owned(), ..Setup::new(flavor, "volume") };
    let mut migration = Migration::new(&setup).await?;
    migration
        .on_both(&[
            &format!("CREATE TABLE {{schema}}.big (id INT PRIMARY KEY, code INT UNIQUE, v VARCHAR(40), {CLOCK})"),
            &format!("CREATE TABLE {{schema}}.wide (id INT PRIMARY KEY, t LONGTEXT, b LONGBLOB, {CLOCK})"),
            &format!("CREATE TABLE {{schema}}.loaded (id INT PRIMARY KEY, v VARCHAR(40), {CLOCK})"),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;

    // One transaction of 20,000 rows each way, which lanes share; then one that changes, moves and deletes.
    let half = BIG_TRANSACTION / 2;
    let insert = |first: u64, count: u64| {
        format!(
            "INSERT INTO {{schema}}.big (id, code, v) SELECT n, n, CONCAT('row ', n) FROM {}",
            numbers(first, count)
        )
    };
    let rest = [
        "BEGIN".to_owned(),
        format!("UPDATE {{schema}}.big SET v = CONCAT(v, ' changed') WHERE id <= {half}"),
        format!("UPDATE {{schema}}.big SET code = NULL WHERE id <= {half} AND id % 2 = 0"),
        format!("UPDATE {{schema}}.big SET code = id + 1 WHERE id <= {half} AND id % 10 = 1"),
        format!("DELETE FROM {{schema}}.big WHERE id BETWEEN {} AND {BIG_TRANSACTION}", half + 1),
        "COMMIT".to_owned(),
    ];
    let mut forward = BIG_TRANSACTION + half + half / 2 + half / 10 + half;
    migration.on(&migration.old, &[&insert(1, BIG_TRANSACTION)]).await?;
    migration.on(&migration.old, &rest.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let mut reverse = BIG_TRANSACTION;
    migration.on(&migration.new, &[&insert(100_001, BIG_TRANSACTION)]).await?;

    // Rows of more than 5 MiB, that come, change and go.
    for (pool, id) in [(&migration.old, 1), (&migration.new, 2)] {
        let text = format!("REPEAT('mehr als genug ', {} DIV 15 + 1)", BIG_ROW_BYTES);
        let bytes = format!("REPEAT(UNHEX(SHA2('{id}', 256)), {} DIV 32)", BIG_ROW_BYTES);
        let statements = [
            format!(
                "INSERT INTO {{schema}}.wide (id, t, b) VALUES ({id}1, {text}, 'b'), ({id}2, 't', {bytes}), ({id}3, {text}, NULL)"
            ),
            format!("UPDATE {{schema}}.wide SET b = {bytes} WHERE id = {id}1"),
            format!("UPDATE {{schema}}.wide SET id = {id}4 WHERE id = {id}2"),
            format!("DELETE FROM {{schema}}.wide WHERE id = {id}3"),
        ];
        migration.on(pool, &statements.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    }
    // A bulk load from a file that the server reads.
    for (pool, side, first) in [(&migration.old, "old", 1), (&migration.new, "new", 100_001)] {
        let file = migration.folder.join(format!("{side}.csv"));
        let lines: String = (first..first + LOADED).map(|id| format!("{id}\tloaded on {side}\n")).collect();
        std::fs::write(&file, lines)?;
        let load = format!("LOAD DATA INFILE '{}' INTO TABLE {{schema}}.loaded (id, v)", file.display());
        migration.on(pool, &[&load]).await?;
    }
    forward += 6 + LOADED;
    reverse += 6 + LOADED;
    let (status, comparison) = migration.until_quiet_and_equal(QUIET_LIMIT).await?;
    scenario::crossed(&status, forward, reverse)?;
    scenario::echoed(&status)?;
    let expected = half + BIG_TRANSACTION + 4 + 2 * LOADED;
    ensure!(comparison.rows_compared() == expected, "{comparison}");
    println!("{flavor:?}: {forward} changes forward, {reverse} in reverse, {expected} rows equal");
    migration.stop_both().await
}

/// Columns are added on the source while it is written: its rows keep crossing, and the column does once both sides have it.
async fn altered_meanwhile(flavor: Flavor) -> Result<()> {
    const ROWS: u64 = 400;
    let mut migration = Migration::new(&Setup::new(flavor, "altered")).await?;
    migration.expect_lines(&["has columns that are not mapped and not carried"]);
    let create =
        format!("CREATE TABLE {{schema}}.t (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(20), {CLOCK})");
    migration.on_both(&[&create]).await?;
    migration.init().await?;
    migration.start_both().await?;

    let table = sql::full_name(&migration.schema, "t");
    let writer = {
        let (pool, table) = (migration.old.clone(), table.clone());
        tokio::spawn(async move {
            let mut conn = pool.get_conn().await?;
            for number in 0..ROWS {
                conn.query_drop(format!("INSERT INTO {table} (a, b) VALUES ({number}, 'b{number}')")).await?;
            }
            anyhow::Ok(())
        })
    };
    let first_have_crossed = async || {
        let status = migration.status().read().await?;
        let crossed = status.number("forward", "settled_seq") > 0;
        Ok(if crossed { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    };
    quiet::until("the first rows across", QUIET_LIMIT, first_have_crossed).await?;
    migration
        .on(
            &migration.old,
            &[
                "ALTER TABLE {schema}.t ADD COLUMN extra INT NULL FIRST",
                "UPDATE {schema}.t SET extra = id, a = a + 1 WHERE id <= 10",
                "ALTER TABLE {schema}.t ADD COLUMN late VARCHAR(10) NOT NULL DEFAULT 'x' AFTER id",
            ],
        )
        .await?;
    writer.await??;
    let status = migration.status().until_quiet(QUIET_LIMIT).await.with_context(|| migration.log_ends())?;
    scenario::crossed(&status, ROWS + 10, 0)?;
    let comparison = migration.compare().await?;
    let found = &comparison.tables[0];
    ensure!(found.differences() == 0 && found.rows_compared == ROWS, "{comparison}");
    ensure!(found.columns_on_one_side == ["extra", "late"], "{comparison}");
    let log = std::fs::read_to_string(migration.log(Direction::Forward))?;
    ensure!(log.contains("extra"), "the new column was not reported:\n{log}");

    migration.stop_both().await?;
    migration
        .on(
            &migration.new,
            &["ALTER TABLE {schema}.t ADD COLUMN extra INT NULL, ADD COLUMN late VARCHAR(10) NOT NULL DEFAULT 'x'"],
        )
        .await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["UPDATE {schema}.t SET extra = -id, late = 'y'"]).await?;
    migration.on(&migration.new, &["INSERT INTO {schema}.t (id, extra, late) VALUES (100000, 1, 'new')"]).await?;
    let (status, comparison) = migration.until_quiet_and_equal(QUIET_LIMIT).await?;
    scenario::crossed(&status, ROWS + 10 + ROWS, 1)?;
    println!("{flavor:?}: altered while written: {} rows equal", comparison.rows_compared());
    migration.stop_both().await
}

#[tokio::test]
async fn p1_p5_big_transactions_and_altered_tables_on_mysql() -> Result<()> {
    tokio::try_join!(big_things(Flavor::MySql), altered_meanwhile(Flavor::MySql)).map(drop)
}

#[tokio::test]
async fn p1_p5_big_transactions_and_altered_tables_on_mariadb() -> Result<()> {
    tokio::try_join!(big_things(Flavor::MariaDb), altered_meanwhile(Flavor::MariaDb)).map(drop)
}
