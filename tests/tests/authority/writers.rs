//! Who may write, before a move, after it, and after the way back.

use anyhow::{Result, ensure};
use crossfade_model::{EntityKey, Given, Side};
use crossfade_tests::{Flavor, json};

use crate::stage::{give, give_on, nothing_aside, settled, shop, user, value};

pub async fn who_writes_without_authority_is_undone(flavor: Flavor) -> Result<()> {
    let mut migration = shop(flavor, "writers").await?;
    let (old, new) = (migration.old.clone(), migration.new.clone());
    let m = &migration;

    // Before the move old writes, and what new writes is undone there: an update, an insert, a delete.
    m.on(&old, &["UPDATE {schema}.users SET name = 'by old' WHERE id = 1"]).await?;
    ensure!(settled(m).await?.is_empty(), "old may write");
    m.on(&new, &["UPDATE {schema}.users SET name = 'by new', password = 'by new' WHERE id = 1"]).await?;
    m.on(&new, &["INSERT INTO {schema}.users (id, name) VALUES (77, 'by new')"]).await?;
    m.on(&new, &["DELETE FROM {schema}.items WHERE id = 101"]).await?;
    let lost = settled(m).await?;
    ensure!(lost.len() == 3, "{lost:#?}");
    ensure!(lost.iter().all(|line| line.starts_with("reverse/new ") && line.contains("conflict_lost")), "{lost:#?}");
    ensure!(lost.iter().any(|line| line.contains("items") && line.ends_with("user 1 is on old")), "{lost:#?}");
    ensure!(user(m, 1).await?.as_deref() == Some("by old mail1 p0 0"), "{:?}", user(m, 1).await?);
    ensure!(user(m, 77).await?.is_none(), "what new has inserted is still there");
    let items = "SELECT GROUP_CONCAT(id ORDER BY id) FROM {schema}.items WHERE order_id = 10";
    ensure!(value(m, items).await?.as_deref() == Some("101,102"), "{:?}", value(m, items).await?);

    // After it, the other way round. Giving twice, or an earlier version, changes nothing.
    give(m, 1, Side::New, 2).await?;
    give(m, 1, Side::New, 2).await?;
    give(m, 1, Side::Old, 1).await?;
    m.on(&new, &["UPDATE {schema}.users SET name = 'on new' WHERE id = 1"]).await?;
    m.on(&new, &["INSERT INTO {schema}.orders (id, user_id, note) VALUES (11, 1, 'on new')"]).await?;
    ensure!(settled(m).await?.len() == 3, "new may write");
    m.on(&old, &["UPDATE {schema}.users SET name = 'late' WHERE id = 1"]).await?;
    m.on(&old, &["INSERT INTO {schema}.orders (id, user_id, note) VALUES (12, 1, 'late')"]).await?;
    m.on(&old, &["DELETE FROM {schema}.items WHERE id = 102"]).await?;
    m.on(&old, &["UPDATE {schema}.items SET what = 'late' WHERE id = 101"]).await?;
    let lost = settled(m).await?;
    let by_old = lost.iter().filter(|line| line.starts_with("forward/old ")).count();
    ensure!((lost.len(), by_old) == (7, 4), "{lost:#?}");
    ensure!(user(m, 1).await?.as_deref() == Some("on new mail1 p0 0"), "{:?}", user(m, 1).await?);
    let orders = "SELECT GROUP_CONCAT(id ORDER BY id) FROM {schema}.orders WHERE user_id = 1";
    ensure!(value(m, orders).await?.as_deref() == Some("10,11"), "{:?}", value(m, orders).await?);
    ensure!(value(m, items).await?.as_deref() == Some("101,102"), "{:?}", value(m, items).await?);

    // Others, and what hangs on nobody, go on as before.
    m.on(&old, &["UPDATE {schema}.users SET name = 'still on old' WHERE id = 2"]).await?;
    m.on(&old, &["UPDATE {schema}.notes SET text = 'by old' WHERE id = 1"]).await?;
    m.on(&new, &["UPDATE {schema}.notes SET text = 'by new' WHERE id = 2"]).await?;
    m.on(&new, &["INSERT INTO {schema}.notes (id, text) VALUES (20, 'by new')"]).await?;
    ensure!(settled(m).await?.len() == 7, "others are touched");
    ensure!(user(m, 2).await?.as_deref() == Some("still on old mail2 p0 0"));
    let notes = "SELECT GROUP_CONCAT(text ORDER BY id) FROM {schema}.notes WHERE id IN (1, 2, 20)";
    ensure!(value(m, notes).await?.as_deref() == Some("by old,by new,by new"));

    // And back.
    give(m, 1, Side::Old, 3).await?;
    m.on(&old, &["UPDATE {schema}.users SET name = 'back on old' WHERE id = 1"]).await?;
    ensure!(settled(m).await?.len() == 7, "old may write again");
    m.on(&new, &["UPDATE {schema}.users SET name = 'too late' WHERE id = 1"]).await?;
    ensure!(settled(m).await?.len() == 8, "new may not write any more");
    ensure!(user(m, 1).await?.as_deref() == Some("back on old mail1 p0 0"));

    // What people are told.
    let (_, status) = json(m, &["status", "--json"]).await?;
    let counted = |stream: usize| -> u64 {
        let tables = status["streams"][stream]["conflicts"].as_object();
        tables.into_iter().flat_map(|tables| tables.values()).filter_map(|counts| counts["authority"].as_u64()).sum()
    };
    ensure!((counted(0), counted(1)) == (4, 4), "{status:#}");
    let shown = m.crossfade(&["status"]).await?;
    ensure!(shown.contains("for want of authority"), "{shown}");
    let shown = m.crossfade(&["messages", "list", "--conflicts"]).await?;
    ensure!(shown.contains("authority: user 1 is on new"), "{shown}");
    nothing_aside(m).await?;
    let verified = m.crossfade(&["verify"]).await?;
    println!("{flavor:?}: {verified}");
    migration.stop_both().await
}

/// Where a whole side is cut over, those go along that were never moved by themselves; and who was, stays where he is.
pub async fn all_others_follow_the_rest(flavor: Flavor) -> Result<()> {
    let mut migration = shop(flavor, "rest").await?;
    let (old, new) = (migration.old.clone(), migration.new.clone());
    let m = &migration;
    give(m, 1, Side::New, 1).await?;
    give(m, 1, Side::Old, 2).await?;
    let rest = [Given { entity: EntityKey::rest(), side: Side::New, version: 1 }];
    for node in [Side::Old, Side::New] {
        give_on(m, node, &rest).await?;
    }
    m.on(&new, &["UPDATE {schema}.users SET name = 'on new' WHERE id IN (1, 2)"]).await?;
    m.on(&old, &["UPDATE {schema}.users SET name = 'on old' WHERE id IN (1, 3)"]).await?;
    let lost = settled(m).await?;
    ensure!(lost.len() == 2, "{lost:#?}");
    let name = async |id: u32| user(m, id).await;
    ensure!(name(1).await?.as_deref() == Some("on old mail1 p0 0"));
    ensure!(name(2).await?.as_deref() == Some("on new mail2 p0 0"));
    ensure!(name(3).await?.as_deref() == Some("ann mail3 p0 0"));
    migration.stop_both().await
}
