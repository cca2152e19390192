//! The version that object mappers keep (JPA's `@Version`) as the clock: `UPDATE … SET version = version + 1 WHERE id = ? AND
//! version = ?` on both sides at once. Of two versions the higher one wins; an equal or lower one is ignored, so that a change
//! that comes back without crossfade's mark goes no further.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_testkit::binlog_window::{now, row_events};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Flavor, Migration, Setup, on_both_brands, rounds};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use tokio::task::JoinSet;

use crate::stage::LIMIT;

/// The users of `examples/users-service`, with a version instead of a time.
const USERS: &str = "CREATE TABLE {schema}.users (
    id      BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    email   VARCHAR(190)    NOT NULL,
    name    VARCHAR(100)    NOT NULL,
    version INT             NOT NULL,
    UNIQUE KEY users_email (email)
)";

const ROWS: u64 = 8;
/// Of each side.
const SESSIONS: u64 = 3;

async fn migration(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let tables = "[[table]]\nname = \"{schema}.users\"\nclock = \"version\"\npolicy = \"version\"\n".to_owned();
    let mut migration = Migration::new(&Setup { tables, ..Setup::new(flavor, name) }).await?;
    migration.on_both(&[USERS]).await?;
    migration.init().await?;
    migration.start_both().await?;
    let rows: Vec<String> = (1..=ROWS).map(|id| format!("({id}, '{id}@example.com', 'nobody', 1)")).collect();
    let insert = format!("INSERT INTO {{schema}}.users (id, email, name, version) VALUES {}", rows.join(", "));
    migration.on(&migration.old, &[&insert]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    Ok(migration)
}

/// Sessions of both sides change the same rows, each by the version that it has read.
async fn both_sides_lock_optimistically(flavor: Flavor) -> Result<()> {
    let mut migration = migration(flavor, "mapper").await?;
    let mut sessions = JoinSet::new();
    for number in 0..2 * SESSIONS {
        let pool = if number < SESSIONS { &migration.old } else { &migration.new };
        sessions.spawn(session(pool.clone(), migration.schema.clone(), number, rounds(300, 5_000)));
    }
    // By row and version: what it was called, on either side.
    let mut committed: BTreeMap<(u64, i64), Vec<String>> = BTreeMap::new();
    let mut conflicts = 0;
    while let Some(ended) = sessions.join_next().await {
        let ended = ended??;
        conflicts += ended.conflicts;
        for (key, name) in ended.committed {
            committed.entry(key).or_default().push(name);
        }
    }
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    let written: usize = committed.values().map(Vec::len).sum();
    ensure!(status.total("last_seq") == written as u64 + ROWS, "{written} written: {}", status.0);
    for (id, name, version) in rows(&migration.old, &migration.schema).await? {
        let (last, names) = committed.range((id, 0)..(id + 1, 0)).next_back().context("nobody wrote the row")?;
        ensure!(version == last.1, "row {id} has version {version}; {} was written", last.1);
        ensure!(names.contains(&name), "row {id} is called {name}; version {version} was {names:?}");
    }
    println!(
        "{flavor:?}: {written} changes, {conflicts} times the version had moved on; between the sides {} won, {} lost",
        status.total("conflicts_won"),
        status.total("conflicts_lost")
    );
    ensure!(status.total("conflicts_lost") > 0 && status.total("open_failures") == 0, "{}", status.0);
    migration.stop_both().await
}

struct Ended {
    committed: Vec<((u64, i64), String)>,
    /// Another session was first.
    conflicts: u64,
}

async fn session(pool: Pool, schema: String, number: u64, turns: u32) -> Result<Ended> {
    let mut conn = pool.get_conn().await?;
    let mut ended = Ended { committed: Vec::new(), conflicts: 0 };
    for turn in 0..u64::from(turns) {
        let (id, name) = (1 + (turn + number) % ROWS, format!("{turn} of {number}"));
        let question = format!("SELECT version FROM `{schema}`.users WHERE id = ?");
        let version: i64 = conn.exec_first(question, (id,)).await?.context("the row is gone")?;
        let update =
            format!("UPDATE `{schema}`.users SET name = ?, version = version + 1 WHERE id = ? AND version = ?");
        match conn.exec_drop(update, (&name, id, version)).await {
            Ok(()) if conn.affected_rows() == 1 => ended.committed.push(((id, version + 1), name)),
            Ok(()) => ended.conflicts += 1,
            Err(error) if sql::is_rolled_back(&error) => ended.conflicts += 1,
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(ended)
}

async fn rows(pool: &Pool, schema: &str) -> Result<Vec<(u64, String, i64)>> {
    let mut conn = pool.get_conn().await?;
    Ok(conn.query(format!("SELECT id, name, version FROM `{schema}`.users ORDER BY id")).await?)
}

/// What each side has written before it hears of the other one, and what is on both in the end.
async fn equal_and_lower_versions_are_ignored(flavor: Flavor) -> Result<()> {
    let mut migration = migration(flavor, "mapper_order").await?;
    let update = |id: u64, name: &str| {
        format!("UPDATE {{schema}}.users SET name = '{name}', version = version + 1 WHERE id = {id}")
    };
    migration.rest(&Direction::BOTH).await?;
    let places = [now(&migration.old).await?, now(&migration.new).await?];
    // 1: old goes to 3, new to 2. 2: the other way round. 3: both go to 2, and new is preferred.
    for (id, name) in [(1, "old"), (1, "old again"), (2, "old"), (3, "old")] {
        migration.on(&migration.old, &[&update(id, name)]).await?;
    }
    for (id, name) in [(1, "new"), (2, "new"), (2, "new again"), (3, "new")] {
        migration.on(&migration.new, &[&update(id, name)]).await?;
    }
    // 4: somebody else has copied old's change to new, without any mark.
    for pool in [&migration.old, &migration.new] {
        migration.on(pool, &[&update(4, "copied")]).await?;
    }
    until("all captured", LIMIT, || async {
        let status = migration.status().read().await?;
        let captured = status.total("last_seq") == ROWS + 4 + 4 + 2;
        Ok(if captured { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await?;
    migration.go_on(&Direction::BOTH).await?;
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    let found = rows(&migration.old, &migration.schema).await?;
    let wanted = [(1, "old again", 3), (2, "new again", 3), (3, "new", 2), (4, "copied", 2), (5, "nobody", 1)];
    for (id, name, version) in wanted {
        let is_there = found.iter().any(|row| (row.0, row.1.as_str(), row.2) == (id, name, version));
        ensure!(is_there, "row {id} is not `{name}` with version {version}: {found:?}");
    }
    // Each side got what had won on the other one: row 1 on new, rows 2 and 3 on old; row 4 went nowhere.
    let table = format!("{}.users", migration.schema);
    for (pool, place, own, written) in [(&migration.old, &places[0], 5, 2), (&migration.new, &places[1], 5, 1)] {
        let events = row_events(pool, place, &["crossfade"]).await?;
        let count = events.get(&table).copied().unwrap_or(0);
        // Rows that cross together may share an event.
        ensure!(
            (own + 1..=own + written).contains(&count),
            "{count} row events, of which users made {own}: {events:?}"
        );
    }
    println!("{flavor:?}: {}", status.0);
    migration.stop_both().await
}

on_both_brands! {
    p4_both_sides_lock_optimistically => both_sides_lock_optimistically,
    p6_equal_and_lower_versions_are_ignored => equal_and_lower_versions_are_ignored,
}
