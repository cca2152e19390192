//! P4 for parents and children: one side deletes a parent while the other side gives it a child, under every action that a
//! foreign key can have, in both directions, for both rules.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

const LIMIT: Duration = Duration::from_secs(60);

const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

const TABLES: [&str; 5] = [
    "CREATE TABLE {schema}.p (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL, {clock})",
    "CREATE TABLE {schema}.c_refuses (id INT PRIMARY KEY, parent INT NULL, v VARCHAR(20), {clock}, \
     FOREIGN KEY (parent) REFERENCES {schema}.p (id))",
    "CREATE TABLE {schema}.c_cascades (id INT PRIMARY KEY, parent INT NULL, v VARCHAR(20), {clock}, \
     FOREIGN KEY (parent) REFERENCES {schema}.p (id) ON DELETE CASCADE)",
    "CREATE TABLE {schema}.c_lets_go (id INT PRIMARY KEY, parent INT NULL, v VARCHAR(20), {clock}, \
     FOREIGN KEY (parent) REFERENCES {schema}.p (id) ON DELETE SET NULL)",
    "CREATE TABLE {schema}.grandchild (id INT PRIMARY KEY, parent INT NOT NULL, v VARCHAR(20), {clock}, \
     FOREIGN KEY (parent) REFERENCES {schema}.c_cascades (id) ON DELETE CASCADE)",
];

/// Ids of parents that get a child; 8 is changed instead.
const SCENARIOS: std::ops::RangeInclusive<u32> = 1..=7;

/// What both sides have before. Parents 9 is where children come from that get another parent.
fn before(base: u32) -> Vec<String> {
    let mut rows = Vec::new();
    for id in SCENARIOS.chain([8, 9]) {
        rows.push(format!("INSERT INTO {{schema}}.p (id, v) VALUES ({}, 'parent')", base + id));
    }
    for (table, parent, id) in [
        ("c_cascades", 1, 1),
        ("c_lets_go", 2, 2),
        ("c_refuses", 9, 4),
        ("c_cascades", 5, 5),
        ("c_cascades", 9, 6),
        ("c_lets_go", 9, 7),
        ("c_cascades", 8, 8),
        ("c_lets_go", 8, 8),
    ] {
        rows.push(format!(
            "INSERT INTO {{schema}}.{table} (id, parent, v) VALUES ({}, {}, 'before')",
            base + id,
            base + parent
        ));
    }
    rows.push(format!("INSERT INTO {{schema}}.grandchild (id, parent, v) VALUES ({0}, {0}, 'before')", base + 1));
    rows
}

/// One side deletes the parents. Nobody refers to 3, 4, 6 and 7 there.
fn deletes(base: u32) -> Vec<String> {
    SCENARIOS.chain([8]).map(|id| format!("DELETE FROM {{schema}}.p WHERE id = {}", base + id)).collect()
}

/// The other side gives each a child.
fn gifts(base: u32) -> Vec<String> {
    let (b, p) = (|id: u32| base + id, |id: u32| base + id);
    vec![
        format!("INSERT INTO {{schema}}.c_cascades (id, parent, v) VALUES ({}, {}, 'gift')", b(21), p(1)),
        format!("INSERT INTO {{schema}}.c_lets_go (id, parent, v) VALUES ({}, {}, 'gift')", b(22), p(2)),
        format!("INSERT INTO {{schema}}.c_refuses (id, parent, v) VALUES ({}, {}, 'gift')", b(23), p(3)),
        // Children of another parent move over.
        format!("UPDATE {{schema}}.c_refuses SET parent = {}, v = 'moved' WHERE id = {}", p(4), b(4)),
        format!("UPDATE {{schema}}.c_cascades SET parent = {}, v = 'moved' WHERE id = {}", p(6), b(6)),
        format!("UPDATE {{schema}}.c_lets_go SET parent = {}, v = 'moved' WHERE id = {}", p(7), b(7)),
        // A child that the deleting side knows is changed. Where its end by the cascade is logged, that is later, and wins.
        format!("UPDATE {{schema}}.c_cascades SET v = 'changed' WHERE id = {}", b(5)),
        // A parent is changed about when it is deleted; which is later depends on how exactly the server tells.
        format!("UPDATE {{schema}}.p SET v = 'changed' WHERE id = {}", p(8)),
    ]
}

async fn run_all(migration: &Migration, pool: &Pool, statements: &[String]) -> Result<()> {
    let statements: Vec<String> = statements.iter().map(|statement| statement.replace("{clock}", CLOCK)).collect();
    migration.on(pool, &statements.iter().map(String::as_str).collect::<Vec<_>>()).await
}

async fn number(pool: &Pool, query: &str) -> Result<u64> {
    Ok(pool.get_conn().await?.query_first(query).await?.unwrap_or(0))
}

async fn until_nothing_is_aside(migration: &Migration) -> Result<()> {
    until("nothing set aside", LIMIT, || async {
        let status = migration.status().read().await?;
        let aside = status.total("open_failures") + status.total("held");
        Ok(if aside == 0 { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

/// A server whose cascades are in no binlog: MariaDB, MySQL before 9.6, and MySQL 9.6 where it is asked to.
async fn unlogged_mysql() -> Result<&'static SharedPair> {
    static PAIR: tokio::sync::OnceCell<&SharedPair> = tokio::sync::OnceCell::const_new();
    let start = || SharedPair::own(Server::builder(Flavor::MySql).relaxed().option("innodb_native_foreign_keys", "ON"));
    Ok(*PAIR.get_or_try_init(start).await?)
}

async fn families(servers: &'static SharedPair, rule: &'static str, name: &'static str) -> Result<()> {
    let flavor = servers.flavor();
    let setup = Setup { settings: format!("[conflict]\nfk_conflict = \"{rule}\"\n"), ..Setup::new(flavor, name) };
    let mut migration = Migration::on_servers(&setup, servers).await?;
    for pool in [&migration.old, &migration.new] {
        run_all(&migration, pool, &TABLES.map(str::to_owned)).await?;
    }
    migration.init().await?;
    migration.start_both().await?;
    for base in [100, 200] {
        run_all(&migration, &migration.old, &before(base)).await?;
    }
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    // 100: old deletes and new gives. 200: the other way round.
    run_all(&migration, &migration.new, &gifts(100)).await?;
    run_all(&migration, &migration.old, &gifts(200)).await?;
    run_all(&migration, &migration.old, &deletes(100)).await?;
    run_all(&migration, &migration.new, &deletes(200)).await?;
    migration.go_on(&Direction::BOTH).await?;
    migration.status().until_quiet(LIMIT).await.with_context(|| migration.log_ends())?;
    until_nothing_is_aside(&migration).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let parents = format!("SELECT COUNT(*) FROM `{}`.p WHERE id MOD 100 IN (1, 2, 3, 4, 6, 7)", migration.schema);
    let gifts = format!(
        "SELECT (SELECT COUNT(*) FROM `{0}`.c_refuses WHERE id MOD 100 > 20) + (SELECT COUNT(*) FROM `{0}`.c_cascades WHERE id MOD 100 > 20)",
        migration.schema
    );
    let (parents_left, gifts_left) = (number(&migration.old, &parents).await?, number(&migration.old, &gifts).await?);
    let wanted = if rule == "parent-returns" { (12, 4) } else { (0, 0) };
    ensure!(
        (parents_left, gifts_left) == wanted,
        "{parents_left} parents and {gifts_left} gifts are left\n{}",
        migration.compare().await?
    );
    if rule == "parent-returns" {
        // What cascaded from a parent has returned with it.
        let knew = format!(
            "SELECT (SELECT COUNT(*) FROM `{0}`.grandchild) + (SELECT COUNT(*) FROM `{0}`.c_lets_go WHERE id MOD 100 = 2 AND parent IS NOT NULL)",
            migration.schema
        );
        let left = number(&migration.old, &knew).await?;
        ensure!(left == 4, "{left} of 4 children have returned with their parents");
    }
    // The families live on.
    run_all(&migration, &migration.new, &["UPDATE {schema}.c_lets_go SET v = 'later'".to_owned()]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// Both sides have these rows, and neither direction applies.
async fn at_rest(
    servers: &'static SharedPair,
    rule: &str,
    name: &'static str,
    tables: &str,
    rows: &[String],
) -> Result<Migration> {
    let mut setup =
        Setup { settings: format!("[conflict]\nfk_conflict = \"{rule}\"\n"), ..Setup::new(servers.flavor(), name) };
    if !tables.is_empty() {
        setup.tables = tables.to_owned();
    }
    let mut migration = Migration::on_servers(&setup, servers).await?;
    for pool in [&migration.old, &migration.new] {
        run_all(&migration, pool, &TABLES.map(str::to_owned)).await?;
    }
    migration.init().await?;
    migration.start_both().await?;
    run_all(&migration, &migration.old, rows).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    Ok(migration)
}

fn statements<const N: usize>(statements: [&str; N]) -> Vec<String> {
    statements.map(str::to_owned).into()
}

/// Lets one direction apply, until it has passed this message of its stream and all that follow.
async fn let_go_on(migration: &Migration, direction: Direction, through: u64) -> Result<()> {
    migration.crossfade(&["start", direction.as_str()]).await?;
    until("one direction through", LIMIT, || async {
        let status = migration.status().read().await?;
        let of = |name: &str| status.number(direction.as_str(), name);
        let is_through = of("settled_seq") == of("last_seq") && of("last_seq") >= through;
        Ok(if is_through { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

async fn settled_and_equal(migration: &Migration) -> Result<()> {
    migration.status().until_quiet(LIMIT).await.with_context(|| migration.log_ends())?;
    let settled = until_nothing_is_aside(migration).await;
    if settled.is_err() {
        let listed = migration.crossfade(&["messages", "list"]).await?;
        return settled.with_context(|| listed);
    }
    migration.until_quiet_and_equal(LIMIT).await?;
    Ok(())
}

/// A parent is deleted, and its children with it, while the other side gives one of these a child, or the parent a child
/// with a child.
async fn generations(servers: &'static SharedPair, rule: &'static str, name: &'static str) -> Result<()> {
    let mut rows = Vec::new();
    for base in [100, 200] {
        rows.push(format!(
            "INSERT INTO {{schema}}.p (id, v) VALUES ({}, 'parent'), ({}, 'parent')",
            base + 1,
            base + 4
        ));
        rows.push(format!("INSERT INTO {{schema}}.c_cascades (id, parent, v) VALUES ({0}, {0}, 'before')", base + 1));
    }
    let mut migration = at_rest(servers, rule, name, "", &rows).await?;
    let gifts = |base: u32| {
        vec![
            format!("INSERT INTO {{schema}}.grandchild (id, parent, v) VALUES ({}, {}, 'gift')", base + 31, base + 1),
            format!("INSERT INTO {{schema}}.c_cascades (id, parent, v) VALUES ({0}, {0}, 'gift')", base + 4),
            format!("INSERT INTO {{schema}}.grandchild (id, parent, v) VALUES ({}, {}, 'gift')", base + 34, base + 4),
        ]
    };
    let deletes = |base: u32| vec![format!("DELETE FROM {{schema}}.p WHERE id IN ({}, {})", base + 1, base + 4)];
    run_all(&migration, &migration.new, &gifts(100)).await?;
    run_all(&migration, &migration.old, &gifts(200)).await?;
    run_all(&migration, &migration.old, &deletes(100)).await?;
    run_all(&migration, &migration.new, &deletes(200)).await?;
    migration.go_on(&Direction::BOTH).await?;
    settled_and_equal(&migration).await?;
    let query = format!(
        "SELECT (SELECT COUNT(*) FROM `{0}`.p) + (SELECT COUNT(*) FROM `{0}`.c_cascades) + (SELECT COUNT(*) FROM `{0}`.grandchild)",
        migration.schema
    );
    let (left, wanted) = (number(&migration.old, &query).await?, if rule == "parent-returns" { 12 } else { 0 });
    ensure!(left == wanted, "{left} of {wanted} rows are left\n{}", migration.compare().await?);
    migration.stop_both().await
}

/// A parent is deleted and inserted again, while the other side gives it children, which the delete takes along.
async fn a_parent_that_is_made_again(servers: &'static SharedPair) -> Result<()> {
    let rows = statements(["INSERT INTO {schema}.p (id, v) VALUES (1, 'parent'), (2, 'parent')"]);
    let mut migration = at_rest(servers, "child-goes", "made_again", "", &rows).await?;
    let gifts = statements([
        "INSERT INTO {schema}.c_cascades (id, parent, v) VALUES (21, 1, 'gift')",
        "INSERT INTO {schema}.c_lets_go (id, parent, v) VALUES (22, 2, 'gift')",
    ]);
    run_all(&migration, &migration.new, &gifts).await?;
    let again = statements([
        "DELETE FROM {schema}.p WHERE id IN (1, 2)",
        "INSERT INTO {schema}.p (id, v) VALUES (1, 'again'), (2, 'again')",
    ]);
    run_all(&migration, &migration.old, &again).await?;
    let_go_on(&migration, Direction::Forward, 6).await?;
    let_go_on(&migration, Direction::Reverse, 2).await?;
    settled_and_equal(&migration).await?;
    migration.stop_both().await
}

/// A child arrives where its parent is deleted, and goes; then a later change of the parent wins over the delete.
async fn a_parent_that_comes_back_by_its_clock(servers: &'static SharedPair) -> Result<()> {
    let rows = statements(["INSERT INTO {schema}.p (id, v) VALUES (3, 'parent')"]);
    let mut migration = at_rest(servers, "child-goes", "back_by_clock", "", &rows).await?;
    run_all(&migration, &migration.old, &statements(["DELETE FROM {schema}.p WHERE id = 3"])).await?;
    // Servers that tell whole seconds.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let gift = statements(["INSERT INTO {schema}.c_refuses (id, parent, v) VALUES (23, 3, 'gift')"]);
    run_all(&migration, &migration.new, &gift).await?;
    let_go_on(&migration, Direction::Reverse, 1).await?;
    run_all(&migration, &migration.new, &statements(["UPDATE {schema}.p SET v = 'changed' WHERE id = 3"])).await?;
    let_go_on(&migration, Direction::Reverse, 2).await?;
    let_go_on(&migration, Direction::Forward, 2).await?;
    settled_and_equal(&migration).await?;
    migration.stop_both().await
}

/// Who inserts again what he has deleted, or goes on with a child that has lost its parent, is not overruled by the rows that
/// return: nobody else has written these. `deleter` is the side that the tables' `policy` does not prefer.
async fn a_parent_that_returns_is_not_newer(
    servers: &'static SharedPair,
    deleter: Direction,
    name: &'static str,
    policy: &str,
) -> Result<()> {
    let rows = statements([
        "INSERT INTO {schema}.p (id, v) VALUES (1, 'parent')",
        "INSERT INTO {schema}.c_lets_go (id, parent, v) VALUES (31, 1, 'before')",
    ]);
    let tables = format!("[[table]]\nname = \"{{schema}}.*\"\n{policy}\n");
    let mut migration = at_rest(servers, "parent-returns", name, &tables, &rows).await?;
    let (from, to) = match deleter {
        Direction::Forward => (&migration.old, &migration.new),
        Direction::Reverse => (&migration.new, &migration.old),
    };
    let known = migration.status().read().await?.number(deleter.as_str(), "last_seq");
    run_all(&migration, from, &statements(["DELETE FROM {schema}.p WHERE id = 1"])).await?;
    let gift = statements(["INSERT INTO {schema}.c_cascades (id, parent, v) VALUES (21, 1, 'gift')"]);
    run_all(&migration, to, &gift).await?;
    let_go_on(&migration, deleter, known + 1).await?;
    let again = statements([
        "INSERT INTO {schema}.p (id, v) VALUES (1, 'again')",
        "UPDATE {schema}.c_lets_go SET v = 'mine' WHERE id = 31",
    ]);
    run_all(&migration, from, &again).await?;
    let_go_on(&migration, deleter.opposite(), 1).await?;
    settled_and_equal(&migration).await?;
    let query = format!(
        "SELECT (SELECT COUNT(*) FROM `{0}`.p WHERE v = 'again') + (SELECT COUNT(*) FROM `{0}`.c_lets_go WHERE v = 'mine') \
         + (SELECT COUNT(*) FROM `{0}`.c_cascades)",
        migration.schema
    );
    let left = number(to, &query).await?;
    ensure!(left == 3, "what was written last, or the gift, is gone\n{}", migration.compare().await?);
    // What was returned is told from what users wrote.
    let lost = migration.crossfade(&["messages", "list", "--conflicts", "--json"]).await?;
    ensure!(lost.contains("\"origin\": \"returned\""), "{lost}");
    migration.stop_both().await
}

/// A row of its family has something in it that who ended the parent had not seen, and so counts as what it is when it returns with
/// the parent: it takes the place of what was put there meanwhile, as that unseen change does, which cannot come without the parent.
async fn what_nobody_had_seen_returns_as_what_it_is(servers: &'static SharedPair, name: &'static str) -> Result<()> {
    let rows = statements([
        "INSERT INTO {schema}.p (id, v) VALUES (1, 'parent')",
        "INSERT INTO {schema}.c_cascades (id, parent, v) VALUES (31, 1, 'before')",
    ]);
    let mut migration = at_rest(servers, "parent-returns", name, "", &rows).await?;
    let known = migration.status().read().await?.number("forward", "last_seq");
    run_all(&migration, &migration.old, &statements(["DELETE FROM {schema}.p WHERE id = 1"])).await?;
    // Later, also where the time of a delete is told in whole seconds; and made anew, so that the order of the source is kept.
    let unseen = statements([
        "DO SLEEP(1.1)",
        "DELETE FROM {schema}.c_cascades WHERE id = 31",
        "INSERT INTO {schema}.c_cascades (id, parent, v) VALUES (31, 1, 'unseen')",
        "INSERT INTO {schema}.c_cascades (id, parent, v) VALUES (21, 1, 'gift')",
    ]);
    run_all(&migration, &migration.new, &unseen).await?;
    let_go_on(&migration, Direction::Forward, known + 1).await?;
    let mine = "INSERT INTO {schema}.c_cascades (id, v, updated_at) VALUES (31, 'mine', '2020-01-01 00:00:00')";
    run_all(&migration, &migration.old, &statements([mine])).await?;
    until("what returns is captured", LIMIT, || async {
        let status = migration.status().read().await?;
        // Three changes, and of three rows what they are.
        let captured = status.number("reverse", "last_seq");
        Ok(if captured >= 6 { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await?;
    let_go_on(&migration, Direction::Reverse, 6).await?;
    settled_and_equal(&migration).await?;
    let query = format!(
        "SELECT GROUP_CONCAT(id, v, '>', COALESCE(parent, '') ORDER BY id) FROM `{}`.c_cascades",
        migration.schema
    );
    let left: Option<String> = migration.old.get_conn().await?.query_first(query).await?;
    ensure!(left.as_deref() == Some("21gift>1,31unseen>1"), "{left:?} are left\n{}", migration.compare().await?);
    migration.stop_both().await
}

/// With a parent that returns come those of its children that nobody else has changed, and the target still has as they were.
async fn what_others_have_changed_does_not_return(servers: &'static SharedPair) -> Result<()> {
    let rows = statements([
        "INSERT INTO {schema}.p (id, v) VALUES (1, 'parent')",
        "INSERT INTO {schema}.c_refuses (id, parent, v) VALUES (31, 1, 'a'), (32, 1, 'a'), (33, 1, 'a'), (34, 1, 'a')",
    ]);
    let mut migration = at_rest(servers, "parent-returns", "unchanged", "", &rows).await?;
    let on_new = statements([
        "INSERT INTO {schema}.c_refuses (id, parent, v) VALUES (41, 1, 'gift')",
        "UPDATE {schema}.c_refuses SET v = 'changed' WHERE id = 32",
        "DELETE FROM {schema}.c_refuses WHERE id = 33",
    ]);
    run_all(&migration, &migration.new, &on_new).await?;
    // What old deletes is later, also where the time of a delete is told in whole seconds.
    let on_old = statements([
        "DO SLEEP(1.1)",
        "BEGIN",
        "UPDATE {schema}.c_refuses SET v = 'changed' WHERE id = 34",
        "DELETE FROM {schema}.c_refuses WHERE id IN (31, 32, 33, 34)",
        "DELETE FROM {schema}.p WHERE id = 1",
        "COMMIT",
    ]);
    run_all(&migration, &migration.old, &on_old).await?;
    migration.go_on(&Direction::BOTH).await?;
    settled_and_equal(&migration).await?;
    let query = format!(
        "SELECT CONCAT((SELECT COUNT(*) FROM `{0}`.p), ' ', GROUP_CONCAT(id ORDER BY id)) FROM `{0}`.c_refuses",
        migration.schema
    );
    let left: Option<String> = migration.old.get_conn().await?.query_first(query).await?;
    ensure!(left.as_deref() == Some("1 31,41"), "{left:?} are left\n{}", migration.compare().await?);
    migration.stop_both().await
}

const PREFER_NEW: &str = "policy = \"prefer-new\"";
const PREFER_OLD: &str = "policy = \"prefer-old\"";
const MERGED: &str = "policy = \"prefer-new\"\nmerge = \"columns\"";

macro_rules! tests {
    ($($test:ident: $of:ident($($given:expr),*);)*) => {$(
        #[tokio::test]
        async fn $test() -> Result<()> {
            $of($($given),*).await
        }
    )*};
}

tests! {
    p4_parents_return_on_mysql: families(SharedPair::get(Flavor::MySql).await, "parent-returns", "parents_return");
    p4_parents_return_on_mariadb: families(SharedPair::get(Flavor::MariaDb).await, "parent-returns", "parents_return");
    p4_children_go_on_mysql: families(SharedPair::get(Flavor::MySql).await, "child-goes", "children_go");
    p4_children_go_on_mariadb: families(SharedPair::get(Flavor::MariaDb).await, "child-goes", "children_go");
    p4_parents_return_where_cascades_are_unlogged: families(unlogged_mysql().await?, "parent-returns", "parents_return_8");
    p4_children_go_where_cascades_are_unlogged: families(unlogged_mysql().await?, "child-goes", "children_go_8");
    p4_generations_return_on_mysql: generations(SharedPair::get(Flavor::MySql).await, "parent-returns", "gen_return");
    p4_generations_return_on_mariadb: generations(SharedPair::get(Flavor::MariaDb).await, "parent-returns", "gen_return");
    p4_generations_return_where_cascades_are_unlogged: generations(unlogged_mysql().await?, "parent-returns", "gen_return_8");
    p4_generations_go_on_mysql: generations(SharedPair::get(Flavor::MySql).await, "child-goes", "gen_go");
    p4_generations_go_on_mariadb: generations(SharedPair::get(Flavor::MariaDb).await, "child-goes", "gen_go");
    p4_generations_go_where_cascades_are_unlogged: generations(unlogged_mysql().await?, "child-goes", "gen_go_8");
    p4_a_parent_made_again_on_mysql: a_parent_that_is_made_again(SharedPair::get(Flavor::MySql).await);
    p4_a_parent_made_again_on_mariadb: a_parent_that_is_made_again(SharedPair::get(Flavor::MariaDb).await);
    p4_a_parent_back_by_its_clock_on_mysql: a_parent_that_comes_back_by_its_clock(SharedPair::get(Flavor::MySql).await);
    p4_a_parent_back_by_its_clock_on_mariadb: a_parent_that_comes_back_by_its_clock(SharedPair::get(Flavor::MariaDb).await);
    p4_what_others_have_changed_on_mysql: what_others_have_changed_does_not_return(SharedPair::get(Flavor::MySql).await);
    p4_what_others_have_changed_on_mariadb: what_others_have_changed_does_not_return(SharedPair::get(Flavor::MariaDb).await);
    p4_what_nobody_had_seen_returns_on_mysql:
        what_nobody_had_seen_returns_as_what_it_is(SharedPair::get(Flavor::MySql).await, "unseen");
    p4_what_nobody_had_seen_returns_on_mariadb:
        what_nobody_had_seen_returns_as_what_it_is(SharedPair::get(Flavor::MariaDb).await, "unseen");
    p4_what_nobody_had_seen_returns_where_cascades_are_unlogged:
        what_nobody_had_seen_returns_as_what_it_is(unlogged_mysql().await?, "unseen_8");
    p6_a_parent_that_returns_is_not_newer_on_mysql:
        a_parent_that_returns_is_not_newer(SharedPair::get(Flavor::MySql).await, Direction::Forward, "not_newer", PREFER_NEW);
    p6_a_parent_that_returns_is_not_newer_on_mariadb:
        a_parent_that_returns_is_not_newer(SharedPair::get(Flavor::MariaDb).await, Direction::Forward, "not_newer", PREFER_NEW);
    p6_a_parent_that_returns_to_new_is_not_newer_on_mariadb:
        a_parent_that_returns_is_not_newer(SharedPair::get(Flavor::MariaDb).await, Direction::Reverse, "not_newer_old", PREFER_OLD);
    p6_a_parent_that_returns_is_not_newer_where_columns_are_merged_on_mysql:
        a_parent_that_returns_is_not_newer(SharedPair::get(Flavor::MySql).await, Direction::Forward, "not_newer_merged", MERGED);
}
