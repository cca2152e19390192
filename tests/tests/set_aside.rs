//! P7: a change that cannot be applied waits by itself with its reason; what depends on it waits too, all else goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_tests::{Direction, Migration, Setup};
use crossfade_tests::{lines::KILLED, on_both_brands};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

const LIMIT: Duration = Duration::from_secs(60);

const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

async fn started(flavor: Flavor, name: &'static str, tables: &[&str]) -> Result<Migration> {
    let mut migration = Migration::new(&Setup::new(flavor, name)).await?;
    for table in tables {
        migration.on_both(&[&table.replace("{clock}", CLOCK)]).await?;
    }
    migration.init().await?;
    migration.start_both().await?;
    Ok(migration)
}

async fn until_status(migration: &Migration, what: &str, is_reached: impl Fn(&Status) -> bool) -> Result<()> {
    until(what, LIMIT, || async {
        let status = migration.status().read().await?;
        Ok(if is_reached(&status) { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

async fn until_nothing_is_aside(migration: &Migration) -> Result<()> {
    let waited = until_status(migration, "nothing set aside", |status| {
        status.total("open_failures") == 0 && status.total("held") == 0
    })
    .await;
    if let Err(error) = waited {
        let failed = migration.crossfade(&["messages", "list", "--status", "failed"]).await?;
        return Err(error.context(failed));
    }
    migration.until_quiet_and_equal(LIMIT).await?;
    Ok(())
}

async fn number(pool: &Pool, query: &str) -> Result<u64> {
    Ok(pool.get_conn().await?.query_first(query).await?.unwrap_or(0))
}

/// The target refuses two rows of many; a person mends them on the source.
async fn only_the_refused_rows_wait(flavor: Flavor) -> Result<()> {
    let mut migration = started(
        flavor,
        "refused",
        &["CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL, n INT NOT NULL, {clock})"],
    )
    .await?;
    migration.on(&migration.new, &["ALTER TABLE {schema}.t ADD CONSTRAINT below CHECK (n < 1000)"]).await?;
    let rows: Vec<String> = (1..=3_000)
        .map(|id| format!("({id}, 'row {id}', {})", if id == 700 || id == 2_900 { 5_000 } else { id % 1000 }))
        .collect();
    let insert = format!("INSERT INTO {{schema}}.t (id, v, n) VALUES {}", rows.join(","));
    migration.on(&migration.old, &[&insert]).await?;
    until_status(&migration, "two rows refused", |status| status.number("forward", "open_failures") == 2).await?;
    // Later changes: of others, and of a refused one, which does not mend it yet.
    migration
        .on(
            &migration.old,
            &["UPDATE {schema}.t SET v = 'later' WHERE id = 3", "UPDATE {schema}.t SET v = 'later' WHERE id = 700"],
        )
        .await?;
    until_status(&migration, "a third waiting", |status| status.number("forward", "open_failures") == 3).await?;
    let there = format!("SELECT COUNT(*) FROM `{0}`.t WHERE id NOT IN (700, 2900)", migration.schema);
    until("the others there", LIMIT, || async {
        let found = number(&migration.new, &there).await?;
        Ok(if found == 2_998 { Progress::Reached(()) } else { Progress::NotYet(found.to_string()) })
    })
    .await?;
    let listed = migration.crossfade(&["messages", "list", "--status", "failed"]).await?;
    ensure!(listed.contains("700") && listed.contains("2900"), "{listed}");

    // What is set aside outlives the process.
    migration.expect_lines(KILLED);
    migration.process(Direction::Forward)?.kill9().await?;
    migration.start(Direction::Forward, &[])?;
    migration.on(&migration.old, &["UPDATE {schema}.t SET n = 7 WHERE id = 700"]).await?;
    migration.on(&migration.old, &["DELETE FROM {schema}.t WHERE id = 2900"]).await?;
    until_nothing_is_aside(&migration).await?;
    let status = migration.status().read().await?;
    ensure!(status.number("forward", "last_seq") == 3_004, "{}", status.0);
    migration.stop_both().await
}

/// A row leaves its key for one under which the target refuses it, and another row takes the old key at once.
async fn a_refused_move_waits_whole(flavor: Flavor) -> Result<()> {
    let mut migration = started(
        flavor,
        "refused_move",
        &["CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL, n INT NOT NULL, {clock})"],
    )
    .await?;
    migration.on(&migration.new, &["ALTER TABLE {schema}.t ADD CONSTRAINT below CHECK (n < 1000)"]).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v, n) VALUES (1, 'one', 1), (2, 'two', 2)"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let statements = [
        "BEGIN",
        "UPDATE {schema}.t SET id = 10, n = 5000 WHERE id = 1",
        "INSERT INTO {schema}.t (id, v, n) VALUES (1, 'another', 1)",
        "UPDATE {schema}.t SET id = 1000 WHERE id = 2",
        "INSERT INTO {schema}.t (id, v, n) VALUES (2, 'another', 5000)",
        "COMMIT",
    ];
    migration.on(&migration.old, &statements).await?;
    // The refused move, the row that takes its old key, and the refused row. The other move is nobody's concern.
    until_status(&migration, "three waiting", |status| status.number("forward", "open_failures") == 3).await?;
    let there = format!("SELECT COUNT(*) FROM `{}`.t WHERE (id, v) IN ((1, 'one'), (1000, 'two'))", migration.schema);
    ensure!(number(&migration.new, &there).await? == 2, "what waits was written, or what is good was not");
    ensure!(number(&migration.new, &format!("SELECT COUNT(*) FROM `{}`.t", migration.schema)).await? == 2);
    migration.on(&migration.old, &["UPDATE {schema}.t SET n = 3 WHERE n = 5000"]).await?;
    until_nothing_is_aside(&migration).await?;
    migration.stop_both().await
}

/// A row that waits for its parent leaves its key for one that the other side has taken. Its move has lost, and what there is
/// to undo is known when the row is there.
async fn a_lost_move_waits_for_its_row(flavor: Flavor) -> Result<()> {
    let mut migration = started(
        flavor,
        "lost_move",
        &[
            "CREATE TABLE {schema}.p (id INT PRIMARY KEY, n INT NOT NULL, {clock})",
            "CREATE TABLE {schema}.t (id INT PRIMARY KEY, p INT NOT NULL, v VARCHAR(20) NOT NULL, {clock}, \
             FOREIGN KEY (p) REFERENCES p (id))",
        ],
    )
    .await?;
    migration.on(&migration.new, &["ALTER TABLE {schema}.p ADD CONSTRAINT below CHECK (n < 1000)"]).await?;
    let rows =
        ["INSERT INTO {schema}.p (id, n) VALUES (1, 1)", "INSERT INTO {schema}.t (id, p, v) VALUES (6, 1, 'six')"];
    migration.on(&migration.old, &rows).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let statements = [
        "BEGIN",
        "INSERT INTO {schema}.p (id, n) VALUES (4, 5000)",
        "UPDATE {schema}.t SET id = 9 WHERE id = 6",
        "INSERT INTO {schema}.t (id, p, v) VALUES (6, 4, 'another')",
        "UPDATE {schema}.t SET id = 2 WHERE id = 6",
        "COMMIT",
    ];
    migration.on(&migration.old, &statements).await?;
    let taken = "INSERT INTO {schema}.t (id, p, v, updated_at) VALUES (2, 1, 'of new', '2035-01-01 00:00:00')";
    migration.on(&migration.new, &[taken]).await?;
    migration.go_on(&Direction::BOTH).await?;
    until_status(&migration, "the family waiting", |status| status.number("forward", "open_failures") >= 2).await?;
    migration.on(&migration.old, &["UPDATE {schema}.p SET n = 3 WHERE id = 4"]).await?;
    until_nothing_is_aside(&migration).await?;
    let found = format!("SELECT COUNT(*) FROM `{}`.t WHERE (id, v) IN ((2, 'of new'), (9, 'six'))", migration.schema);
    ensure!(number(&migration.old, &found).await? == 2, "the rows of both sides are not there");
    migration.stop_both().await
}

/// A row leaves its key for one under which the target refuses it at first; another row has taken the old key when it can
/// be written.
async fn a_late_move_ends_no_other_row(flavor: Flavor) -> Result<()> {
    let create = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, u VARCHAR(20) NOT NULL UNIQUE, {clock})";
    let mut migration = started(flavor, "late_move", &[create]).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, u) VALUES (1, 'a')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let taken = "INSERT INTO {schema}.t (id, u, updated_at) VALUES (20, 'z', '2001-01-01 00:00:00')";
    migration.on(&migration.new, &[taken]).await?;
    let statements = [
        "BEGIN",
        "UPDATE {schema}.t SET id = 10, u = 'z' WHERE id = 1",
        "INSERT INTO {schema}.t (id, u) VALUES (1, 'b')",
        "INSERT INTO {schema}.t (id, u) VALUES (20, 'a')",
        "COMMIT",
    ];
    migration.on(&migration.old, &statements).await?;
    migration.go_on(&Direction::BOTH).await?;
    until_nothing_is_aside(&migration).await?;
    let found =
        format!("SELECT COUNT(*) FROM `{}`.t WHERE (id, u) IN ((10, 'z'), (1, 'b'), (20, 'a'))", migration.schema);
    ensure!(number(&migration.new, &found).await? == 3, "the rows of old are not there");
    migration.stop_both().await
}

/// Each side gives one unique value to a row of its own. Both wait; when a person changes one, both sides become equal.
async fn a_unique_value_of_two_rows_waits_for_a_person(flavor: Flavor) -> Result<()> {
    let mut migration = started(
        flavor,
        "unique_of_two",
        &["CREATE TABLE {schema}.t (id INT PRIMARY KEY, email VARCHAR(40) NOT NULL UNIQUE, {clock})"],
    )
    .await?;
    migration.rest(&Direction::BOTH).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, email) VALUES (1, 'a@x'), (3, 'c@x')"]).await?;
    migration.on(&migration.new, &["INSERT INTO {schema}.t (id, email) VALUES (2, 'A@X'), (4, 'd@x')"]).await?;
    migration.go_on(&Direction::BOTH).await?;
    until_status(&migration, "both parked", |status| {
        status.number("forward", "open_failures") == 1 && status.number("reverse", "open_failures") == 1
    })
    .await?;
    for (pool, id) in [(&migration.old, 4), (&migration.new, 3)] {
        let query = format!("SELECT COUNT(*) FROM `{}`.t WHERE id = {id}", migration.schema);
        until("the other row there", LIMIT, || async {
            let found = number(pool, &query).await?;
            Ok(if found == 1 { Progress::Reached(()) } else { Progress::NotYet(found.to_string()) })
        })
        .await?;
    }
    migration.on(&migration.new, &["UPDATE {schema}.t SET email = 'b@x' WHERE id = 2"]).await?;
    until_nothing_is_aside(&migration).await?;
    let both = format!("SELECT COUNT(*) FROM `{}`.t", migration.schema);
    ensure!(number(&migration.old, &both).await? == 4, "a row is missing");
    migration.stop_both().await
}

/// The opposite process is dead: what cannot be judged is held, what the locked row proves goes on.
async fn what_cannot_be_judged_is_held(flavor: Flavor) -> Result<()> {
    let mut migration =
        started(flavor, "held", &["CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL, {clock})"])
            .await?;
    let rows: Vec<String> = (1..=20).map(|id| format!("({id}, 'x')")).collect();
    migration.on(&migration.old, &[&format!("INSERT INTO {{schema}}.t (id, v) VALUES {}", rows.join(","))]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.expect_lines(KILLED);
    migration.process(Direction::Reverse)?.kill9().await?;
    // A user of new writes what nobody reads at the moment.
    migration.on(&migration.new, &["INSERT INTO {schema}.t (id, v) VALUES (30, 'of new')"]).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (30, 'of old'), (31, 'of old')"]).await?;
    until_status(&migration, "two held", |status| status.number("forward", "held") == 2).await?;
    let listed = migration.crossfade(&["messages", "list", "--status", "held"]).await?;
    ensure!(listed.contains("30") && listed.contains("31"), "{listed}");
    for round in 0..3 {
        migration.on(&migration.old, &[&format!("UPDATE {{schema}}.t SET v = 'round {round}' WHERE id = 5")]).await?;
        let query = format!("SELECT COUNT(*) FROM `{}`.t WHERE id = 5 AND v = 'round {round}'", migration.schema);
        until("an update that needs no waiting", Duration::from_secs(5), || async {
            let found = number(&migration.new, &query).await?;
            Ok(if found == 1 { Progress::Reached(()) } else { Progress::NotYet(found.to_string()) })
        })
        .await
        .with_context(|| migration.log_ends())?;
    }
    // A change of a held row is held behind it.
    migration.on(&migration.old, &["UPDATE {schema}.t SET v = 'again' WHERE id = 31"]).await?;
    until_status(&migration, "a third set aside", |status| {
        status.number("forward", "held") + status.number("forward", "open_failures") == 3
    })
    .await?;
    migration.start(Direction::Reverse, &[])?;
    until_nothing_is_aside(&migration).await?;
    migration.stop_both().await
}

/// What waits for a dead opposite process goes on when that direction is declared off.
async fn what_is_held_ends_with_the_other_direction(flavor: Flavor) -> Result<()> {
    let table = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL, {clock})";
    let mut migration = started(flavor, "held_off", &[table]).await?;
    migration.expect_lines(KILLED);
    migration.process(Direction::Reverse)?.kill9().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (1, 'x'), (2, 'x')"]).await?;
    until_status(&migration, "two held", |status| status.number("forward", "held") == 2).await?;
    migration.crossfade(&["stop", "reverse", "--capture"]).await?;
    until_status(&migration, "nothing held", |status| status.number("forward", "held") == 0).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (3, 'x')"]).await?;
    migration.crossfade(&["status", "--wait", "60s"]).await?;
    let rows = number(&migration.new, &format!("SELECT COUNT(*) FROM `{}`.t", migration.schema)).await?;
    ensure!(rows == 3, "{rows} rows have crossed");

    migration.crossfade(&["start", "reverse"]).await?;
    migration.start(Direction::Reverse, &[])?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// The opposite process is dead, and more cannot be judged than is ever set aside: the rest waits, and nobody gives up.
async fn what_has_no_room_waits(flavor: Flavor) -> Result<()> {
    let table = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL, {clock})";
    let mut migration = started(flavor, "no_room", &[table]).await?;
    migration.process(Direction::Reverse)?.kill9().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (1, 'x')"]).await?;
    until_status(&migration, "one held", |status| status.number("forward", "held") == 1).await?;
    // Each of several lanes finds room for its own part.
    let rows: Vec<String> = (2..=1_300).map(|id| format!("({id}, 'x')")).collect();
    migration.on(&migration.old, &[&format!("INSERT INTO {{schema}}.t (id, v) VALUES {}", rows.join(","))]).await?;
    until_status(&migration, "many held", |status| status.number("forward", "held") > 200).await?;
    migration.start(Direction::Reverse, &[])?;
    until_nothing_is_aside(&migration).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// What is behind rows that wait for the opposite reader needs room too. Nobody has to be asked for it: they go on when he is back.
async fn what_is_behind_held_rows_waits(flavor: Flavor) -> Result<()> {
    let table = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL, {clock})";
    let mut migration = started(flavor, "behind_held", &[table]).await?;
    migration.expect_lines(&["applying failed; beginning again"]);
    migration.process(Direction::Reverse)?.kill9().await?;
    let rows: Vec<String> = (1..=600).map(|id| format!("({id}, 'x')")).collect();
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (1000, 'x')"]).await?;
    until_status(&migration, "one held", |status| status.number("forward", "held") == 1).await?;
    migration.on(&migration.old, &[&format!("INSERT INTO {{schema}}.t (id, v) VALUES {}", rows.join(","))]).await?;
    until_status(&migration, "all held", |status| status.number("forward", "held") == 601).await?;
    migration.on(&migration.old, &["UPDATE {schema}.t SET v = 'y'"]).await?;
    until_status(&migration, "no room", |status| {
        status.state("forward") == Some("retrying") && status.0.to_string().contains("no more may be set aside")
    })
    .await?;
    migration.start(Direction::Reverse, &[])?;
    until_nothing_is_aside(&migration).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// A child waits for a parent, whose own change is refused for a unique value and comes after an end of that parent. The end
/// waits for the child; but what stands in the way of them all is told, and tried again by itself.
async fn a_parent_tells_its_own_refusal(flavor: Flavor) -> Result<()> {
    let mut migration = started(
        flavor,
        "own_refusal",
        &[
            "CREATE TABLE {schema}.places (id INT PRIMARY KEY, code VARCHAR(20) NOT NULL UNIQUE, {clock})",
            "CREATE TABLE {schema}.notes (id INT PRIMARY KEY, place INT, {clock}, \
             FOREIGN KEY (place) REFERENCES {schema}.places (id) ON DELETE CASCADE)",
        ],
    )
    .await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.places (id, code) VALUES (7, 'x'), (8, 'y')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let taken = [
        "DELETE FROM {schema}.places",
        "INSERT INTO {schema}.places (id, code, updated_at) VALUES (10, 'x', '2001-01-01'), (11, 'y', '2001-01-01')",
    ];
    migration.on(&migration.new, &taken).await?;
    let statements = [
        "INSERT INTO {schema}.notes (id, place) VALUES (1, 7)",
        "UPDATE {schema}.notes SET place = 8 WHERE id = 1",
        "DELETE FROM {schema}.places WHERE id = 7",
        "INSERT INTO {schema}.places (id, code) VALUES (7, 'x')",
    ];
    migration.on(&migration.old, &statements).await?;
    migration.go_on(&Direction::BOTH).await?;
    // The second is the parent that comes back for the child's sake.
    until("both parents refused", LIMIT, || async {
        let words = ["messages", "list", "--stream", "forward/old", "--error", "1062", "--json"];
        let told = migration.crossfade(&words).await?;
        let listed: serde_json::Value = serde_json::from_str(&told)?;
        let is_told = listed.as_array().is_some_and(|listed| listed.len() == 2);
        let failed = migration.crossfade(&["messages", "list", "--status", "failed"]).await?;
        Ok(if is_told { Progress::Reached(()) } else { Progress::NotYet(failed) })
    })
    .await?;
    let mended = [10, 11].map(|id| format!("UPDATE {{schema}}.places SET code = CONCAT(code, 'z') WHERE id = {id}"));
    migration.on(&migration.new, &mended.each_ref().map(String::as_str)).await?;
    until_nothing_is_aside(&migration).await?;
    let found = format!("SELECT COUNT(*) FROM `{}`.places", migration.schema);
    ensure!(number(&migration.old, &found).await? == 4, "a row is missing");
    migration.stop_both().await
}

on_both_brands! {
    a_parent_tells_its_own_refusal: p7_own_refusal_on_mysql, p7_own_refusal_on_mariadb;
    only_the_refused_rows_wait: p7_refused_rows_on_mysql, p7_refused_rows_on_mariadb;
    a_refused_move_waits_whole: p7_refused_move_on_mysql, p7_refused_move_on_mariadb;
    a_lost_move_waits_for_its_row: p4_a_lost_move_on_mysql, p4_a_lost_move_on_mariadb;
    a_late_move_ends_no_other_row: p4_a_late_move_on_mysql, p4_a_late_move_on_mariadb;
    a_unique_value_of_two_rows_waits_for_a_person: p7_unique_of_two_on_mysql, p7_unique_of_two_on_mariadb;
    what_cannot_be_judged_is_held: p7_held_on_mysql, p7_held_on_mariadb;
    what_is_held_ends_with_the_other_direction: p7_held_and_off_on_mysql, p7_held_and_off_on_mariadb;
    what_has_no_room_waits: p7_no_room_on_mysql, p7_no_room_on_mariadb;
    what_is_behind_held_rows_waits: p7_behind_held_on_mysql, p7_behind_held_on_mariadb;
}
