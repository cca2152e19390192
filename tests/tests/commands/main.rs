//! What every command says and does, through the real binary: output, exit codes, and the life of the sync processes.

mod looking;
mod probe;
mod running;
mod waiting;
mod wrong;

use std::time::Duration;

use anyhow::{Context, Result};
use crossfade_testkit::quiet::{self, Progress, Status};
use crossfade_tests::{Migration, json, says};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use serde_json::Value;

pub const LIMIT: Duration = Duration::from_secs(60);
const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

/// One table on both sides, with a key, a text and a clock.
pub async fn create_table(migration: &Migration) -> Result<()> {
    let create = format!("CREATE TABLE {{schema}}.users (id INT PRIMARY KEY, v VARCHAR(40), {CLOCK})");
    migration.on_both(&[&create]).await
}

/// Inserts rows, one transaction each.
pub async fn insert(migration: &Migration, pool: &Pool, ids: std::ops::Range<u32>) -> Result<()> {
    let mut conn = pool.get_conn().await?;
    for id in ids {
        conn.query_drop(format!("INSERT INTO `{}`.users (id, v) VALUES ({id}, 'row {id}')", migration.schema)).await?;
    }
    Ok(())
}

pub async fn rows(migration: &Migration, pool: &Pool) -> Result<u64> {
    let question = format!("SELECT COUNT(*) FROM `{}`.users", migration.schema);
    pool.get_conn().await?.query_first(question).await?.context("a count has a row")
}

/// Waits until `status` shows what is wanted.
pub async fn until_status(migration: &Migration, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
    let probe = async || {
        let status = migration.status().read().await?;
        Ok(if wanted(&status) { Progress::Reached(status) } else { Progress::NotYet(status.0.to_string()) })
    };
    quiet::until(what, LIMIT, probe).await.with_context(|| migration.log_ends())
}

/// The state of a direction's stream.
pub fn state<'s>(status: &'s Status, direction: &str) -> &'s str {
    let of_direction = |stream: &&Value| stream["stream"].as_str().is_some_and(|name| name.starts_with(direction));
    status.streams().iter().find(of_direction).and_then(|stream| stream["state"].as_str()).unwrap_or_default()
}
