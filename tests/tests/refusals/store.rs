//! A store that takes nothing for a while is waited for, as a target is: nobody is green meanwhile, nobody gives up, and all goes
//! on by itself when it is mended. The store is on the new side, as it is where nothing else is said.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::quiet::Status;
use crossfade_tests::lines::AWAY;
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;

use crate::{
    LIMIT, PLAIN, account, forward, insert, is_green, never_green, own_servers, plain_account_of, prepare, reason,
    state, until_all_is_well, until_status,
};

on_both_brands! {
    a_revoked_privilege_of_the_store_is_waited_for:
        p7_store_privilege_revoked_on_mysql, p7_store_privilege_revoked_on_mariadb;
    a_read_only_store_is_waited_for: p7_store_read_only_on_mysql, p7_store_read_only_on_mariadb;
    a_dropped_table_of_the_store_ends_the_process: p7_store_table_dropped_on_mysql, p7_store_table_dropped_on_mariadb;
}

/// What a process says of a store that a person must mend.
const TO_BE_MENDED: &[&str] =
    &["nothing is captured meanwhile", "nothing is applied meanwhile", "until that is mended"];

async fn started(servers: &'static SharedPair, name: &'static str) -> Result<Migration> {
    let mut migration = plain_account_of(servers, &Setup::new(servers.flavor(), name)).await?;
    prepare(&migration, &[PLAIN]).await?;
    migration.start_both().await?;
    migration.expect_lines(AWAY);
    migration.expect_lines(TO_BE_MENDED);
    Ok(migration)
}

/// Sessions that are open keep the privileges of their schema, those that are taken and those that are missing.
async fn end_sessions(migration: &Migration) -> Result<()> {
    let mut conn = migration.new.get_conn().await?;
    let query = "SELECT id FROM information_schema.processlist WHERE user = ?";
    let sessions: Vec<u64> = conn.exec(query, (account(migration),)).await?;
    ensure!(!sessions.is_empty(), "nobody is connected as {}", account(migration));
    for session in sessions {
        // It may have ended by itself.
        let _ = conn.query_drop(format!("KILL {session}")).await;
    }
    Ok(())
}

fn both_live(migration: &mut Migration) -> Result<()> {
    for direction in Direction::BOTH {
        let ended = migration.process(direction)?.exit_status()?;
        ensure!(ended.is_none(), "{} has ended: {ended:?}\n{}", direction.as_str(), migration.log_ends());
    }
    Ok(())
}

async fn a_revoked_privilege_of_the_store_is_waited_for(flavor: Flavor) -> Result<()> {
    let (servers, _turn) = own_servers(flavor).await?;
    let mut migration = started(servers, "store_revoked").await?;
    let who = format!("'{}'@'%'", account(&migration));
    let (revoke, grant) = ("REVOKE", "GRANT");
    let change = |verb: &str, privileges: &str| {
        format!("{verb} {privileges} ON crossfade.* {} {who}", if verb == revoke { "FROM" } else { "TO" })
    };

    // What is read and what is reported still gets through, but not who stands by.
    let mut standby = migration.standby(Direction::Forward)?;
    let standing_by = |status: &Status| forward(status)["standby"].as_array().is_some_and(|all| all.len() == 1);
    until_status(&migration, "one stands by", standing_by).await?;
    migration.on(&migration.new, &[&change(revoke, "INSERT")]).await?;
    end_sessions(&migration).await?;
    migration.on(&migration.old, &[&insert((1..=50).map(|id| (id, 1)))]).await?;
    let status = until_status(&migration, "forward has stopped", |status| state(status) == "stopped").await?;
    ensure!(reason(&status).contains("nothing is captured") && reason(&status).contains("1142"), "{}", reason(&status));
    ensure!(reason(&status).contains("crossfade check") && forward(&status)["holder"].is_string(), "{}", status.0);
    never_green(&migration, Duration::from_secs(3)).await?;
    both_live(&mut migration)?;
    until_status(&migration, "who stands by cannot say so", |status| !standing_by(status)).await?;
    migration.on(&migration.new, &[&change(grant, "INSERT")]).await?;
    until_status(&migration, "one stands by again", standing_by).await?;
    standby.terminate()?;
    ensure!(standby.wait(LIMIT).await?.success(), "{}", standby.log_end());
    until_status(&migration, "forward goes on by itself", is_green).await?;
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("forward", "last_seq") == 50 && status.number("reverse", "last_seq") == 0, "{}", status.0);

    // Nothing gets through, so the store cannot be told: that shows by the lease.
    migration.on(&migration.new, &[&change(revoke, "INSERT, UPDATE, DELETE")]).await?;
    end_sessions(&migration).await?;
    migration.on(&migration.old, &[&insert((51..=60).map(|id| (id, 1)))]).await?;
    let silent = "the store takes nothing from it";
    until_status(&migration, "forward is silent", |status| reason(status).contains(silent)).await?;
    never_green(&migration, Duration::from_secs(3)).await?;
    both_live(&mut migration)?;
    // Who is asked to stop meanwhile does, and who is started meanwhile waits.
    migration.stop(Direction::Forward).await?;
    migration.start(Direction::Forward, &[])?;
    migration.process(Direction::Forward)?.until_logged("standing by until that is mended", LIMIT).await?;
    both_live(&mut migration)?;
    migration.on(&migration.new, &[&change(grant, "INSERT, UPDATE, DELETE")]).await?;
    until_status(&migration, "forward goes on by itself", is_green).await?;
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("forward", "last_seq") == 60 && status.number("reverse", "last_seq") == 0, "{}", status.0);
    migration.stop_both().await
}

async fn a_read_only_store_is_waited_for(flavor: Flavor) -> Result<()> {
    let (servers, _turn) = own_servers(flavor).await?;
    let mut migration = started(servers, "store_read_only").await?;
    migration.on(&migration.new, &["SET GLOBAL read_only = ON"]).await?;
    migration.on(&migration.old, &[&insert((1..=50).map(|id| (id, 1)))]).await?;
    let waited = until_status(&migration, "forward is not green", |status| !is_green(status)).await;
    let never = never_green(&migration, Duration::from_secs(10)).await;
    let lives = both_live(&mut migration);
    migration.on(&migration.new, &["SET GLOBAL read_only = OFF"]).await?;
    waited?;
    never?;
    lives?;
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("forward", "last_seq") == 50 && status.number("reverse", "last_seq") == 0, "{}", status.0);
    migration.stop_both().await
}

/// What was in the table may be needed, and nobody can know what comes in its place: a person decides.
async fn a_dropped_table_of_the_store_ends_the_process(flavor: Flavor) -> Result<()> {
    // The store's schema is there for all pairs of a server.
    let servers = SharedPair::own(Server::builder(flavor).relaxed()).await?;
    let mut migration = started(servers, "store_dropped").await?;
    migration.on(&migration.old, &[&insert([(1, 1)])]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.expect_lines(&["error: the store could not"]);
    migration.on(&migration.new, &["RENAME TABLE crossfade.message_block TO crossfade.gone"]).await?;
    migration.on(&migration.old, &[&insert([(2, 1)])]).await?;
    let ended = migration.process(Direction::Forward)?.wait(LIMIT).await?;
    ensure!(ended.code() == Some(3), "{ended}");
    let log = std::fs::read_to_string(migration.log(Direction::Forward))?;
    ensure!(log.contains("restore the store's newest state"), "{log}");
    let mut conn = migration.new.get_conn().await?;
    let kept: Option<String> = conn
        .exec_first(
            "SELECT reason FROM crossfade.stream_report WHERE pair = ? AND stream = 'forward/old'",
            (&migration.pair,),
        )
        .await?;
    ensure!(kept.as_ref().is_some_and(|reason| reason.contains("message_block")), "{kept:?}");
    migration.on(&migration.new, &["RENAME TABLE crossfade.gone TO crossfade.message_block"]).await?;
    let status = migration.status().read().await?;
    ensure!(state(&status) == "stopped" && reason(&status).contains("message_block"), "{}", status.0);
    for direction in Direction::BOTH {
        if migration.process(direction)?.exit_status()?.is_some() {
            migration.start(direction, &[])?;
        }
    }
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("forward", "last_seq") == 2 && status.number("reverse", "last_seq") == 0, "{}", status.0);
    migration.stop_both().await
}
