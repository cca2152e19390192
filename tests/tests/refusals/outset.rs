//! Processes that are started while a server is away wait for it, and say so; nobody need start them again.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_testkit::proxy::Proxy;
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_tests::lines::{AWAY, KILLED};
use crossfade_tests::on_both_brands;
use crossfade_tests::{Direction, Migration, Setup, SideUrls, account_url};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::{
    LIMIT, PLAIN, forward, forward_alone, insert, is_green, never_green, prepare, reason, state, until_all_is_well,
    until_number, until_status,
};

on_both_brands! {
    a_target_that_is_away_is_waited_for: p7_started_before_its_target_on_mysql, p7_started_before_its_target_on_mariadb;
    a_store_that_is_away_is_waited_for: p7_started_before_its_store_on_mysql, p7_started_before_its_store_on_mariadb;
    a_store_that_goes_away_at_the_start_is_waited_for:
        p7_its_store_goes_at_the_start_on_mysql, p7_its_store_goes_at_the_start_on_mariadb;
    a_store_that_goes_away_from_who_takes_over_is_waited_for:
        p7_its_store_goes_when_it_takes_over_on_mysql, p7_its_store_goes_when_it_takes_over_on_mariadb;
    what_nobody_waits_for_is_told: p7_why_it_cannot_start_on_mysql, p7_why_it_cannot_start_on_mariadb;
}

const WAITS: &str = "waiting for it";

/// A migration whose new side, and the store with it if `store_too`, is reached through a proxy.
async fn through_proxy(flavor: Flavor, name: &'static str, store_too: bool) -> Result<(Migration, Proxy)> {
    let servers = SharedPair::get(flavor).await;
    let proxy = Proxy::start(servers.new().port()).await?;
    let urls = SideUrls { old: account_url(servers.old()), new: proxy.url(&account_url(servers.new()))? };
    let store = format!("[store]\nurl = \"{}\"\n", servers.old().root_url());
    let settings = if store_too { String::new() } else { store };
    let migration = Migration::new(&Setup { settings, urls: Some(urls), ..Setup::new(flavor, name) }).await?;
    migration.expect_lines(AWAY);
    migration.expect_lines(KILLED);
    prepare(&migration, &[PLAIN]).await?;
    Ok((migration, proxy))
}

async fn a_target_that_is_away_is_waited_for(flavor: Flavor) -> Result<()> {
    let (mut migration, proxy) = through_proxy(flavor, "before_target", false).await?;
    proxy.go_away();
    migration.on(&migration.old, &[&insert([(1, 1)])]).await?;
    migration.start(Direction::Forward, &[])?;
    // Also at the very first start, when no process has ever known the rules.
    let status = until_status(&migration, "forward retries", |status| state(status) == "retrying").await?;
    ensure!(reason(&status).contains("the new side cannot be reached"), "{}", reason(&status));
    ensure!(forward(&status)["holder"].is_string(), "nobody is said to wait: {}", status.0);
    never_green(&migration, Duration::from_secs(2)).await?;
    // Who is to end by himself does not wait.
    let (code, _, said) = migration.crossfade_any(&["sync", "reverse", "--until-caught-up"]).await?;
    ensure!(code == Some(3) && said.contains("the new side cannot be reached"), "{code:?} {said}");
    // Another one stands by for it, also without having seen the target.
    let second = migration.standby(Direction::Forward)?;
    let id = format!("/{}/", second.pid());
    let is_second = |holder: &serde_json::Value| holder.as_str().is_some_and(|holder| holder.contains(&id));
    until_status(&migration, "the second stands by", |status| is_second(&forward(status)["standby"][0]["holder"]))
        .await?;
    migration.process(Direction::Forward)?.kill9().await?;
    let taken = until_status(&migration, "the second waits in its place", |status| {
        is_second(&forward(status)["holder"]) && state(status) == "retrying"
    })
    .await?;
    ensure!(taken.number("forward", "last_seq") == 0, "{}", taken.0);
    migration.replace(Direction::Forward, second);
    // Who is asked to stop while it waits does so, and does not look dead.
    migration.stop(Direction::Forward).await?;
    let ended = migration.status().read().await?;
    ensure!(state(&ended) == "stopped" && reason(&ended).contains("has ended"), "{}", ended.0);

    for direction in Direction::BOTH {
        migration.start(direction, &[])?;
    }
    until_status(&migration, "both wait", |status| {
        Direction::BOTH.iter().all(|direction| status.state(direction.as_str()) == Some("retrying"))
    })
    .await?;
    ensure!(proxy.incidents().refused > 0, "the target was not away");
    proxy.come_back();
    until_number(&migration.new, &format!("SELECT COUNT(*) FROM `{}`.t", migration.schema), 1).await?;
    let status = until_all_is_well(&migration).await?;
    ensure!(is_green(&status) && status.number("forward", "last_seq") == 1, "{}", status.0);
    ensure!(status.number("reverse", "last_seq") == 0, "{}", status.0);
    migration.stop_both().await
}

/// The store is on the new side, as it is where nothing else is said.
async fn a_store_that_is_away_is_waited_for(flavor: Flavor) -> Result<()> {
    let (mut migration, proxy) = through_proxy(flavor, "before_store", true).await?;
    proxy.go_away();
    migration.on(&migration.old, &[&insert([(1, 1)])]).await?;
    for direction in Direction::BOTH {
        migration.start(direction, &[])?;
        migration.process(direction)?.until_logged(WAITS, LIMIT).await?;
    }
    // Who asks gets an answer at once.
    let (code, _, said) = migration.crossfade_any(&["status"]).await?;
    ensure!(code == Some(3) && said.contains("hint:"), "{code:?} {said}");
    for direction in Direction::BOTH {
        let ended = migration.process(direction)?.exit_status()?;
        ensure!(ended.is_none(), "{} has ended: {ended:?}", direction.as_str());
    }
    proxy.come_back();
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("forward", "last_seq") == 1 && status.number("reverse", "last_seq") == 0, "{}", status.0);
    migration.stop_both().await
}

/// A process that has taken the lease, and reads from the store what it needs to run, loses the store at that moment.
async fn a_store_that_goes_away_at_the_start_is_waited_for(flavor: Flavor) -> Result<()> {
    let (mut migration, proxy) = through_proxy(flavor, "store_goes", true).await?;
    migration.start_both().await?;
    migration.on(&migration.old, &[&insert([(1, 1)])]).await?;
    until_all_is_well(&migration).await?;
    migration.stop_both().await?;
    let mut locker = Conn::from_url(SharedPair::get(flavor).await.new().root_url()).await?;
    locker.query_drop("LOCK TABLES crossfade.message_block WRITE").await?;
    migration.start(Direction::Forward, &[])?;
    until("it reads messages", LIMIT, || async {
        let mut looker = Conn::from_url(SharedPair::get(flavor).await.new().root_url()).await?;
        let sessions: Vec<mysql_async::Row> = looker.query("SHOW FULL PROCESSLIST").await?;
        let reads = |row: &mysql_async::Row| {
            row.get::<Option<String>, _>(7).flatten().is_some_and(|statement| statement.contains("message_block"))
                && row.get::<Option<String>, _>(6).flatten().is_some_and(|state| state.contains("Waiting for table"))
        };
        let found = sessions.iter().any(reads);
        Ok(if found { Progress::Reached(()) } else { Progress::NotYet(format!("{} sessions", sessions.len())) })
    })
    .await?;
    proxy.go_away();
    migration.process(Direction::Forward)?.until_logged(WAITS, LIMIT).await?;
    locker.query_drop("UNLOCK TABLES").await?;
    let ended = migration.process(Direction::Forward)?.exit_status()?;
    ensure!(ended.is_none(), "it has ended: {ended:?}");
    proxy.come_back();
    migration.start(Direction::Reverse, &[])?;
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("forward", "last_seq") == 1, "{}", status.0);
    migration.stop_both().await
}

/// A process that has stood by takes the lease, and loses the store while it asks whether the migration still goes on.
async fn a_store_that_goes_away_from_who_takes_over_is_waited_for(flavor: Flavor) -> Result<()> {
    let (mut migration, proxy) = through_proxy(flavor, "takes_over", true).await?;
    migration.start_both().await?;
    let mut second = migration.standby(Direction::Forward)?;
    let stands_by = |status: &Status| forward(status)["standby"][0]["holder"].is_string();
    until_status(&migration, "the second stands by", stands_by).await?;
    second.pause()?;
    migration.process(Direction::Forward)?.kill9().await?;
    let store = SharedPair::get(flavor).await.new().root_url();
    let mut locker = Conn::from_url(&store).await?;
    locker.query_drop("LOCK TABLES crossfade.switch_run WRITE").await?;
    second.resume()?;
    // It has heard so too: its place among those who stand by is gone.
    let subjects = format!(
        "SELECT subject FROM crossfade.lease WHERE pair = '{}' AND holder LIKE '%/{}/%'",
        migration.pair,
        second.pid()
    );
    until("the second has the lease", LIMIT, || async {
        let subjects: Vec<String> = Conn::from_url(&store).await?.query(&subjects).await?;
        Ok(if subjects == ["forward"] { Progress::Reached(()) } else { Progress::NotYet(subjects.join(", ")) })
    })
    .await?;
    proxy.go_away();
    until("the second waits", LIMIT, || async {
        let waits = std::fs::read_to_string(second.log())?.contains(WAITS);
        Ok(if waits { Progress::Reached(()) } else { Progress::NotYet(second.log_end()) })
    })
    .await?;
    locker.query_drop("UNLOCK TABLES").await?;
    proxy.come_back();
    migration.replace(Direction::Forward, second);
    migration.on(&migration.old, &[&insert([(1, 1)])]).await?;
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("forward", "last_seq") == 1, "{}", status.0);
    migration.stop_both().await
}

/// What no time mends ends the process; whoever asks later learns why.
async fn what_nobody_waits_for_is_told(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "cannot_start")).await?;
    prepare(&migration, &[PLAIN]).await?;
    forward_alone(&mut migration).await?;
    migration.stop(Direction::Forward).await?;
    migration.expect_lines(&["error: the tables do not map"]);
    migration.on(&migration.new, &["RENAME TABLE {schema}.t TO {schema}.gone"]).await?;
    migration.start(Direction::Forward, &[])?;
    let ended = migration.process(Direction::Forward)?.wait(LIMIT).await?;
    ensure!(ended.code() == Some(1), "{ended}");
    let status = migration.status().read().await?;
    ensure!(state(&status) == "stopped" && reason(&status).contains("does not exist on the new side"), "{}", status.0);
    ensure!(forward(&status)["holder"].is_null(), "{}", status.0);
    migration.on(&migration.new, &["RENAME TABLE {schema}.gone TO {schema}.t"]).await?;
    migration.start(Direction::Forward, &[])?;
    until_status(&migration, "forward runs", is_green).await?;
    migration.stop(Direction::Forward).await?;
    migration.forget();
    Ok(())
}
