//! Both sides compared by `crossfade verify`: what is equal is not reported, what was damaged is named, and nothing that is
//! only under way is taken for a difference.

mod books;
mod cases;
mod continuous;
mod texts;
mod throttled;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cases::{Case, alike, in_two_forms};
use crossfade_servers::Flavor;
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// What writers and damagers ask of their session; what they write without a binlog nobody can capture.
const SESSION: &str =
    "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00', sql_log_bin = ";

async fn unseen(pool: &Pool, schema: &str, statements: &[String]) -> Result<()> {
    let mut connection = pool.get_conn().await?;
    connection.query_drop(format!("{SESSION}0")).await?;
    connection.query_drop(format!("USE `{schema}`")).await?;
    for statement in statements {
        connection.query_drop(statement).await.with_context(|| format!("cannot run: {statement:.200}"))?;
    }
    connection.query_drop("SET SESSION sql_log_bin = 1").await?;
    Ok(())
}

/// Runs `verify --json` with more words: exit code and what it printed.
async fn verify(migration: &Migration, words: &[&str]) -> Result<(Option<i32>, Value)> {
    let words: Vec<&str> = ["verify", "--json"].iter().chain(words).copied().collect();
    let (code, output, errors) = migration.crossfade_any(&words).await?;
    let found = serde_json::from_str(&output).with_context(|| format!("exit code {code:?}: {output}{errors}"))?;
    Ok((code, found))
}

/// The kept differences of the last comparison.
async fn differences(migration: &Migration) -> Result<Vec<Value>> {
    let output = migration.crossfade(&["verify", "show", "--json", "--limit", "1000"]).await?;
    let shown: Value = serde_json::from_str(&output)?;
    shown["differences"].as_array().cloned().context("there are no differences")
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or(u64::MAX)
}

/// The report of one table.
fn of_table<'v>(found: &'v Value, table: &str) -> &'v Value {
    let tables = found["tables"].as_array().map(Vec::as_slice).unwrap_or_default();
    tables
        .iter()
        .find(|report| report["table"].as_str().is_some_and(|name| name.ends_with(table)))
        .unwrap_or(&Value::Null)
}

async fn create_cases(migration: &Migration, cases: &[Case]) -> Result<()> {
    for (pool, is_old) in [(&migration.old, true), (&migration.new, false)] {
        let mut statements = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let definition = if is_old { &case.old } else { &case.new };
            statements.push(format!(
                "CREATE TABLE t{number} (id INT PRIMARY KEY, c {definition}, note VARCHAR(20), \
                 updated_at DATETIME(6) NOT NULL DEFAULT '2026-01-01')"
            ));
            for id in 1..=3 {
                let value = if is_old { &case.value } else { &case.crossed };
                statements.push(format!("INSERT INTO t{number} (id, c, note) VALUES ({id}, {value}, 'n{id}')"));
            }
        }
        unseen(pool, &migration.schema, &statements).await?;
    }
    Ok(())
}

/// Damages one value of each type on one side: exactly that row and column is named.
async fn damage_is_named(setup: Setup, cases: Vec<Case>) -> Result<()> {
    let mut migration = Migration::new(&setup).await?;
    create_cases(&migration, &cases).await?;
    migration.init().await?;
    migration.start_both().await?;
    let (code, before) = verify(&migration, &[]).await?;
    ensure!(code == Some(0), "equal sides: {before}\n{:?}", differences(&migration).await?);
    ensure!(number(&before, "rows_old") == 3 * cases.len() as u64, "{before}");
    let damages: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(number, case)| format!("UPDATE t{number} SET c = {} WHERE id = 2", case.damaged))
        .collect();
    unseen(&migration.new, &migration.schema, &damages).await?;
    let (code, after) = verify(&migration, &[]).await?;
    ensure!(code == Some(1), "damaged sides: {after}");
    let shown = differences(&migration).await?;
    for (place, case) in cases.iter().enumerate() {
        let table = format!("t{place}");
        let report = of_table(&after, &format!(".{table}"));
        let of_case: Vec<&Value> =
            shown.iter().filter(|difference| difference["table_name"] == table.as_str()).collect();
        let what = format!("{} / {}: {} to {}", case.old, case.new, case.value, case.damaged);
        ensure!(number(report, "different") == 1, "{what}: {report}");
        ensure!(number(report, "missing_on_old") + number(report, "missing_on_new") == 0, "{what}: {report}");
        ensure!(of_case.len() == 1, "{what}: {of_case:?}");
        for difference in of_case {
            ensure!(difference["kind"] == "different" && difference["row_key"]["id"] == 2, "{what}: {difference}");
            let columns = serde_json::json!([{ "old": "c", "new": "c" }]);
            ensure!(difference["columns"] == columns, "{what}: {difference}");
        }
    }
    let table = migration.crossfade(&["verify", "show", "--limit", "1000"]).await?;
    ensure!(table.contains("t0") && table.contains("different"), "{table}");

    let (code, dry) = verify(&migration, &["--repair", "old-wins", "--dry-run"]).await?;
    ensure!(code == Some(1) && number(&dry["repair"], "changed_on_new") == cases.len() as u64, "{dry}");
    ensure!(dry["repair"]["planned"][0]["columns"] == serde_json::json!(["c"]), "{dry}");
    let (code, mended) = verify(&migration, &["--repair", "old-wins"]).await?;
    ensure!(code == Some(0) && number(&mended["repair"], "changed_on_new") == cases.len() as u64, "{mended}");
    let (code, after) = verify(&migration, &[]).await?;
    ensure!(code == Some(0) && number(&after, "mismatches") == 0, "{after}\n{:?}", differences(&migration).await?);
    if cases.iter().all(|case| case.old == case.new) {
        // The judge that shares no code with the product says so, too; and nothing of it was taken for users' changes.
        let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
        let streams = status.0["streams"].as_array().context("there are no streams")?;
        ensure!(streams.iter().all(|stream| number(stream, "captured") == 0), "{}", status.0);
    }
    migration.expect_lines(&["columns that are not mapped"]);
    migration.stop_both().await
}

#[tokio::test]
async fn p4_damage_of_every_type_is_named_mysql() {
    damage_is_named(Setup::new(Flavor::MySql, "verify_types"), alike(Flavor::MySql)).await.unwrap();
}

#[tokio::test]
async fn p4_damage_of_every_type_is_named_mariadb() {
    damage_is_named(Setup::new(Flavor::MariaDb, "verify_types"), alike(Flavor::MariaDb)).await.unwrap();
}

/// Wider columns cannot come back, so these tables go one way.
fn one_way(flavor: Flavor) -> Setup {
    let tables = "[[table]]\nname = \"{schema}.*\"\nclock = \"updated_at\"\none_way = true\n".to_owned();
    Setup { tables, ..Setup::new(flavor, "verify_forms") }
}

#[tokio::test]
async fn p4_equal_values_in_two_forms_are_not_reported_mysql() {
    damage_is_named(one_way(Flavor::MySql), in_two_forms()).await.unwrap();
}

#[tokio::test]
async fn p4_equal_values_in_two_forms_are_not_reported_mariadb() {
    damage_is_named(one_way(Flavor::MariaDb), in_two_forms()).await.unwrap();
}

/// Rows that only one side has are found in the middle, before the first and beyond the last key of the other one, also
/// where there is nothing else; a key that differs in case alone is one row.
async fn missing_rows_are_found(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "verify_missing")).await?;
    let create = [
        "CREATE TABLE {schema}.numbers (id BIGINT PRIMARY KEY, note VARCHAR(20), updated_at DATETIME(6) NOT NULL)",
        "CREATE TABLE {schema}.pairs (name VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, n INT, note INT, \
         updated_at DATETIME(6) NOT NULL, PRIMARY KEY (name, n))",
        "CREATE TABLE {schema}.high (id BIGINT UNSIGNED PRIMARY KEY, updated_at DATETIME(6) NOT NULL)",
        "CREATE TABLE {schema}.only_new (id INT PRIMARY KEY, updated_at DATETIME(6) NOT NULL)",
    ];
    migration.on_both(&create).await?;
    let series = |from: u32, to: u32| {
        format!(
            "WITH RECURSIVE n (n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM n WHERE n < {to}) SELECT n, CONCAT('note ', n), '2026-01-01' FROM n"
        )
    };
    let words = |from: u32, to: u32| {
        format!(
            "WITH RECURSIVE n (n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM n WHERE n < {to}) SELECT CONCAT('name', n DIV 7), n, n, '2026-01-01' FROM n"
        )
    };
    let depth = match flavor {
        Flavor::MySql => "SET SESSION cte_max_recursion_depth = 100000".to_owned(),
        Flavor::MariaDb => "SET SESSION max_recursive_iterations = 100000".to_owned(),
    };
    let both = [
        depth.clone(),
        format!("INSERT INTO numbers {}", series(100, 12_000)),
        format!("INSERT INTO pairs {}", words(1, 900)),
        "INSERT INTO high SELECT 18446744073709551615 - 3 * id, '2026-01-01' FROM numbers".to_owned(),
    ];
    for pool in [&migration.old, &migration.new] {
        unseen(pool, &migration.schema, &both).await?;
    }
    let old = [
        "INSERT INTO numbers VALUES (-5, 'first', '2026-01-01'), (20000, 'last', '2026-01-01')".to_owned(),
        "DELETE FROM numbers WHERE id IN (200, 7000, 7001)".to_owned(),
        "DELETE FROM pairs WHERE n BETWEEN 400 AND 402".to_owned(),
        "UPDATE pairs SET name = 'NAME71' WHERE n = 500".to_owned(),
        "DELETE FROM high WHERE id >= 18446744073709551615 - 3 * 200".to_owned(),
    ];
    let new = [
        depth,
        "DELETE FROM numbers WHERE id IN (300, 11999)".to_owned(),
        format!("INSERT INTO numbers {}", series(30_000, 38_000)),
        "DELETE FROM high WHERE id BETWEEN 18446744073709551615 - 3 * 7000 AND 18446744073709551615 - 3 * 5001"
            .to_owned(),
        "INSERT INTO high VALUES (1, '2026-01-01'), (18446744073709551614, '2026-01-01')".to_owned(),
        "INSERT INTO pairs VALUES ('zz', 1, 1, '2026-01-01'), ('', 0, 0, '2026-01-01')".to_owned(),
        "INSERT INTO only_new VALUES (1, '2026-01-01'), (2, '2026-01-01')".to_owned(),
    ];
    unseen(&migration.old, &migration.schema, &old).await?;
    unseen(&migration.new, &migration.schema, &new).await?;
    migration.init().await?;
    migration.start_both().await?;
    let (code, found) = verify(&migration, &["--keep", "20"]).await?;
    ensure!(code == Some(1), "{found}");
    let counts = |table: &str| {
        ["missing_on_old", "missing_on_new", "different"].map(|name| number(of_table(&found, table), name))
    };
    ensure!(counts(".numbers") == [3 + 8_001, 4, 0], "{found}");
    ensure!(counts(".high") == [101 + 2, 2_000, 0], "{found}");
    ensure!(counts(".pairs") == [3 + 2, 0, 1], "{found}");
    ensure!(counts(".only_new") == [2, 0, 0], "{found}");
    let shown = differences(&migration).await?;
    let of_pairs = shown.iter().filter(|difference| difference["table_name"] == "pairs");
    let unlike: Vec<&Value> = of_pairs.filter(|difference| difference["kind"] == "different").collect();
    ensure!(unlike.len() == 1 && unlike[0]["columns"][0]["old"] == "name", "{unlike:?}");
    let kept = shown.iter().filter(|difference| difference["table_name"] == "numbers").count();
    ensure!(kept == 20, "{kept} differences were kept");
    migration.stop_both().await
}

#[tokio::test]
async fn p4_rows_that_one_side_lacks_are_found_mysql() {
    missing_rows_are_found(Flavor::MySql).await.unwrap();
}

#[tokio::test]
async fn p4_rows_that_one_side_lacks_are_found_mariadb() {
    missing_rows_are_found(Flavor::MariaDb).await.unwrap();
}

/// Both sides are written while they are compared, again and again: nothing that is under way counts, and a change that
/// nobody captured does. While a direction rests, what it has yet to carry cannot be confirmed.
async fn what_is_under_way_is_no_difference(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::of_users(&Setup::new(flavor, "verify_live"), 2_000).await?;
    migration.start_both().await?;
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = Vec::new();
    for (place, pool) in [&migration.old, &migration.new].into_iter().enumerate() {
        let (pool, schema, stop, written) = (pool.clone(), migration.schema.clone(), stop.clone(), written.clone());
        writers.push(tokio::spawn(async move {
            let mut connection = pool.get_conn().await?;
            for number in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // The sides write different rows, so no change loses.
                let id = 1 + (number * 2 + place as u64) % 2_000;
                let update = format!("UPDATE `{schema}`.users SET name = ?, updated_at = NOW(6) WHERE id = ?");
                connection.exec_drop(update, (format!("name {number}"), id)).await?;
                written.fetch_add(connection.affected_rows(), Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    for round in 0..3 {
        let (code, found) = verify(&migration, &[]).await?;
        ensure!(code == Some(0), "round {round} under writes: {found}\n{}", migration.log_ends());
        ensure!(number(of_table(&found, ".users"), "rows_old") == 2_000, "{found}");
    }
    let damage = ["UPDATE users SET name = 'damaged' WHERE id = 1999".to_owned()];
    unseen(&migration.new, &migration.schema, &damage).await?;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await??;
    }
    ensure!(written.load(Ordering::Relaxed) > 50, "the writers wrote {written:?} rows");
    migration.status().until_quiet(LIMIT).await?;
    unseen(&migration.new, &migration.schema, &damage).await?;
    let (code, found) = verify(&migration, &["--table", &format!("{}.users", migration.schema)]).await?;
    ensure!(code == Some(1) && number(&found, "mismatches") == 1, "{found}");

    migration.rest(&[Direction::Forward]).await?;
    migration.on(&migration.old, &["UPDATE {schema}.users SET name = 'late' WHERE id IN (1, 2, 1999)"]).await?;
    let (code, found) = verify(&migration, &["--wait", "2s"]).await?;
    let report = of_table(&found, ".users");
    ensure!(code == Some(1) && number(report, "unconfirmed") == 3 && number(report, "different") == 0, "{found}");
    ensure!(report["unconfirmed_reason"].as_str().is_some_and(|why| why.contains("forward")), "{found}");
    migration.go_on(&[Direction::Forward]).await?;
    migration.status().until_quiet(LIMIT).await?;
    let (code, found) = verify(&migration, &[]).await?;
    ensure!(code == Some(0), "{found}\n{}", migration.log_ends());
    migration.stop_both().await
}

#[tokio::test]
async fn p4_what_is_under_way_is_no_difference_mysql() {
    what_is_under_way_is_no_difference(Flavor::MySql).await.unwrap();
}

#[tokio::test]
async fn p4_what_is_under_way_is_no_difference_mariadb() {
    what_is_under_way_is_no_difference(Flavor::MariaDb).await.unwrap();
}

/// The time on a server, UTC.
async fn now(pool: &Pool) -> Result<String> {
    let now: Option<String> = pool.get_conn().await?.query_first("SELECT CAST(UTC_TIMESTAMP(6) AS CHAR)").await?;
    now.context("a server has a time")
}

/// What is asked for decides which rows are compared, and what is allowed decides the exit code.
async fn options_decide(flavor: Flavor) -> Result<()> {
    let migration = Migration::of_users(&Setup::new(flavor, "verify_options"), 500).await?;
    let times = [
        "UPDATE users SET updated_at = '2020-01-01'".to_owned(),
        format!("UPDATE users SET updated_at = '{}' WHERE id = 3", now(&migration.old).await?),
    ];
    for pool in [&migration.old, &migration.new] {
        unseen(pool, &migration.schema, &times).await?;
    }
    let damage = ["UPDATE users SET name = 'damaged', updated_at = updated_at WHERE id IN (3, 400)".to_owned()];
    unseen(&migration.new, &migration.schema, &damage).await?;
    let (users, orders) = (format!("{}.users", migration.schema), format!("{}.orders", migration.schema));
    let cases: [(&[&str], i32, u64); 8] = [
        (&[], 1, 2),
        (&["--table", &orders], 0, 0),
        (&["--table", &users, "--where", "id = 3"], 1, 1),
        (&["--table", &users, "--where", "id BETWEEN 4 AND 399 -- with a comment"], 0, 0),
        (&["--table", &users, "--since", "1h"], 1, 1),
        (&["--max-mismatch", "0.5%"], 0, 2),
        (&["--max-mismatch", "0.3%"], 1, 2),
        (&["--sample", "50%"], 1, 2),
    ];
    for (words, expected_code, mismatches) in cases {
        let (code, found) = verify(&migration, words).await?;
        ensure!(code == Some(expected_code), "{words:?}: {code:?} {found}");
        ensure!(number(&found, "mismatches") == mismatches, "{words:?}: {found}");
        ensure!(found["passed"] == (expected_code == 0), "{words:?}: {found}");
    }
    for (words, expected_code) in [
        (vec!["verify", "--table", "nowhere.nothing"], 2),
        (vec!["verify", "--sample", "0%"], 2),
        (vec!["verify", "--max-mismatch", "few"], 2),
        (vec!["verify", "--where", "no such column"], 3),
        (vec!["verify", "show", "--id", "18446744073709551615"], 1),
    ] {
        let (code, output, errors) = migration.crossfade_any(&words).await?;
        ensure!(code == Some(expected_code), "{words:?}: {code:?} {output}{errors}");
        ensure!(errors.contains("hint") || expected_code != 1, "{words:?}: {errors}");
    }
    let (_, output, errors) = migration.crossfade_any(&["verify"]).await?;
    ensure!(output.contains("rows old") && errors.contains("2 rows differ"), "{output}{errors}");
    migration.forget();
    Ok(())
}

#[tokio::test]
async fn p4_options_decide_what_is_compared_mysql() {
    options_decide(Flavor::MySql).await.unwrap();
}

#[tokio::test]
async fn p4_options_decide_what_is_compared_mariadb() {
    options_decide(Flavor::MariaDb).await.unwrap();
}

const FAMILY: [&str; 2] = [
    "CREATE TABLE {schema}.a_child (id INT PRIMARY KEY, parent INT NOT NULL, note VARCHAR(20), updated_at DATETIME(6) NOT NULL, \
     FOREIGN KEY (parent) REFERENCES {schema}.b_parent (id) ON DELETE CASCADE)",
    "CREATE TABLE {schema}.lone (id INT PRIMARY KEY, note VARCHAR(20), email VARCHAR(20) UNIQUE, updated_at DATETIME(6) NOT NULL)",
];

/// Which rows are taken is what was asked for; parents come before their children and go after them; what the target refuses is
/// told, and nothing else is kept from being mended.
async fn repair_takes_what_was_asked_for(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "repair_rules")).await?;
    let parent =
        "CREATE TABLE {schema}.b_parent (id INT PRIMARY KEY, note VARCHAR(20), updated_at DATETIME(6) NOT NULL)";
    migration.on_both(&[parent, FAMILY[0], FAMILY[1]]).await?;
    let old = [
        "INSERT INTO b_parent VALUES (1, 'both', '2026-01-01'), (2, 'old', '2026-01-01')",
        "INSERT INTO a_child VALUES (1, 1, 'both', '2026-01-01'), (2, 2, 'old', '2026-01-01')",
        "INSERT INTO lone VALUES (1, 'earlier', NULL, '2026-01-01'), (2, 'later', NULL, '2026-01-03'), (3, 'old', 'a@b', '2026-01-01')",
    ];
    let new = [
        "INSERT INTO b_parent VALUES (1, 'both', '2026-01-01'), (3, 'new', '2026-01-01')",
        "INSERT INTO a_child VALUES (1, 1, 'both', '2026-01-01'), (3, 3, 'new', '2026-01-01')",
        "INSERT INTO lone VALUES (1, 'later', NULL, '2026-01-02'), (2, 'earlier', NULL, '2026-01-02'), (4, 'new', 'a@b', '2026-01-01')",
    ];
    unseen(&migration.old, &migration.schema, &old.map(str::to_owned)).await?;
    unseen(&migration.new, &migration.schema, &new.map(str::to_owned)).await?;
    migration.init().await?;
    migration.start_both().await?;

    let (code, found) =
        verify(&migration, &["--repair", "newest", "--table", &format!("{}.lone", migration.schema)]).await?;
    let repair = &found["repair"];
    ensure!(
        code == Some(1) && number(repair, "changed_on_old") == 1 && number(repair, "changed_on_new") == 1,
        "{found}"
    );
    // One unique value cannot be in both rows.
    ensure!(number(repair, "refused") == 2 && repair["reasons"].to_string().contains("Duplicate"), "{found}");
    ensure!(!repair.to_string().contains("a@b"), "a value is told: {found}");
    let notes =
        "SELECT GROUP_CONCAT(note ORDER BY id) FROM {schema}.lone WHERE id < 3".replace("{schema}", &migration.schema);
    for pool in [&migration.old, &migration.new] {
        let notes: Option<String> = pool.get_conn().await?.query_first(&notes).await?;
        ensure!(notes.as_deref() == Some("later,later"), "{notes:?}");
    }
    // Where the other one goes first, there is room.
    let (_, found) = verify(&migration, &["--repair", "old-wins"]).await?;
    let (code, found_again) = verify(&migration, &["--repair", "old-wins"]).await?;
    ensure!(code == Some(0), "{found}\n{found_again}");
    ensure!(number(&found["repair"], "deleted_on_new") == 3, "{found}");
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    let streams = status.0["streams"].as_array().context("there are no streams")?;
    ensure!(streams.iter().all(|stream| number(stream, "captured") == 0), "{}", status.0);
    let journal: Option<u64> = migration
        .new
        .get_conn()
        .await?
        .exec_first("SELECT COUNT(*) FROM crossfade.journal WHERE pair = ? AND kind = 'repair'", (&migration.pair,))
        .await?;
    ensure!(journal.is_some_and(|lines| lines >= 2), "{journal:?}");
    migration.stop_both().await
}

#[tokio::test]
async fn p6_repair_takes_what_was_asked_for_mysql() {
    repair_takes_what_was_asked_for(Flavor::MySql).await.unwrap();
}

#[tokio::test]
async fn p6_repair_takes_what_was_asked_for_mariadb() {
    repair_takes_what_was_asked_for(Flavor::MariaDb).await.unwrap();
}

/// Users hold rows that are to be mended, and commit while the repair waits for them. It leaves alone a row that they changed on
/// the side that is written, one that they changed on the other side, and one that they changed and changed back.
async fn repair_never_overwrites_a_newer_change(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::of_users(&Setup::new(flavor, "repair_newer"), 300).await?;
    migration.start_both().await?;
    let damage = ["UPDATE users SET name = 'damaged', updated_at = updated_at WHERE id IN (1, 2, 3, 4)".to_owned()];
    unseen(&migration.new, &migration.schema, &damage).await?;
    let mut on_new = migration.new.get_conn().await?;
    let mut on_old = migration.old.get_conn().await?;
    let users = format!("`{}`.users", migration.schema);
    on_new.query_drop("BEGIN").await?;
    on_new.query_drop(format!("UPDATE {users} SET name = 'by a user of new' WHERE id = 1")).await?;
    for name in ["for a moment", "damaged"] {
        on_new.query_drop(format!("UPDATE {users} SET name = '{name}', updated_at = updated_at WHERE id = 3")).await?;
    }
    on_old.query_drop("BEGIN").await?;
    on_old.query_drop(format!("UPDATE {users} SET name = 'by a user of old' WHERE id = 2")).await?;

    let repairing = verify(&migration, &["--repair", "old-wins"]);
    let committing = async {
        let mut watch = migration.new.get_conn().await?;
        loop {
            let question = "SELECT COUNT(*) FROM information_schema.innodb_trx \
                 WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE 'SELECT LEFT(SHA2(%'";
            // Statements of other tests may hold what MySQL cannot show there; then it shows nothing.
            if watch.query_first::<u64, _>(question).await.is_ok_and(|waiting| waiting.is_some_and(|count| count > 0)) {
                break;
            }
            // The server tells what it told before to whoever asks again within a tenth of a second.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        on_old.query_drop("COMMIT").await?;
        on_new.query_drop("COMMIT").await?;
        anyhow::Ok(())
    };
    let ((code, found), ()) = tokio::try_join!(repairing, committing)?;
    ensure!(code == Some(1) && number(&found, "mismatches") == 4, "{found}");
    let repair = &found["repair"];
    ensure!(number(repair, "overtaken") == 3 && number(repair, "changed_on_new") == 1, "{found}");
    migration.until_quiet_and_equal(LIMIT).await?;
    let names = format!("SELECT name FROM {users} WHERE id <= 3 ORDER BY id");
    let names: Vec<String> = migration.old.get_conn().await?.query(names).await?;
    ensure!(names == ["by a user of new", "by a user of old", "damaged"], "{names:?}");
    migration.stop_both().await
}

#[tokio::test]
async fn p6_repair_never_overwrites_a_newer_change_mysql() {
    repair_never_overwrites_a_newer_change(Flavor::MySql).await.unwrap();
}

#[tokio::test]
async fn p6_repair_never_overwrites_a_newer_change_mariadb() {
    repair_never_overwrites_a_newer_change(Flavor::MariaDb).await.unwrap();
}
