//! While no process holds the lease of the direction.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::process::Process;
use crossfade_tests::{Direction, Migration, binary};
use serde_json::json;

use crate::{count, json, narrow, prepared, says, the_failed, tool, until_count, until_equal, until_failed, widen};

/// The process hangs, so the tool waits; interrupted, it takes its request back.
async fn interrupted(migration: &mut Migration, id: &str) -> Result<()> {
    let requests = "crossfade.request WHERE pair = '{pair}'";
    migration.process(Direction::Forward)?.pause()?;
    let config = migration.config().to_string_lossy().into_owned();
    let log = migration.folder.join("tool.log.txt");
    let mut waiting = Process::start(&binary(), &["--config", &config, "retry", "--id", id], &[], &log)?;
    until_count(migration, &migration.new, requests, 1).await?;
    waiting.terminate()?;
    let status = waiting.wait(crate::LIMIT).await?;
    migration.process(Direction::Forward)?.resume()?;
    let told = waiting.log_end();
    ensure!(status.code() == Some(1) && told.contains("1 taken back"), "{status}: {told}");
    ensure!(count(migration, &migration.new, requests).await? == 0, "the request is still there");
    Ok(())
}

/// The tool takes the lease itself: it tries, corrects and gives up; two of them do not get in each other's way; and what
/// nobody can judge without the other direction stays set aside.
pub async fn without_processes(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "without").await?;
    migration.start_both().await?;
    narrow(&migration).await?;
    migration
        .on(
            &migration.old,
            &[
                "INSERT INTO {schema}.users (id, email, note) VALUES (1, 'a@x', 'one')",
                "INSERT INTO {schema}.users (id, email, note) VALUES (3, 'a@x', 'three')",
                "INSERT INTO {schema}.users (id, email, note) VALUES (4, 'd@x', 'much too long a note')",
                "INSERT INTO {schema}.users (id, email, note) VALUES (5, 'e@x', 'too long as well')",
                "INSERT INTO {schema}.items (id, user_id) VALUES (1, 99)",
            ],
        )
        .await?;
    until_failed(&migration, 4).await?;
    let (unique, parent) = (the_failed(&migration, "1062").await?, the_failed(&migration, "1452").await?);
    interrupted(&mut migration, &unique).await?;
    migration.stop(Direction::Forward).await?;

    // Two at once: each is told of all.
    let both = tokio::join!(
        tool(&migration, &["retry", "--all"], &[]),
        tool(&migration, &["retry", "--all"], &[("CROSSFADE_LOG", "warn")])
    );
    for told in [both.0?, both.1?] {
        ensure!(told.0 == Some(1) && told.1.contains("4 messages, 4 not done"), "{told:?}");
    }
    widen(&migration).await?;
    let (code, tried) = json(&migration, &["retry", "--error", "1406", "--json"]).await?;
    ensure!(code == Some(0) && tried["unfinished"] == 0, "{tried}");
    ensure!(count(&migration, &migration.new, "{schema}.users WHERE id IN (4, 5)").await? == 2, "{tried}");
    says(&migration, &["retry", "--edit", &unique, "--set", "email=c@x"], 0, &["applied"]).await?;
    ensure!(count(&migration, &migration.new, "{schema}.users WHERE email = 'c@x'").await? == 1, "no corrected row");
    says(&migration, &["discard", "--id", &parent, "--reason", "of nobody"], 0, &["discarded"]).await?;
    let open =
        count(&migration, &migration.new, "crossfade.request WHERE pair = '{pair}' AND ended_at IS NULL").await?;
    ensure!(open == 0, "{open} requests are open");

    // Nothing is applied behind the back of a person who has stopped the direction.
    migration.start(Direction::Forward, &[])?;
    migration.on(&migration.old, &["INSERT INTO {schema}.users (id, email) VALUES (6, 'c@x')"]).await?;
    until_failed(&migration, 1).await?;
    let taken = the_failed(&migration, "1062").await?;
    migration.crossfade(&["stop", "forward"]).await?;
    says(&migration, &["retry", "--id", &taken], 1, &["forward rests", "crossfade start forward"]).await?;
    migration.crossfade(&["start", "forward"]).await?;

    // Without the other direction nobody can tell what users of new did.
    migration.stop_both().await?;
    migration.on(&migration.new, &["UPDATE {schema}.users SET email = 'cc@x' WHERE id = 3"]).await?;
    let (_, shown) = json(&migration, &["messages", "show", &taken, "--json"]).await?;
    ensure!(shown["on_retry"]["open"].as_str().is_some_and(|open| open.contains("reverse does not run")), "{shown}");
    says(&migration, &["retry", "--id", &taken], 1, &["held", "run `crossfade sync reverse`"]).await?;
    let (_, held) = json(&migration, &["messages", "list", "--status", "held", "--json"]).await?;
    ensure!(held.as_array().is_some_and(|held| held.len() == 1), "{held}");
    migration.start_both().await?;
    // It may have ended by itself by now.
    says(&migration, &["retry", "--id", &taken], 0, &["applied"]).await?;
    let told = says(&migration, &["retry", "--all", "--json"], 0, &[]).await?;
    ensure!(told.contains(&json!([]).to_string()), "{told}");
    // The owner comes, and the item is written once more.
    migration
        .on(
            &migration.old,
            &[
                "INSERT INTO {schema}.users (id, email) VALUES (99, 'p@x')",
                "UPDATE {schema}.items SET updated_at = NOW(6) WHERE id = 1",
            ],
        )
        .await?;
    until_equal(&migration).await?;
    ensure!(
        count(&migration, &migration.old, "{schema}.users WHERE id = 3 AND email = 'cc@x'").await? == 1,
        "not newest"
    );
    migration.stop_both().await
}
