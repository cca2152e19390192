//! All others move at once, and whoever comes later is where they are.

use anyhow::{Result, ensure};
use crossfade_flag::{EntityClient, Side};
use crossfade_tests::{Flavor, Served, on_both_brands};

use crate::stage::{LIMIT, entity, nodes_agree, number, setup, staged};
use crate::writers::{Users, has_all};

const USERS: u64 = 40;

async fn the_rest_moves_together(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "rest", ""), USERS).await?;
    let served = Served::start(&migration).await?;
    let users = Users::start(&migration, &served.url(), USERS, 4, false)?;
    let client = EntityClient::builder(served.url()).build()?;
    entity(&migration, &["move", "1", "2", "3"], 0).await?;
    entity(&migration, &["return", "3"], 0).await?;
    ensure!(client.side("999").await? == Side::Old, "nobody knows it");
    let plan = entity(&migration, &["move", "--rest", "--dry-run"], 0).await?;
    ensure!(plan["entities"] == 1 && plan["first"][0] == "all others", "{plan:#}");
    let report = entity(&migration, &["move", "--rest"], 0).await?;
    println!("{flavor:?}: {report}");
    ensure!(number(&report, "moved")? == 1, "{report:#}");
    nodes_agree(&migration).await?;
    // Anew, since answers are kept for a while.
    let client = EntityClient::builder(served.url()).build()?;
    for (id, side) in [("1", Side::New), ("3", Side::Old), ("17", Side::New), ("999", Side::New)] {
        ensure!(client.side(id).await? == side, "{id} should be on {side:?}");
    }
    // Signs up on new, and comes to old.
    migration.on(&migration.new, &["INSERT INTO {schema}.users (id, country) VALUES (999, 'SE')"]).await?;
    let listed = entity(&migration, &["list", "--limit", "0"], 0).await?;
    ensure!(listed["on_old"] == 1 && listed["on_new"] == 2, "{listed:#}");
    // One of them goes back alone, and then all others.
    entity(&migration, &["return", "17"], 0).await?;
    entity(&migration, &["return", "--rest"], 0).await?;
    let client = EntityClient::builder(served.url()).build()?;
    for (id, side) in [("1", Side::New), ("3", Side::Old), ("17", Side::Old), ("999", Side::Old)] {
        ensure!(client.side(id).await? == side, "{id} should be on {side:?}");
    }
    let (ledger, _) = users.finish().await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    has_all(&migration, &ledger).await?;
    nodes_agree(&migration).await?;
    println!("{flavor:?}: {} acknowledged writes, {} on new", ledger.writes, ledger.on_new);
    migration.stop_both().await
}

on_both_brands! {
    p9_the_rest_moves_together => the_rest_moves_together,
}
