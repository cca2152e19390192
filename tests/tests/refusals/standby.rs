//! Processes that stand by show in `status` while they live.

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::Status;
use crossfade_tests::{Direction, Setup, on_both_brands};

use crate::{PLAIN, forward, is_green, number, started, until_number, until_status};

on_both_brands! {
    who_stands_by_is_seen: p7_standby_is_seen_on_mysql, p7_standby_is_seen_on_mariadb;
}

fn standbys(status: &Status) -> Vec<String> {
    let lines = forward(status)["standby"].as_array().cloned().unwrap_or_default();
    lines.iter().filter_map(|line| line["holder"].as_str()).map(str::to_owned).collect()
}

async fn who_stands_by_is_seen(flavor: Flavor) -> Result<()> {
    let mut migration = started(&Setup::new(flavor, "standby"), &[PLAIN]).await?;
    let status = migration.status().read().await?;
    ensure!(standbys(&status).is_empty(), "{}", status.0);
    let holder = forward(&status)["holder"].as_str().context("nobody holds the lease")?.to_owned();
    let mut first = migration.standby(Direction::Forward)?;
    let second = migration.standby(Direction::Forward)?;
    let status = until_status(&migration, "two stand by", |status| standbys(status).len() == 2).await?;
    ensure!(forward(&status)["holder"] == holder.as_str() && is_green(&status), "{}", status.0);
    for process in [&first, &second] {
        let id = format!("/{}/", process.pid());
        ensure!(standbys(&status).iter().any(|holder| holder.contains(&id)), "{id}: {}", status.0);
    }
    ensure!(forward(&status)["standby"].as_array().is_some_and(|all| all.iter().all(|line| line["since"].is_string())));
    let text = migration.crossfade(&["status"]).await?;
    ensure!(text.matches("forward/old: standby: ").count() == 2, "{text}");

    // One that is killed is gone, one that is asked to end is gone, and one that takes over is the holder.
    first.kill9().await?;
    until_status(&migration, "one stands by", |status| standbys(status).len() == 1).await?;
    let third = migration.standby(Direction::Forward)?;
    until_status(&migration, "two stand by again", |status| standbys(status).len() == 2).await?;
    let mut third = third;
    third.terminate()?;
    until_status(&migration, "the one that was asked to end is gone", |status| standbys(status).len() == 1).await?;
    migration.process(Direction::Forward)?.kill9().await?;
    let id = format!("/{}/", second.pid());
    until_status(&migration, "the second has taken over", |status| {
        forward(status)["holder"].as_str().is_some_and(|holder| holder.contains(&id)) && standbys(status).is_empty()
    })
    .await?;
    migration.replace(Direction::Forward, second);
    // What the killed one left runs out, and goes when the next one comes.
    let rows =
        format!("SELECT COUNT(*) FROM crossfade.lease WHERE pair = '{}' AND subject LIKE 'standby/%'", migration.pair);
    until_number(&migration.new, &format!("{rows} AND expires_at > UTC_TIMESTAMP(6)"), 0).await?;
    let fourth = migration.standby(Direction::Forward)?;
    until_status(&migration, "another stands by", |status| standbys(status).len() == 1).await?;
    until_number(&migration.new, &rows, 1).await?;
    ensure!(number(&migration.new, &rows).await? == 1, "the dead stay in the store");
    drop(fourth);
    migration.stop_both().await
}
