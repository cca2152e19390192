//! P4 for changes of keys that have lost, when users of either side go on with the rows, before that has gone back or after.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;

use crate::orphans::{CLOCK, LIMIT, make_coded_places, until_nothing_waits, until_passed};
use crate::{MYSQL_NATIVE, servers_with};

/// Who has moved a parent moves it on, and gives it a child there, when the other side has undone the first move already.
async fn a_parent_that_moves_on(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "moves_on")).await?;
    migration
        .on_both(&[
            &format!("CREATE TABLE {{schema}}.places (id INT PRIMARY KEY, code VARCHAR(20) UNIQUE, {CLOCK})"),
            &format!(
                "CREATE TABLE {{schema}}.guests (id INT PRIMARY KEY, place INT, {CLOCK}, \
                 FOREIGN KEY (place) REFERENCES {{schema}}.places (id) ON UPDATE CASCADE)"
            ),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.places (id, code) VALUES (1, 'p1')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let (old, new) = (&migration.old, &migration.new);
    migration.on(new, &["INSERT INTO {schema}.guests (id, place) VALUES (1, 1)"]).await?;
    let moves = ["UPDATE {schema}.places SET id = 11 WHERE id = 1", "UPDATE {schema}.places SET id = 21 WHERE id = 11"];
    migration.on(old, &moves[..1]).await?;
    migration.crossfade(&["start", "forward"]).await?;
    until("the first move lost", LIMIT, || async {
        let lost = migration.crossfade(&["messages", "list", "--conflicts", "--json"]).await?;
        Ok(if lost.contains("a child") { Progress::Reached(()) } else { Progress::NotYet(lost) })
    })
    .await?;
    migration.on(old, &[moves[1], "INSERT INTO {schema}.guests (id, place) VALUES (2, 21)"]).await?;
    until("the second move lost", LIMIT, || async {
        let status = migration.status().read().await?;
        let of = |name: &str| status.number("forward", name);
        let is_through = of("settled_seq") == of("last_seq") && of("last_seq") == 4;
        Ok(if is_through { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await?;
    migration.crossfade(&["start", "reverse"]).await?;
    until_nothing_waits(&migration).await?;
    let query = format!(
        "SELECT CONCAT((SELECT GROUP_CONCAT(id) FROM {0}.places), ' ', (SELECT GROUP_CONCAT(place ORDER BY id) FROM {0}.guests))",
        sql::name(&migration.schema)
    );
    let found: Option<String> = old.get_conn().await?.query_first(query).await?;
    ensure!(found.as_deref() == Some("1 1,1"), "{found:?} are left");
    migration.stop_both().await
}

/// Users of one side move parents with unique values, and give them children by the new keys, while the other side changes the
/// parents later. That goes back; before it arrives, users of the other side end one parent, move another, end a third and bring
/// it again, give a fourth another unique value, and move a fifth to where it had been moved to. All that arrives together: where children are to go along to there may be
/// nobody any more, or somebody with another key or value.
async fn parents_that_the_other_side_changes_again(flavor: Flavor, options: &[(&str, &str)]) -> Result<()> {
    let servers = servers_with(flavor, options).await?;
    let mut migration = Migration::on_servers(&Setup::new(flavor, "again"), servers).await?;
    make_coded_places(&migration).await?;
    migration.init().await?;
    migration.start_both().await?;
    let before = "INSERT INTO {schema}.places (id, code, v) VALUES (1, 'p1', 1), (2, 'p2', 1), (3, 'p3', 1), (4, 'p4', 1), \
                  (5, 'p5', 1)";
    migration.on(&migration.old, &[before]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let (old, new) = (&migration.old, &migration.new);
    let known = migration.status().read().await?.number("forward", "last_seq");
    let moved = [
        "UPDATE {schema}.places SET id = id + 10",
        "INSERT INTO {schema}.notes (id, place) VALUES (1, 11), (2, 12), (3, 13), (4, 14), (5, 15)",
        "INSERT INTO {schema}.seats (id, place) VALUES (1, 11), (2, 12), (3, 13), (4, 14), (5, 15)",
        "INSERT INTO {schema}.guests (id, place) VALUES (4, 14)",
    ];
    migration.on(old, &moved).await?;
    migration.on(new, &["UPDATE {schema}.places SET v = 2"]).await?;
    migration.go_on(&[Direction::Forward]).await?;
    // Five places, five notes, five seats and a guest.
    until_passed(&migration, Direction::Forward, known + 16).await?;
    let again = [
        "DELETE FROM {schema}.places WHERE id = 1",
        "UPDATE {schema}.places SET id = 22 WHERE id = 2",
        "DELETE FROM {schema}.places WHERE id = 3",
        "INSERT INTO {schema}.places (id, code, v) VALUES (3, 'p3', 3)",
        "UPDATE {schema}.places SET code = 'q4' WHERE id = 4",
        "UPDATE {schema}.places SET id = 15 WHERE id = 5",
    ];
    migration.on(new, &again).await?;
    migration.go_on(&[Direction::Reverse]).await?;
    until_nothing_waits(&migration).await?;
    let list = |table: &str, what: &str| {
        format!("(SELECT GROUP_CONCAT({what} ORDER BY id SEPARATOR ' ') FROM {}.{table})", sql::name(&migration.schema))
    };
    let children = ["notes", "seats", "guests"].map(|table| list(table, "id, '>', COALESCE(place, '')"));
    let query = format!("SELECT CONCAT_WS(', ', {}, {})", list("places", "id, code"), children.join(", "));
    let found: Option<String> = old.get_conn().await?.query_first(query).await?;
    ensure!(found.as_deref() == Some(CHANGED_AGAIN), "{found:?} are left");
    migration.stop_both().await
}

const CHANGED_AGAIN: &str = "3p3 4q4 11p1 15p5 22p2, 1>11 2>22 3>3 4>4 5>15, 1>11 2>22 3>3 4>4 5>15, 4>4";

/// A parent with children that refer to it by its key, which follow it and go with it.
async fn with_followers(flavor: Flavor, name: &'static str, options: &[(&str, &str)]) -> Result<Migration> {
    let mut migration = Migration::on_servers(&Setup::new(flavor, name), servers_with(flavor, options).await?).await?;
    migration
        .on_both(&[
            &format!("CREATE TABLE {{schema}}.places (id INT PRIMARY KEY, code VARCHAR(20) UNIQUE, v INT, {CLOCK})"),
            &format!(
                "CREATE TABLE {{schema}}.notes (id INT PRIMARY KEY, place INT, {CLOCK}, FOREIGN KEY (place) \
                 REFERENCES {{schema}}.places (id) ON UPDATE CASCADE ON DELETE CASCADE)"
            ),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    let before = [
        "INSERT INTO {schema}.places (id, code, v) VALUES (1, 'p1', 1), (5, 'p5', 1)",
        "INSERT INTO {schema}.notes (id, place) VALUES (1, 1)",
    ];
    migration.on(&migration.old, &before).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    Ok(migration)
}

/// A parent is moved, and a child follows it, perhaps without a word in the binlog. The other side has changed the parent later, so
/// that it goes back, and ends it with the child before that arrives.
async fn a_parent_that_ends_when_it_went_back(flavor: Flavor, options: &[(&str, &str)]) -> Result<()> {
    let mut migration = with_followers(flavor, "ends_back", options).await?;
    let known = migration.status().read().await?.number("forward", "last_seq");
    migration.on(&migration.old, &["UPDATE {schema}.places SET id = 11 WHERE id = 1"]).await?;
    migration.on(&migration.new, &["UPDATE {schema}.places SET v = 2"]).await?;
    migration.go_on(&[Direction::Forward]).await?;
    until_passed(&migration, Direction::Forward, known + 1).await?;
    migration.on(&migration.new, &["DELETE FROM {schema}.places WHERE id = 1"]).await?;
    migration.go_on(&[Direction::Reverse]).await?;
    until_nothing_waits(&migration).await?;
    migration.stop_both().await
}

/// A parent is moved to another key, with what hangs on it, where the other side has ended it and given its unique value to another
/// one: it waits for that value, and comes alone.
async fn a_parent_that_waits_for_its_value(flavor: Flavor, options: &[(&str, &str)]) -> Result<()> {
    let mut migration = with_followers(flavor, "waits", options).await?;
    let on_old =
        ["DELETE FROM {schema}.places WHERE id = 1", "UPDATE {schema}.places SET code = 'p1', v = 2 WHERE id = 5"];
    migration.on(&migration.old, &on_old).await?;
    let on_new = [
        // MariaDB tells the time of a delete in whole seconds.
        "DO SLEEP(1.1)",
        "UPDATE {schema}.places SET id = 22 WHERE id = 1",
        "UPDATE {schema}.places SET code = 'z' WHERE id = 5",
        "INSERT INTO {schema}.notes (id, place) VALUES (2, 22)",
    ];
    migration.on(&migration.new, &on_new).await?;
    migration.go_on(&[Direction::Forward]).await?;
    migration.go_on(&[Direction::Reverse]).await?;
    until_nothing_waits(&migration).await?;
    migration.stop_both().await
}

/// A child goes along with its parent to the key that this goes back to, and in the same batch the other side writes over it.
async fn a_child_that_is_written_over(flavor: Flavor, options: &[(&str, &str)]) -> Result<()> {
    let servers = servers_with(flavor, options).await?;
    let mut migration = Migration::on_servers(&Setup::new(flavor, "over"), servers).await?;
    make_coded_places(&migration).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.places (id, code, v) VALUES (2, 'p2', 1)"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let known = migration.status().read().await?.number("reverse", "last_seq");
    migration.on(&migration.old, &["INSERT INTO {schema}.seats (id, place) VALUES (21, 2)"]).await?;
    let moved =
        ["UPDATE {schema}.places SET id = 26 WHERE id = 2", "INSERT INTO {schema}.guests (id, place) VALUES (22, 26)"];
    migration.on(&migration.new, &moved).await?;
    migration.go_on(&[Direction::Reverse]).await?;
    until_passed(&migration, Direction::Reverse, known + 2).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.guests (id, place) VALUES (22, 2)"]).await?;
    migration.go_on(&[Direction::Forward]).await?;
    until_nothing_waits(&migration).await?;
    migration.stop_both().await
}

/// Who has moved parents goes on with them, when the other side, which has given them children, has undone that already: the tables
/// prefer the side that goes on. What goes back takes the place of all that, and nobody stands under two keys.
async fn parents_that_are_changed_after_they_went_back(
    flavor: Flavor,
    (mover, name, policy): (Direction, &'static str, &str),
) -> Result<()> {
    let mut setup = Setup::new(flavor, name);
    setup.tables = format!("[[table]]\nname = \"{{schema}}.*\"\n{policy}\n");
    let mut migration = Migration::new(&setup).await?;
    migration
        .on_both(&[
            &format!("CREATE TABLE {{schema}}.places (id INT PRIMARY KEY, v INT, {CLOCK})"),
            &format!(
                "CREATE TABLE {{schema}}.guests (id INT PRIMARY KEY, place INT, {CLOCK}, \
                 FOREIGN KEY (place) REFERENCES {{schema}}.places (id))"
            ),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    migration
        .on(&migration.old, &["INSERT INTO {schema}.places (id, v) VALUES (1, 1), (2, 1), (3, 1), (4, 1)"])
        .await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let (moving, giving) = match mover {
        Direction::Forward => (&migration.old, &migration.new),
        Direction::Reverse => (&migration.new, &migration.old),
    };
    let known = migration.status().read().await?.number(mover.as_str(), "last_seq");
    migration.on(giving, &["INSERT INTO {schema}.guests (id, place) VALUES (1, 1), (2, 2), (3, 3)"]).await?;
    migration.on(moving, &["UPDATE {schema}.places SET id = id + 10 WHERE id < 4"]).await?;
    migration.go_on(&[mover]).await?;
    until_passed(&migration, mover, known + 3).await?;
    let goes_on = [
        "UPDATE {schema}.places SET v = 2 WHERE id = 11",
        "UPDATE {schema}.places SET id = 22 WHERE id = 12",
        "DELETE FROM {schema}.places WHERE id = 13",
    ];
    migration.on(moving, &goes_on).await?;
    until_passed(&migration, mover, known + 6).await?;
    migration.go_on(&[mover.opposite()]).await?;
    until_nothing_waits(&migration).await?;
    let query = format!(
        "SELECT GROUP_CONCAT(id, ':', v ORDER BY id SEPARATOR ' ') FROM {}.places",
        sql::name(&migration.schema)
    );
    let found: Option<String> = moving.get_conn().await?.query_first(&query).await?;
    ensure!(found.as_deref() == Some("1:1 2:1 3:1 4:1"), "{found:?} are left");
    tells_no_clock_where_there_is_none(&migration).await?;
    // As soon as each process knows that the other side has seen it, the policy decides again.
    until("the policy decides", LIMIT, || async {
        migration.rest(&Direction::BOTH).await?;
        migration.on(moving, &["UPDATE {schema}.places SET v = 100 + MOD(v + 1, 50) WHERE id = 1"]).await?;
        migration.on(giving, &["UPDATE {schema}.places SET v = MOD(v + 1, 50) WHERE id = 1"]).await?;
        migration.go_on(&Direction::BOTH).await?;
        until_nothing_waits(&migration).await?;
        let v: Option<i64> = moving
            .get_conn()
            .await?
            .query_first(format!("SELECT v FROM {}.places WHERE id = 1", sql::name(&migration.schema)))
            .await?;
        Ok(if v >= Some(100) { Progress::Reached(()) } else { Progress::NotYet(format!("{v:?} has won")) })
    })
    .await?;
    migration.stop_both().await
}

/// What goes before a policy is told as that, and not as a clock of the far future.
async fn tells_no_clock_where_there_is_none(migration: &Migration) -> Result<()> {
    let listed = migration.crossfade(&["messages", "list", "--limit", "1000", "--json"]).await?;
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed)?;
    let first: Vec<_> = listed.iter().filter(|message| message["goes_before_policy"] == true).collect();
    ensure!(!first.is_empty(), "nothing went before the policy: {listed:?}");
    ensure!(first.iter().all(|message| message["effective_clock"].is_null()), "{first:?}");
    let id = first[0]["id"].as_str().unwrap_or_default();
    let shown = migration.crossfade(&["messages", "show", id]).await?;
    ensure!(shown.contains("goes before the policy"), "{shown}");
    let counts = [
        (&migration.old, "tombstone WHERE pair = ? AND clock = 9223372036854775807"),
        (&migration.new, "tombstone WHERE pair = ? AND clock = 9223372036854775807"),
        (&migration.new, "outcome WHERE pair = ? AND 9223372036854775807 IN (source_clock, target_clock)"),
    ];
    for (pool, rows) in counts {
        let query = format!("SELECT COUNT(*) FROM crossfade.{rows}");
        let found: Option<u64> = pool.get_conn().await?.exec_first(query, (&migration.pair,)).await?;
        ensure!(found == Some(0), "{found:?} of {rows}");
    }
    Ok(())
}

async fn where_old_is_preferred(flavor: Flavor) -> Result<()> {
    parents_that_are_changed_after_they_went_back(
        flavor,
        (Direction::Forward, "after_prefer_old", "policy = \"prefer-old\""),
    )
    .await
}

/// With a clock beside the policy, which it does not compare.
async fn where_new_is_preferred(flavor: Flavor) -> Result<()> {
    let policy = "policy = \"prefer-new\"\nclock = \"updated_at\"";
    parents_that_are_changed_after_they_went_back(flavor, (Direction::Reverse, "after_prefer_new", policy)).await
}

async fn where_columns_are_merged(flavor: Flavor) -> Result<()> {
    let policy = "policy = \"prefer-new\"\nmerge = \"columns\"";
    parents_that_are_changed_after_they_went_back(flavor, (Direction::Reverse, "after_merged", policy)).await
}

on_both_brands! {
    where_old_is_preferred: p4_what_went_back_stays_where_old_is_preferred_on_mysql,
        p4_what_went_back_stays_where_old_is_preferred_on_mariadb;
    where_new_is_preferred: p4_what_went_back_stays_where_new_is_preferred_on_mysql,
        p4_what_went_back_stays_where_new_is_preferred_on_mariadb;
    where_columns_are_merged: p4_what_went_back_stays_where_columns_are_merged_on_mysql,
        p4_what_went_back_stays_where_columns_are_merged_on_mariadb;
}

#[tokio::test]
async fn p4_a_parent_that_moves_on_on_mysql() -> Result<()> {
    a_parent_that_moves_on(Flavor::MySql).await
}

#[tokio::test]
async fn p4_a_parent_that_moves_on_on_mariadb() -> Result<()> {
    a_parent_that_moves_on(Flavor::MariaDb).await
}

#[tokio::test]
async fn p4_a_parent_that_waits_for_its_value_on_mysql() -> Result<()> {
    a_parent_that_waits_for_its_value(Flavor::MySql, &[]).await
}

#[tokio::test]
async fn p4_a_parent_that_waits_for_its_value_where_cascades_are_unlogged() -> Result<()> {
    a_parent_that_waits_for_its_value(Flavor::MySql, MYSQL_NATIVE.options).await
}

#[tokio::test]
async fn p4_a_parent_that_waits_for_its_value_on_mariadb() -> Result<()> {
    a_parent_that_waits_for_its_value(Flavor::MariaDb, &[]).await
}

#[tokio::test]
async fn p4_a_child_that_is_written_over_on_mysql() -> Result<()> {
    a_child_that_is_written_over(Flavor::MySql, &[]).await
}

#[tokio::test]
async fn p4_a_child_that_is_written_over_where_cascades_are_unlogged() -> Result<()> {
    a_child_that_is_written_over(Flavor::MySql, MYSQL_NATIVE.options).await
}

#[tokio::test]
async fn p4_a_child_that_is_written_over_on_mariadb() -> Result<()> {
    a_child_that_is_written_over(Flavor::MariaDb, &[]).await
}

#[tokio::test]
async fn p4_a_parent_that_ends_when_it_went_back_on_mysql() -> Result<()> {
    a_parent_that_ends_when_it_went_back(Flavor::MySql, &[]).await
}

#[tokio::test]
async fn p4_a_parent_that_ends_when_it_went_back_where_cascades_are_unlogged() -> Result<()> {
    a_parent_that_ends_when_it_went_back(Flavor::MySql, MYSQL_NATIVE.options).await
}

#[tokio::test]
async fn p4_a_parent_that_ends_when_it_went_back_on_mariadb() -> Result<()> {
    a_parent_that_ends_when_it_went_back(Flavor::MariaDb, &[]).await
}

#[tokio::test]
async fn p4_parents_that_the_other_side_changes_again_on_mysql() -> Result<()> {
    parents_that_the_other_side_changes_again(Flavor::MySql, &[]).await
}

#[tokio::test]
async fn p4_parents_that_the_other_side_changes_again_where_cascades_are_unlogged() -> Result<()> {
    parents_that_the_other_side_changes_again(Flavor::MySql, MYSQL_NATIVE.options).await
}

#[tokio::test]
async fn p4_parents_that_the_other_side_changes_again_on_mariadb() -> Result<()> {
    parents_that_the_other_side_changes_again(Flavor::MariaDb, &[]).await
}
