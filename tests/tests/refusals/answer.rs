//! The connection ends exactly between a COMMIT and its answer, or just before the COMMIT arrives: the checkpoint says what
//! became of it, and nothing is lost or done twice.

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_testkit::proxy::{CommitFate, Proxy};
use crossfade_tests::{Direction, Migration, Setup, SideUrls, account_url};
use crossfade_tests::{lines::AWAY, on_both_brands};

use crate::{PLAIN, forward_alone, insert, number, prepare, until_number};

on_both_brands! {
    a_lost_answer_is_looked_up: p7_answer_of_a_commit_lost_on_mysql, p7_answer_of_a_commit_lost_on_mariadb;
}

async fn a_lost_answer_is_looked_up(flavor: Flavor) -> Result<()> {
    let servers = SharedPair::get(flavor).await;
    let proxy = Proxy::start(servers.new().port()).await?;

    // What has no key shows a change that was made twice.
    let keyless = "[[table]]\nname = \"{schema}.log\"\none_way = true\n\n";
    let urls = SideUrls { old: account_url(servers.old()), new: proxy.url(&account_url(servers.new()))? };
    let mut setup = Setup {
        settings: format!("[store]\nurl = \"{}\"\n", urls.old),
        urls: Some(urls),
        ..Setup::new(flavor, "answer")
    };
    setup.tables = format!("{keyless}{}", setup.tables);
    let mut migration = Migration::on_servers(&setup, servers).await?;
    migration.expect_lines(AWAY);
    prepare(&migration, &[PLAIN, "CREATE TABLE {schema}.log (v VARCHAR(20), {clock})"]).await?;
    forward_alone(&mut migration).await?;

    let log = format!("SELECT COUNT(*) FROM `{}`.log", migration.schema);
    for round in 0..6_u32 {
        let fate = if round % 2 == 0 { CommitFate::AnswerLost } else { CommitFate::NeverSent };
        proxy.next_commit(fate);
        if round == 5 {
            // Nor does the second attempt arrive.
            proxy.next_commit(fate);
        }
        let inserted = insert((0..5).map(|place| (round * 5 + place, round)));
        migration
            .on(&migration.old, &["BEGIN", &inserted, "INSERT INTO {schema}.log (v) VALUES ('x')", "COMMIT"])
            .await?;
        until_number(&migration.new, &log, u64::from(round + 1)).await?;
        ensure!(proxy.open_fates() == 0, "no connection ended in round {round}");
    }
    migration.until_quiet_and_equal(crate::LIMIT).await?;
    ensure!(number(&migration.new, &log).await? == 6, "a change was made twice");
    let doubled = migration.status().read().await?;
    ensure!(doubled.number("forward", "last_seq") == 36, "{}", doubled.0);
    migration.stop(Direction::Forward).await?;
    migration.forget();
    Ok(())
}
