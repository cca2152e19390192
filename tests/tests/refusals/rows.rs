//! Rows that do not fit, each refused for a reason of its own, and how they get through.

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Migration, Setup, on_both_brands};

use crate::{
    LIMIT, PLAIN, insert, number, own_servers, prepare, rows, started, until_all_is_well, until_number, until_status,
    with_plain_account,
};

on_both_brands! {
    values_that_do_not_fit: p7_values_that_do_not_fit_on_mysql, p7_values_that_do_not_fit_on_mariadb;
    a_trigger_says_any_number: p7_a_trigger_says_any_number_on_mysql, p7_a_trigger_says_any_number_on_mariadb;
    other_rows_in_the_way: p7_other_rows_in_the_way_on_mysql, p7_other_rows_in_the_way_on_mariadb;
    bad_rows_are_found_with_few_statements: p7_bisection_on_mysql, p7_bisection_on_mariadb;
}

/// A column too short, NOT NULL added to one, a new one without a default, a CHECK: each fails its own row.
async fn values_that_do_not_fit(flavor: Flavor) -> Result<()> {
    let tables = [
        PLAIN,
        "CREATE TABLE {schema}.u (id INT PRIMARY KEY, v VARCHAR(20), n INT NOT NULL, {clock})",
        "CREATE TABLE {schema}.w (id INT PRIMARY KEY, v VARCHAR(20), n INT NOT NULL, {clock})",
        "CREATE TABLE {schema}.x (id INT PRIMARY KEY, v VARCHAR(20), n INT NOT NULL, {clock})",
    ];
    let mut migration = started(&Setup::new(flavor, "values"), &tables).await?;
    migration.expect_lines(&["has columns that are not mapped and not carried: extra"]);
    let spoil = [
        "ALTER TABLE {schema}.t MODIFY v VARCHAR(5)",
        "ALTER TABLE {schema}.u MODIFY v VARCHAR(20) NOT NULL",
        "ALTER TABLE {schema}.w ADD COLUMN extra INT NOT NULL",
        "ALTER TABLE {schema}.x ADD CONSTRAINT below CHECK (n < 1000)",
    ];
    migration.on(&migration.new, &spoil).await?;
    let written = [
        "INSERT INTO {schema}.t (id, v, n) VALUES (1, 'short', 1), (2, 'far too long', 1)",
        "INSERT INTO {schema}.u (id, v, n) VALUES (1, 'x', 1), (2, NULL, 1)",
        "INSERT INTO {schema}.w (id, v, n) VALUES (2, 'x', 1)",
        "INSERT INTO {schema}.x (id, v, n) VALUES (1, 'x', 1), (2, 'x', 5000)",
    ];
    migration.on(&migration.old, &written).await?;
    let status =
        until_status(&migration, "four rows refused", |status| status.number("forward", "open_failures") == 4).await?;
    ensure!(status.number("reverse", "open_failures") == 0, "{}", status.0);
    for table in ["t", "u", "x"] {
        until_number(&migration.new, &format!("SELECT COUNT(*) FROM `{}`.{table}", migration.schema), 1).await?;
    }
    let refused = failures(&migration).await?;
    let codes: Vec<(&str, &str)> = refused.iter().map(|(table, code, ..)| (table.as_str(), code.as_str())).collect();
    let check = if flavor == Flavor::MySql { "3819" } else { "4025" };
    ensure!(codes == [("t", "1406"), ("u", "1048"), ("w", "1364"), ("x", check)], "{codes:?}");
    what_is_told_is_true(&migration).await?;

    let mend = [
        "ALTER TABLE {schema}.t MODIFY v VARCHAR(20)",
        "ALTER TABLE {schema}.u MODIFY v VARCHAR(20)",
        "ALTER TABLE {schema}.w DROP COLUMN extra",
        if flavor == Flavor::MySql {
            "ALTER TABLE {schema}.x DROP CHECK below"
        } else {
            "ALTER TABLE {schema}.x DROP CONSTRAINT below"
        },
    ];
    migration.on(&migration.new, &mend).await?;
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("forward", "last_seq") == 7, "{}", status.0);
    ensure!(status.number("reverse", "last_seq") == 0, "something came back: {}", status.0);
    migration.stop_both().await
}

/// A trigger refuses rows under numbers of its own choice, among them such as would mean that the target is busy, or has lost a
/// table, or that a parent may still arrive: each is refused by itself, and the direction goes on.
async fn a_trigger_says_any_number(flavor: Flavor) -> Result<()> {
    let numbers = [30_001, 1205, 1146, 1452, 1062];
    let mut migration = started(&Setup::new(flavor, "any_number"), &[PLAIN]).await?;
    let cases: String = numbers
        .iter()
        .map(|number| {
            format!("WHEN {number} THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'not this one';\n")
        })
        .collect();
    let trigger = format!(
        "CREATE TRIGGER {{schema}}.guard BEFORE INSERT ON {{schema}}.t FOR EACH ROW
         BEGIN CASE NEW.n {cases} ELSE SET NEW.v = NEW.v; END CASE; END"
    );
    migration.on(&migration.new, &[&trigger]).await?;
    let rows = (0..).zip([1].into_iter().chain(numbers).chain([1]));
    migration.on(&migration.old, &[&insert(rows)]).await?;
    let refused = numbers.len() as u64;
    let status = until_status(&migration, "those rows refused", |status| {
        status.number("forward", "open_failures") == refused && crate::is_green(status)
    })
    .await?;
    ensure!(status.number("reverse", "open_failures") == 0, "{}", status.0);
    until_number(&migration.new, &format!("SELECT COUNT(*) FROM `{}`.t WHERE n = 1", migration.schema), 2).await?;
    let mut codes: Vec<u32> =
        failures(&migration).await?.into_iter().map(|failed| failed.1.parse()).collect::<Result<_, _>>()?;
    codes.sort_unstable();
    ensure!(codes == [1062, 1146, 1205, 1452, 30_001], "{codes:?}");
    migration.on(&migration.new, &["DROP TRIGGER {schema}.guard"]).await?;
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("reverse", "last_seq") == 0, "something came back: {}", status.0);
    migration.stop_both().await
}

/// Table, code, attempts, whether the next attempt is ahead, milliseconds from the last to the next.
type Failed = (String, String, u32, Option<bool>, Option<i64>);

async fn failures(migration: &Migration) -> Result<Vec<Failed>> {
    let query = format!(
        "SELECT table_name, error_code, attempts, next_retry_at > UTC_TIMESTAMP(6),
           TIMESTAMPDIFF(MICROSECOND, last_failed_at, next_retry_at) DIV 1000
         FROM crossfade.failure WHERE pair = '{}' ORDER BY table_name, seq",
        migration.pair
    );
    rows(&migration.new, &query).await
}

/// Attempts and times are those of the attempts that were made, and one that changes nothing writes nothing on the target.
async fn what_is_told_is_true(migration: &Migration) -> Result<()> {
    let first = failures(migration).await?;
    ensure!(first.iter().all(|(_, _, attempts, ..)| *attempts >= 1), "{first:?}");
    let writes = format!(
        "SELECT CAST(writes AS UNSIGNED) FROM crossfade.checkpoint WHERE pair = '{}' AND stream = 'forward/old' AND lane = 65535",
        migration.pair
    );
    let before = number(&migration.new, &writes).await?;
    let more = until("two more attempts with each", LIMIT, || async {
        let now = failures(migration).await?;
        let tried = now.iter().zip(&first).all(|(now, first)| now.2 >= first.2 + 2);
        Ok(if tried && now.len() == first.len() {
            Progress::Reached(now)
        } else {
            Progress::NotYet(format!("{now:?}"))
        })
    })
    .await?;
    for (table, _, attempts, _, pause_ms) in &more {
        let pause_ms = pause_ms.context("it is not told when the row is tried again")?;
        // Doubled each time, with a fifth by chance; the store is told a moment after the attempt.
        let expected = 5_000 << (attempts - 1).min(7);
        ensure!(
            (expected / 2..=expected * 12 / 10 + 50).contains(&pause_ms),
            "{table}: attempt {attempts}, then {pause_ms} ms"
        );
    }
    ensure!(number(&migration.new, &writes).await? == before, "attempts in vain were written on the target");
    Ok(())
}

/// A parent that arrives later, a unique value that becomes free: nobody does anything for the rows that wait.
async fn other_rows_in_the_way(flavor: Flavor) -> Result<()> {
    let tables = [
        "CREATE TABLE {schema}.p (id INT PRIMARY KEY, v VARCHAR(20), {clock})",
        "CREATE TABLE {schema}.c (id INT PRIMARY KEY, p INT, email VARCHAR(40) UNIQUE, {clock}, \
         FOREIGN KEY (p) REFERENCES {schema}.p (id))",
    ];
    let mut migration = Migration::new(&Setup::new(flavor, "in_the_way")).await?;
    for table in tables {
        migration.on_both(&[&table.replace("{clock}", crate::CLOCK)]).await?;
    }
    // What only one side has is written past the binlog, as by a load that is not complete.
    let clock = "'2026-01-01 00:00:00'";
    let parent = format!("INSERT INTO {{schema}}.p VALUES (1, 'parent', {clock})");
    migration.on(&migration.old, &["SET SESSION sql_log_bin = 0", &parent]).await?;
    let taken = format!("INSERT INTO {{schema}}.c VALUES (900, NULL, 'taken@x', {clock})");
    migration.on(&migration.new, &["SET SESSION sql_log_bin = 0", &taken]).await?;
    migration.init().await?;
    migration.start_both().await?;
    let written = [
        "INSERT INTO {schema}.c (id, p, email) VALUES (1, 1, 'a@x'), (2, NULL, 'taken@x'), (3, NULL, 'b@x')",
        "UPDATE {schema}.c SET email = 'c@x' WHERE id = 1",
    ];
    migration.on(&migration.old, &written).await?;
    until_status(&migration, "three messages set aside", |status| status.number("forward", "open_failures") == 3)
        .await?;
    until_number(&migration.new, &format!("SELECT COUNT(*) FROM `{}`.c WHERE id = 3", migration.schema), 1).await?;
    let codes: Vec<String> = failures(&migration).await?.into_iter().map(|failed| failed.1).collect();
    ensure!(codes.iter().any(|code| code == "1452") && codes.iter().any(|code| code == "1062"), "{codes:?}");
    migration.on(&migration.new, &["SET SESSION sql_log_bin = 0", &parent]).await?;
    migration.on(&migration.new, &["SET SESSION sql_log_bin = 0", "DELETE FROM {schema}.c WHERE id = 900"]).await?;
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("forward", "last_seq") == 4, "{}", status.0);
    migration.stop_both().await
}

/// Halving finds one bad row of 1,000 within 21 parts, ten of them within 175.
async fn bad_rows_are_found_with_few_statements(flavor: Flavor) -> Result<()> {
    let (servers, _turn) = own_servers(flavor).await?;
    let mut migration = with_plain_account(servers, "bisection").await?;
    prepare(&migration, &[PLAIN]).await?;
    migration.on(&migration.new, &["ALTER TABLE {schema}.t ADD CONSTRAINT below CHECK (n < 1000)"]).await?;
    migration.start_both().await?;
    for (batch, bad, most_parts) in [(0, 1, 21), (1, 10, 175)] {
        let counters = ["Com_savepoint", "Com_rollback_to_savepoint", "Questions"];
        let mut before = Vec::new();
        for name in counters {
            before.push(counter(&migration, name).await?);
        }
        let spacing = 1_000 / bad;
        let n = |place: u32| if place % spacing == spacing / 2 + 7 { 5_000 } else { 1 };
        migration.on(&migration.old, &[&insert((0..1_000).map(|place| (batch * 1_000 + place, n(place))))]).await?;
        let failed = u64::from(if batch == 0 { bad } else { bad + 1 });
        until_status(&migration, "the bad rows refused", |status| status.number("forward", "open_failures") == failed)
            .await?;
        let there = u64::from((batch + 1) * 1_000) - failed;
        until_number(&migration.new, &format!("SELECT COUNT(*) FROM `{}`.t", migration.schema), there).await?;
        let mut counted = Vec::new();
        for (name, before) in counters.iter().zip(before) {
            counted.push(counter(&migration, name).await? - before);
        }
        println!(
            "{flavor:?}: {bad} bad rows of 1,000: {} savepoints, {} of them rolled back to; {} statements in all",
            counted[0], counted[1], counted[2]
        );
        ensure!(counted[0] >= u64::from(bad) && counted[0] <= most_parts, "{counted:?}");
    }
    migration.on(&migration.old, &["UPDATE {schema}.t SET n = 2 WHERE n = 5000"]).await?;
    until_all_is_well(&migration).await?;
    migration.stop_both().await
}

async fn counter(migration: &Migration, name: &str) -> Result<u64> {
    let shown: Vec<(String, u64)> = rows(&migration.new, &format!("SHOW GLOBAL STATUS LIKE '{name}'")).await?;
    Ok(shown.first().context("no such counter")?.1)
}
