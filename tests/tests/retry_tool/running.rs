//! While both processes run.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use serde_json::{Value, json};

use crate::{
    count, failed, first, json, narrow, prepared, says, the_failed, those_failed, until_count, until_equal,
    until_failed, widen,
};

/// The line of one column.
fn column<'v>(shown: &'v Value, name: &str) -> &'v Value {
    let lines = shown["columns"].as_array().map_or(&[][..], Vec::as_slice);
    lines.iter().find(|line| line["column"] == name).unwrap_or(&Value::Null)
}

/// Four messages fail, for three causes; they are found, shown and tried, and when the cause is gone they apply.
pub async fn shown_and_tried(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "shown_and_tried").await?;
    migration.start_both().await?;
    narrow(&migration).await?;
    migration
        .on(
            &migration.old,
            &[
                "INSERT INTO {schema}.users (id, email, note) VALUES (1, 'a@x', 'one'), (2, 'b@x', 'two')",
                "INSERT INTO {schema}.users (id, email, note) VALUES (3, 'a@x', 'three')",
                "INSERT INTO {schema}.users (id, email, note) VALUES (4, 'd@x', 'much too long a note')",
                "UPDATE {schema}.users SET n = 40 WHERE id = 4",
                "INSERT INTO {schema}.items (id, user_id) VALUES (1, 99)",
            ],
        )
        .await?;
    until_failed(&migration, 4).await?;

    let (code, all) = json(&migration, &["messages", "list", "--status", "failed", "--json"]).await?;
    ensure!(code == Some(0) && all.as_array().is_some_and(|all| all.len() == 4), "{all}");
    let (unique, parent) = (the_failed(&migration, "1062").await?, the_failed(&migration, "1452").await?);
    let [long, behind] = those_failed(&migration, "1406").await?;
    let items = format!("{}.items", migration.schema);
    let (_, of_items) =
        json(&migration, &["messages", "list", "--status", "failed", "--table", &items, "--json"]).await?;
    ensure!(of_items.as_array().is_some_and(|all| all.len() == 1) && of_items[0]["id"] == *parent, "{of_items}");
    let (_, none) = json(&migration, &["messages", "list", "--error", "1062", "--since", "0s", "--json"]).await?;
    ensure!(none == json!([]), "{none}");
    let told =
        says(&migration, &["messages", "list", "--status", "failed"], 0, &["1062", "1406", "1452", "attempts"]).await?;
    let what = ["Duplicate entry '…' for key", "Data too long for column 'note'"];
    ensure!(what.iter().all(|text| told.contains(text)), "{told}");
    says(&migration, &["messages", "list", "--error", "1062", "--status", "held"], 2, &["hint:"]).await?;

    let (_, shown) = json(&migration, &["messages", "show", &long, "--json"]).await?;
    let note = column(&shown, "note");
    ensure!(
        note["after"] == "much too long a note" && note["old"] == note["after"] && note["new"].is_null(),
        "{shown}"
    );
    ensure!(note["differs"] == true && shown["rows"] == json!({"old": true, "new": false}), "{shown}");
    // The row has gone on at the source.
    ensure!(column(&shown, "n")["after"] == 0 && column(&shown, "n")["old"] == 40, "{shown}");
    ensure!(shown["failure"]["error_code"] == "1406" && shown["on_retry"]["status"] == "applied", "{shown}");
    let text = ["on retry", "still refuses it with error 1406", "much too long a note", "differs", "no such row"];
    says(&migration, &["messages", "show", &long], 0, &text).await?;
    let (_, shown) = json(&migration, &["messages", "show", &unique, "--json"]).await?;
    let taken = &shown["taken"][0];
    ensure!(taken["columns"] == json!(["email"]) && taken["row"]["id"] == 1, "{shown}");
    let (_, shown) = json(&migration, &["messages", "show", &behind, "--json"]).await?;
    ensure!(shown["on_retry"]["waits_behind"] == json!([long]), "{shown}");

    says(&migration, &["retry", "--all", "--dry-run"], 0, &["on retry", "4 messages would be tried"]).await?;
    until_failed(&migration, 4).await?;
    let (code, tried) = json(&migration, &["retry", "--id", &unique, "--json"]).await?;
    ensure!(code == Some(1) && tried["unfinished"] == 1, "{tried}");
    let line = &tried["results"][0];
    ensure!(line["id"] == *unique && line["result"] == "failed" && line["error_code"] == "1062", "{tried}");
    says(&migration, &["retry", "--all"], 1, &["failed", "1406", "4 messages, 4 not done"]).await?;
    says(&migration, &["retry", "--id", "forward/old:999"], 1, &["there is no message", "hint:"]).await?;
    says(&migration, &["retry"], 2, &["--id"]).await?;
    says(&migration, &["retry", "--all", "--id", &unique], 2, &[]).await?;
    says(&migration, &["retry", "--table", &items, "--error", "1062"], 0, &["nothing is set aside"]).await?;
    let strange = format!("{}.no_such_table", migration.schema);
    says(&migration, &["retry", "--table", &strange], 2, &["is not synced", "synced tables:"]).await?;

    // The causes go, one by one.
    migration.on(&migration.old, &["INSERT INTO {schema}.users (id, email) VALUES (99, 'p@x')"]).await?;
    widen(&migration).await?;
    says(&migration, &["retry", "--id", &long, "--id", &behind], 0, &["applied", "0 not done"]).await?;
    until_count(&migration, &migration.new, "{schema}.users WHERE id = 99", 1).await?;
    says(&migration, &["retry", "--id", &parent], 0, &["applied"]).await?;
    migration.on(&migration.new, &["ALTER TABLE {schema}.users DROP KEY email"]).await?;
    let users = format!("{}.users", migration.schema);
    says(&migration, &["retry", "--table", &users, "--error", "1062"], 0, &[]).await?;
    // What has ended by itself meanwhile is as good as done.
    says(&migration, &["retry", "--id", &unique], 0, &["applied"]).await?;
    until_failed(&migration, 0).await?;
    until_equal(&migration).await?;
    ensure!(
        count(&migration, &migration.new, "{schema}.users WHERE n = 40").await? == 1,
        "the later change is missing"
    );
    migration.stop_both().await
}

/// Values are corrected: the target gets them, the source too, and the message stays what it was.
pub async fn corrected(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "corrected").await?;
    migration.start_both().await?;
    narrow(&migration).await?;
    migration
        .on(
            &migration.old,
            &[
                "INSERT INTO {schema}.users (id, email, note) VALUES (1, 'a@x', 'one')",
                "INSERT INTO {schema}.users (id, email, note) VALUES (3, 'a@x', 'three')",
                "INSERT INTO {schema}.users (id, email, note, n) VALUES (4, 'd@x', 'much too long a note', 1)",
                "UPDATE {schema}.users SET n = 40 WHERE id = 4",
            ],
        )
        .await?;
    until_failed(&migration, 3).await?;
    let unique = the_failed(&migration, "1062").await?;
    let [long, behind] = those_failed(&migration, "1406").await?;

    let wrong = [
        "retry",
        "--edit",
        &unique,
        "--set",
        "n=forty",
        "--set",
        "id=9",
        "--set",
        "nope=1",
        "--set",
        "email=NULL",
        "--set",
        "note=x",
        "--set",
        "note=y",
    ];
    let told = ["n: it is an integer", "id: it is part of the key", "nope:", "email: it cannot be NULL", "given twice"];
    says(&migration, &wrong, 2, &told).await?;
    says(&migration, &["retry", "--edit", &unique], 2, &["--set"]).await?;
    says(&migration, &["retry", "--edit", &unique, "--set", "email=a@x"], 2, &["nothing would be different"]).await?;
    until_failed(&migration, 3).await?;

    // Corrected, and still refused: the correction stays with the message.
    let (code, tried) = json(&migration, &["retry", "--edit", &long, "--set", "note=also too long", "--json"]).await?;
    ensure!(code == Some(1) && tried["results"][0]["error_code"] == "1406", "{tried}");
    let (_, shown) = json(&migration, &["messages", "show", &long, "--json"]).await?;
    ensure!(column(&shown, "note")["edited"] == "also too long", "{shown}");
    ensure!(column(&shown, "note")["after"] == "much too long a note", "{shown}");

    let told =
        says(&migration, &["retry", "--edit", &unique, "--set", "email=c@x"], 0, &["applied", "for email"]).await?;
    ensure!(told.contains("which go back to old"), "{told}");
    for pool in [&migration.new, &migration.old] {
        until_count(&migration, pool, "{schema}.users WHERE (id, email, note) = (3, 'c@x', 'three')", 1).await?;
    }
    let (_, shown) = json(&migration, &["messages", "show", &unique, "--json"]).await?;
    ensure!(shown["status"] == "applied" && shown["after_image"]["email"] == "a@x", "{shown}");
    ensure!(shown["edits"][0]["used"] == true && shown["edits"][0]["image"]["email"] == "c@x", "{shown}");
    says(&migration, &["messages", "show", &unique], 0, &["edited", "written", "a@x", "c@x"]).await?;
    // Once it has ended, nothing is to be corrected any more.
    says(&migration, &["retry", "--edit", &unique, "--set", "email=e@x"], 1, &["it had ended before", "1 not done"])
        .await?;

    // The later change of the row has the bad value too, and its own correction.
    let (code, tried) = json(&migration, &["retry", "--edit", &long, "--set", "note=short", "--json"]).await?;
    ensure!(code == Some(0) && tried["results"][0]["result"] == "applied", "{tried}");
    let why = tried["results"][0]["text"].as_str().unwrap_or_default();
    ensure!(why.contains("which do not go back to old: a later change of the row waits"), "{tried}");
    ensure!(failed(&migration, "1406").await? == [behind.clone()], "the later change does not stand by itself");
    says(&migration, &["retry", "--edit", &behind, "--set", "note=NULL", "--set", "n=41"], 0, &["applied"]).await?;
    until_failed(&migration, 0).await?;
    until_equal(&migration).await?;
    let row: Option<(Option<String>, i64)> =
        first(&migration, &migration.old, "SELECT note, n FROM {schema}.users WHERE id = 4").await?;
    ensure!(row == Some((None, 41)), "the source has {row:?}");
    let journal =
        count(&migration, &migration.new, "crossfade.journal WHERE pair = '{pair}' AND kind = 'edit'").await?;
    ensure!(journal == 4, "the journal has {journal} lines of edits");
    migration.stop_both().await
}

/// A message is given up: what waited behind it goes on, and a later change of its row makes the sides equal again.
pub async fn given_up(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "given_up").await?;
    migration.start_both().await?;
    narrow(&migration).await?;
    migration
        .on(
            &migration.old,
            &[
                "INSERT INTO {schema}.users (id, email) VALUES (1, 'a@x')",
                "INSERT INTO {schema}.items (id, user_id, note) VALUES (7, 1, 'much too long a note')",
                // It ends the row that the one before refers to.
                "DELETE FROM {schema}.users WHERE id = 1",
                "INSERT INTO {schema}.items (id, user_id) VALUES (1, 98), (2, 98)",
            ],
        )
        .await?;
    until_failed(&migration, 4).await?;
    let (long, behind) = (the_failed(&migration, "1406").await?, the_failed(&migration, "behind").await?);
    let (_, shown) = json(&migration, &["messages", "show", &behind, "--json"]).await?;
    ensure!(shown["on_retry"]["waits_behind"] == json!([long]), "{shown}");
    let items = format!("{}.items", migration.schema);
    says(&migration, &["discard", "--id", &long], 2, &["--reason"]).await?;
    let orphans = ["discard", "--error", "1452", "--table", &items, "--reason", "of nobody"];
    says(&migration, &orphans, 2, &["would discard 2", "--yes"]).await?;
    until_failed(&migration, 4).await?;

    let told = ["discarded", "the sides differ in its row"];
    says(&migration, &["discard", "--id", &long, "--reason", "entered twice"], 0, &told).await?;
    let users = count(&migration, &migration.new, "{schema}.users").await?;
    ensure!(users == 0, "what waited behind the discarded change was not applied");
    says(&migration, &["messages", "list", "--status", "discarded"], 0, &[&long, "entered twice"]).await?;
    says(&migration, &["discard", "--id", &long, "--reason", "again"], 0, &["discarded"]).await?;
    let (code, given_up) = json(&migration, &[&orphans[..], &["--yes", "--json"]].concat()).await?;
    ensure!(code == Some(0) && given_up["results"].as_array().is_some_and(|all| all.len() == 2), "{given_up}");
    ensure!(given_up["results"][0]["sides_differ"] == true, "{given_up}");
    until_failed(&migration, 0).await?;
    let line = "crossfade.journal WHERE pair = '{pair}' AND kind = 'discard' AND text LIKE '%entered twice'";
    let journal = count(&migration, &migration.new, line).await?;
    ensure!(journal == 1, "the journal has {journal} lines");

    // Restarted, nothing of it comes back.
    widen(&migration).await?;
    migration.stop(crossfade_tests::Direction::Forward).await?;
    migration.start(crossfade_tests::Direction::Forward, &[])?;
    migration
        .on(
            &migration.old,
            &[
                "INSERT INTO {schema}.users (id, email) VALUES (98, 'p@x')",
                "UPDATE {schema}.items SET user_id = 98, note = 'once more'",
            ],
        )
        .await?;
    until_equal(&migration).await?;
    ensure!(count(&migration, &migration.new, "{schema}.items").await? == 3, "items are missing");
    migration.stop_both().await
}
