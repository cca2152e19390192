//! Secondary indexes of empty tables are dropped when that is asked for, and are there again whatever dies meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Flavor, Migration, Setup};
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

crossfade_tests::on_both_brands! {
    killed_at_each_step => killed_at_each_step,
    p10_tables_with_rows_are_refused => tables_with_rows_are_refused,
}
