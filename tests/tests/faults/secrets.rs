//! Neither passwords nor rows' values are in anything that a command or a process says, however loud, nor in what the store
//! keeps of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_testkit::sql;
use crossfade_testkit::workload::Side;
use crossfade_tests::{Direction, Migration, Setup, secrets};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

const LIMIT: Duration = Duration::from_secs(60);
/// Stands in rows that are applied, in one that the target refuses, and in a key.
const VALUE: &str = "r0w-value-4711";
const CREATE: &str = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, k VARCHAR(40) NOT NULL, UNIQUE (k), \
                      updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";

async fn nothing_tells_a_secret(flavor: Flavor) -> Result<()> {
    let servers = SharedPair::get(flavor).await;
    let mut migration = Migration::on_servers(&Setup::new(flavor, "secrets"), servers).await?;
    migration.on_both(&[CREATE]).await?;
    migration.init().await?;
    for direction in Direction::BOTH {
        let loud = "trace,mysql_async=off,sqlx=off,hyper=off,rustls=off,tokio=off,mio=off";
        migration.start(direction, &[("CROSSFADE_LOG", loud)])?;
    }
    migration.status().until_running(LIMIT).await?;
    let insert = format!("INSERT INTO {{schema}}.t (id, k) VALUES (1, '{VALUE}')");
    migration.on(&migration.old, &[&insert]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    // The target has a check that old has not: this row is refused there.
    migration.on(&migration.new, &["ALTER TABLE {schema}.t ADD CHECK (k NOT LIKE '%refused%')"]).await?;
    let refused = format!("INSERT INTO {{schema}}.t (id, k) VALUES (2, '{VALUE} refused')");
    migration.on(&migration.old, &[&refused]).await?;
    crossfade_testkit::quiet::until("a refused row", LIMIT, || async {
        use crossfade_testkit::quiet::Progress;
        let failed = migration.status().read().await?.total("open_failures");
        Ok(if failed == 1 { Progress::Reached(()) } else { Progress::NotYet(failed.to_string()) })
    })
    .await?;

    // Migration looks for passwords in each of these itself; the values of rows are what `messages` is there to show.
    for words in [&["check"][..], &["check", "--json"], &["status"], &["status", "--json"], &["messages", "list"]] {
        let (_, output, errors) = migration.crossfade_any(words).await?;
        ensure!(!errors.contains(VALUE), "{words:?} logs a row's value: {errors}");
        ensure!(words[0] == "messages" || !output.contains(VALUE), "{words:?} tells a row's value: {output}");
    }
    wrong_configurations_tell_no_secret(&migration).await?;
    for direction in Direction::BOTH {
        let log = std::fs::read_to_string(migration.log(direction))?;
        ensure!(log.contains("running"), "nothing is logged: {log}");
        let told = log.lines().find(|line| line.contains(VALUE));
        ensure!(told.is_none(), "{} logs a row's value: {told:?}", direction.as_str());
    }
    for pool in [&migration.old, &migration.new] {
        no_table_holds_a_secret(pool).await?;
    }
    migration.stop_both().await
}

/// The account's password is wrong, the server is away, the file is broken behind the URL.
async fn wrong_configurations_tell_no_secret(migration: &Migration) -> Result<()> {
    let right = std::fs::read_to_string(migration.config())?;
    let (old, new) = (migration.url(Side::Old), migration.url(Side::New));
    let port = format!(":{}", migration.servers.new().port());
    let wrong = [
        right.replace(&new, &new.replace('@', "x@")),
        right.replace(&old, &old.replace('@', "x@")),
        right.replace(&new, &new.replace(&port, ":1")),
        right.replace(&new, &new.replace(&port, ":1x")),
        right.replace(&new, &format!("{new}/schema")),
        right.replace(&new, &new.replace("mysql:", "mysq:")),
        right.replace(&format!("url = \"{new}\""), &format!("url = \"{new}")),
    ];
    for text in wrong {
        ensure!(text != right, "nothing is wrong");
        std::fs::write(migration.config(), &text)?;
        for words in [&["check"][..], &["status"], &["sync", "forward"], &["--log-json", "sync", "reverse"], &["init"]]
        {
            let (code, _, errors) = migration.crossfade_any(words).await?;
            ensure!(code.is_some_and(|code| code != 101), "{words:?} ended with {code:?}: {errors}");
        }
    }
    std::fs::write(migration.config(), right)?;
    Ok(())
}

/// Every text in every table of crossfade's own.
async fn no_table_holds_a_secret(pool: &Pool) -> Result<()> {
    let mut connection = pool.get_conn().await?;
    let columns: Vec<(String, String)> = connection
        .query(
            "SELECT c.table_name, c.column_name FROM information_schema.columns c \
             JOIN information_schema.tables t USING (table_schema, table_name) \
             WHERE c.table_schema = 'crossfade' AND t.table_type = 'BASE TABLE' \
             AND c.data_type IN ('char', 'varchar', 'tinytext', 'text', 'mediumtext', 'longtext', 'json', 'blob', \
             'mediumblob', 'longblob', 'varbinary')",
        )
        .await?;
    ensure!(columns.len() > 5, "crossfade keeps no texts: {columns:?}");
    for (table, column) in columns {
        for secret in secrets() {
            let (name, table) = (sql::name(&column), sql::full_name("crossfade", &table));
            let query = format!("SELECT COUNT(*) FROM {table} WHERE INSTR({name}, {})", sql::text(&secret));
            let found: Option<u64> = connection.query_first(&query).await.with_context(|| query.clone())?;
            ensure!(found == Some(0), "{table}.{column} holds a password");
        }
    }
    Ok(())
}

#[tokio::test]
async fn nothing_tells_a_secret_on_mysql() -> Result<()> {
    nothing_tells_a_secret(Flavor::MySql).await
}

#[tokio::test]
async fn nothing_tells_a_secret_on_mariadb() -> Result<()> {
    nothing_tells_a_secret(Flavor::MariaDb).await
}
