//! What the commands show and refuse.

use anyhow::{Result, ensure};
use crossfade_tests::{Direction, Flavor, Migration, Setup, json, on_both_brands, says};

use crate::stage::{LIMIT, counts, entity, number, on_new, setup, staged, states};

async fn everything_can_be_looked_at_before_and_after(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "commands", "per_second = 1000"), 40).await?;
    let m = &migration;
    says(m, &["entity", "list"], 0, &["no entity is known"]).await?;
    says(m, &["entity", "show", "1"], 1, &["nothing is known of user 1", "crossfade entity add"]).await?;
    let added = entity(m, &["add", "--where", "country = 'DE'", "--limit", "5", "--dry-run"], 0).await?;
    ensure!(added["found"] == 5 && added["added"] == 0 && counts(m).await?.is_empty(), "{added:#}");
    let added = entity(m, &["add", "--where", "country = 'DE'", "--limit", "5"], 0).await?;
    ensure!(added["added"] == 5, "{added:#}");
    let added = entity(m, &["add", "3", "999"], 0).await?;
    ensure!(added["found"] == 1 && added["added"] == 1 && added["without_row"][0] == "999", "{added:#}");
    ensure!(states(m).await? == "5 eligible, 1 identified");
    let added = entity(m, &["add", "--all"], 0).await?;
    ensure!(added["found"] == 40 && added["added"] == 35, "{added:#}");

    // What would be moved, by each way of asking.
    for (words, wanted) in [
        (&["move", "1", "2", "999"][..], 2),
        (&["move", "--percent", "10%"], 4),
        (&["move", "--limit", "7"], 7),
        (&["move", "--all"], 40),
        (&["move", "--where", "country = 'DE'"], 13),
        (&["return", "--all"], 0),
    ] {
        let words: Vec<&str> = words.iter().copied().chain(["--dry-run"]).collect();
        let plan = entity(m, &words, 0).await?;
        ensure!(plan["entities"] == wanted, "{words:?}: {plan:#}");
    }
    ensure!(on_new(m).await?.is_empty());
    entity(m, &["move", "--percent", "10%"], 0).await?;
    ensure!(on_new(m).await?.len() == 4);
    let again = entity(m, &["move", "--percent", "10%"], 0).await?;
    ensure!(number(&again, "moved")? == 0 && on_new(m).await?.len() == 4, "10 % are there: {again:#}");
    entity(m, &["move", "--limit", "6"], 0).await?;
    ensure!(on_new(m).await?.len() == 10);
    let told = says(m, &["entity", "return", "--limit", "1"], 0, &["1 returned", "the pause was"]).await?;
    ensure!(!told.contains("error"), "{told}");
    let listed = entity(m, &["list", "--state", "moved", "--limit", "3"], 0).await?;
    ensure!(listed["entities"].as_array().is_some_and(|all| all.len() == 3) && listed["on_new"] == 9, "{listed:#}");
    says(m, &["entity", "list", "--limit", "2"], 0, &["on old", "9 on new"]).await?;

    // What makes no sense is told before anything is done.
    says(m, &["entity", "move"], 2, &["required"]).await?;
    says(m, &["entity", "move", "--where", "no_such_column = 1"], 1, &["users cannot be read", "--where"]).await?;
    says(m, &["entity", "list", "--state", "gone"], 2, &["identified, eligible"]).await?;

    // Gates.
    says(m, &["cutover", "--dry-run"], 1, &["entities", "this moves none", "`crossfade entity move --rest`"]).await?;
    m.rest(&[Direction::Forward]).await?;
    let told = ["forward runs", "`crossfade start forward`", "nothing was moved"];
    says(m, &["entity", "move", "--all"], 1, &told).await?;
    let (code, plan) = json(m, &["entity", "move", "--all", "--dry-run", "--json"]).await?;
    ensure!(code == Some(1) && plan["entities"] == 31, "{plan:#}");
    m.go_on(&[Direction::Forward]).await?;
    entity(m, &["return", "--all"], 0).await?;
    m.crossfade(&["flag", "set", "old_only"]).await?;
    says(m, &["entity", "move", "--all"], 1, &["old_only", "`crossfade flag set write_both`"]).await?;
    m.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// What was left behind and is wanted no more, rests where it is.
async fn what_was_asked_for_can_be_withdrawn(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "withdrawn", "batch = 2"), 6).await?;
    entity(&migration, &["add", "--all"], 0).await?;
    let kill = [("CROSSFADE_FAILPOINT", "entity-lifted")];
    let (code, output) = migration.crossfade_with(&["entity", "move", "--all"], &kill).await?;
    ensure!(code.is_none(), "{code:?}: {output}");
    ensure!(states(&migration).await? == "2 moved, 4 requested");
    let told = entity(&migration, &["move", "--withdraw"], 0).await?;
    ensure!(told["withdrawn"] == 4 && states(&migration).await? == "4 eligible, 2 moved", "{told:#}");
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

async fn without_entities_that_is_told(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "none")).await?;
    migration.on_both(&["CREATE TABLE {schema}.t (id INT PRIMARY KEY, updated_at TIMESTAMP(6) NULL)"]).await?;
    migration.init().await?;
    migration.start_both().await?;
    says(&migration, &["entity", "list"], 2, &["nothing says what an entity is", "[entity]"]).await?;
    migration.stop_both().await
}

on_both_brands! {
    everything_can_be_looked_at => everything_can_be_looked_at_before_and_after,
    what_was_asked_for_can_be_withdrawn => what_was_asked_for_can_be_withdrawn,
    without_entities_that_is_told => without_entities_that_is_told,
}
