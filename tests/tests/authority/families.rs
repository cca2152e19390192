//! Rows that are reached through a parent, and what becomes of both where one of them ends.

use anyhow::{Result, ensure};
use crossfade_model::Side;
use crossfade_tests::{Direction, Flavor};

use crate::stage::{give, nothing_aside, settled, shop, value};

pub async fn parents_and_children_stay_together(flavor: Flavor) -> Result<()> {
    let mut migration = shop(flavor, "families").await?;
    let (old, new) = (migration.old.clone(), migration.new.clone());
    let m = &migration;
    for id in 1..=6 {
        give(m, id, Side::New, 1).await?;
    }
    let of_order = |order: u32| {
        format!(
            "SELECT CONCAT(o.id, ': ', COALESCE((SELECT GROUP_CONCAT(i.id ORDER BY i.id) FROM {{schema}}.items i \
             WHERE i.order_id = o.id), '')) FROM {{schema}}.orders o WHERE o.id = {order}"
        )
    };
    // Deleted late, its items with it, in so many words or by the foreign key: all come back.
    m.on(&old, &["DELETE FROM {schema}.items WHERE order_id = 10", "DELETE FROM {schema}.orders WHERE id = 10"])
        .await?;
    m.on(&old, &["DELETE FROM {schema}.orders WHERE id = 20"]).await?;
    let lost = settled(m).await?;
    ensure!(lost.iter().filter(|line| line.contains(" orders ")).count() == 2, "{lost:#?}");
    for (order, family) in [(10, "10: 101,102"), (20, "20: 201,202")] {
        ensure!(
            value(m, &of_order(order)).await?.as_deref() == Some(family),
            "{:?}",
            value(m, &of_order(order)).await?
        );
    }
    // One side deletes the order, the other gives it an item: the side with authority has its way.
    m.apart(
        &["INSERT INTO {schema}.items (id, order_id, what) VALUES (309, 30, 'late')"],
        &["DELETE FROM {schema}.orders WHERE id = 30"],
    )
    .await?;
    settled(m).await?;
    ensure!(value(m, &of_order(30)).await?.is_none(), "{:?}", value(m, &of_order(30)).await?);
    m.apart(
        &["DELETE FROM {schema}.orders WHERE id = 40"],
        &["INSERT INTO {schema}.items (id, order_id, what) VALUES (409, 40, 'on new')"],
    )
    .await?;
    settled(m).await?;
    ensure!(
        value(m, &of_order(40)).await?.as_deref() == Some("40: 401,402,409"),
        "{:?}",
        value(m, &of_order(40)).await?
    );
    // A late family, made one by one and at once.
    m.rest(&[Direction::Forward]).await?;
    m.on(&old, &["INSERT INTO {schema}.orders (id, user_id, note) VALUES (55, 5, 'late')"]).await?;
    m.on(&old, &["INSERT INTO {schema}.items (id, order_id, what) VALUES (551, 55, 'late')"]).await?;
    m.go_on(&[Direction::Forward]).await?;
    settled(m).await?;
    ensure!(value(m, &of_order(55)).await?.is_none());
    // The parent is gone on both sides when a change of its child is judged: it is found in what messages tell.
    m.rest(&[Direction::Reverse]).await?;
    m.on(&new, &["UPDATE {schema}.items SET what = 'on new' WHERE id = 601"]).await?;
    m.on(&new, &["DELETE FROM {schema}.items WHERE order_id = 60", "DELETE FROM {schema}.orders WHERE id = 60"])
        .await?;
    m.go_on(&[Direction::Reverse]).await?;
    settled(m).await?;
    ensure!(value(m, &of_order(60)).await?.is_none());
    nothing_aside(m).await?;
    migration.stop_both().await
}
