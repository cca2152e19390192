//! `max_backlog`: reading rests, goes on, and never keeps the other direction from going on.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_tests::lines::AWAY;
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use rand::Rng;

use crate::{LIMIT, until_status};

const RESTS: &str = "reading rests, since";
const BACKLOG: &str = "max_backlog = \"64KiB\"";
/// No clock, so every change waits until the opposite reader has told what users of the target did.
const WITHOUT_CLOCK: &str = "[[table]]\nname = \"{schema}.t\"\n";
const CREATE: &str = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(2000) NOT NULL)";
const SHARED_ROWS: u32 = 50;
/// Rows that fill a backlog: each takes more than half a kilobyte however well it is packed.
const ROWS: u32 = 240;

fn text() -> String {
    let mut random = rand::rng();
    (0..300).map(|_| format!("{:04x}", random.random::<u16>())).collect()
}

fn shared_rows() -> String {
    let rows: Vec<String> = (0..SHARED_ROWS).map(|id| format!("({id}, 'same')")).collect();
    format!("INSERT INTO {{schema}}.t VALUES {}", rows.join(","))
}

/// Rows of one side's own, and as many changes of rows that both sides change.
async fn write(migration: &Migration, pool: &Pool, first: u32) -> Result<u64> {
    for start in (first..first + ROWS).step_by(20) {
        let rows: Vec<String> = (start..start + 20).map(|id| format!("({id}, '{}')", text())).collect();
        let insert = format!("INSERT INTO {{schema}}.t VALUES {}", rows.join(","));
        let update = format!("UPDATE {{schema}}.t SET v = '{}' WHERE id = {}", text(), start / 20 % SHARED_ROWS);
        migration.on(pool, &[&insert, &update]).await?;
    }
    Ok(u64::from(ROWS + ROWS / 20))
}

fn rests(status: &Status, direction: &str) -> bool {
    let of_direction =
        |stream: &&serde_json::Value| stream["stream"].as_str().is_some_and(|name| name.starts_with(direction));
    let stream = status.streams().iter().find(of_direction);
    stream.and_then(|stream| stream["reason"].as_str()).is_some_and(|reason| reason.contains("reading rests"))
}

/// Both directions have as much as they may, more stands unread in both binlogs, and each change must wait for the reader of the
/// other direction.
pub async fn two_full_backlogs_drain(flavor: Flavor) -> Result<()> {
    let settings = format!("\n[store]\n{BACKLOG}\n");
    let setup = Setup { tables: WITHOUT_CLOCK.to_owned(), settings, ..Setup::new(flavor, "full_backlogs") };
    let mut migration = Migration::new(&setup).await?;
    migration.expect_lines(&[RESTS]);
    migration.on_both(&[CREATE, &shared_rows()]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.rest(&Direction::BOTH).await?;
    let mut written = write(&migration, &migration.old, 1_000).await?;
    ensure!(write(&migration, &migration.new, 100_000).await? == written);
    let full = until_status(&migration, "both readers resting", LIMIT, |status| {
        Direction::BOTH.iter().all(|direction| rests(status, direction.as_str()))
    })
    .await?;
    written += write(&migration, &migration.old, 2_000).await?;
    write(&migration, &migration.new, 200_000).await?;
    let status = migration.status().read().await?;
    for direction in ["forward", "reverse"] {
        let (before, now) = (full.number(direction, "last_seq"), status.number(direction, "last_seq"));
        ensure!(before == now && now < written, "{direction} went on reading: {before}, {now} of {written}");
    }
    migration.go_on(&Direction::BOTH).await?;
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    for direction in ["forward", "reverse"] {
        ensure!(status.number(direction, "last_seq") == written, "of {written} changes: {}", status.0);
        ensure!(!rests(&status, direction), "reading still rests: {}", status.0);
    }
    ensure!(status.total("open_failures") + status.total("held") == 0, "something is set aside: {}", status.0);
    ensure!(status.total("conflicts_lost") > 0, "nothing was in conflict: {}", status.0);
    migration.stop_both().await
}

/// The target is down for long: the source's connection is given back, and nothing is lost.
pub async fn reading_rests_while_the_target_is_down(flavor: Flavor) -> Result<()> {
    let expires = ("binlog_expire_logs_seconds", 7 * 86_400);
    let servers = SharedPair::own(Server::builder(flavor).relaxed().option(expires.0, expires.1)).await?;
    let settings = format!("\n[store]\nurl = \"{}\"\n{BACKLOG}\n", servers.old().root_url());
    let setup = Setup { tables: WITHOUT_CLOCK.to_owned(), settings, ..Setup::new(flavor, "target_down") };
    let mut migration = Migration::on_servers(&setup, servers).await?;
    migration.expect_lines(AWAY);
    migration.expect_lines(&[RESTS]);
    migration.on_both(&[CREATE, &shared_rows()]).await?;
    migration.init().await?;
    migration.start_both().await?;
    servers.new().kill9().await?;
    let mut written = write(&migration, &migration.old, 1_000).await?;
    let status = until_status(&migration, "the reader resting", LIMIT, |status| rests(status, "forward")).await?;
    let days = status.number("forward", "unread_kept_seconds") / 86_400;
    ensure!((6..=7).contains(&days), "the time left before the source purges is not told: {}", status.0);
    until("the source's connection given back", Duration::from_secs(30), || async {
        let readers = binlog_readers(&migration.old).await?;
        Ok(if readers == 0 { Progress::Reached(()) } else { Progress::NotYet(format!("{readers} readers")) })
    })
    .await?;
    written += write(&migration, &migration.old, 2_000).await?;
    let captured = migration.status().read().await?.number("forward", "last_seq");
    ensure!(captured < written, "all {written} changes were captured");
    servers.new().restart().await?;
    // What was held meanwhile is tried again change by change, which takes its time on a busy machine.
    let (status, _) = migration.until_quiet_and_equal(4 * LIMIT).await?;
    ensure!(status.number("forward", "last_seq") == written, "of {written} changes: {}", status.0);
    ensure!(!rests(&status, "forward"), "reading still rests: {}", status.0);
    let log = std::fs::read_to_string(migration.log(Direction::Forward))?;
    ensure!(log.contains("reading rests") && log.contains("purged_in"), "nobody was warned:\n{log}");
    migration.stop_both().await
}

async fn binlog_readers(pool: &Pool) -> Result<u64> {
    let query = "SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
    Ok(pool.get_conn().await?.query_first(query).await?.unwrap_or(0))
}
