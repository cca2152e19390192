//! Many users move while they write, some go back, and somebody writes on old whatever anybody says.

use anyhow::{Context, Result, ensure};
use crossfade_tests::{Flavor, Served, is_soak, on_both_brands};

use crate::stage::{LIMIT, counts, entity, nodes_agree, number, setup, staged};
use crate::writers::{Users, has_all};

/// Far more than a pause should take, also on a machine that does much else.
const LONGEST_PAUSE_MS: u64 = 9_000;

async fn many_move_while_they_write(flavor: Flavor) -> Result<()> {
    let users: u64 = if is_soak() { 2_000 } else { 300 };
    let back = users / 10;
    let mut migration = staged(&setup(flavor, "many", "batch = 50"), users).await?;
    let served = Served::start(&migration).await?;
    let at_work = Users::start(&migration, &served.url(), users, 4, true)?;
    entity(&migration, &["add", "--all"], 0).await?;
    ensure!(counts(&migration).await?["eligible"] == users);

    let mut pauses = Vec::new();
    let some: &[&str] = &["move", "--limit", "100"];
    let mut asked: Vec<&[&str]> =
        vec![&["move", "--percent", "5"], &["move", "--where", "country = 'DE'", "--limit", "250"]];
    asked.extend(std::iter::repeat_n(some, users.div_ceil(100) as usize));
    for words in asked {
        let report = entity(&migration, words, 0).await?;
        println!("{flavor:?}: {}: {report}", words.join(" "));
        ensure!(number(&report, "failed")? == 0, "{report:#}");
        pauses.extend((number(&report, "moved")? > 0).then(|| report["pauses"].clone()));
    }
    let all = counts(&migration).await?;
    ensure!(all.len() == 1 && all["moved"] == users, "{all:?}");

    // They write on new for a while, somebody still on old; then a part goes back.
    at_work.until_written(50).await?;
    let limit = back.to_string();
    let report = entity(&migration, &["return", "--state", "moved", "--limit", &limit], 0).await?;
    println!("{flavor:?}: return: {report}");
    pauses.push(report["pauses"].clone());
    let all = counts(&migration).await?;
    ensure!(all["moved"] == users - back && all["returned"] == back, "{all:?}");
    at_work.until_written(50).await?;

    let (ledger, late) = at_work.finish().await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    has_all(&migration, &ledger).await?;
    nodes_agree(&migration).await?;
    let status = migration.status().read().await?;
    println!(
        "{flavor:?}: {} acknowledged writes, {} of them on new, {} given up, the longest wait {} ms; {late} without asking; \
         pauses {pauses:?}",
        ledger.writes,
        ledger.on_new,
        ledger.given_up,
        ledger.longest_wait.as_millis()
    );
    for pause in &pauses {
        let worst = pause["worst_ms"].as_u64().context("no pause")?;
        ensure!(worst < LONGEST_PAUSE_MS, "{pause}");
    }
    // What was written late is told, and counted as such.
    let lost: u64 = status.0["streams"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|stream| stream["conflicts"].as_object().cloned().unwrap_or_default())
        .map(|(_, counts)| counts["authority"].as_u64().unwrap_or(0))
        .sum();
    ensure!(lost > 0 && lost <= late, "{lost} of {late} late writes: {}", status.0);
    migration.stop_both().await
}

on_both_brands! {
    p9_many_move_while_they_write => many_move_while_they_write,
}
