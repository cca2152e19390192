//! P4 for rows that go, or follow, with others and of which no binlog tells: MariaDB's, and MySQL's before 9.6, say nothing of what
//! a foreign key does. Each schedule runs where it is told as well.

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_testkit::sql;
use crossfade_tests::{Migration, Setup};
use mysql_async::prelude::Queryable;

use crate::orphans::{CLOCK, LIMIT, until_nothing_waits, until_status};
use crate::{MYSQL_NATIVE, servers_with};

/// What both sides do, each before it has anything of the other's, and what is to be there in the end.
struct Schedule {
    name: &'static str,
    /// Each with its columns; `{to}` stands for the beginning of a reference.
    tables: &'static [(&'static str, &'static str)],
    before: &'static [&'static str],
    on_old: &'static [&'static str],
    on_new: &'static [&'static str],
    /// Of each table what is asked of its rows, and what is answered.
    left: &'static [(&'static str, &'static str, &'static str)],
}

/// A child came to another parent while its own one ended, with it and all that hangs on it.
const A_CHILD_THAT_LEFT: Schedule = Schedule {
    name: "child-left",
    tables: &[
        ("places", "id INT PRIMARY KEY, v INT"),
        (
            "guests",
            "id INT PRIMARY KEY, place INT, v INT, {to}(place) REFERENCES {schema}.places (id) ON DELETE CASCADE",
        ),
        (
            "notes",
            "guest INT, n INT, v INT, PRIMARY KEY (guest, n), \
             {to}(guest) REFERENCES {schema}.guests (id) ON DELETE CASCADE ON UPDATE CASCADE",
        ),
        (
            "pages",
            "id INT PRIMARY KEY, guest INT, n INT, {to}(guest, n) REFERENCES {schema}.notes (guest, n) \
             ON DELETE CASCADE ON UPDATE CASCADE",
        ),
        (
            "seats",
            "id INT PRIMARY KEY, guest INT, v INT, \
             {to}(guest) REFERENCES {schema}.guests (id) ON DELETE SET NULL ON UPDATE CASCADE",
        ),
    ],
    before: &[
        "INSERT INTO {schema}.places (id, v) VALUES (1, 1), (2, 1), (3, 1), (4, 1), (5, 1)",
        "INSERT INTO {schema}.guests (id, place, v) VALUES (1, 1, 1), (2, 3, 1), (3, 4, 1), (4, 5, 1)",
        "INSERT INTO {schema}.notes (guest, n, v) VALUES (1, 1, 1), (1, 2, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1)",
        "INSERT INTO {schema}.pages (id, guest, n) VALUES (1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 3, 1), (5, 4, 1)",
        "INSERT INTO {schema}.seats (id, guest, v) VALUES (1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 1)",
    ],
    // The second guest changes its key as well; the third stays with its place; the fourth ends by itself. Of several children that
    // go with one row MySQL 9.7 may leave the grandchildren there, as orphans, so each has a parent of its own.
    on_old: &[
        "UPDATE {schema}.guests SET v = 2 WHERE id = 1",
        "DELETE FROM {schema}.places WHERE id = 1",
        "DELETE FROM {schema}.places WHERE id = 3",
        "DELETE FROM {schema}.places WHERE id = 4",
        "DELETE FROM {schema}.places WHERE id = 5",
        "UPDATE {schema}.seats SET v = 2 WHERE id = 3",
    ],
    on_new: &[
        "UPDATE {schema}.guests SET place = 2, v = 3 WHERE id = 1",
        "UPDATE {schema}.guests SET place = 2, id = 12 WHERE id = 2",
        "DELETE FROM {schema}.pages WHERE id = 2",
        "DELETE FROM {schema}.guests WHERE id = 4",
    ],
    left: &[
        ("places", "id", "2"),
        ("guests", "id, '>', place", "12>2 1>2"),
        ("notes", "guest, ':', n", "12:1 1:1 1:2"),
        ("pages", "id, '>', guest, ':', n", "1>1:1 3>12:1"),
        ("seats", "id, '>', COALESCE(guest, ''), ':', v", "1>1:1 2>12:1 3>:2 4>:1"),
    ],
};

/// A parent came to another key, and its children with it, while the other side ended it.
const A_PARENT_THAT_MOVED: Schedule = Schedule {
    name: "parent-moved",
    tables: &[
        ("places", "id INT PRIMARY KEY, code VARCHAR(9) UNIQUE"),
        ("guests", "id INT PRIMARY KEY, place INT, {to}(place) REFERENCES {schema}.places (id) ON UPDATE CASCADE"),
        (
            "notes",
            "id INT PRIMARY KEY, place INT, \
             {to}(place) REFERENCES {schema}.places (id) ON DELETE CASCADE ON UPDATE CASCADE",
        ),
        (
            "seats",
            "id INT PRIMARY KEY, place INT, \
             {to}(place) REFERENCES {schema}.places (id) ON DELETE SET NULL ON UPDATE CASCADE",
        ),
    ],
    before: &[
        "INSERT INTO {schema}.places (id, code) VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO {schema}.notes (id, place) VALUES (1, 1), (2, 2)",
        "INSERT INTO {schema}.seats (id, place) VALUES (1, 1), (2, 2)",
    ],
    on_old: &["DELETE FROM {schema}.places WHERE id IN (1, 2)"],
    on_new: &[
        "UPDATE {schema}.places SET id = 11 WHERE id = 1",
        "INSERT INTO {schema}.notes (id, place) VALUES (3, 11)",
        "INSERT INTO {schema}.guests (id, place) VALUES (4, 2)",
        "UPDATE {schema}.places SET id = 12 WHERE id = 2",
    ],
    left: &[
        ("places", "id, code", "11a 12b"),
        ("guests", "id, '>', place", "4>12"),
        ("notes", "id, '>', place", "1>11 2>12 3>11"),
        ("seats", "id, '>', COALESCE(place, '')", "1>11 2>12"),
    ],
};

/// The same where the children go rather than that their parent returns: one was given to it, and not to what it became.
const A_PARENT_THAT_MOVED_WITHOUT_ONE: Schedule = Schedule {
    left: &[
        ("places", "id, code", "11a 12b"),
        ("guests", "id, '>', place", ""),
        ("notes", "id, '>', place", "1>11 2>12 3>11"),
        ("seats", "id, '>', COALESCE(place, '')", "1>11 2>12"),
    ],
    ..A_PARENT_THAT_MOVED
};

/// Children came, and went with one of their parents when that one's own parent ended; the other parent had ended before, in
/// the same way, on the other side.
const A_DIAMOND: Schedule = Schedule {
    name: "diamond",
    tables: &[
        ("places", "id INT PRIMARY KEY, v INT"),
        ("guests", "id INT PRIMARY KEY, place INT, {to}(place) REFERENCES {schema}.places (id) ON DELETE CASCADE"),
        ("rooms", "id INT PRIMARY KEY, place INT, {to}(place) REFERENCES {schema}.places (id) ON DELETE CASCADE"),
        (
            "stays",
            "id INT PRIMARY KEY, guest INT, room INT, \
             {to}(guest) REFERENCES {schema}.guests (id) ON DELETE CASCADE, \
             {to}(room) REFERENCES {schema}.rooms (id) ON DELETE SET NULL",
        ),
    ],
    before: &[
        "INSERT INTO {schema}.places (id, v) VALUES (1, 1), (2, 1)",
        "INSERT INTO {schema}.guests (id, place) VALUES (1, 1), (2, 2)",
        "INSERT INTO {schema}.rooms (id, place) VALUES (1, 1), (2, 2)",
        "INSERT INTO {schema}.stays (id, guest, room) VALUES (1, 1, 1), (2, 2, 1), (3, 1, 2)",
    ],
    on_old: &["DELETE FROM {schema}.places WHERE id = 1"],
    on_new: &[
        "INSERT INTO {schema}.stays (id, guest, room) VALUES (4, 2, 1)",
        "INSERT INTO {schema}.stays (id, guest, room) VALUES (5, 1, 2)",
        "DELETE FROM {schema}.places WHERE id = 2",
    ],
    left: &[
        ("places", "id", "1"),
        ("guests", "id, '>', place", "1>1"),
        ("rooms", "id, '>', place", "1>1"),
        ("stays", "id, '>', guest, '/', COALESCE(room, '')", "1>1/1 3>1/ 5>1/"),
    ],
};

/// The same where nobody gives the first parent a child that stays: both end, and all that hung on them.
const A_DIAMOND_THAT_GOES: Schedule = Schedule {
    name: "diamond-goes",
    on_new: &[
        "INSERT INTO {schema}.stays (id, guest, room) VALUES (4, 2, 1)",
        "DELETE FROM {schema}.places WHERE id = 2",
    ],
    left: &[("places", "id", ""), ("guests", "id", ""), ("rooms", "id", ""), ("stays", "id", "")],
    ..A_DIAMOND
};

/// The same where the children go rather than that their parent returns.
const A_DIAMOND_WITHOUT_CHILDREN: Schedule =
    Schedule { name: "diamond-empty", left: A_DIAMOND_THAT_GOES.left, ..A_DIAMOND };

impl Schedule {
    async fn run(&self, servers: &'static SharedPair, rule: &str, is_told: bool) -> Result<()> {
        let settings = format!("[conflict]\nfk_conflict = \"{rule}\"\n");
        let setup = Setup { settings, ..Setup::new(servers.flavor(), self.name) };
        let mut migration = Migration::on_servers(&setup, servers).await?;
        for (name, columns) in self.tables {
            let columns = columns.replace("{to}", "FOREIGN KEY ");
            migration.on_both(&[&format!("CREATE TABLE {{schema}}.{name} ({columns}, {CLOCK})")]).await?;
        }
        migration.init().await?;
        migration.start_both().await?;
        migration.on(&migration.old, self.before).await?;
        migration.until_quiet_and_equal(LIMIT).await?;
        migration.apart(self.on_old, self.on_new).await?;
        until_nothing_waits(&migration).await?;
        let mut wrong = Vec::new();
        // Where each row has a change of its own, that one is judged by its own clock.
        for (table, what, left) in self.left.iter().filter(|_| !is_told) {
            let query = format!(
                "SELECT GROUP_CONCAT({what} ORDER BY CONCAT({what}) SEPARATOR ' ') FROM {}.{table}",
                sql::name(&migration.schema)
            );
            let found: Option<Option<String>> = migration.old.get_conn().await?.query_first(query).await?;
            let found = found.flatten().unwrap_or_default();
            if found != **left {
                wrong.push(format!("{found} are left of {table}, not {left}"));
            }
        }
        ensure!(wrong.is_empty(), "{}: {}", self.name, wrong.join("; "));
        migration.stop_both().await
    }
}

/// A child is refused. It goes with its parent when that one's own parent ends, in a later batch.
async fn a_child_that_waits_and_goes(servers: &'static SharedPair) -> Result<()> {
    let mut migration = Migration::on_servers(&Setup::new(servers.flavor(), "waits-and-goes"), servers).await?;
    let tables = [
        "places (id INT PRIMARY KEY, {clock})",
        "guests (id INT PRIMARY KEY, place INT, {clock}, {to}(place) REFERENCES {schema}.places (id) ON DELETE CASCADE)",
        "stays (id INT PRIMARY KEY, guest INT, n INT, {clock}, \
         {to}(guest) REFERENCES {schema}.guests (id) ON DELETE CASCADE)",
    ];
    for table in tables {
        let columns = table.replace("{clock}", CLOCK).replace("{to}", "FOREIGN KEY ");
        migration.on_both(&[&format!("CREATE TABLE {{schema}}.{columns}")]).await?;
    }
    migration.init().await?;
    migration.start_both().await?;
    let before = [
        "INSERT INTO {schema}.places (id) VALUES (1), (2)",
        "INSERT INTO {schema}.guests (id, place) VALUES (1, 1), (2, 2), (3, 1)",
        "INSERT INTO {schema}.stays (id, guest, n) VALUES (1, 1, 1), (2, 2, 2)",
    ];
    migration.on(&migration.old, &before).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.on(&migration.old, &["ALTER TABLE {schema}.stays ADD CONSTRAINT below CHECK (n < 1000)"]).await?;
    let refused = ["INSERT INTO {schema}.stays (id, guest, n) VALUES (3, 1, 5000)"];
    migration.on(&migration.new, &refused).await?;
    until_status(&migration, "a child set aside", |status| status.number("reverse", "open_failures") == 1).await?;
    migration.on(&migration.new, &["DELETE FROM {schema}.places WHERE id = 1"]).await?;
    until_nothing_waits(&migration).await?;
    let query =
        format!("SELECT CONCAT_WS(' ', g.id, s.id) FROM {0}.guests g, {0}.stays s", sql::name(&migration.schema));
    let found: Vec<String> = migration.old.get_conn().await?.query(query).await?;
    ensure!(found == ["2 2"], "{found:?} are left");
    migration.stop_both().await
}

async fn all_schedules(servers: &'static SharedPair, is_told: bool) -> Result<()> {
    let [returns, goes] = ["parent-returns", "child-goes"];
    let runs = [
        (A_CHILD_THAT_LEFT, returns),
        (A_CHILD_THAT_LEFT, goes),
        (A_PARENT_THAT_MOVED, returns),
        (A_PARENT_THAT_MOVED_WITHOUT_ONE, goes),
        (A_DIAMOND, returns),
        (A_DIAMOND_WITHOUT_CHILDREN, goes),
        (A_DIAMOND_THAT_GOES, returns),
        (A_DIAMOND_THAT_GOES, goes),
    ];
    let mut wrong = Vec::new();
    for (schedule, rule) in runs {
        if let Err(error) = schedule.run(servers, rule, is_told).await {
            wrong.push(format!("{rule}, {}: {error:#}", schedule.name));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    a_child_that_waits_and_goes(servers).await
}

#[tokio::test]
async fn p4_rows_that_went_with_others_on_mysql() -> Result<()> {
    all_schedules(SharedPair::get(Flavor::MySql).await, true).await
}

#[tokio::test]
async fn p4_rows_that_went_silently_where_cascades_are_unlogged() -> Result<()> {
    all_schedules(servers_with(Flavor::MySql, MYSQL_NATIVE.options).await?, false).await
}

#[tokio::test]
async fn p4_rows_that_went_silently_on_mariadb() -> Result<()> {
    all_schedules(SharedPair::get(Flavor::MariaDb).await, false).await
}
