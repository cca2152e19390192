//! A COMMIT whose answer is lost, and a target that is away when it is asked what became of it.

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_testkit::proxy::{CommitFate, Proxy};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::sql;
use crossfade_tests::lines::AWAY;
use crossfade_tests::{Direction, Migration, Setup, SideUrls, account_url};
use mysql_async::prelude::Queryable;

use crate::Side::{New, Old};
use crate::{LIMIT, in_turn};

/// A retry begins with a statement that says the one word; no canary names the table.
const RETRY_OF_STOCK: &[&str] = &["parked = COALESCE", "`stock`"];

/// A sum that did not fit is tried again and written, but nobody hears of it, and when it is asked for, the target is away:
/// it must not be added once more.
pub async fn a_retried_sum_counts_once(flavor: Flavor) -> Result<()> {
    let tables = "[[table]]\nname = \"{schema}.*\"\nclock = \"updated_at\"\nmerge = \"columns\"\n\
         merge_rules = { pieces = \"sum-delta\" }\n";
    let servers = SharedPair::get(flavor).await;
    let proxy = Proxy::watching(servers.new().port(), RETRY_OF_STOCK).await?;
    let direct = account_url(servers.new());
    let urls = SideUrls { old: account_url(servers.old()), new: proxy.url(&direct)? };
    let settings = format!("[store]\nurl = \"{direct}\"\n\n[apply]\ncanary_every = \"1h\"\n");
    let setup = Setup { tables: tables.to_owned(), settings, urls: Some(urls), ..Setup::new(flavor, "lost_answer") };
    let mut migration = Migration::new(&setup).await?;
    migration.expect_lines(AWAY);
    let create = "CREATE TABLE {schema}.stock (id INT PRIMARY KEY, pieces INT UNSIGNED NOT NULL, \
         updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";
    migration.on_both(&[create]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.stock VALUES (1, 10, NOW(6))"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;

    // Both sides sell more than there is.
    migration.rest(&Direction::BOTH).await?;
    let sell = "UPDATE {schema}.stock SET pieces = pieces - 8";
    in_turn(&migration, &[(Old, sell), (New, sell)]).await?;
    migration.go_on(&Direction::BOTH).await?;
    until_aside(&migration, 2).await?;
    migration.stop(Direction::Forward).await?;
    in_turn(&migration, &[(New, "UPDATE {schema}.stock SET pieces = pieces + 20")]).await?;

    // A process that starts tries again at once.
    proxy.next_commit(CommitFate::AnswerLostThenAway);
    migration.start(Direction::Forward, &[])?;
    until("the target away", LIMIT, || async {
        let refused = proxy.incidents().refused;
        Ok(if refused > 0 { Progress::Reached(()) } else { Progress::NotYet("nobody has come".to_owned()) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    proxy.come_back();
    until_aside(&migration, 0).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let query = format!("SELECT pieces FROM {}.stock", sql::name(&migration.schema));
    let left: Option<u32> = migration.new.get_conn().await?.query_first(query).await?;
    ensure!(left == Some(14), "{left:?} pieces are left of 10 - 8 - 8 + 20");
    migration.stop_both().await
}

async fn until_aside(migration: &Migration, expected: u64) -> Result<()> {
    until("sums set aside", LIMIT, || async {
        let status = migration.status().read().await?;
        let reached = status.total("open_failures") + status.total("held") == expected;
        Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}
