//! Secondary indexes of empty tables are dropped when that is asked for, and are there again whatever dies meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Flavor, Migration, Setup, rounds};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

use crate::progress::Copies;

const LIMIT: Duration = Duration::from_secs(120);
const START: [&str; 3] = ["backfill", "start", "--defer-secondary-indexes"];

const TABLES: [&str; 3] = [
    "USE {schema}",
    "CREATE TABLE people (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(60) NOT NULL, mail VARCHAR(60) NOT NULL, team INT NOT NULL,
        UNIQUE KEY mail (mail), KEY `by, ``name` (name(10) DESC) COMMENT 'it''s', KEY by_team (team, name), FULLTEXT KEY words (name))",
    "CREATE TABLE orders (id INT PRIMARY KEY, person INT NOT NULL, total INT NOT NULL, KEY by_total (total),
        KEY serves (person, total), CONSTRAINT order_person FOREIGN KEY (person) REFERENCES people (id) ON DELETE CASCADE)",
];

/// Those that nothing rests on.
const DEFERRED: [&str; 3] = ["orders.by_total", "people.by, `name", "people.by_team"];

async fn loaded_on_old(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let tables = "[[table]]\nname = \"{schema}.*\"\n".to_owned();
    let migration = Migration::new(&Setup { tables, ..Setup::new(flavor, name) }).await?;
    migration.on_both(&TABLES).await?;
    let numbers = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900)";
    let people = format!(
        "INSERT INTO people SELECT * FROM ({numbers} SELECT i, CONCAT('name ', i), CONCAT(i, '@x'), i % 7 FROM n) AS p"
    );
    let orders = format!("INSERT INTO orders SELECT * FROM ({numbers} SELECT i, 1 + i % 900, i * 3 FROM n) AS o");
    migration.on(&migration.old, &["USE {schema}", &people, &orders]).await?;
    migration.init().await?;
    Ok(migration)
}

/// Every index with its columns, as the server's own tables tell.
async fn indexes(pool: &Pool, schema: &str) -> Result<Vec<(String, String)>> {
    let asked = "SELECT CONCAT(table_name, '.', index_name),
            CAST(GROUP_CONCAT(CONCAT_WS(' ', column_name, sub_part, collation, index_type, index_comment) ORDER BY seq_in_index) AS CHAR)
        FROM information_schema.statistics WHERE table_schema = ? GROUP BY 1 ORDER BY 1";
    Ok(pool.get_conn().await?.exec(asked, (schema,)).await?)
}

/// The deferred ones that are there.
async fn deferred_there(migration: &Migration) -> Result<Vec<String>> {
    let all = indexes(&migration.new, &migration.schema).await?;
    Ok(all.into_iter().map(|(name, _)| name).filter(|name| DEFERRED.contains(&name.as_str())).collect())
}

async fn until_built(migration: &Migration) -> Result<Copies> {
    until("all indexes built", LIMIT, || async {
        let copies = Copies::read(migration).await?;
        let is_done =
            copies.tables().iter().all(|table| table["state"] == "copied") && copies.total("indexes_to_build") == 0;
        Ok(if is_done { Progress::Reached(copies) } else { Progress::NotYet(copies.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

async fn killed_at_each_step(flavor: Flavor) -> Result<()> {
    let mut migration = loaded_on_old(flavor, "deferred_kill").await?;
    migration.expect_lines(KILLED);
    let before = indexes(&migration.new, &migration.schema).await?;
    migration.crossfade(&START).await?;
    ensure!(deferred_there(&migration).await? == DEFERRED, "dropped before anybody copies");
    let mut there = Vec::new();
    // Just after a DROP that the store knows nothing of yet; when the rows are copied; just after an index was built.
    for point in ["index-dropped:2", "before-indexes", "index-built"] {
        migration.start(Direction::Forward, &[("CROSSFADE_FAILPOINT", point)])?;
        migration.process(Direction::Forward)?.wait(LIMIT).await.with_context(|| point.to_owned())?;
        let copies = Copies::read(&migration).await?;
        there.push(deferred_there(&migration).await?);
        println!("{flavor:?}: killed at {point} with {} rows, there are {:?}", copies.total("rows"), there.last());
        ensure!(
            copies.total("indexes_to_build") >= 2,
            "it is forgotten that there is something to build: {}",
            copies.0
        );
    }
    ensure!(there[0].len() < 3 && there[1].len() < 3, "nothing was dropped: {there:?}");
    let (_, told, _) = migration.crossfade_any(&["backfill", "status"]).await?;
    ensure!(told.contains("indexes are to be built"), "{told}");

    migration.start(Direction::Forward, &[])?;
    let copies = until_built(&migration).await?;
    ensure!(copies.total("indexes_built") == 3 && copies.total("filled") == 1_800, "{}", copies.0);
    ensure!(indexes(&migration.new, &migration.schema).await? == before, "{flavor:?}: indexes are not as they were");
    // The reverse reader passes over what dropped and built them.
    migration.start(Direction::Reverse, &[])?;
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(status.total("last_seq") == 0, "something came back: {}", status.0);
    migration.stop_both().await
}

async fn tables_with_rows_are_refused(flavor: Flavor) -> Result<()> {
    let mut migration = loaded_on_old(flavor, "deferred_rows").await?;
    let before = indexes(&migration.new, &migration.schema).await?;
    migration.on(&migration.new, &["INSERT INTO {schema}.people VALUES (5000, 'n', 'm', 1)"]).await?;
    let (code, _, told) = migration.crossfade_any(&START).await?;
    let people = format!("these have rows on the new side: {}.people", migration.schema);
    ensure!(code == Some(1) && told.contains(&people) && told.contains("hint:"), "{code:?}: {told}");
    ensure!(Copies::read(&migration).await?.tables().is_empty(), "it was started all the same");
    let orders = format!("{}.orders", migration.schema);
    migration.crossfade(&[&START[..], &["--table", &orders]].concat()).await?;
    migration.crossfade(&["backfill", "start"]).await?;
    // Without the option, nothing is dropped.
    let copies = Copies::read(&migration).await?;
    ensure!(copies.of(".orders", "indexes_to_build") == 1 && copies.total("indexes_to_build") == 1, "{}", copies.0);
    migration.start(Direction::Forward, &[])?;
    let copies = until_built(&migration).await?;
    ensure!(copies.total("indexes_built") == 1, "{}", copies.0);
    ensure!(indexes(&migration.new, &migration.schema).await? == before, "{flavor:?}: indexes are not as they were");
    migration.stop(Direction::Forward).await?;
    migration.forget();
    Ok(())
}

/// Seconds from the start of the process until a table with four secondary indexes is copied and has them.
async fn copied_within(flavor: Flavor, start: &[&str]) -> Result<f64> {
    let thousands = rounds(4, 300);
    let tables = "[[table]]\nname = \"{schema}.*\"\n".to_owned();
    let mut migration = Migration::new(&Setup { tables, ..Setup::new(flavor, "deferred_gain") }).await?;
    let table = "CREATE TABLE {schema}.wide (id INT PRIMARY KEY, a INT NOT NULL, b INT NOT NULL, c CHAR(32) NOT NULL, v VARCHAR(100) NOT NULL,
        KEY by_a (a), KEY by_b (b, a), KEY by_c (c), KEY by_all (c, b, a))";
    migration.on_both(&[table]).await?;
    let load = format!(
        "INSERT INTO {{schema}}.wide WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 999)
            SELECT id, id * 7919 % 1000003, id * 104729 % 1000003, LEFT(SHA2(id, 256), 32), REPEAT('x', 100)
            FROM (SELECT t.i * 1000 + n.i + 1 AS id FROM n AS t JOIN n WHERE t.i < {thousands}) AS ids"
    );
    migration.on(&migration.old, &["USE {schema}", &load]).await?;
    migration.init().await?;
    let before = indexes(&migration.new, &migration.schema).await?;
    let begun = Instant::now();
    migration.crossfade(start).await?;
    migration.start(Direction::Forward, &[])?;
    let copies = until_built(&migration).await?;
    let took = begun.elapsed().as_secs_f64();
    ensure!(copies.total("filled") == u64::from(thousands) * 1_000, "{}", copies.0);
    ensure!(indexes(&migration.new, &migration.schema).await? == before, "{flavor:?}: indexes are not as they were");
    migration.stop(Direction::Forward).await?;
    migration.on_both(&["DROP TABLE {schema}.wide"]).await?;
    migration.forget();
    Ok(took)
}

/// Prints what `docs/soak.md` keeps.
async fn what_it_gains(flavor: Flavor) -> Result<()> {
    let (mut kept_up, mut deferred) = (Vec::new(), Vec::new());
    for _ in 0..rounds(1, 3) {
        kept_up.push(copied_within(flavor, &START[..2]).await?);
        deferred.push(copied_within(flavor, &START).await?);
    }
    let told = |all: &mut Vec<f64>| {
        all.sort_by(f64::total_cmp);
        format!("{:.1} ({:.1} to {:.1})", all[all.len() / 2], all[0], all[all.len() - 1])
    };
    let (kept_up, deferred) = (told(&mut kept_up), told(&mut deferred));
    println!("| server | indexes kept up, s | deferred, s |\n|---|---|---|\n| {flavor:?} | {kept_up} | {deferred} |");
    Ok(())
}

crossfade_tests::on_both_brands! {
    what_it_gains => what_it_gains,
    killed_at_each_step => killed_at_each_step,
    p10_tables_with_rows_are_refused => tables_with_rows_are_refused,
}
