//! The retry tool, through the real binary: what was set aside is shown, tried again, corrected and given up, while the
//! processes run, while they are stopped, and while they and the tool are killed.

mod hostile;
mod killed;
mod running;
mod stopped;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::process;
use crossfade_testkit::quiet::{self, Progress, Status};
use crossfade_tests::{Migration, Setup, binary, on_both_brands};
use mysql_async::Pool;
use mysql_async::prelude::{FromRow, Queryable};
use serde_json::Value;

pub const LIMIT: Duration = Duration::from_secs(60);
const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

/// Two tables, of which the new side refuses what the old side takes: equal emails, items of nobody.
async fn prepared(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let migration = Migration::new(&Setup::new(flavor, name)).await?;
    migration
        .on_both(&[
            &format!(
                "CREATE TABLE {{schema}}.users (id INT PRIMARY KEY, email VARCHAR(40) NOT NULL, note VARCHAR(40), \
                 n INT NOT NULL DEFAULT 0, {CLOCK})"
            ),
            &format!(
                "CREATE TABLE {{schema}}.items (id INT PRIMARY KEY, user_id INT NOT NULL, note VARCHAR(40), {CLOCK})"
            ),
        ])
        .await?;
    migration
        .on(
            &migration.new,
            &[
                "ALTER TABLE {schema}.users ADD UNIQUE KEY email (email)",
                "ALTER TABLE {schema}.items ADD CONSTRAINT owner FOREIGN KEY (user_id) REFERENCES {schema}.users (id)",
            ],
        )
        .await?;
    migration.init().await?;
    Ok(migration)
}

/// Somebody makes columns of the new side too short while the processes run.
async fn narrow(migration: &Migration) -> Result<()> {
    let users = "ALTER TABLE {schema}.users MODIFY note VARCHAR(10)";
    migration.on(&migration.new, &[users, "ALTER TABLE {schema}.items MODIFY note VARCHAR(10)"]).await
}

async fn widen(migration: &Migration) -> Result<()> {
    let users = "ALTER TABLE {schema}.users MODIFY note VARCHAR(40)";
    migration.on(&migration.new, &[users, "ALTER TABLE {schema}.items MODIFY note VARCHAR(40)"]).await
}

async fn until_status(migration: &Migration, what: &str, is_reached: impl Fn(&Status) -> bool) -> Result<()> {
    quiet::until(what, LIMIT, || async {
        let status = migration.status().read().await?;
        Ok(if is_reached(&status) { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

/// Waits until so many messages of the forward direction are set aside.
async fn until_failed(migration: &Migration, count: u64) -> Result<()> {
    until_status(migration, "messages set aside", |status| status.number("forward", "open_failures") == count).await
}

async fn until_equal(migration: &Migration) -> Result<()> {
    let waited = migration.until_quiet_and_equal(LIMIT).await;
    if let Err(error) = waited {
        let listed = migration.crossfade(&["messages", "list"]).await?;
        let failed = migration.crossfade(&["messages", "list", "--status", "failed"]).await?;
        return Err(error.context(format!("{listed}\n{failed}")));
    }
    Ok(())
}

/// Runs a command that gives JSON: exit code and value.
async fn json(migration: &Migration, words: &[&str]) -> Result<(Option<i32>, Value)> {
    let (code, output, errors) = migration.crossfade_any(words).await?;
    let value = serde_json::from_str(&output).with_context(|| format!("no JSON of {words:?}: {output}{errors}"))?;
    Ok((code, value))
}

/// That a command ends with this code and says all of these on either output.
async fn says(migration: &Migration, words: &[&str], code: i32, told: &[&str]) -> Result<String> {
    let (found, output, errors) = migration.crossfade_any(words).await?;
    let all = format!("{output}{errors}");
    ensure!(found == Some(code), "{words:?} ended with {found:?}, not {code}:\n{all}\n{}", migration.log_ends());
    for text in told {
        ensure!(all.contains(text), "{words:?} does not say `{text}`:\n{all}");
    }
    Ok(all)
}

/// As [`says`], with environment variables such as a fail point, and without a wish for the exit code.
async fn tool(migration: &Migration, words: &[&str], environment: &[(&str, &str)]) -> Result<(Option<i32>, String)> {
    let config = migration.config();
    let mut arguments = vec!["--config".to_owned(), config.to_string_lossy().into_owned()];
    arguments.extend(words.iter().map(|word| (*word).to_owned()));
    let (code, output, errors) = process::run_any(&binary(), &arguments, environment, LIMIT).await?;
    Ok((code, format!("{output}{errors}")))
}

/// The ids of failed messages with an error, oldest first.
async fn failed(migration: &Migration, error: &str) -> Result<Vec<String>> {
    let (_, listed) = json(migration, &["messages", "list", "--status", "failed", "--error", error, "--json"]).await?;
    let mut ids: Vec<(u64, String)> = listed
        .as_array()
        .context("no list")?
        .iter()
        .map(|line| (line["seq"].as_u64().unwrap_or(0), line["id"].as_str().unwrap_or_default().to_owned()))
        .collect();
    ids.sort();
    Ok(ids.into_iter().map(|(_, id)| id).collect())
}

/// As many messages as are to fail with an error, oldest first. One that came in a later batch than another that it waits
/// behind says only that, until both are tried together.
async fn those_failed<const COUNT: usize>(migration: &Migration, error: &str) -> Result<[String; COUNT]> {
    let what = format!("{COUNT} messages that fail with {error}");
    quiet::until(&what, LIMIT, || async {
        let ids = failed(migration, error).await?;
        Ok(<[String; COUNT]>::try_from(ids).map_or_else(|ids| Progress::NotYet(format!("{ids:?}")), Progress::Reached))
    })
    .await
    .with_context(|| migration.log_ends())
}

/// The only one; waits for it.
async fn the_failed(migration: &Migration, error: &str) -> Result<String> {
    let [id] = those_failed(migration, error).await?;
    Ok(id)
}

async fn first<T: FromRow + Send + 'static>(migration: &Migration, pool: &Pool, query: &str) -> Result<Option<T>> {
    let query = query.replace("{schema}", &format!("`{}`", migration.schema)).replace("{pair}", &migration.pair);
    Ok(pool.get_conn().await?.query_first(query).await?)
}

async fn count(migration: &Migration, pool: &Pool, query: &str) -> Result<u64> {
    Ok(first(migration, pool, &format!("SELECT COUNT(*) FROM {query}")).await?.unwrap_or(0))
}

async fn until_count(migration: &Migration, pool: &Pool, query: &str, wanted: u64) -> Result<()> {
    quiet::until(query, LIMIT, || async {
        let found = count(migration, pool, query).await?;
        Ok(if found == wanted { Progress::Reached(()) } else { Progress::NotYet(found.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

on_both_brands! {
    running::shown_and_tried: p7_shown_and_tried_on_mysql, p7_shown_and_tried_on_mariadb;
    running::corrected: p4_corrected_values_reach_both_sides_on_mysql, p4_corrected_values_reach_both_sides_on_mariadb;
    running::given_up: p7_nobody_waits_for_the_discarded_on_mysql, p7_nobody_waits_for_the_discarded_on_mariadb;
    hostile::nothing_steers_the_terminal: p7_nothing_steers_the_terminal_on_mysql, p7_nothing_steers_the_terminal_on_mariadb;
    hostile::two_people: p2_two_people_want_different_things_on_mysql, p2_two_people_want_different_things_on_mariadb;
    stopped::without_processes: p7_tried_without_processes_on_mysql, p7_tried_without_processes_on_mariadb;
    killed::process: p2_a_killed_process_applies_once_on_mysql, p2_a_killed_process_applies_once_on_mariadb;
    killed::the_tool: p2_a_killed_tool_applies_once_on_mysql, p2_a_killed_tool_applies_once_on_mariadb;
}
