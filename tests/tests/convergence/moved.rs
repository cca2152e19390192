//! P4 for rows that change their keys while the other side does something to them: such a change wins or loses as a whole on both
//! sides, nobody's row is there twice, and nothing stays set aside.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

use crate::orphans::{CLOCK, LIMIT, until_nothing_waits};
use crate::{MYSQL_NATIVE, servers_with};

/// What happens to a few rows, and what both sides have in the end. `#` stands for the scenario's hundreds.
struct Scenario {
    what: &'static str,
    /// Before what the mover does, and after.
    earlier: &'static [&'static str],
    moves: &'static [&'static str],
    later: &'static [&'static str],
    left: &'static str,
}

/// Rows `#05` and `#06` are there before.
const SCENARIOS: [Scenario; 10] = [
    Scenario {
        what: "a later change of the row as it was",
        earlier: &[],
        moves: &["UPDATE {t} SET id = #15 WHERE id = #05"],
        later: &["UPDATE {t} SET name = 'later' WHERE id = #05"],
        left: "#05 later, #06 b",
    },
    Scenario {
        what: "an earlier change of the row as it was",
        earlier: &["UPDATE {t} SET name = 'earlier' WHERE id = #05"],
        moves: &["UPDATE {t} SET id = #15 WHERE id = #05"],
        later: &[],
        left: "#06 b, #15 a",
    },
    Scenario {
        what: "who moved the row goes on with it",
        earlier: &[],
        moves: &[
            "UPDATE {t} SET id = #15 WHERE id = #05",
            "UPDATE {t} SET name = 'more' WHERE id = #15",
            "UPDATE {t} SET id = #25 WHERE id = #15",
            "UPDATE {t} SET name = 'still more' WHERE id = #25",
        ],
        later: &["UPDATE {t} SET name = 'later' WHERE id = #05"],
        left: "#05 later, #06 b",
    },
    Scenario {
        what: "the new key is taken",
        earlier: &[],
        moves: &["UPDATE {t} SET id = #15 WHERE id = #05"],
        later: &["INSERT INTO {t} (id, code, name) VALUES (#15, 'c#15', 'other')"],
        left: "#05 a, #06 b, #15 other",
    },
    Scenario {
        what: "the moved row is deleted",
        earlier: &[],
        moves: &["UPDATE {t} SET id = #15 WHERE id = #05", "DELETE FROM {t} WHERE id = #15"],
        later: &["UPDATE {t} SET name = 'later' WHERE id = #05"],
        left: "#05 later, #06 b",
    },
    Scenario {
        what: "rows that change places, and do not",
        earlier: &[],
        moves: &[
            "BEGIN",
            "UPDATE {t} SET id = #15 WHERE id = #05",
            "UPDATE {t} SET id = #05 WHERE id = #06",
            "UPDATE {t} SET id = #06 WHERE id = #15",
            "COMMIT",
        ],
        later: &["UPDATE {t} SET name = 'later' WHERE id = #05"],
        left: "#05 later, #06 b",
    },
    Scenario {
        what: "rows that change places",
        earlier: &["UPDATE {t} SET name = 'earlier' WHERE id = #05"],
        moves: &[
            "BEGIN",
            "UPDATE {t} SET id = #15 WHERE id = #05",
            "UPDATE {t} SET id = #05 WHERE id = #06",
            "UPDATE {t} SET id = #06 WHERE id = #15",
            "COMMIT",
        ],
        later: &[],
        left: "#05 b, #06 a",
    },
    Scenario {
        what: "the row is deleted where it was",
        earlier: &[],
        moves: &["UPDATE {t} SET id = #15 WHERE id = #05"],
        // MariaDB tells the time of a delete in whole seconds.
        later: &["DO SLEEP(1.1)", "DELETE FROM {t} WHERE id = #05"],
        left: "#06 b",
    },
    Scenario {
        what: "both move the row",
        earlier: &[],
        moves: &["UPDATE {t} SET id = #15 WHERE id = #05"],
        later: &["UPDATE {t} SET id = #25 WHERE id = #05"],
        left: "#06 b, #25 a",
    },
    Scenario {
        what: "another row takes the old key",
        earlier: &[],
        moves: &["UPDATE {t} SET id = #15 WHERE id = #05", "UPDATE {t} SET id = #05 WHERE id = #06"],
        later: &["UPDATE {t} SET name = 'later' WHERE id = #05"],
        left: "#05 later, #06 b",
    },
];

const TABLES: [&str; 2] = ["plain", "coded"];

/// Every scenario, in one table with a unique column and one without, with either side as the one that moves rows.
async fn moved_rows(flavor: Flavor, name: &'static str, settings: &str) -> Result<()> {
    let mut setup = Setup::new(flavor, name);
    if !settings.is_empty() {
        setup.tables += settings;
    }
    let mut migration = Migration::new(&setup).await?;
    let columns = format!("id INT PRIMARY KEY, code VARCHAR(20), name VARCHAR(20) NOT NULL, {CLOCK}");
    let plain = format!("CREATE TABLE {{schema}}.plain ({columns})");
    let coded = format!("CREATE TABLE {{schema}}.coded ({columns}, UNIQUE (code))");
    migration.on_both(&[&plain, &coded]).await?;
    migration.init().await?;
    migration.start_both().await?;
    let before = "INSERT INTO {t} (id, code, name) VALUES (#05, 'c#05', 'a'), (#06, 'c#06', 'b')";
    for number in 1..=2 * SCENARIOS.len() {
        run(&migration, &migration.old, &[before], number).await?;
    }
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let (old, new) = (&migration.old, &migration.new);
    for ((mover, other), first) in [((new, old), 1), ((old, new), 1 + SCENARIOS.len())] {
        for (scenario, number) in SCENARIOS.iter().zip(first..) {
            run(&migration, other, scenario.earlier, number).await?;
            run(&migration, mover, scenario.moves, number).await?;
            run(&migration, other, scenario.later, number).await?;
        }
    }
    migration.go_on(&Direction::BOTH).await?;
    until_nothing_waits(&migration).await?;
    for table in TABLES {
        for (number, scenario) in (1..).zip(SCENARIOS.iter().chain(&SCENARIOS)) {
            let left = scenario.left.replace('#', &number.to_string());
            for (side, pool) in [("old", old), ("new", new)] {
                let found = rows(&migration, pool, table, number).await?;
                ensure!(found == left, "{number} in {table} on {side}, {}: {found}, not {left}", scenario.what);
            }
        }
    }
    migration.stop_both().await
}

async fn run(migration: &Migration, pool: &Pool, statements: &[&str], number: usize) -> Result<()> {
    for table in TABLES {
        let table = format!("{{schema}}.{table}");
        let texts: Vec<String> = statements
            .iter()
            .map(|statement| statement.replace("{t}", &table).replace('#', &number.to_string()))
            .collect();
        migration.on(pool, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    }
    Ok(())
}

async fn rows(migration: &Migration, pool: &Pool, table: &str, number: usize) -> Result<String> {
    let query = format!(
        "SELECT COALESCE(GROUP_CONCAT(id, ' ', name ORDER BY id SEPARATOR ', '), '') FROM {}.{table} WHERE id DIV 100 = {number}",
        sql::name(&migration.schema)
    );
    Ok(pool.get_conn().await?.query_first(query).await?.unwrap_or_default())
}

/// A parent with a unique value changes its key while the other side gives it a child.
async fn moved_parents(flavor: Flavor, rule: &'static str, options: &[(&str, &str)], left: &str) -> Result<()> {
    let settings = format!("[conflict]\nfk_conflict = \"{rule}\"\n");
    let setup = Setup { settings, ..Setup::new(flavor, "moved_parents") };
    let mut migration = if options.is_empty() {
        Migration::new(&setup).await?
    } else {
        Migration::on_servers(&setup, servers_with(flavor, options).await?).await?
    };
    let places = format!("CREATE TABLE {{schema}}.places (id INT PRIMARY KEY, code VARCHAR(20) UNIQUE, {CLOCK})");
    let child = |table: &str, action: &str| {
        format!(
            "CREATE TABLE {{schema}}.{table} (id INT PRIMARY KEY, place INT, {CLOCK}, \
             FOREIGN KEY (place) REFERENCES {{schema}}.places (id) {action})"
        )
    };
    let tables = [child("guests", ""), child("notes", "ON DELETE CASCADE"), child("seats", "ON DELETE SET NULL")];
    migration.on_both(&[&places, &tables[0], &tables[1], &tables[2]]).await?;
    migration.init().await?;
    migration.start_both().await?;
    let values: Vec<String> = (1..=6).map(|id| format!("({id}, 'p{id}')")).collect();
    let before = format!("INSERT INTO {{schema}}.places (id, code) VALUES {}", values.join(", "));
    migration.on(&migration.old, &[&before]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let (old, new) = (&migration.old, &migration.new);
    for ((mover, giver), first) in [((old, new), 1), ((new, old), 4)] {
        for (table, id) in ["guests", "notes", "seats"].into_iter().zip(first..) {
            let moves = format!("UPDATE {{schema}}.places SET id = {} WHERE id = {id}", 10 + id);
            let gives = format!("INSERT INTO {{schema}}.{table} (id, place) VALUES ({0}, {0})", id);
            migration.on(giver, &[&gives]).await?;
            migration
                .on(mover, &[&moves, &format!("UPDATE {{schema}}.places SET id = {} WHERE id = {}", 20 + id, 10 + id)])
                .await?;
        }
    }
    migration.go_on(&Direction::BOTH).await?;
    until_nothing_waits(&migration).await?;
    let ids = |table: &str, column: &str| {
        format!("(SELECT COALESCE(GROUP_CONCAT({column} ORDER BY id), '') FROM {{schema}}.{table})")
    };
    let query = format!(
        "SELECT CONCAT_WS(' ', {}, {}, {}, {})",
        ids("places", "id, code"),
        ids("guests", "id"),
        ids("notes", "id"),
        ids("seats", "id, '>', COALESCE(place, '')")
    );
    let query = query.replace("{schema}", &sql::name(&migration.schema));
    for pool in [old, new] {
        let found: Option<String> = pool.get_conn().await?.query_first(&query).await?;
        ensure!(found.as_deref() == Some(left), "{found:?} are left");
    }
    migration.stop_both().await
}

/// A parent with a unique value changes its key and gets children there, while the other side gives it children by the old key.
/// It is one row, and they are all its children.
async fn children_by_both_keys(flavor: Flavor, name: &'static str, settings: &str) -> Result<()> {
    let mut setup = Setup::new(flavor, name);
    setup.tables += settings;
    let mut migration = Migration::new(&setup).await?;
    let parent = "FOREIGN KEY (place) REFERENCES {schema}.places (id)";
    migration
        .on_both(&[
            &format!("CREATE TABLE {{schema}}.places (id INT PRIMARY KEY, code VARCHAR(20) UNIQUE, {CLOCK})"),
            &format!("CREATE TABLE {{schema}}.guests (id INT PRIMARY KEY, place INT, {CLOCK}, {parent})"),
            &format!(
                "CREATE TABLE {{schema}}.notes (id INT PRIMARY KEY, place INT, {CLOCK}, {parent} ON DELETE CASCADE)"
            ),
            &format!(
                "CREATE TABLE {{schema}}.seats (id INT PRIMARY KEY, place INT, {CLOCK}, {parent} ON DELETE SET NULL)"
            ),
            &format!("CREATE TABLE {{schema}}.rooms (place INT, n INT, {CLOCK}, PRIMARY KEY (place, n), {parent})"),
            &format!(
                "CREATE TABLE {{schema}}.beds (id INT PRIMARY KEY, place INT, room INT, {CLOCK}, \
                 FOREIGN KEY (place, room) REFERENCES {{schema}}.rooms (place, n) ON UPDATE CASCADE)"
            ),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.places (id, code) VALUES (1, 'p1'), (2, 'p2')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let (old, new) = (&migration.old, &migration.new);
    for ((mover, giver), id) in [((old, new), 1), ((new, old), 2)] {
        migration.on(mover, &[&format!("UPDATE {{schema}}.places SET id = {} WHERE id = {id}", 10 + id)]).await?;
        for (pool, place) in [(giver, id), (mover, 10 + id)] {
            let mut gifts: Vec<String> = ["guests", "notes", "seats"]
                .map(|table| format!("INSERT INTO {{schema}}.{table} (id, place) VALUES ({place}, {place})"))
                .into();
            gifts.push(format!("INSERT INTO {{schema}}.rooms (place, n) VALUES ({place}, {place})"));
            gifts.push(format!("INSERT INTO {{schema}}.beds (id, place, room) VALUES ({place}, {place}, {place})"));
            migration.on(pool, &gifts.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
    }
    migration.go_on(&Direction::BOTH).await?;
    until_nothing_waits(&migration).await?;
    let list = |table: &str, what: &str| {
        format!(
            "(SELECT GROUP_CONCAT({what} ORDER BY {what} SEPARATOR ',') FROM {}.{table})",
            sql::name(&migration.schema)
        )
    };
    let children = ["guests", "notes", "seats"].map(|table| list(table, "CONCAT(id, '>', place)"));
    let (rooms, beds) = (list("rooms", "CONCAT(n, '>', place)"), list("beds", "CONCAT(id, '>', place, '/', room)"));
    let query = format!("SELECT CONCAT_WS(' ', {}, {}, {rooms}, {beds})", list("places", "id"), children.join(", "));
    let four = "11>1,12>2,1>1,2>2";
    let wanted = format!("1,2 {four} {four} {four} {four} 11>1/11,12>2/12,1>1/1,2>2/2");
    for pool in [old, new] {
        let found: Option<String> = pool.get_conn().await?.query_first(&query).await?;
        ensure!(found.as_ref() == Some(&wanted), "{found:?} are left");
    }
    migration.stop_both().await
}

/// Servers of its own with a place 4 on both sides, notes that go with their place, and both directions at rest.
async fn resting_with_notes(flavor: Flavor, name: &'static str, options: &[(&str, &str)]) -> Result<Migration> {
    let servers = servers_with(flavor, options).await?;
    let mut migration = Migration::on_servers(&Setup::new(flavor, name), servers).await?;
    migration
        .on_both(&[
            &format!("CREATE TABLE {{schema}}.places (id INT PRIMARY KEY, {CLOCK})"),
            &format!(
                "CREATE TABLE {{schema}}.notes (id INT PRIMARY KEY, place INT, {CLOCK}, \
                 FOREIGN KEY (place) REFERENCES {{schema}}.places (id) ON DELETE CASCADE)"
            ),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.places (id) VALUES (4)"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    Ok(migration)
}

/// A parent leaves its key, another one takes that key, gets a child, and ends with it, which no binlog tells. The other side has
/// given the first one a child: it stays, and so does the child of the other one, which refers to it now.
async fn a_child_that_went_silently(flavor: Flavor, options: &[(&str, &str)]) -> Result<()> {
    let mut migration = resting_with_notes(flavor, "silently", options).await?;
    let moves = [
        "BEGIN",
        "UPDATE {schema}.places SET id = 6 WHERE id = 4",
        "INSERT INTO {schema}.places (id) VALUES (4)",
        "INSERT INTO {schema}.notes (id, place) VALUES (9, 4)",
        "DELETE FROM {schema}.places WHERE id = 4",
        "COMMIT",
    ];
    migration.on(&migration.old, &moves).await?;
    migration.on(&migration.new, &["INSERT INTO {schema}.notes (id, place) VALUES (1, 4)"]).await?;
    migration.go_on(&Direction::BOTH).await?;
    until_nothing_waits(&migration).await?;
    migration.stop_both().await
}

/// A parent ends on both sides, on one with a child of its own, which no binlog tells; and then it is there again.
async fn a_child_whose_parent_ended_twice(flavor: Flavor, options: &[(&str, &str)]) -> Result<()> {
    let mut migration = resting_with_notes(flavor, "ended_twice", options).await?;
    let ends = [
        "BEGIN",
        "INSERT INTO {schema}.notes (id, place) VALUES (9, 4)",
        "DELETE FROM {schema}.places WHERE id = 4",
        "INSERT INTO {schema}.places (id, updated_at) VALUES (4, '2035-01-01 00:00:00')",
        "COMMIT",
    ];
    migration.on(&migration.old, &ends).await?;
    // MariaDB tells the time of a delete in whole seconds.
    migration.on(&migration.new, &["DO SLEEP(2.1)", "DELETE FROM {schema}.places WHERE id = 4"]).await?;
    migration.go_on(&Direction::BOTH).await?;
    until_nothing_waits(&migration).await?;
    migration.stop_both().await
}

const PARENTS_STAY: &str = "1p1,2p2,3p3,4p4,5p5,6p6 1,4 2,5 3>3,6>6";
const CHILDREN_GO: &str = "21p1,22p2,23p3,24p4,25p5,26p6   3>,6>";

#[tokio::test]
async fn p4_moved_rows_on_mysql() -> Result<()> {
    moved_rows(Flavor::MySql, "moved", "").await
}

#[tokio::test]
async fn p4_moved_rows_on_mariadb() -> Result<()> {
    moved_rows(Flavor::MariaDb, "moved", "").await
}

#[tokio::test]
async fn p4_moved_rows_whose_columns_are_merged_on_mysql() -> Result<()> {
    moved_rows(Flavor::MySql, "moved_merged", "merge = \"columns\"\n").await
}

#[tokio::test]
async fn p4_moved_parents_stay_on_mysql() -> Result<()> {
    moved_parents(Flavor::MySql, "parent-returns", &[], PARENTS_STAY).await
}

#[tokio::test]
async fn p4_moved_parents_stay_with_unlogged_cascades_on_mysql() -> Result<()> {
    moved_parents(Flavor::MySql, "parent-returns", MYSQL_NATIVE.options, PARENTS_STAY).await
}

#[tokio::test]
async fn p4_moved_parents_stay_on_mariadb() -> Result<()> {
    moved_parents(Flavor::MariaDb, "parent-returns", &[], PARENTS_STAY).await
}

#[tokio::test]
async fn p4_children_by_both_keys_on_mysql() -> Result<()> {
    children_by_both_keys(Flavor::MySql, "both_keys", "").await
}

#[tokio::test]
async fn p4_children_by_both_keys_where_columns_are_merged_on_mysql() -> Result<()> {
    children_by_both_keys(Flavor::MySql, "both_keys_merged", "merge = \"columns\"\n").await
}

#[tokio::test]
async fn p4_children_by_both_keys_on_mariadb() -> Result<()> {
    children_by_both_keys(Flavor::MariaDb, "both_keys", "").await
}

#[tokio::test]
async fn p4_children_of_moved_parents_go_on_mysql() -> Result<()> {
    moved_parents(Flavor::MySql, "child-goes", &[], CHILDREN_GO).await
}

#[tokio::test]
async fn p4_children_of_moved_parents_go_with_unlogged_cascades_on_mysql() -> Result<()> {
    moved_parents(Flavor::MySql, "child-goes", MYSQL_NATIVE.options, CHILDREN_GO).await
}

#[tokio::test]
async fn p4_children_of_moved_parents_go_on_mariadb() -> Result<()> {
    moved_parents(Flavor::MariaDb, "child-goes", &[], CHILDREN_GO).await
}

#[tokio::test]
async fn p4_a_child_that_went_silently_on_mysql() -> Result<()> {
    a_child_that_went_silently(Flavor::MySql, MYSQL_NATIVE.options).await
}

#[tokio::test]
async fn p4_a_child_that_went_silently_on_mariadb() -> Result<()> {
    a_child_that_went_silently(Flavor::MariaDb, &[]).await
}

#[tokio::test]
async fn p4_a_child_whose_parent_ended_twice_on_mysql() -> Result<()> {
    a_child_whose_parent_ended_twice(Flavor::MySql, MYSQL_NATIVE.options).await
}

#[tokio::test]
async fn p4_a_child_whose_parent_ended_twice_on_mariadb() -> Result<()> {
    a_child_whose_parent_ended_twice(Flavor::MariaDb, &[]).await
}
