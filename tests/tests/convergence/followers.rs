//! P4 for children that follow their parent to its new key. MariaDB, and MySQL before 9.6, do that without a word in the binlog;
//! where the change of the key loses, they come back all the same, and where it wins they do not go.

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

use crate::orphans::{CLOCK, LIMIT, until_nothing_waits, until_status};
use crate::{MYSQL_NATIVE, servers_with};

/// Each with its columns, and with what is asked of its rows in the end.
const TABLES: [(&str, &str, &str); 6] = [
    ("places", "id INT PRIMARY KEY, v INT", "id"),
    ("guests", "id INT PRIMARY KEY, place INT, v INT, {place} ON UPDATE CASCADE", "id, '>', place"),
    ("notes", "id INT PRIMARY KEY, place INT, v INT, {place} ON UPDATE CASCADE ON DELETE CASCADE", "id, '>', place"),
    (
        "pages",
        "id INT PRIMARY KEY, note INT, FOREIGN KEY (note) REFERENCES {schema}.notes (id) ON DELETE CASCADE",
        "id, '>', note",
    ),
    ("rooms", "place INT, n INT, v INT, PRIMARY KEY (place, n), {place} ON UPDATE CASCADE", "n, '>', place"),
    (
        "seats",
        "id INT PRIMARY KEY, place INT, {place} ON UPDATE SET NULL ON DELETE SET NULL",
        "id, '>', COALESCE(place, '')",
    ),
];

/// Places that change their keys: the first has a child that the other side changes or gives, the second is changed itself.
const PLACES: [[u32; 2]; 2] = [[1, 2], [3, 4]];

fn tables() -> Vec<String> {
    let place = "FOREIGN KEY (place) REFERENCES {schema}.places (id)";
    let create =
        |(name, columns, _): (&str, &str, &str)| format!("CREATE TABLE {{schema}}.{name} ({columns}, {CLOCK})");
    TABLES.into_iter().map(|table| create(table).replace("{place}", place)).collect()
}

async fn run(migration: &Migration, pool: &Pool, statements: &[String]) -> Result<()> {
    migration.on(pool, &statements.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// What there is before: two children of every kind, and the grandchildren.
fn before(place: u32) -> Vec<String> {
    let mut texts = vec![format!("INSERT INTO {{schema}}.places (id, v) VALUES ({place}, 1)")];
    for id in [place * 10 + 1, place * 10 + 2] {
        for table in ["guests", "notes", "seats"] {
            texts.push(format!("INSERT INTO {{schema}}.{table} (id, place) VALUES ({id}, {place})"));
        }
        texts.push(format!("INSERT INTO {{schema}}.pages (id, note) VALUES ({id}, {id})"));
        texts.push(format!("INSERT INTO {{schema}}.rooms (place, n) VALUES ({place}, {id})"));
    }
    texts
}

/// What the side does that moves nothing, without having seen the move.
fn meanwhile([first, second]: [u32; 2]) -> Vec<String> {
    let (changed, given) = (first * 10 + 2, first * 10 + 3);
    vec![
        format!("UPDATE {{schema}}.guests SET v = 2 WHERE id = {changed}"),
        format!("UPDATE {{schema}}.notes SET v = 2 WHERE id = {changed}"),
        format!("UPDATE {{schema}}.rooms SET v = 2 WHERE n = {changed}"),
        format!("INSERT INTO {{schema}}.seats (id, place) VALUES ({given}, {first})"),
        format!("UPDATE {{schema}}.places SET v = 2 WHERE id = {second}"),
    ]
}

async fn children_that_followed(servers: &'static SharedPair, rule: &str, left: Option<[&str; 6]>) -> Result<()> {
    let settings = format!("[conflict]\nfk_conflict = \"{rule}\"\n");
    let setup = Setup { settings, ..Setup::new(servers.flavor(), "followers") };
    let mut migration = Migration::on_servers(&setup, servers).await?;
    let (old, new) = (migration.old.clone(), migration.new.clone());
    for pool in [&old, &new] {
        run(&migration, pool, &tables()).await?;
    }
    migration.init().await?;
    migration.start_both().await?;
    for place in PLACES.into_iter().flatten() {
        run(&migration, &old, &before(place)).await?;
    }
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    for (places, (mover, other)) in PLACES.into_iter().zip([(&old, &new), (&new, &old)]) {
        let moves = places.map(|id| format!("UPDATE {{schema}}.places SET id = {} WHERE id = {id}", id + 10));
        run(&migration, mover, &moves).await?;
        run(&migration, other, &meanwhile(places)).await?;
    }
    migration.go_on(&Direction::BOTH).await?;
    until_nothing_waits(&migration).await?;
    for ((name, _, what), left) in TABLES.into_iter().zip(left.into_iter().flatten()) {
        let query = format!(
            "SELECT GROUP_CONCAT({what} ORDER BY CONCAT({what}) SEPARATOR ' ') FROM {}.{name}",
            sql::name(&migration.schema)
        );
        let found: Option<String> = old.get_conn().await?.query_first(query).await?;
        ensure!(found.as_deref() == Some(left), "{found:?} are left of {name}, not {left}");
    }
    migration.stop_both().await
}

/// A parent's key is only spelled otherwise. Where its children have that spelling first, MySQL 9.7 drops the parent's change.
async fn a_parent_that_is_spelled_otherwise(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "spelled")).await?;
    migration
        .on_both(&[
            &format!("CREATE TABLE {{schema}}.users (name VARCHAR(20) PRIMARY KEY, v INT, {CLOCK})"),
            &format!(
                "CREATE TABLE {{schema}}.mails (id INT PRIMARY KEY, name VARCHAR(20), {CLOCK}, \
                 FOREIGN KEY (name) REFERENCES {{schema}}.users (name) ON UPDATE CASCADE)"
            ),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    let rows = [
        "INSERT INTO {schema}.users (name, v) VALUES ('ada', 1)",
        "INSERT INTO {schema}.mails (id, name) VALUES (1, 'ada')",
    ];
    migration.on(&migration.old, &rows).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.on(&migration.old, &["UPDATE {schema}.users SET name = 'Ada', v = 2 WHERE name = 'ada'"]).await?;
    until_nothing_waits(&migration).await?;
    let query =
        format!("SELECT CONCAT_WS(' ', u.name, v, m.name) FROM {0}.users u, {0}.mails m", sql::name(&migration.schema));
    let found: Option<String> = migration.new.get_conn().await?.query_first(query).await?;
    ensure!(found.as_deref() == Some("Ada 2 Ada"), "{found:?} are there");
    migration.stop_both().await
}

/// A parent's key is spelled otherwise on one side, and that loses: to a change of the parent alone, or of its child as well.
async fn a_spelling_that_loses(servers: &'static SharedPair) -> Result<()> {
    let mut migration = Migration::on_servers(&Setup::new(servers.flavor(), "lost_spelling"), servers).await?;
    migration
        .on_both(&[
            &format!("CREATE TABLE {{schema}}.users (name VARCHAR(20) PRIMARY KEY, v INT, {CLOCK})"),
            &format!(
                "CREATE TABLE {{schema}}.mails (id INT PRIMARY KEY, name VARCHAR(20), v INT, {CLOCK}, \
                 FOREIGN KEY (name) REFERENCES {{schema}}.users (name) ON UPDATE CASCADE)"
            ),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    let rows = [
        "INSERT INTO {schema}.users (name, v) VALUES ('ada', 1), ('bob', 1), ('cyd', 1)",
        "INSERT INTO {schema}.mails (id, name, v) VALUES (1, 'ada', 1), (2, 'bob', 1), (3, 'cyd', 1), (4, 'cyd', 1)",
    ];
    migration.on(&migration.old, &rows).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let spelled = ["ada", "bob", "cyd"]
        .map(|name| format!("UPDATE {{schema}}.users SET name = UPPER(name), v = 2 WHERE name = '{name}'"));
    run(&migration, &migration.old, &spelled).await?;
    // Children that the one who respelled the parents has gone on with.
    let gone_on = [
        "INSERT INTO {schema}.mails (id, name, v) VALUES (5, 'ADA', 2), (6, 'ada', 2)",
        "UPDATE {schema}.mails SET v = 2 WHERE id = 4",
    ];
    migration.on(&migration.old, &gone_on).await?;
    let later = ["UPDATE {schema}.users SET v = 3", "UPDATE {schema}.mails SET v = 3 WHERE id IN (2, 3)"];
    migration.on(&migration.new, &later).await?;
    migration.go_on(&Direction::BOTH).await?;
    until_nothing_waits(&migration).await?;
    // How its children spell it is as their own changes have it, and the same on both sides.
    let query =
        format!("SELECT GROUP_CONCAT(name, v ORDER BY name SEPARATOR ' ') FROM {}.users", sql::name(&migration.schema));
    let found: Option<String> = migration.old.get_conn().await?.query_first(query).await?;
    ensure!(found.as_deref() == Some("ada3 bob3 cyd3"), "{found:?} are there");
    migration.stop_both().await
}

/// A parent's key is spelled otherwise on one side, and the other side gives it children by the old spelling meanwhile, and changes
/// some that it had. They keep that spelling on both sides, whatever the server does to children by itself; those that nobody has
/// touched follow.
async fn children_by_the_old_spelling(
    servers: &'static SharedPair,
    name: &'static str,
    first: Direction,
) -> Result<()> {
    let mut migration = Migration::on_servers(&Setup::new(servers.flavor(), name), servers).await?;
    let child = "FOREIGN KEY (name) REFERENCES {schema}";
    migration
        .on_both(&[
            &format!("CREATE TABLE {{schema}}.users (name VARCHAR(20) PRIMARY KEY, v INT, {CLOCK})"),
            &format!(
                "CREATE TABLE {{schema}}.mails (id INT PRIMARY KEY, name VARCHAR(20), v INT, {CLOCK}, \
                 {child}.users (name) ON UPDATE CASCADE)"
            ),
            &format!(
                "CREATE TABLE {{schema}}.boxes (name VARCHAR(20) PRIMARY KEY, v INT, {CLOCK}, \
                 {child}.users (name) ON UPDATE CASCADE)"
            ),
            &format!(
                "CREATE TABLE {{schema}}.letters (id INT PRIMARY KEY, name VARCHAR(20), v INT, {CLOCK}, \
                 {child}.boxes (name) ON UPDATE CASCADE)"
            ),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    let rows = [
        "INSERT INTO {schema}.users (name, v) VALUES ('ada', 1), ('bob', 1), ('cyd', 1), ('dot', 1), ('eve', 1), ('fay', 1)",
        "INSERT INTO {schema}.mails (id, name, v) VALUES (1, 'ada', 1), (2, 'ada', 1), (11, 'bob', 1), (12, 'bob', 1)",
        "INSERT INTO {schema}.boxes (name, v) VALUES ('cyd', 1), ('dot', 1), ('eve', 1), ('fay', 1)",
        "INSERT INTO {schema}.letters (id, name, v) VALUES (1, 'cyd', 1), (11, 'dot', 1), (21, 'eve', 1), (31, 'fay', 1)",
    ];
    migration.on(&migration.old, &rows).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let (old, new) = (&migration.old, &migration.new);
    let sides = [(old, new, ["ada", "cyd", "eve"], 0), (new, old, ["bob", "dot", "fay"], 10)];
    for (speller, giver, [first, second, third], base) in sides {
        let spelled = [first, second, third]
            .map(|name| format!("UPDATE {{schema}}.users SET name = UPPER(name), v = 2 WHERE name = '{name}'"));
        run(&migration, speller, &spelled).await?;
        let given = [
            format!("UPDATE {{schema}}.mails SET v = 2 WHERE id = {}", base + 2),
            format!("INSERT INTO {{schema}}.mails (id, name) VALUES ({}, '{first}')", base + 3),
            format!("INSERT INTO {{schema}}.boxes (name) VALUES ('{first}')"),
            format!("INSERT INTO {{schema}}.letters (id, name) VALUES ({}, '{first}')", base + 2),
            format!("INSERT INTO {{schema}}.letters (id, name) VALUES ({}, '{second}')", base + 3),
            // Of this one the spelling loses.
            format!("UPDATE {{schema}}.users SET v = 3 WHERE name = '{third}'"),
        ];
        run(&migration, giver, &given).await?;
    }
    migration.go_on(&[first]).await?;
    until_status(&migration, "one direction through", |status| {
        let of = |name: &str| status.number(first.as_str(), name);
        of("settled_seq") == of("last_seq")
    })
    .await?;
    migration.go_on(&[first.opposite()]).await?;
    until_nothing_waits(&migration).await?;
    let list = |table: &str, what: &str| {
        format!(
            "(SELECT GROUP_CONCAT({what} ORDER BY CONCAT({what}) SEPARATOR ' ') FROM {}.{table} \
              WHERE name NOT IN ('eve', 'fay'))",
            sql::name(&migration.schema)
        )
    };
    let query = format!(
        "SELECT CONCAT_WS('; ', {}, {}, {}, {})",
        list("users", "name"),
        list("mails", "id, name"),
        list("boxes", "name"),
        list("letters", "id, name")
    );
    let found: Option<String> = old.get_conn().await?.query_first(query).await?;
    let wanted = "ADA BOB CYD DOT; 11BOB 12bob 13bob 1ADA 2ada 3ada; ada bob CYD DOT; 11DOT 12bob 13dot 1CYD 2ada 3cyd";
    ensure!(found.as_deref() == Some(wanted), "{found:?} are there");
    migration.stop_both().await
}

async fn children_by_the_old_spelling_in_both_orders(servers: &'static SharedPair) -> Result<()> {
    children_by_the_old_spelling(servers, "old_spelling", Direction::Forward).await?;
    children_by_the_old_spelling(servers, "old_spelling_back", Direction::Reverse).await
}

on_both_brands! {
    a_parent_that_is_spelled_otherwise: p4_a_parent_spelled_otherwise_on_mysql, p4_a_parent_spelled_otherwise_on_mariadb;
}

const ALL: &str = "11>1 12>1 21>2 22>2 31>3 32>3 41>4 42>4";
const ALL_PAGES: &str = "11>11 12>12 21>21 22>22 31>31 32>32 41>41 42>42";
const ALL_SEATS: &str = "11>1 12>1 13>1 21>2 22>2 31>3 32>3 33>3 41>4 42>4";
const PARENTS_STAY: [&str; 6] = ["1 2 3 4", ALL, ALL, ALL_PAGES, ALL, ALL_SEATS];

/// What the other side has not touched has followed.
const MOST: &str = "11>11 21>2 22>2 31>13 41>4 42>4";
const MOST_PAGES: &str = "11>11 21>21 22>22 31>31 41>41 42>42";
const EMPTY_SEATS: &str = "11> 12> 13> 21>2 22>2 31> 32> 33> 41>4 42>4";
const CHILDREN_GO: [&str; 6] = ["11 13 2 4", MOST, MOST, MOST_PAGES, MOST, EMPTY_SEATS];

#[tokio::test]
async fn p4_a_spelling_that_loses_on_mysql() -> Result<()> {
    a_spelling_that_loses(SharedPair::get(Flavor::MySql).await).await
}

#[tokio::test]
async fn p4_a_spelling_that_loses_where_cascades_are_unlogged() -> Result<()> {
    a_spelling_that_loses(servers_with(Flavor::MySql, MYSQL_NATIVE.options).await?).await
}

#[tokio::test]
async fn p4_a_spelling_that_loses_on_mariadb() -> Result<()> {
    a_spelling_that_loses(SharedPair::get(Flavor::MariaDb).await).await
}

#[tokio::test]
async fn p4_children_by_the_old_spelling_on_mysql() -> Result<()> {
    children_by_the_old_spelling_in_both_orders(SharedPair::get(Flavor::MySql).await).await
}

#[tokio::test]
async fn p4_children_by_the_old_spelling_where_cascades_are_unlogged() -> Result<()> {
    children_by_the_old_spelling_in_both_orders(servers_with(Flavor::MySql, MYSQL_NATIVE.options).await?).await
}

#[tokio::test]
async fn p4_children_by_the_old_spelling_on_mariadb() -> Result<()> {
    children_by_the_old_spelling_in_both_orders(SharedPair::get(Flavor::MariaDb).await).await
}

#[tokio::test]
async fn p4_followers_come_back_on_mysql() -> Result<()> {
    // Each has a change of its own, which makes the parent stay under both keys.
    children_that_followed(SharedPair::get(Flavor::MySql).await, "parent-returns", None).await
}

#[tokio::test]
async fn p4_followers_come_back_where_cascades_are_unlogged() -> Result<()> {
    children_that_followed(
        servers_with(Flavor::MySql, MYSQL_NATIVE.options).await?,
        "parent-returns",
        Some(PARENTS_STAY),
    )
    .await
}

#[tokio::test]
async fn p4_followers_come_back_on_mariadb() -> Result<()> {
    children_that_followed(SharedPair::get(Flavor::MariaDb).await, "parent-returns", Some(PARENTS_STAY)).await
}

#[tokio::test]
async fn p4_followers_may_go_on_mysql() -> Result<()> {
    // Each has a change of its own, which goes with a parent that does not come.
    children_that_followed(SharedPair::get(Flavor::MySql).await, "child-goes", None).await
}

#[tokio::test]
async fn p4_followers_do_not_go_on_mariadb() -> Result<()> {
    children_that_followed(SharedPair::get(Flavor::MariaDb).await, "child-goes", Some(CHILDREN_GO)).await
}
