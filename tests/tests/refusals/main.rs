//! P7: what a target refuses is sorted. A row that does not fit waits by itself with its reason; a target that cannot take
//! anything stops the direction instead, loses nothing, and goes on when it is mended; and no state is green meanwhile.

mod answer;
mod circuit;
mod last_words;
mod left_out;
mod outset;
mod rows;
mod standby;
mod store;
mod target;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_testkit::workload::Side;
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::Pool;
use mysql_async::prelude::{FromRow, Queryable};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

pub const LIMIT: Duration = Duration::from_secs(90);

pub const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

/// The usual table of these tests.
pub const PLAIN: &str = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(20), n INT NOT NULL, {clock})";

/// Creates tables on both sides and initialises.
pub async fn prepare(migration: &Migration, tables: &[&str]) -> Result<()> {
    for table in tables {
        migration.on_both(&[&table.replace("{clock}", CLOCK)]).await?;
    }
    migration.init().await
}

pub async fn started(setup: &Setup, tables: &[&str]) -> Result<Migration> {
    let mut migration = Migration::new(setup).await?;
    prepare(&migration, tables).await?;
    migration.start_both().await?;
    Ok(migration)
}

/// Servers that a test may set to read-only and whose counters are its own; one test at a time uses them.
pub async fn own_servers(flavor: Flavor) -> Result<(&'static SharedPair, MutexGuard<'static, ()>)> {
    static MYSQL: (OnceCell<&SharedPair>, Mutex<()>) = (OnceCell::const_new(), Mutex::const_new(()));
    static MARIADB: (OnceCell<&SharedPair>, Mutex<()>) = (OnceCell::const_new(), Mutex::const_new(()));
    let (cell, turn) = match flavor {
        Flavor::MySql => &MYSQL,
        Flavor::MariaDb => &MARIADB,
    };
    let turn = turn.lock().await;
    let pair = cell.get_or_try_init(|| SharedPair::own(Server::builder(flavor).relaxed())).await?;
    Ok((pair, turn))
}

/// A migration whose store is on the old side, so that it can be read whatever happens to the target, and whose account on
/// the new side has no more privileges than it needs.
pub async fn with_plain_account(servers: &'static SharedPair, name: &'static str) -> Result<Migration> {
    let store = format!("[store]\nurl = \"{}\"\n", servers.old().root_url());
    plain_account_of(servers, &Setup { settings: store, ..Setup::new(servers.flavor(), name) }).await
}

/// A migration whose account on the new side has no more privileges than it needs.
pub async fn plain_account_of(servers: &'static SharedPair, setup: &Setup) -> Result<Migration> {
    let migration = Migration::on_servers(setup, servers).await?;
    let account = format!("'{}'@'%'", account(&migration));
    let anywhere = "SELECT, CREATE, ALTER, DROP, INDEX, REFERENCES, TRIGGER, PROCESS, RELOAD, REPLICATION SLAVE, REPLICATION CLIENT";
    migration
        .on(
            &migration.new,
            &[
                &format!("CREATE USER {account} IDENTIFIED BY 'Plain-1'"),
                &format!("GRANT {anywhere} ON *.* TO {account}"),
                &format!("GRANT INSERT, UPDATE, DELETE ON {{schema}}.* TO {account}"),
                &format!("GRANT INSERT, UPDATE, DELETE, CREATE VIEW ON crossfade.* TO {account}"),
            ],
        )
        .await?;
    let text = std::fs::read_to_string(migration.config())?;
    let plain = servers.new().url(&self::account(&migration), "Plain-1");
    std::fs::write(migration.config(), text.replace(&migration.url(Side::New), &plain))?;
    Ok(migration)
}

pub fn account(migration: &Migration) -> String {
    format!("plain_{}", migration.pair.replace('-', "_"))
}

pub async fn until_status(migration: &Migration, what: &str, is_reached: impl Fn(&Status) -> bool) -> Result<Status> {
    until(what, LIMIT, || async {
        let status = migration.status().read().await?;
        Ok(if is_reached(&status) { Progress::Reached(status) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

pub async fn until_number(pool: &Pool, query: &str, expected: u64) -> Result<()> {
    until(query, LIMIT, || async {
        let found = number(pool, query).await?;
        Ok(if found == expected { Progress::Reached(()) } else { Progress::NotYet(found.to_string()) })
    })
    .await
}

/// Nothing is set aside, and both sides are equal.
pub async fn until_all_is_well(migration: &Migration) -> Result<Status> {
    let waited = until_status(migration, "nothing set aside", |status| {
        status.total("open_failures") == 0 && status.total("held") == 0
    })
    .await;
    if let Err(error) = waited {
        let failed = migration.crossfade(&["messages", "list", "--status", "failed"]).await?;
        return Err(error.context(failed));
    }
    Ok(migration.until_quiet_and_equal(LIMIT).await?.0)
}

pub async fn number(pool: &Pool, query: &str) -> Result<u64> {
    Ok(pool.get_conn().await?.query_first(query).await?.unwrap_or(0))
}

pub async fn rows<T: FromRow + Send + 'static>(pool: &Pool, query: &str) -> Result<Vec<T>> {
    Ok(pool.get_conn().await?.query(query).await?)
}

/// What `status --json` says of forward.
pub fn forward(status: &Status) -> &Value {
    let forward = status.streams().iter().find(|stream| stream["stream"] == "forward/old");
    forward.unwrap_or(&Value::Null)
}

pub fn state(status: &Status) -> &str {
    forward(status)["state"].as_str().unwrap_or_default()
}

pub fn reason(status: &Status) -> &str {
    forward(status)["reason"].as_str().unwrap_or_default()
}

pub fn is_green(status: &Status) -> bool {
    matches!(state(status), "running" | "catching-up")
}

/// For tests of the target: nothing reads the new side, whose tables are dropped here.
pub async fn forward_alone(migration: &mut Migration) -> Result<()> {
    migration.crossfade(&["stop", "reverse", "--capture"]).await?;
    migration.start(Direction::Forward, &[])?;
    until_status(migration, "forward runs", is_green).await?;
    Ok(())
}

pub fn insert(rows: impl IntoIterator<Item = (u32, u32)>) -> String {
    let rows: Vec<String> = rows.into_iter().map(|(id, n)| format!("({id}, 'row {id}', {n})")).collect();
    format!("INSERT INTO {{schema}}.t (id, v, n) VALUES {}", rows.join(","))
}

/// The state must be so until it is left for another that is not green either.
pub async fn never_green(migration: &Migration, lasting: Duration) -> Result<()> {
    let end = tokio::time::Instant::now() + lasting;
    while tokio::time::Instant::now() < end {
        let status = migration.status().read().await?;
        ensure!(!is_green(&status), "green while nothing can be applied: {}", status.0);
    }
    Ok(())
}
