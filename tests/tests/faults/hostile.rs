//! Names and contents that try to be something else: SQL, patterns, paths, ends of text. Both ways, and in everything that
//! shows them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::compare::{self, TablePair};
use crossfade_testkit::sql;
use crossfade_tests::{Migration, Setup};
use mysql_async::prelude::Queryable;
use mysql_async::{Pool, Value};

const LIMIT: Duration = Duration::from_secs(90);

/// Tables, each with columns of the same name. NUL cannot be in a name (MySQL manual, "Schema Object Names").
const NAMES: [&str; 14] = [
    "`",
    "``; DROP TABLE `t",
    "a.b",
    ".",
    "'",
    "\"",
    "\\",
    "%s ${OLD} {schema} ?",
    "; --",
    "select",
    "таблица 表 ñ",
    "*",
    "\u{202e}txt\u{200b}",
    "sixty_four_characters_and_not_one_more_which_is_all_that_fits_in",
];

/// Contents, each of which marks itself: none may ever stand in the text of a statement.
const MARK: &str = "m4rk";
const CONTENTS: [&str; 12] = [
    "m4rk'; DROP TABLE t; -- ",
    "m4rk\"` \\' \\\" \\\\ \\0 %_ \\%",
    "m4rk\0nul\x1aend\r\n\t\u{8}",
    "m4rk ${OLD_PASSWORD} $${X} {0} %s %n %1$s",
    "m4rk {\"$base64\": \"AAAA\"}",
    "m4rk null NULL undefined NaN",
    "m4rk \u{202e}\u{200b}\u{feff}\u{1f980} e\u{301}",
    "m4rk /* */ # -- /*! SELECT 1 */",
    "m4rk :name ? ?? @x @@version",
    "m4rk ]]> </script><script>alert(1)</script>",
    "m4rk                    ",
    "m4rk ' OR '1'='1",
];

/// The schema's name; the test's number follows it.
const SCHEMA: &str = "m`y.sche'ma \"*\" \\";

async fn hostile_names_and_contents(flavor: Flavor) -> Result<()> {
    let servers = SharedPair::own(Server::builder(flavor).relaxed().option("log_output", "TABLE")).await?;
    // In a configuration a name with a dot, a star or a back-quote stands in back-quotes, and those in it are doubled.
    let tables =
        format!("[[table]]\nname = {}\nclock = \"updated_at\"\n", toml_text(&format!("{}.*", sql::name(SCHEMA))));
    let mut migration = Migration::on_servers(&Setup { tables, ..Setup::new(flavor, "hostile") }, servers).await?;
    for pool in [&migration.old, &migration.new] {
        create(pool).await?;
    }
    let (code, output, errors) = migration.crossfade_any(&["check"]).await?;
    ensure!(code == Some(0), "check ends with {code:?}\n{output}{errors}");
    migration.init().await?;
    for server in [servers.old(), servers.new()] {
        server.connect().await?.query_drop("SET GLOBAL general_log = ON").await?;
    }
    migration.start_both().await?;
    for (number, name) in NAMES.iter().enumerate() {
        insert(&migration.old, name, 0).await?;
        insert(&migration.new, name, 100).await?;
        if number == 0 {
            migration.status().until_quiet(LIMIT).await?;
        }
    }
    let rows = equal_rows(&migration).await?;
    ensure!(rows == 2 * (NAMES.len() * CONTENTS.len()) as u64, "{rows} rows have crossed");
    for name in NAMES {
        // Keys and contents change, with each side's rows changed on the other one.
        change(&migration.old, name, 100).await?;
        change(&migration.new, name, 0).await?;
    }
    let after = equal_rows(&migration).await?;
    ensure!(after == rows - 2 * NAMES.len() as u64, "{after} rows are left of {rows}");
    shown_as_they_are(&migration).await?;
    for server in [servers.old(), servers.new()] {
        no_statement_holds_a_value(server).await?;
    }
    migration.stop_both().await
}

async fn create(pool: &Pool) -> Result<()> {
    let mut connection = pool.get_conn().await?;
    connection.query_drop(format!("CREATE DATABASE {} CHARACTER SET utf8mb4", sql::name(SCHEMA))).await?;
    for name in NAMES {
        let (key, text) = columns(name);
        let statement = format!(
            "CREATE TABLE {} ({key} VARBINARY(255) NOT NULL PRIMARY KEY, {text} TEXT NULL, raw BLOB NULL, doc JSON NULL, \
             l1 VARCHAR(200) CHARACTER SET latin1 NULL, updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) \
             ON UPDATE CURRENT_TIMESTAMP(6))",
            sql::full_name(SCHEMA, name)
        );
        connection.query_drop(&statement).await.with_context(|| statement)?;
    }
    Ok(())
}

/// The key is called like the table, the text after its end.
fn columns(name: &str) -> (String, String) {
    let short: String = name.chars().skip(1).collect();
    (sql::name(name), sql::name(&format!("{short}_")))
}

async fn insert(pool: &Pool, name: &str, first: usize) -> Result<()> {
    let mut connection = pool.get_conn().await?;
    let (key, text) = columns(name);
    let statement = format!(
        "INSERT INTO {} ({key}, {text}, raw, doc, l1) VALUES (?, ?, ?, JSON_OBJECT(?, ?), 'm4rk \u{e9}\u{fc}')",
        sql::full_name(SCHEMA, name)
    );
    for (number, content) in CONTENTS.iter().enumerate() {
        let key = [content.as_bytes(), &[0, (first + number) as u8, 0xff, 0xfe]].concat();
        let raw: Vec<u8> = content.bytes().chain((0..=255).rev()).collect();
        let values: Vec<Value> = vec![key.into(), (*content).into(), raw.into(), (*content).into(), (*content).into()];
        connection.exec_drop(&statement, values).await?;
    }
    Ok(())
}

/// Changes the rows that a side inserted: one key, all texts, and one row goes.
async fn change(pool: &Pool, name: &str, first: usize) -> Result<()> {
    let mut connection = pool.get_conn().await?;
    let (key, text) = columns(name);
    let table = sql::full_name(SCHEMA, name);
    let of = |number: usize| [CONTENTS[number].as_bytes(), &[0, (first + number) as u8, 0xff, 0xfe]].concat();
    let renamed = [CONTENTS[1].as_bytes(), b"' -- renamed", &[first as u8]].concat();
    connection.exec_drop(format!("UPDATE {table} SET {key} = ? WHERE {key} = ?"), (renamed, of(1))).await?;
    for (number, content) in CONTENTS.iter().enumerate().skip(2) {
        let update = format!("UPDATE {table} SET {text} = CONCAT(?, {text}), raw = NULL WHERE {key} = ?");
        connection.exec_drop(update, (*content, of(number))).await?;
    }
    connection.exec_drop(format!("DELETE FROM {table} WHERE {key} = ?"), (of(0),)).await?;
    Ok(())
}

async fn equal_rows(migration: &Migration) -> Result<u64> {
    let status = migration.status().until_quiet(LIMIT).await.with_context(|| migration.log_ends())?;
    let pair = |name: &&str| {
        let name = (SCHEMA.to_owned(), (*name).to_owned());
        TablePair { old: name.clone(), new: name }
    };
    let comparison =
        compare::tables(&migration.old, &migration.new, &NAMES.iter().map(pair).collect::<Vec<_>>()).await?;
    ensure!(comparison.is_equal(), "the sides differ when all is quiet\n{comparison}\n{}", status.0);
    ensure!(status.total("open_failures") + status.total("held") == 0, "rows are set aside: {}", status.0);
    Ok(comparison.rows_compared())
}

/// The message table, in SQL and by the commands.
async fn shown_as_they_are(migration: &Migration) -> Result<()> {
    let mut store = migration.new.get_conn().await?;
    for name in NAMES {
        let query = "SELECT COUNT(*) FROM crossfade.message WHERE pair = ? AND table_schema = ? AND table_name = ?";
        let found: Option<u64> = store.exec_first(query, (&migration.pair, SCHEMA, name)).await?;
        let written = 2 * (CONTENTS.len() + 1 + CONTENTS.len() - 2 + 1) as u64;
        ensure!(found == Some(written), "the view has {found:?} messages of {name}, {written} were written");
        let full = sql::full_name(SCHEMA, name);
        let listed = migration.crossfade(&["messages", "list", "--table", &full, "--json"]).await?;
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        let listed = listed.as_array().or_else(|| listed["messages"].as_array()).map_or(0, Vec::len);
        ensure!(listed > 0, "`messages list --table {full}` shows nothing");
    }
    Ok(())
}

/// What users hand over as values stays a value: no statement of the processes has it in its text. The server's own log
/// tells what it was sent; of a prepared statement it shows the text when it is prepared.
async fn no_statement_holds_a_value(server: &Server) -> Result<()> {
    let mut connection = server.connect().await?;
    connection.query_drop("SET GLOBAL general_log = OFF").await?;
    let ours = "user_host LIKE 'sync%' AND command_type IN ('Query', 'Prepare')";
    let texts: Option<u64> =
        connection.query_first(format!("SELECT COUNT(*) FROM mysql.general_log WHERE {ours}")).await?;
    ensure!(texts.is_some_and(|texts| texts > 20), "the server's log has only {texts:?} statements of ours");
    let query = format!(
        "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE {ours} AND argument LIKE '%{MARK}%'"
    );
    let with_values: Vec<String> = connection.query(query).await?;
    ensure!(with_values.is_empty(), "statements with values in their text: {with_values:#?}");
    Ok(())
}

/// A basic string of TOML.
fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[tokio::test]
async fn hostile_names_and_contents_on_mysql() -> Result<()> {
    hostile_names_and_contents(Flavor::MySql).await
}

#[tokio::test]
async fn hostile_names_and_contents_on_mariadb() -> Result<()> {
    hostile_names_and_contents(Flavor::MariaDb).await
}
