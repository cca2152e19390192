//! A change is judged by its own place, however late that is.

use anyhow::{Result, ensure};
use crossfade_model::Side;
use crossfade_tests::{Direction, Flavor};

use crate::stage::{give, settled, shop, user, value};

pub async fn each_change_is_judged_by_its_own_place(flavor: Flavor) -> Result<()> {
    let mut migration = shop(flavor, "places").await?;
    let (old, new) = (migration.old.clone(), migration.new.clone());
    let m = &migration;
    // Captured before the move and after it, and applied together.
    m.rest(&[Direction::Forward]).await?;
    m.on(&old, &["UPDATE {schema}.users SET name = 'in time' WHERE id = 1"]).await?;
    m.on(&old, &["INSERT INTO {schema}.orders (id, user_id, note) VALUES (11, 1, 'in time')"]).await?;
    give(m, 1, Side::New, 1).await?;
    m.on(&old, &["UPDATE {schema}.users SET name = 'late' WHERE id = 1"]).await?;
    m.on(&old, &["INSERT INTO {schema}.orders (id, user_id, note) VALUES (12, 1, 'late')"]).await?;
    m.on(&old, &["UPDATE {schema}.orders SET note = 'late' WHERE id = 11"]).await?;
    m.go_on(&[Direction::Forward]).await?;
    let lost = settled(m).await?;
    ensure!(lost.len() == 3, "{lost:#?}");
    ensure!(user(m, 1).await?.as_deref() == Some("in time mail1 p0 0"), "{:?}", user(m, 1).await?);
    let orders = "SELECT GROUP_CONCAT(CONCAT(id, ' ', note) ORDER BY id) FROM {schema}.orders WHERE user_id = 1";
    ensure!(value(m, orders).await?.as_deref() == Some("10 first,11 in time"), "{:?}", value(m, orders).await?);
    // There and back, while nothing is applied: only what was written in between is late.
    m.rest(&Direction::BOTH).await?;
    m.on(&new, &["UPDATE {schema}.users SET name = 'on new' WHERE id = 1"]).await?;
    m.on(&old, &["UPDATE {schema}.users SET name = 'late', password = 'p1' WHERE id = 1"]).await?;
    give(m, 1, Side::Old, 2).await?;
    m.on(&new, &["UPDATE {schema}.users SET name = 'late on new' WHERE id = 1"]).await?;
    give(m, 1, Side::New, 3).await?;
    m.go_on(&Direction::BOTH).await?;
    let lost = settled(m).await?;
    ensure!(lost.len() == 5, "{lost:#?}");
    // An order that changes hands counts as both users'.
    m.on(&new, &["UPDATE {schema}.orders SET user_id = 2 WHERE id = 10"]).await?;
    let lost = settled(m).await?;
    ensure!(lost.len() == 6, "{lost:#?}");
    ensure!(value(m, "SELECT user_id FROM {schema}.orders WHERE id = 10").await?.as_deref() == Some("1"));
    migration.stop_both().await
}
