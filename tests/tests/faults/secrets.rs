//! Neither passwords nor rows' values are in anything that a command or a process says, however loud, nor in what the store
//! keeps of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_testkit::quiet::{Progress, until};
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
    let setup = Setup { settings: "[apply]\nmax_parked = 2\n".to_owned(), ..Setup::new(flavor, "secrets") };
    let mut migration = Migration::on_servers(&setup, servers).await?;
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
    until_refused(&migration, 1).await?;
    a_trigger_speaks_to_people_only(&migration).await?;

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

async fn until_refused(migration: &Migration, rows: u64) -> Result<()> {
    until("refused rows", LIMIT, || async {
        let failed = migration.status().read().await?.total("open_failures");
        Ok(if failed == rows { Progress::Reached(()) } else { Progress::NotYet(failed.to_string()) })
    })
    .await
}

/// A trigger of the target refuses rows in words of its own, and those quote the row. The failure keeps them; the log and the
/// reason for which the direction stops do not.
async fn a_trigger_speaks_to_people_only(migration: &Migration) -> Result<()> {
    let trigger = "CREATE TRIGGER {schema}.guard BEFORE INSERT ON {schema}.t FOR EACH ROW
         IF NEW.k LIKE '%unwanted%' THEN
           SET @why = CONCAT(NEW.k, ' is not wanted here');
           SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = @why;
         END IF";
    migration.on(&migration.new, &[trigger]).await?;
    let insert = |id: u32| format!("INSERT INTO {{schema}}.t (id, k) VALUES ({id}, '{VALUE} unwanted {id}')");
    migration.on(&migration.old, &[&insert(3)]).await?;
    until_refused(migration, 2).await?;
    let failed = migration.crossfade(&["messages", "list", "--status", "failed", "--error", "1644"]).await?;
    ensure!(failed.contains("unwanted 3 is not wanted here"), "nobody learns what the trigger says: {failed}");
    migration.expect_lines(&["too much of forward/old cannot be applied"]);
    migration.on(&migration.old, &[&insert(4)]).await?;
    until("the direction stops", LIMIT, || async {
        let status = migration.status().read().await?;
        let stopped = status.state("forward") == Some("stopped") && status.0.to_string().contains("1644");
        Ok(if stopped { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
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
        let commands: [&[&str]; 5] = [
            &["check"],
            &["status"],
            &["sync", "forward", "--until-caught-up"],
            &["--log-json", "sync", "reverse", "--until-caught-up"],
            &["init"],
        ];
        for words in commands {
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
