//! Two tools at once.

use anyhow::{Result, ensure};
use crossfade_tests::{Flavor, Served, on_both_brands, says};
use futures_util::future::try_join_all;
use mysql_async::prelude::Queryable;
use serde_json::Value;

use crate::stage::{LIMIT, counts, entity, nodes_agree, number, setup, staged};
use crate::writers::{Users, has_all};

const USERS: u64 = 80;

async fn two_tools_never_move_one_twice(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "two_tools", "batch = 15"), USERS).await?;
    let served = Served::start(&migration).await?;
    let users = Users::start(&migration, &served.url(), USERS, 4, false)?;
    let (one, other) = tokio::join!(
        entity(&migration, &["move", "--where", "id <= 60"], 0),
        entity(&migration, &["move", "--where", "id > 20"], 0)
    );
    let (one, other) = (one?, other?);
    println!("{flavor:?}: {} and {} moved", one["moved"], other["moved"]);
    ensure!(number(&one, "moved")? + number(&other, "moved")? == USERS, "{one:#} {other:#}");
    let all = counts(&migration).await?;
    ensure!(all.len() == 1 && all["moved"] == USERS, "{all:?}");
    let mut conn = migration.new.get_conn().await?;
    let question =
        "SELECT COUNT(*), COUNT(DISTINCT entity) FROM crossfade.entity_event WHERE pair = ? AND state = 'moved'";
    let moves: Option<(u64, u64)> = conn.exec_first(question, (&migration.pair,)).await?;
    ensure!(moves == Some((USERS, USERS)), "{moves:?}");
    let (ledger, _) = users.finish().await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    has_all(&migration, &ledger).await?;
    nodes_agree(&migration).await?;
    migration.stop_both().await
}

/// The same command while another tool is at it: that is told. One that was taken over does nothing more.
async fn the_same_command_waits_for_nobody_who_lives(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "same", "fence_timeout = \"2s\""), 3).await?;
    migration.expect_lines(&["somebody else has taken", "is not over"]);
    let freeze = [("CROSSFADE_FAILPOINT", "entity-decide:1:stop")];
    let mut first = migration.tool("first", &["entity", "move", "1"], &freeze)?;
    first.until_frozen(LIMIT).await?;
    // It lives and says nothing: after its time another one goes on with it.
    let report = entity(&migration, &["move", "1"], 0).await?;
    ensure!(report["resumed"] == true && number(&report, "moved")? == 1, "{report:#}");
    first.resume()?;
    let status = first.wait(LIMIT).await?;
    ensure!(status.code() == Some(3), "{status}\n{}", first.log_end());
    ensure!(first.log_end().contains("somebody else has taken"), "{}", first.log_end());
    let all = counts(&migration).await?;
    ensure!(all.len() == 1 && all["moved"] == 1, "{all:?}");
    nodes_agree(&migration).await?;
    says(&migration, &["entity", "move", "1"], 0, &["are on new already"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// A server lists its transactions anew only where nobody has asked for them within a tenth of a second. Tools that fence at the
/// same time must not keep each other from that.
async fn many_tools_see_what_is_under_way(flavor: Flavor) -> Result<()> {
    const TOOLS: u64 = 8;
    let mut migration = staged(&setup(flavor, "many_tools", "fence_timeout = \"3s\"\nattempts = 1"), TOOLS).await?;
    let ids: Vec<String> = (1..=TOOLS).map(|id| id.to_string()).collect();
    for word in ["move", "return", "move"] {
        let tools = ids.iter().map(|id| [word, id]).collect::<Vec<_>>();
        let reports = try_join_all(tools.iter().map(|words| entity(&migration, words, 0))).await?;
        let pauses: Vec<&Value> = reports.iter().map(|report| &report["pauses"]["worst_ms"]).collect();
        println!("{flavor:?}: {word}: paused for {pauses:?} ms");
    }
    let all = counts(&migration).await?;
    ensure!(all.len() == 1 && all["moved"] == TOOLS, "{all:?}");
    nodes_agree(&migration).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

on_both_brands! {
    p9_many_tools_see_what_is_under_way => many_tools_see_what_is_under_way,
    p9_two_tools_never_move_one_twice => two_tools_never_move_one_twice,
    p9_the_same_command_is_taken_over => the_same_command_waits_for_nobody_who_lives,
}
