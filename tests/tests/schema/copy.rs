//! The new side gets the tables that it lacks, whole and under its own names; what is there is not touched.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_testkit::process;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Flavor, Migration, Setup, binary};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

use crate::{TABLES, in_schema, json, says};

const LIMIT: Duration = Duration::from_secs(90);
const COPY: [&str; 3] = ["schema", "copy", "--yes"];
const EQUAL: [&str; 4] = ["schema", "diff", "--only", "tables"];

async fn on_old(setup: &Setup) -> Result<Migration> {
    let migration = Migration::new(setup).await?;
    migration.on(&migration.old, &in_schema(&TABLES)).await?;
    Ok(migration)
}

async fn tables(pool: &Pool, schema: &str) -> Result<Vec<String>> {
    let asked = "SELECT table_name FROM information_schema.tables WHERE table_schema = ? ORDER BY table_name";
    Ok(pool.get_conn().await?.exec(asked, (schema,)).await?)
}

async fn an_empty_side_gets_its_tables(flavor: Flavor) -> Result<()> {
    let tables_without_clock = "[[table]]\nname = \"{schema}.*\"\n".to_owned();
    let setup = Setup { tables: tables_without_clock, ..Setup::new(flavor, "copy_all") };
    let mut migration = on_old(&setup).await?;
    let schema = migration.schema.clone();
    let shown =
        says(&migration, &["schema", "copy", "--dry-run"], 0, &["CREATE TABLE", "foreign_key_checks = 0", "PARTITION"])
            .await?;
    ensure!(tables(&migration.new, &schema).await?.is_empty(), "a dry run has created something");
    // Nobody can be asked here.
    says(&migration, &["schema", "copy"], 2, &["CREATE TABLE", "--yes"]).await?;
    ensure!(tables(&migration.new, &schema).await?.is_empty(), "created without being told to");
    says(&migration, &COPY, 0, &["4 tables created"]).await?;
    says(&migration, &EQUAL, 0, &["no difference"]).await?;
    says(&migration, &COPY, 0, &["nothing is missing"]).await?;
    println!("{flavor:?}:\n{shown}");

    // Keys that the new side hands out are beyond those that are yet to be copied.
    let next = format!(
        "SELECT auto_increment FROM information_schema.tables WHERE table_schema = '{schema}' AND table_name = 'people'"
    );
    let next: u64 = migration.new.get_conn().await?.query_first(next).await?.context("a next value")?;
    ensure!(next > 5000, "the new side would hand out {next}");

    // The pair works with them.
    migration.init().await?;
    migration.start_both().await?;
    migration.crossfade(&["backfill", "start"]).await?;
    let insert = "INSERT INTO people (id, mail, `odd, ``name)`) VALUES (6000, 'ü@x', 'it''s')";
    migration
        .on(
            &migration.old,
            &in_schema(&[insert, "INSERT INTO teams VALUES (1, 6000, 1)", "UPDATE people SET team_id = 1"]),
        )
        .await?;
    until("all rows on the new side", LIMIT, || async {
        let asked = format!("SELECT COUNT(*) FROM `{schema}`.people WHERE team_id = 1");
        let rows: Option<u64> = migration.new.get_conn().await?.query_first(asked).await?;
        Ok(if rows == Some(2) { Progress::Reached(()) } else { Progress::NotYet(format!("{rows:?}")) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// A table that is added to a running migration: what creates it is in the binlog that the reverse reader reads.
async fn p3_streams_are_not_disturbed(flavor: Flavor) -> Result<()> {
    let setup = Setup::new(flavor, "copy_running");
    let clock = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";
    let mut migration = Migration::new(&setup).await?;
    let create = |table: &str| format!("CREATE TABLE {{schema}}.{table} (id INT PRIMARY KEY, v VARCHAR(40), {clock})");
    migration.on_both(&[&create("first")]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &[&create("second"), "INSERT INTO {schema}.second (id) VALUES (1)"]).await?;
    let table = format!("{}.second", migration.schema);
    let named = [&COPY[..], &["--table", &table]].concat();
    says(&migration, &named, 0, &["1 table created"]).await?;
    says(&migration, &named, 0, &["nothing is missing"]).await?;
    // Whoever runs goes on with what he knew, and whoever starts knows the new table; and reads what created it, too.
    migration.on(&migration.new, &["INSERT INTO {schema}.first (id) VALUES (7)"]).await?;
    migration.status().until_quiet(LIMIT).await.with_context(|| migration.log_ends())?;
    migration.stop_both().await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.crossfade(&["backfill", "start"]).await?;
    migration.on(&migration.new, &["INSERT INTO {schema}.second (id) VALUES (2)"]).await?;
    until("both rows on both sides", LIMIT, || async {
        let asked = format!("SELECT COUNT(*) FROM `{}`.second", migration.schema);
        let mut counts = Vec::new();
        for pool in [&migration.old, &migration.new] {
            counts.push(pool.get_conn().await?.query_first::<u64, _>(&asked).await?);
        }
        Ok(if counts == [Some(2), Some(2)] { Progress::Reached(()) } else { Progress::NotYet(format!("{counts:?}")) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(status.number("reverse", "captured") == 2, "two rows of users, and nothing else: {}", status.0);
    migration.stop_both().await
}

async fn names_of_the_mapping_count(flavor: Flavor) -> Result<()> {
    let tables_mapped = "[[table]]\nold = \"{schema}.people\"\nnew = \"{schema}_shop.humans\"\ncolumns = { mail = \"email\", team_id = \"crew\" }\n\
                         [[table]]\nold = \"{schema}.teams\"\nnew = \"{schema}_shop.crews\"\ncolumns = { id = \"crew_id\" }\n\
                         [[table]]\nold = \"{schema}.*\"\nnew = \"{schema}_shop.*\"\n";
    let setup = Setup { tables: tables_mapped.to_owned(), ..Setup::new(flavor, "copy_mapped") };
    let migration = on_old(&setup).await?;
    let shop = format!("{}_shop", migration.schema);
    let told = says(&migration, &[&COPY[..], &["--json"]].concat(), 0, &["\"created\": true", "CREATE SCHEMA"]).await?;
    ensure!(tables(&migration.new, &shop).await? == ["badges", "crews", "events", "humans"], "{told}");
    says(&migration, &EQUAL, 0, &["no difference"]).await?;
    let asked =
        "SELECT CONCAT_WS(' ', column_name, referenced_table_schema, referenced_table_name, referenced_column_name)
        FROM information_schema.key_column_usage WHERE table_schema = ? AND constraint_name = 'person_team'";
    let key: Option<String> = migration.new.get_conn().await?.exec_first(asked, (shop.as_str(),)).await?;
    ensure!(key == Some(format!("crew {shop} crews crew_id")), "{key:?}");
    // The mapping takes it.
    migration.init().await?;
    migration.forget();
    Ok(())
}

async fn p10_what_is_there_is_not_touched(flavor: Flavor) -> Result<()> {
    let migration = on_old(&Setup::new(flavor, "copy_refused")).await?;
    let schema = migration.schema.clone();
    migration.on(&migration.new, &in_schema(&["CREATE TABLE events (id INT PRIMARY KEY)"])).await?;
    says(&migration, &COPY, 1, &["nothing was created", &format!("{schema}.events"), "differs", "column", "hint:"])
        .await?;
    ensure!(tables(&migration.new, &schema).await? == ["events"], "{flavor:?}: something was created");
    migration
        .on(
            &migration.new,
            &in_schema(&["DROP TABLE events", TABLES[3], "INSERT INTO events (id, day) VALUES (1, '2021-01-01')"]),
        )
        .await?;
    says(&migration, &COPY, 1, &["has rows", "--table"]).await?;
    migration.on(&migration.new, &in_schema(&["DELETE FROM events", "CREATE VIEW people AS SELECT 1 AS id"])).await?;
    says(&migration, &COPY, 1, &[&format!("{schema}.people exists on the new side and is a view"), "badge_person"])
        .await?;
    migration.on(&migration.new, &in_schema(&["DROP VIEW people"])).await?;
    // A parent that is not there and does not come.
    let badges = format!("{schema}.badges");
    says(&migration, &[&COPY[..], &["--table", &badges]].concat(), 1, &["badge_person", "not on the new side"]).await?;
    // What a server cannot print, nobody can copy.
    let unprinted = "CREATE TABLE marks (id INT PRIMARY KEY, e ENUM('\u{1f980}', 'b') CHARACTER SET utf8mb4)";
    migration.on(&migration.old, &in_schema(&[unprinted])).await?;
    says(&migration, &[&COPY[..], &["--table", &format!("{schema}.marks")]].concat(), 1, &["U+FFFF", "by hand"])
        .await?;
    ensure!(tables(&migration.new, &schema).await? == ["events"], "{flavor:?}: something was created");
    migration.forget();
    Ok(())
}

async fn a_kill_between_two_tables_is_made_good(flavor: Flavor) -> Result<()> {
    let migration = on_old(&Setup::new(flavor, "copy_killed")).await?;
    let schema = migration.schema.clone();
    for there in 1..=3 {
        let arguments = ["--config".to_owned(), migration.config().display().to_string()];
        let arguments: Vec<String> = arguments.into_iter().chain(COPY.map(str::to_owned)).collect();
        let point = [("CROSSFADE_FAILPOINT", "table-created")];
        let (code, _, errors) = process::run_any(&binary(), &arguments, &point, LIMIT).await?;
        ensure!(code.is_none(), "it was not killed: {code:?} {errors}");
        ensure!(tables(&migration.new, &schema).await?.len() == there, "{flavor:?}: {errors}");
    }
    let (code, told) = json(&migration, &[&COPY[..], &["--json"]].concat()).await?;
    ensure!(code == Some(0) && told["tables"].as_array().map_or(0, Vec::len) == 1, "{told:#}");
    ensure!(told["present"].as_array().map_or(0, Vec::len) == 3, "{told:#}");
    says(&migration, &EQUAL, 0, &["no difference"]).await?;
    migration.forget();
    Ok(())
}

crossfade_tests::on_both_brands! {
    an_empty_side_gets_its_tables => an_empty_side_gets_its_tables,
    p3_streams_are_not_disturbed => p3_streams_are_not_disturbed,
    names_of_the_mapping_count => names_of_the_mapping_count,
    p10_what_is_there_is_not_touched => p10_what_is_there_is_not_touched,
    a_kill_between_two_tables_is_made_good => a_kill_between_two_tables_is_made_good,
}
