//! Users with orders and items, both directions running, and `crossfade serve`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Server, SharedPair};
use crossfade_tests::{Flavor, Migration, Setup, json};
use mysql_async::prelude::Queryable;
use serde_json::Value;

pub const LIMIT: Duration = Duration::from_secs(120);

const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

/// Orders of the application's own have numbers below this one.
pub const LATE_ORDERS: u64 = 1_000_000_000;

/// `entity` is what the test wants in `[entity]`.
pub fn setup(flavor: Flavor, name: &'static str, entity: &str) -> Setup {
    let tables = format!(
        "[[table]]\nname = \"{{schema}}.*\"\nclock = \"updated_at\"\n\
         [entity]\nname = \"user\"\nallow_on_old = [\"banned\"]\nlease = \"400ms\"\n{entity}\n\
         [[entity.table]]\nname = \"{{schema}}.users\"\nkey = \"id\"\n\
         [[entity.table]]\nname = \"{{schema}}.orders\"\nkey = \"user_id\"\n\
         [[entity.table]]\nname = \"{{schema}}.items\"\nparent = \"{{schema}}.orders\"\nvia = \"order_id\"\n"
    );
    Setup { tables, ..Setup::new(flavor, name) }
}

/// Users 1 to `users`, of which every third one is German; both processes run, and both sides may be written.
pub async fn staged(setup: &Setup, users: u64) -> Result<Migration> {
    fill(Migration::new(setup).await?, users).await
}

/// As [`staged`], on servers of its own: for what would keep others waiting.
pub async fn staged_apart(setup: &Setup, users: u64) -> Result<Migration> {
    let servers = SharedPair::own(Server::builder(setup.flavor).relaxed()).await?;
    fill(Migration::on_servers(setup, servers).await?, users).await
}

async fn fill(mut migration: Migration, users: u64) -> Result<Migration> {
    let tables = [
        format!(
            "CREATE TABLE {{schema}}.users (id BIGINT UNSIGNED PRIMARY KEY, country CHAR(2) NOT NULL, n BIGINT NOT NULL DEFAULT 0,
               note VARCHAR(40) NOT NULL DEFAULT '', banned INT NOT NULL DEFAULT 0, {CLOCK}) ENGINE = InnoDB"
        ),
        format!(
            "CREATE TABLE {{schema}}.orders (id BIGINT UNSIGNED PRIMARY KEY, user_id BIGINT UNSIGNED NOT NULL, what VARCHAR(40) NOT NULL,
               {CLOCK}, KEY of_user (user_id), FOREIGN KEY (user_id) REFERENCES users (id)) ENGINE = InnoDB"
        ),
        format!(
            "CREATE TABLE {{schema}}.items (id BIGINT UNSIGNED PRIMARY KEY, order_id BIGINT UNSIGNED NOT NULL, {CLOCK},
               KEY of_order (order_id), FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE) ENGINE = InnoDB"
        ),
    ];
    migration.on_both(&tables.each_ref().map(String::as_str)).await?;
    for pool in [&migration.old, &migration.new] {
        for first in (1..=users).step_by(500) {
            let ids: Vec<u64> = (first..(first + 500).min(users + 1)).collect();
            let rows = |row: &dyn Fn(u64) -> String| ids.iter().map(|id| row(*id)).collect::<Vec<_>>().join(", ");
            let country = |id: u64| if id.is_multiple_of(3) { "DE" } else { "SE" };
            let user = |id: u64| format!("({id}, '{}', '2026-01-01')", country(id));
            let order = |id: u64| format!("({}, {id}, 'first', '2026-01-01')", id * 1_000);
            let item = |id: u64| {
                format!("({}, {}, '2026-01-01'), ({}, {}, '2026-01-01')", id * 10, id * 1_000, id * 10 + 1, id * 1_000)
            };
            let statements = [
                format!("INSERT INTO {{schema}}.users (id, country, updated_at) VALUES {}", rows(&user)),
                format!("INSERT INTO {{schema}}.orders (id, user_id, what, updated_at) VALUES {}", rows(&order)),
                format!("INSERT INTO {{schema}}.items (id, order_id, updated_at) VALUES {}", rows(&item)),
            ];
            migration.on(pool, &statements.each_ref().map(String::as_str)).await?;
        }
    }
    migration.init().await?;
    migration.start_both().await?;
    migration.crossfade(&["verify"]).await?;
    migration.crossfade(&["flag", "set", "write_both"]).await?;
    Ok(migration)
}

/// Runs a command of `crossfade entity` that gives JSON, and expects this code.
pub async fn entity(migration: &Migration, words: &[&str], code: i32) -> Result<Value> {
    let words: Vec<&str> = ["entity"].into_iter().chain(words.iter().copied()).chain(["--json"]).collect();
    let (found, report) = json(migration, &words).await?;
    ensure!(found == Some(code), "`{}` ended with {found:?}: {report:#}\n{}", words.join(" "), migration.log_ends());
    Ok(report)
}

/// How many entities are in each state.
pub async fn counts(migration: &Migration) -> Result<BTreeMap<String, u64>> {
    let listed = entity(migration, &["list", "--limit", "0"], 0).await?;
    Ok(serde_json::from_value(listed["counts"].clone())?)
}

/// As [`counts`], written down.
pub async fn states(migration: &Migration) -> Result<String> {
    let counts = counts(migration).await?;
    Ok(counts.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", "))
}

/// Which users the store says are on new.
pub async fn on_new(migration: &Migration) -> Result<Vec<u64>> {
    let mut conn = migration.new.get_conn().await?;
    let question = "SELECT CAST(entity AS CHAR) FROM crossfade.entity WHERE pair = ? AND side = 1";
    let keys: Vec<String> = conn.exec(question, (&migration.pair,)).await?;
    let mut ids = keys.iter().map(|key| key.parse::<u64>()).collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    Ok(ids)
}

/// Both nodes say of every entity what the store says, in its version of when that was decided, and no fence stands.
pub async fn nodes_agree(migration: &Migration) -> Result<()> {
    let mut conn = migration.new.get_conn().await?;
    let question =
        "SELECT COUNT(*) FROM crossfade.entity WHERE pair = ? AND (NOT given OR fenced_until > UTC_TIMESTAMP(6))";
    let fenced: Option<u64> = conn.exec_first(question, (&migration.pair,)).await?;
    ensure!(fenced == Some(0), "{fenced:?} are fenced");
    let sides =
        "SELECT CAST(entity AS CHAR), side FROM crossfade.entity WHERE pair = ? AND side IS NOT NULL ORDER BY entity";
    let wanted: Vec<(String, u8)> = conn.exec(sides, (&migration.pair,)).await?;
    for pool in [&migration.old, &migration.new] {
        let mut conn = pool.get_conn().await?;
        let sides = "SELECT CAST(entity AS CHAR), side FROM crossfade.authority WHERE pair = ? ORDER BY entity";
        let found: Vec<(String, u8)> = conn.exec(sides, (&migration.pair,)).await?;
        ensure!(found == wanted, "a node knows {} entities, the store {}", found.len(), wanted.len());
    }
    Ok(())
}

pub fn number(report: &Value, field: &str) -> Result<u64> {
    report[field].as_u64().with_context(|| format!("no `{field}` in {report:#}"))
}
