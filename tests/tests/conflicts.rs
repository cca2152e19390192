//! What is kept and shown of conflicts, and of one row's life on both sides.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const COLUMNS: &str = "v VARCHAR(20) NOT NULL, n INT NOT NULL DEFAULT 0, \
    updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

async fn until_status(migration: &Migration, what: &str, is_reached: impl Fn(&Status) -> bool) -> Result<Status> {
    until(what, LIMIT, || async {
        let status = migration.status().read().await?;
        Ok(if is_reached(&status) { Progress::Reached(status) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

async fn json(migration: &Migration, words: &[&str]) -> Result<Vec<Value>> {
    let output = migration.crossfade(words).await?;
    let value: Value = serde_json::from_str(&output).with_context(|| format!("no JSON: {output}"))?;
    Ok(value.as_array().with_context(|| format!("no list: {output}"))?.clone())
}

/// Both sides write the same rows while neither direction applies: every change is concurrent with the other side's.
async fn both_write_at_once(migration: &Migration) -> Result<()> {
    migration.rest(&Direction::BOTH).await?;
    // Old loses row 1, and row 2 with two changes; new loses row 3, and the order of `pair`.
    migration
        .on(&migration.new, &["UPDATE {schema}.t SET v = 'new' WHERE id = 3", "UPDATE {schema}.pairs SET v = 'new'"])
        .await?;
    migration
        .on(
            &migration.old,
            &[
                "UPDATE {schema}.t SET v = 'old' WHERE id = 1",
                // Only what is judged together is known to be overtaken.
                "BEGIN",
                "UPDATE {schema}.t SET v = 'old' WHERE id = 2",
                "UPDATE {schema}.t SET v = 'older' WHERE id = 2",
                "COMMIT",
                "UPDATE {schema}.t SET v = 'old' WHERE id = 3",
                "UPDATE {schema}.pairs SET v = 'old'",
            ],
        )
        .await?;
    migration.on(&migration.new, &["UPDATE {schema}.t SET v = 'new' WHERE id < 3"]).await?;
    until_status(migration, "all captured", |status| status.total("last_seq") == 4 + 5 + 2 + 2).await?;
    migration.go_on(&Direction::BOTH).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    Ok(())
}

async fn conflicts_are_kept_counted_and_shown(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "conflicts")).await?;
    migration
        .on_both(&[
            &format!("CREATE TABLE {{schema}}.t (id INT PRIMARY KEY, {COLUMNS})"),
            &format!("CREATE TABLE {{schema}}.pairs (a INT, b VARCHAR(9), {COLUMNS}, PRIMARY KEY (a, b))"),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (1, 'x'), (2, 'x'), (3, 'x')"]).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.pairs (a, b, v) VALUES (7, 'b', 'x')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    both_write_at_once(&migration).await?;
    let (table, pairs) = (format!("{}.t", migration.schema), format!("{}.pairs", migration.schema));

    let losers = json(&migration, &["messages", "list", "--conflicts", "--json"]).await?;
    ensure!(losers.len() == 5, "not five losers: {losers:?}");
    for loser in &losers {
        for field in ["table_schema", "table_name", "row_key", "before_image", "after_image", "winner", "reason"] {
            ensure!(!loser[field].is_null(), "no {field}: {loser}");
        }
        let (mine, winners) = (loser["source_clock"].as_i64(), loser["target_clock"].as_i64());
        ensure!(mine.is_some() && mine < winners, "the later clock did not win: {loser}");
        // Old had received nothing from new before; new's users had the rows from old before them.
        let from_new = loser["stream"] == "reverse/new";
        ensure!(loser["seen"]["forward/old"]["lanes"].is_object() == from_new, "what was seen: {loser}");
    }
    let of = |status: &str| losers.iter().filter(|loser| loser["status"] == status).count();
    ensure!((of("conflict_lost"), of("stale")) == (4, 1), "{losers:?}");
    let kept: Vec<(String, String)> = {
        let question = format!("SELECT status, seen FROM crossfade.outcome WHERE pair = '{}'", migration.pair);
        migration.new.get_conn().await?.query(question).await?
    };
    ensure!(kept.len() == 5 && kept.iter().all(|(_, seen)| seen.starts_with('{')), "{kept:?}");

    let of_pairs =
        json(&migration, &["messages", "list", "--conflicts", "--table", &pairs, "--since", "1h", "--json"]).await?;
    ensure!(of_pairs.len() == 1 && of_pairs[0]["id"] == "reverse/new:2", "{of_pairs:?}");
    let shown = migration.crossfade(&["messages", "list", "--conflicts"]).await?;
    for text in ["loser", "its clock", "forward/old:7", "reverse/new:4", "later clock", "stale", r#"{"a":7,"b":"b"}"#] {
        ensure!(shown.contains(text), "`messages list --conflicts` does not say `{text}`:\n{shown}");
    }
    let one = migration.crossfade(&["messages", "show", "reverse/new:1"]).await?;
    ensure!(one.contains("forward/old:") && one.contains("winner's clock"), "{one}");

    let status = migration.status().read().await?;
    let counted = |direction: usize, table: &str| status.streams()[direction]["conflicts"][table].clone();
    let counts = |won: u64, lost: u64, stale: u64| serde_json::json!({"won": won, "lost": lost, "stale": stale});
    ensure!(counted(0, &table) == counts(1, 2, 1) && counted(0, &pairs) == counts(1, 0, 0), "{}", status.0);
    ensure!(counted(1, &table) == counts(2, 1, 0) && counted(1, &pairs) == counts(0, 1, 0), "{}", status.0);
    ensure!((status.total("conflicts_won"), status.total("conflicts_lost")) == (4, 5), "{}", status.0);
    let line = format!("forward/old: conflicts {pairs} 1 won, 0 lost, 0 stale; {table} 1 won, 2 lost, 1 stale");
    let shown = migration.crossfade(&["status"]).await?;
    ensure!(shown.contains(&line), "{shown}");

    // The numbers go on where a process before left off.
    migration.stop_both().await?;
    migration.start_both().await?;
    let after = migration.status().read().await?;
    ensure!(after.streams()[0]["conflicts"] == status.streams()[0]["conflicts"], "{}", after.0);
    migration.stop_both().await
}

/// What wins and is refused is tried again and again until another row has given up the value; it wins once.
async fn conflicts_are_counted_once(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "counted_once")).await?;
    migration
        .on_both(&[&format!("CREATE TABLE {{schema}}.t (id INT PRIMARY KEY, code VARCHAR(9) UNIQUE, {COLUMNS})")])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, code, v) VALUES (1, 'a', 'x')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let on_new =
        ["UPDATE {schema}.t SET v = 'new' WHERE id = 1", "INSERT INTO {schema}.t (id, code, v) VALUES (9, 'b', 'x')"];
    migration.on(&migration.new, &on_new).await?;
    migration.on(&migration.old, &["UPDATE {schema}.t SET v = 'old', code = 'b' WHERE id = 1"]).await?;
    migration.go_on(&Direction::BOTH).await?;
    let failed = ["messages", "list", "--status", "failed", "--json"];
    until("both refused three times", LIMIT, || async {
        let failed = json(&migration, &failed).await?;
        let often = failed.iter().filter(|failure| failure["attempts"].as_u64() > Some(2)).count();
        Ok(if often == 2 { Progress::Reached(()) } else { Progress::NotYet(format!("{failed:?}")) })
    })
    .await?;
    let status = migration.status().read().await?;
    ensure!((status.total("conflicts_won"), status.total("conflicts_lost")) == (0, 1), "{}", status.0);
    migration.on(&migration.new, &["UPDATE {schema}.t SET code = 'c' WHERE id = 9"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let status = until_status(&migration, "nothing set aside", |status| status.total("open_failures") == 0).await?;
    ensure!((status.total("conflicts_won"), status.total("conflicts_lost")) == (1, 1), "{}", status.0);
    migration.stop_both().await
}

/// Two parents exchange their unique values while the other side changes one of them and wins: both would have one value. Only a
/// person can tell which is to have it; each side says so, and all goes through when one has got another.
async fn exchanged_values_are_for_a_person(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "exchanged")).await?;
    migration
        .on_both(&[
            &format!("CREATE TABLE {{schema}}.t (id INT PRIMARY KEY, code VARCHAR(9) UNIQUE, {COLUMNS})"),
            &format!(
                "CREATE TABLE {{schema}}.c (id INT PRIMARY KEY, parent INT, {COLUMNS}, \
                 FOREIGN KEY (parent) REFERENCES {{schema}}.t (id))"
            ),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, code, v) VALUES (1, 'a', 'x'), (2, 'b', 'x')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let exchange = [
        "BEGIN",
        "UPDATE {schema}.t SET code = NULL WHERE id = 1",
        "UPDATE {schema}.t SET code = 'a' WHERE id = 2",
        "UPDATE {schema}.t SET code = 'b' WHERE id = 1",
        "COMMIT",
    ];
    migration.on(&migration.old, &exchange).await?;
    let on_new =
        ["UPDATE {schema}.t SET v = 'new' WHERE id = 2", "INSERT INTO {schema}.c (id, parent, v) VALUES (5, 1, 'x')"];
    migration.on(&migration.new, &on_new).await?;
    migration.go_on(&Direction::BOTH).await?;
    let refused = until("both sides refused", LIMIT, || async {
        let failed = json(&migration, &["messages", "list", "--status", "failed", "--error", "1062", "--json"]).await?;
        let of =
            |stream: &str| failed.iter().find(|failure| failure["stream"] == stream).map(|found| found["id"].clone());
        Ok(match (of("forward/old"), of("reverse/new")) {
            (Some(forward), Some(reverse)) => Progress::Reached([forward, reverse]),
            _ => Progress::NotYet(format!("{failed:?}")),
        })
    })
    .await?;
    for (id, side, other) in [(&refused[0], "new", r#""id":2"#), (&refused[1], "old", r#""id":1"#)] {
        let shown = migration.crossfade(&["messages", "show", id.as_str().unwrap_or_default()]).await?;
        let told = format!("change code of that row on {side}");
        ensure!(shown.contains(&told) && shown.contains(other), "it does not say `{told}`:\n{shown}");
    }
    // As it says for forward.
    migration.on(&migration.new, &["UPDATE {schema}.t SET code = 'a' WHERE id = 2"]).await?;
    until_status(&migration, "nothing set aside", |status| status.total("open_failures") == 0).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// What the losers are is told to the store before a lane's transaction begins. Where that takes longer than the server keeps a
/// silent session, the transaction runs in another one, and nothing is refused.
async fn a_lane_outlives_a_slow_store(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "slow_store")).await?;
    migration.on_both(&[&format!("CREATE TABLE {{schema}}.t (id INT PRIMARY KEY, {COLUMNS})")]).await?;
    migration.init().await?;
    // A busy machine may be later than the lock's limit; a session of the target that was lost says something else.
    migration.expect_lines(&["Lock wait timeout exceeded"]);
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (1, 'x')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    migration.on(&migration.old, &["UPDATE {schema}.t SET v = 'old'"]).await?;
    migration.on(&migration.new, &["UPDATE {schema}.t SET v = 'new'"]).await?;
    until_status(&migration, "all captured", |status| status.total("last_seq") == 3).await?;
    let mut locker = migration.new.get_conn().await?;
    // Nobody can insert there; whoever reads is not kept from it.
    locker.query_drop("BEGIN").await?;
    let lock = format!("SELECT COUNT(*) FROM crossfade.outcome WHERE pair = '{}' FOR UPDATE", migration.pair);
    locker.query_drop(lock).await?;
    migration.go_on(&[Direction::Forward]).await?;
    // The server keeps a silent session for 8 s, and the store waits for a lock for 10.
    until("the loser being told for longer than a silent session is kept", LIMIT, || async {
        let sessions: Vec<mysql_async::Row> = migration.new.get_conn().await?.query("SHOW FULL PROCESSLIST").await?;
        let text = |row: &mysql_async::Row| row.get::<Option<String>, _>(7).flatten().unwrap_or_default();
        let seconds = |row: &mysql_async::Row| row.get::<Option<i64>, _>(5).flatten().unwrap_or(0);
        let telling = sessions.iter().find(|row| text(row).contains("INTO outcome")).map(seconds);
        let has_lasted = telling.is_some_and(|seconds| seconds >= 9);
        Ok(if has_lasted { Progress::Reached(()) } else { Progress::NotYet(format!("{telling:?}")) })
    })
    .await?;
    locker.query_drop("ROLLBACK").await?;
    migration.go_on(&[Direction::Reverse]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    // Its log has no other warning.
    migration.stop_both().await
}

/// A row's life, with what is refused, as either side names the table.
async fn a_rows_life_is_told(flavor: Flavor) -> Result<()> {
    let tables = "[[table]]\nold = \"{schema}.t\"\nnew = \"{schema}.t2\"\nclock = \"updated_at\"\n".to_owned();
    let mut migration = Migration::new(&Setup { tables, ..Setup::new(flavor, "life") }).await?;
    let create =
        |name: &str| format!("CREATE TABLE {{schema}}.{name} (id INT, b VARBINARY(4), {COLUMNS}, PRIMARY KEY (id, b))");
    migration.on(&migration.old, &[&create("t")]).await?;
    migration
        .on(&migration.new, &[&create("t2"), "ALTER TABLE {schema}.t2 ADD CONSTRAINT small CHECK (n < 100)"])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    let statement = |sql: &str| sql.to_owned();
    let steps = [
        (
            &migration.old,
            statement("INSERT INTO {schema}.t (id, b, v) VALUES (1, 0x0aff, 'first'), (1, 0x0b, 'other')"),
        ),
        (&migration.new, statement("UPDATE {schema}.t2 SET v = 'second' WHERE b = 0x0aff")),
        (&migration.old, statement("UPDATE {schema}.t SET v = 'third' WHERE b = 0x0aff")),
    ];
    for (pool, sql) in &steps {
        migration.on(pool, &[sql]).await?;
        migration.status().until_quiet(LIMIT).await.with_context(|| migration.log_ends())?;
    }
    migration.on(&migration.old, &["UPDATE {schema}.t SET n = 500 WHERE b = 0x0aff"]).await?;
    until_status(&migration, "one refused", |status| status.number("forward", "open_failures") == 1).await?;

    let (old_name, new_name) = (format!("{}.t", migration.schema), format!("{}.t2", migration.schema));
    let life = json(&migration, &["messages", "history", &old_name, "1", "0x0aff", "--json"]).await?;
    let told: Vec<String> = life
        .iter()
        .map(|message| format!("{} {} {}", message["id"], message["op"], message["status"]).replace('"', ""))
        .collect();
    let expected = [
        "forward/old:1 insert applied",
        "reverse/new:1 update applied",
        "forward/old:3 update applied",
        "forward/old:4 update failed",
    ];
    ensure!(told == expected, "{told:?}");
    ensure!(life[3]["reason"].as_str().is_some_and(|reason| reason.contains("small")), "{}", life[3]);
    ensure!(life[2]["seen"]["reverse/new"]["lanes"]["0"]["seq"] == 1, "{}", life[2]);
    let same = json(&migration, &["messages", "history", &new_name, "1", "0x0AFF", "--json"]).await?;
    ensure!(same == life, "the other side's name tells another life: {same:?}");
    ensure!(json(&migration, &["messages", "history", &old_name, "1", "0x0c", "--json"]).await?.is_empty());

    let shown = migration.crossfade(&["messages", "history", &old_name, "1", "0x0aff"]).await?;
    for text in ["seen", "clock", "reverse/new:1", "forward/old:2", r#"v = "second""#, "n = 500", "failed", "small"] {
        ensure!(shown.contains(text), "the life of a row does not tell `{text}`:\n{shown}");
    }
    println!("{shown}");
    let (code, _, told) = migration.crossfade_any(&["messages", "history", &old_name, "1", "0xq"]).await?;
    ensure!(code == Some(2) && told.contains("no value of the key column b"), "{code:?} {told}");
    let help = migration.crossfade(&["messages", "history", "--help"]).await?;
    ensure!(help.contains("Examples:") && help.contains("history app.users 42"), "{help}");
    migration.on(&migration.old, &["UPDATE {schema}.t SET n = 50 WHERE b = 0x0aff"]).await?;
    migration.status().until_quiet(LIMIT).await?;
    migration.stop_both().await
}

on_both_brands! {
    conflicts_are_kept_counted_and_shown: p6_conflicts_on_mysql, p6_conflicts_on_mariadb;
    conflicts_are_counted_once: p6_counted_once_on_mysql, p6_counted_once_on_mariadb;
    exchanged_values_are_for_a_person: p4_exchanged_on_mysql, p4_exchanged_on_mariadb;
    a_lane_outlives_a_slow_store: p1_slow_store_on_mysql, p1_slow_store_on_mariadb;
    a_rows_life_is_told: p6_history_on_mysql, p6_history_on_mariadb;
}
