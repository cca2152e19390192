//! Whoever carries a request out is killed in the middle of it.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_tests::{Direction, Migration};

use crate::{count, json, prepared, says, the_failed, tool, until_count, until_equal, until_failed, until_status};

/// What the new side says of a note that is too long; processes start all the same.
async fn limited(migration: &Migration, flavor: Flavor) -> Result<&'static str> {
    let check = "ALTER TABLE {schema}.users ADD CONSTRAINT short CHECK (CHAR_LENGTH(note) <= 10)";
    migration.on(&migration.new, &[check]).await?;
    // ER_CHECK_CONSTRAINT_VIOLATED, ER_CONSTRAINT_FAILED
    Ok(if flavor == Flavor::MySql { "3819" } else { "4025" })
}

/// Reverse messages: what was corrected goes back once.
async fn returned(migration: &Migration) -> Result<u64> {
    Ok(migration.status().read().await?.number("reverse", "last_seq"))
}

async fn until_returned(migration: &Migration, count: u64) -> Result<()> {
    until_status(migration, "corrections went back", |status| status.number("reverse", "last_seq") == count).await
}

/// The process dies with the request begun, and with it carried out and not told. The tool goes on.
pub async fn process(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "killed_process").await?;
    let too_long = limited(&migration, flavor).await?;
    migration.start_both().await?;
    let statements = [
        "INSERT INTO {schema}.users (id, email) VALUES (1, 'a@x')",
        "INSERT INTO {schema}.users (id, email, n) VALUES (3, 'a@x', 1)",
        "INSERT INTO {schema}.users (id, email, note) VALUES (4, 'd@x', 'much too long a note')",
    ];
    migration.on(&migration.old, &statements).await?;
    until_failed(&migration, 2).await?;
    let (unique, long) = (the_failed(&migration, "1062").await?, the_failed(&migration, too_long).await?);

    let mut before = returned(&migration).await?;
    for (point, id, set) in [("request-begun", &unique, "email=c@x"), ("request-tried", &long, "note=short")] {
        migration.stop(Direction::Forward).await?;
        migration.start(Direction::Forward, &[("CROSSFADE_FAILPOINT", point)])?;
        migration.status().until_running(crate::LIMIT).await?;
        says(&migration, &["retry", "--edit", id, "--set", set], 0, &["applied"]).await?;
        let status = migration.process(Direction::Forward)?.wait(crate::LIMIT).await?;
        ensure!(!status.success(), "the process has not died at {point}");
        migration.start(Direction::Forward, &[])?;
        migration.status().until_running(crate::LIMIT).await?;
        until_returned(&migration, before + 1).await?;
        before += 1;
    }
    let users = "{schema}.users WHERE (id, email) = (3, 'c@x') OR (id, note) = (4, 'short')";
    for pool in [&migration.old, &migration.new] {
        until_count(&migration, pool, users, 2).await?;
    }
    let (_, shown) = json(&migration, &["messages", "show", &unique, "--json"]).await?;
    ensure!(shown["edits"].as_array().is_some_and(|edits| edits.len() == 1), "{shown}");
    until_equal(&migration).await?;
    ensure!(returned(&migration).await? == before, "a correction went back twice");
    migration.stop_both().await
}

/// The tool dies while it holds the lease; another one, or the process, finishes what it had begun.
pub async fn the_tool(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "killed_tool").await?;
    let too_long = limited(&migration, flavor).await?;
    migration.start_both().await?;
    let statements = [
        "INSERT INTO {schema}.users (id, email) VALUES (1, 'a@x')",
        "INSERT INTO {schema}.users (id, email, n) VALUES (3, 'a@x', 1)",
        "INSERT INTO {schema}.users (id, email, note) VALUES (4, 'd@x', 'much too long a note')",
        "INSERT INTO {schema}.items (id, user_id) VALUES (1, 98)",
    ];
    migration.on(&migration.old, &statements).await?;
    until_failed(&migration, 3).await?;
    let (unique, long) = (the_failed(&migration, "1062").await?, the_failed(&migration, too_long).await?);
    let parent = the_failed(&migration, "1452").await?;
    migration.stop(Direction::Forward).await?;
    let open = "crossfade.request WHERE pair = '{pair}' AND ended_at IS NULL";

    let dies = async |point: &str, words: &[&str]| -> Result<()> {
        let (code, told) = tool(&migration, words, &[("CROSSFADE_FAILPOINT", point)]).await?;
        ensure!(code.is_none(), "{words:?} has not died at {point}, but ended with {code:?}: {told}");
        let left = count(&migration, &migration.new, open).await?;
        ensure!(left == 1, "{left} requests are open after {point}");
        Ok(())
    };
    dies("mid-lane", &["retry", "--edit", &unique, "--set", "email=c@x"]).await?;
    ensure!(
        count(&migration, &migration.new, "{schema}.users WHERE id = 3").await? == 0,
        "half a request was committed"
    );
    // Another tool finishes it beside its own.
    says(&migration, &["retry", "--id", &unique], 0, &["applied"]).await?;
    ensure!(count(&migration, &migration.new, open).await? == 0, "the first request is still open");
    dies("request-tried", &["retry", "--edit", &long, "--set", "note=short"]).await?;
    ensure!(
        count(&migration, &migration.new, "{schema}.users WHERE note = 'short'").await? == 1,
        "nothing was committed"
    );
    // What it has committed is not written again.
    says(&migration, &["retry", "--id", &long], 0, &["applied"]).await?;
    dies("discarded", &["discard", "--id", &parent, "--reason", "of nobody"]).await?;

    migration.start(Direction::Forward, &[])?;
    until_failed(&migration, 0).await?;
    until_count(&migration, &migration.new, open, 0).await?;
    for (kind, lines) in [("discard", 1), ("edit", 2)] {
        let journal = format!("crossfade.journal WHERE pair = '{{pair}}' AND kind = '{kind}'");
        let found = count(&migration, &migration.new, &journal).await?;
        ensure!(found == lines, "the journal has {found} lines of {kind}");
    }
    migration.crossfade(&["status", "--wait", "60s"]).await?;
    ensure!(returned(&migration).await? == 2, "{} corrections went back", returned(&migration).await?);
    migration
        .on(
            &migration.old,
            &[
                "INSERT INTO {schema}.users (id, email) VALUES (98, 'p@x')",
                "UPDATE {schema}.items SET updated_at = NOW(6) WHERE id = 1",
            ],
        )
        .await?;
    until_equal(&migration).await?;
    migration.stop_both().await
}
