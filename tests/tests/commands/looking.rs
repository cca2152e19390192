//! `check`, `init`, `status`, `messages`: what they show, and that looking twice changes nothing.

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_tests::{Migration, Setup};
use serde_json::Value;

use crate::{create_table, insert, json, says};

fn codes(report: &Value, severity: &str) -> Vec<String> {
    let findings = report["findings"].as_array().map_or(&[][..], Vec::as_slice);
    findings
        .iter()
        .filter(|finding| finding["severity"] == severity)
        .map(|finding| finding["code"].as_str().unwrap_or_default().to_owned())
        .collect()
}

async fn check_finds_what_is_broken(flavor: Flavor) -> Result<()> {
    let migration = Migration::new(&Setup::new(flavor, "check")).await?;
    create_table(&migration).await?;
    let (code, report) = json(&migration, &["check", "--json"]).await?;
    ensure!(code == Some(0) && codes(&report, "error").is_empty(), "a healthy pair has errors: {report}");
    migration.init().await?;
    let (code, report) = json(&migration, &["check", "--json"]).await?;
    ensure!(code == Some(0) && codes(&report, "error").is_empty(), "after init there are errors: {report}");

    migration
        .on(&migration.old, &["CREATE TABLE {schema}.lonely (id INT PRIMARY KEY, updated_at TIMESTAMP(6) NULL)"])
        .await?;
    migration
        .on_both(&[
            "CREATE TABLE {schema}.keyless (id INT, updated_at TIMESTAMP(6) NULL)",
            "CREATE TABLE {schema}.clockless (id INT PRIMARY KEY)",
            "CREATE TABLE {schema}.engine (id INT PRIMARY KEY, updated_at TIMESTAMP(6) NULL) ENGINE = MyISAM",
        ])
        .await?;
    let (code, report) = json(&migration, &["check", "--json"]).await?;
    let errors = codes(&report, "error");
    ensure!(code == Some(1), "a broken pair ends with {code:?}: {report}");
    for subject in ["lonely", "keyless", "clockless", "engine"] {
        let findings = report["findings"].as_array().context("no list of findings")?;
        let named = |finding: &&Value| {
            finding["severity"] == "error" && finding["subject"].as_str().is_some_and(|name| name.contains(subject))
        };
        let finding = findings.iter().find(named).with_context(|| format!("{subject} was not found: {report}"))?;
        for field in ["message", "remedy", "code"] {
            ensure!(finding[field].as_str().is_some_and(|text| !text.is_empty()), "no {field}: {finding}");
        }
    }
    let told = says(&migration, &["check"], 1, &["ERROR", "errors,", "lonely", "keyless"]).await?;
    println!("{flavor:?}: check finds {errors:?}, {} lines for people", told.lines().count());
    migration.forget();
    Ok(())
}

async fn init_can_be_repeated(flavor: Flavor) -> Result<()> {
    let migration = Migration::new(&Setup::new(flavor, "init")).await?;
    create_table(&migration).await?;
    let (code, first) = json(&migration, &["init", "--json"]).await?;
    ensure!(code == Some(0) && first["mark_taken"] == true && first["tables"] == 1, "{first}");
    // What is written between the two belongs to the migration.
    insert(&migration, &migration.old, 1..4).await?;
    let (code, second) = json(&migration, &["init", "--json"]).await?;
    ensure!(code == Some(0) && second["mark_taken"] == false, "{second}");
    for side in ["old_position", "new_position"] {
        ensure!(first[side] == second[side] && first[side].is_string(), "the mark moved: {first} {second}");
    }
    says(&migration, &["init"], 0, &["taken before", "next:"]).await?;
    migration.crossfade(&["sync", "forward", "--until-caught-up"]).await?;
    let comparison = migration.compare().await?;
    ensure!(comparison.is_equal() && comparison.rows_compared() == 3, "{comparison}");
    migration.forget();
    Ok(())
}

async fn messages_are_shown(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "messages")).await?;
    create_table(&migration).await?;
    migration.init().await?;
    migration.start_both().await?;
    insert(&migration, &migration.old, 1..11).await?;
    migration.until_quiet_and_equal(crate::LIMIT).await?;
    migration.on(&migration.new, &["UPDATE {schema}.users SET v = 'changed' WHERE id = 5"]).await?;
    migration.until_quiet_and_equal(crate::LIMIT).await?;
    migration.on(&migration.old, &["DELETE FROM {schema}.users WHERE id = 5"]).await?;
    migration.until_quiet_and_equal(crate::LIMIT).await?;
    let table = format!("{}.users", migration.schema);

    let (_, all) = json(&migration, &["messages", "list", "--json"]).await?;
    let all = all.as_array().context("no list")?;
    ensure!(all.len() == 12 && all[0]["op"] == "delete", "the newest comes first: {all:?}");
    ensure!(all.iter().all(|message| message["status"] == "applied" && message["origin"] == "user"), "{all:?}");
    let filters: [(&[&str], usize); 8] = [
        (&["--stream", "reverse/new"], 1),
        (&["--stream", "forward/old", "--limit", "3"], 3),
        (&["--table", &table], 12),
        (&["--status", "pending"], 0),
        (&["--conflicts"], 0),
        (&["--conflicts", "--status", "stale"], 0),
        (&["--table", &table, "--status", "failed"], 0),
        (&["--since", "1h", "--status", "applied"], 12),
    ];
    for (filter, count) in filters {
        let words = [&["messages", "list", "--json"], filter].concat();
        let (code, found) = json(&migration, &words).await?;
        ensure!(code == Some(0) && found.as_array().is_some_and(|list| list.len() == count), "{filter:?}: {found}");
    }
    says(&migration, &["messages", "list", "--conflicts", "--status", "applied"], 2, &["applied", "hint:"]).await?;
    for more in [&[][..], &["--status", "failed"]] {
        let words = [&["messages", "list", "--table", "no.table"], more].concat();
        says(&migration, &words, 2, &["no.table is not synced", "hint: synced tables:", &table]).await?;
    }
    says(&migration, &["messages", "list", "--limit", "2"], 0, &["forward/old:11", "reverse/new:1", "delete", &table])
        .await?;

    let (_, shown) = json(&migration, &["messages", "show", "reverse/new:1", "--json"]).await?;
    ensure!(shown["before_image"]["v"] == "row 5" && shown["after_image"]["v"] == "changed", "{shown}");
    ensure!(shown["row_key"]["id"] == 5 && shown["op"] == "update", "{shown}");
    says(&migration, &["messages", "show", "reverse/new:1"], 0, &["changed", "row 5", "update", "applied"]).await?;
    says(&migration, &["messages", "show", "forward/old:999"], 1, &["no message", "hint:"]).await?;

    let (_, life) = json(&migration, &["messages", "history", &table, "5", "--json"]).await?;
    let ops: Vec<&str> = life.as_array().into_iter().flatten().filter_map(|message| message["op"].as_str()).collect();
    ensure!(ops == ["insert", "update", "delete"], "the life of a row is told in order: {life}");
    says(&migration, &["messages", "history", &table, "5"], 0, &["insert", "update", "delete"]).await?;
    says(&migration, &["messages", "history", &table, "5", "6"], 2, &["the key of", "hint:"]).await?;
    says(&migration, &["messages", "history", "no.table", "5"], 2, &["is not synced", "hint:"]).await?;

    let (code, purged) = json(&migration, &["messages", "purge", "--dry-run", "--json"]).await?;
    ensure!(code == Some(0) && purged["dropped"].as_array().is_some_and(Vec::is_empty), "{purged}");
    says(&migration, &["messages", "purge"], 0, &["dropped 0 days"]).await?;
    says(&migration, &["status"], 0, &["forward/old", "reverse/new", "running", "store:"]).await?;
    migration.stop_both().await
}

#[tokio::test]
async fn looking_on_mysql() -> Result<()> {
    looking(Flavor::MySql).await
}

#[tokio::test]
async fn looking_on_mariadb() -> Result<()> {
    looking(Flavor::MariaDb).await
}

async fn looking(flavor: Flavor) -> Result<()> {
    tokio::try_join!(check_finds_what_is_broken(flavor), init_can_be_repeated(flavor), messages_are_shown(flavor))
        .map(drop)
}
