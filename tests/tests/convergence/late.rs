//! P4 for what is asked for while users go on: a row gets another key before the other side's question for what hangs on it
//! arrives.

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::prelude::Queryable;

use crate::orphans::{CLOCK, LIMIT, until_nothing_waits, until_status};
use crate::{MYSQL_NATIVE, servers_with};

/// Whether the servers' binlogs tell what a foreign key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cascades {
    Told,
    Silent,
}

/// Tables with these columns and rows on both sides, and both directions at rest. `{to}` stands for the beginning of a reference.
async fn resting(
    servers: &'static SharedPair,
    name: &'static str,
    tables: &[(&str, &str)],
    before: &[&str],
) -> Result<Migration> {
    let mut migration = Migration::on_servers(&Setup::new(servers.flavor(), name), servers).await?;
    for (table, columns) in tables {
        let columns = columns.replace("{to}", "FOREIGN KEY ");
        migration.on_both(&[&format!("CREATE TABLE {{schema}}.{table} ({columns}, {CLOCK})")]).await?;
    }
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, before).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    Ok(migration)
}

/// Lets one direction go on, until it has passed so many more messages or has set some aside.
async fn pass(migration: &Migration, direction: Direction, through: u64) -> Result<()> {
    migration.go_on(&[direction]).await?;
    until_status(migration, "one direction through", |status| {
        let of = |name: &str| status.number(direction.as_str(), name);
        of("settled_seq") == of("last_seq") && of("last_seq") >= through
    })
    .await
}

async fn last_seq(migration: &Migration, direction: Direction) -> Result<u64> {
    Ok(migration.status().read().await?.number(direction.as_str(), "last_seq"))
}

/// All rows of these tables on one side, each as the expression says.
async fn left(migration: &Migration, tables: &[(&str, &str)]) -> Result<String> {
    let schema = sql::name(&migration.schema);
    let rows = |(table, what): &(&str, &str)| {
        format!("(SELECT COALESCE(GROUP_CONCAT({what} ORDER BY {what} SEPARATOR ','), '') FROM {schema}.{table})")
    };
    let lists: Vec<String> = tables.iter().map(rows).collect();
    let query = format!("SELECT CONCAT_WS(' ', {})", lists.join(", "));
    Ok(migration.old.get_conn().await?.query_first(query).await?.unwrap_or_default())
}

/// A guest's place ends, and with it the guest and all that hangs on it, while the other side lets the guest go to another place.
/// It comes back alone; and before the question for what hangs on it arrives, its users give it another key, and that key to another
/// guest.
async fn a_row_that_moves_before_it_is_asked_for(servers: &'static SharedPair, cascades: Cascades) -> Result<()> {
    let tables = [
        ("places", "id INT PRIMARY KEY"),
        ("guests", "id INT PRIMARY KEY, place INT, {to}(place) REFERENCES {schema}.places (id) ON DELETE CASCADE"),
        (
            "notes",
            "guest INT, n INT, PRIMARY KEY (guest, n), \
             {to}(guest) REFERENCES {schema}.guests (id) ON DELETE CASCADE ON UPDATE CASCADE",
        ),
        (
            "pages",
            "id INT PRIMARY KEY, guest INT, n INT, {to}(guest, n) REFERENCES {schema}.notes (guest, n) \
             ON DELETE CASCADE ON UPDATE CASCADE",
        ),
        (
            "seats",
            "id INT PRIMARY KEY, guest INT, \
             {to}(guest) REFERENCES {schema}.guests (id) ON DELETE SET NULL ON UPDATE CASCADE",
        ),
    ];
    let before = [
        "INSERT INTO {schema}.places (id) VALUES (1), (2)",
        "INSERT INTO {schema}.guests (id, place) VALUES (1, 1)",
        "INSERT INTO {schema}.notes (guest, n) VALUES (1, 1)",
        "INSERT INTO {schema}.pages (id, guest, n) VALUES (1, 1, 1)",
        "INSERT INTO {schema}.seats (id, guest) VALUES (1, 1)",
    ];
    let mut migration = resting(servers, "late_question", &tables, &before).await?;
    let known = last_seq(&migration, Direction::Reverse).await?;
    migration.on(&migration.old, &["DELETE FROM {schema}.places WHERE id = 1"]).await?;
    // Later, also where the time of a delete is told in whole seconds.
    migration.on(&migration.new, &["DO SLEEP(1.1)", "UPDATE {schema}.guests SET place = 2 WHERE id = 1"]).await?;
    pass(&migration, Direction::Reverse, known + 1).await?;
    let moves = [
        "UPDATE {schema}.guests SET id = 11 WHERE id = 1",
        "UPDATE {schema}.guests SET id = 12 WHERE id = 11",
        "INSERT INTO {schema}.guests (id, place) VALUES (1, 2)",
        "INSERT INTO {schema}.notes (guest, n) VALUES (1, 9)",
    ];
    migration.on(&migration.new, &moves).await?;
    pass(&migration, Direction::Reverse, known + 5).await?;
    migration.go_on(&[Direction::Forward]).await?;
    until_nothing_waits(&migration).await?;
    // Where each row's end is a change of its own, that one is judged by its own clock.
    if cascades == Cascades::Silent {
        let rows = [
            ("guests", "CONCAT(id, '>', place)"),
            ("notes", "CONCAT(guest, ':', n)"),
            ("pages", "CONCAT(id, '>', guest, ':', n)"),
            ("seats", "CONCAT(id, '>', COALESCE(guest, ''))"),
        ];
        let left = left(&migration, &rows).await?;
        ensure!(left == "12>2,1>2 12:1,1:9 1>12:1 1>12", "{left} are left");
    }
    migration.stop_both().await
}

/// Guests with notes; the place of some ends on old, and with it they and their notes, while new lets them go to another place. They
/// come back to old alone, and the questions for what hangs on them are under way.
async fn asked_for(servers: &'static SharedPair, name: &'static str, guests: &str) -> Result<Migration> {
    let tables = [
        ("places", "id INT PRIMARY KEY"),
        (
            "guests",
            "id INT PRIMARY KEY, place INT, v INT, {to}(place) REFERENCES {schema}.places (id) ON DELETE CASCADE",
        ),
        (
            "notes",
            "guest INT, n INT, PRIMARY KEY (guest, n), \
             {to}(guest) REFERENCES {schema}.guests (id) ON DELETE CASCADE ON UPDATE CASCADE",
        ),
    ];
    let before = [
        "INSERT INTO {schema}.places (id) VALUES (1), (2)",
        &format!("INSERT INTO {{schema}}.guests (id, place, v) VALUES {guests}"),
        "INSERT INTO {schema}.notes (guest, n) SELECT id, 1 FROM {schema}.guests",
    ];
    let migration = resting(servers, name, &tables, &before).await?;
    let known = last_seq(&migration, Direction::Reverse).await?;
    migration.on(&migration.old, &["DELETE FROM {schema}.places WHERE id = 1"]).await?;
    migration.on(&migration.new, &["DO SLEEP(1.1)", "UPDATE {schema}.guests SET place = 2"]).await?;
    pass(&migration, Direction::Reverse, known + guests.split("), (").count() as u64).await?;
    Ok(migration)
}

/// Users of the side that is asked give the row another key while that side's reader is away: where the row is, is not known until
/// it is back. Who asked goes on with a row meanwhile.
async fn a_row_that_moves_while_the_reader_is_away(servers: &'static SharedPair, cascades: Cascades) -> Result<()> {
    let mut migration = asked_for(servers, "reader_away", "(1, 1, 1), (2, 1, 1)").await?;
    migration.stop(Direction::Reverse).await?;
    migration.on(&migration.new, &["UPDATE {schema}.guests SET id = 11 WHERE id = 1"]).await?;
    migration.on(&migration.old, &["UPDATE {schema}.guests SET v = 2 WHERE id = 2"]).await?;
    migration.go_on(&[Direction::Forward]).await?;
    until_status(&migration, "the questions are set aside", |status| {
        let of = |name: &str| status.number("forward", name);
        of("settled_seq") == of("last_seq") && of("held") >= 2
    })
    .await?;
    let held = migration.crossfade(&["messages", "list", "--status", "held", "--json"]).await?;
    let held: Vec<serde_json::Value> = serde_json::from_str(&held)?;
    let question = held.iter().find(|message| message["origin"] == "asked");
    let question = question.with_context(|| format!("no question is held: {held:?}"))?;
    let shown = migration.crossfade(&["messages", "show", question["id"].as_str().unwrap_or_default()]).await?;
    ensure!(shown.contains("it is answered: what hangs on the row on new goes back to old"), "{shown}");
    migration.start(Direction::Reverse, &[])?;
    until_nothing_waits(&migration).await?;
    if cascades == Cascades::Silent {
        let rows = [("guests", "CONCAT(id, '>', place, ':', v)"), ("notes", "CONCAT(guest, ':', n)")];
        let left = left(&migration, &rows).await?;
        ensure!(left == "11>2:1,2>2:2 11:1,2:1", "{left} are left");
    }
    migration.stop_both().await
}

/// Who asks for what hangs on a row gives it another key, or ends it, before there is an answer.
async fn a_row_that_its_asker_goes_on_with(servers: &'static SharedPair) -> Result<()> {
    let mut migration = asked_for(servers, "asker_goes_on", "(1, 1, 1), (2, 1, 1), (3, 1, 1)").await?;
    let goes_on = [
        "UPDATE {schema}.guests SET id = 11 WHERE id = 1",
        "UPDATE {schema}.guests SET id = 12 WHERE id = 2",
        "DELETE FROM {schema}.guests WHERE id = 3",
    ];
    migration.on(&migration.old, &goes_on).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.notes (guest, n) VALUES (12, 2)"]).await?;
    migration.go_on(&[Direction::Forward]).await?;
    until_nothing_waits(&migration).await?;
    migration.stop_both().await
}

/// As servers before 9.6 do, it leaves out of its binlog what a foreign key changes.
async fn silent_mysql() -> Result<&'static SharedPair> {
    servers_with(Flavor::MySql, MYSQL_NATIVE.options).await
}

#[tokio::test]
async fn p4_a_row_that_moves_before_it_is_asked_for_on_mysql() -> Result<()> {
    a_row_that_moves_before_it_is_asked_for(SharedPair::get(Flavor::MySql).await, Cascades::Told).await
}

#[tokio::test]
async fn p4_a_row_that_moves_before_it_is_asked_for_where_cascades_are_unlogged() -> Result<()> {
    a_row_that_moves_before_it_is_asked_for(silent_mysql().await?, Cascades::Silent).await
}

#[tokio::test]
async fn p4_a_row_that_moves_before_it_is_asked_for_on_mariadb() -> Result<()> {
    a_row_that_moves_before_it_is_asked_for(SharedPair::get(Flavor::MariaDb).await, Cascades::Silent).await
}

#[tokio::test]
async fn p4_a_row_that_moves_while_the_reader_is_away_on_mysql() -> Result<()> {
    a_row_that_moves_while_the_reader_is_away(SharedPair::get(Flavor::MySql).await, Cascades::Told).await
}

#[tokio::test]
async fn p4_a_row_that_moves_while_the_reader_is_away_where_cascades_are_unlogged() -> Result<()> {
    a_row_that_moves_while_the_reader_is_away(silent_mysql().await?, Cascades::Silent).await
}

#[tokio::test]
async fn p4_a_row_that_moves_while_the_reader_is_away_on_mariadb() -> Result<()> {
    a_row_that_moves_while_the_reader_is_away(SharedPair::get(Flavor::MariaDb).await, Cascades::Silent).await
}

#[tokio::test]
async fn p4_a_row_that_its_asker_goes_on_with_on_mysql() -> Result<()> {
    a_row_that_its_asker_goes_on_with(SharedPair::get(Flavor::MySql).await).await
}

#[tokio::test]
async fn p4_a_row_that_its_asker_goes_on_with_where_cascades_are_unlogged() -> Result<()> {
    a_row_that_its_asker_goes_on_with(silent_mysql().await?).await
}

#[tokio::test]
async fn p4_a_row_that_its_asker_goes_on_with_on_mariadb() -> Result<()> {
    a_row_that_its_asker_goes_on_with(SharedPair::get(Flavor::MariaDb).await).await
}
