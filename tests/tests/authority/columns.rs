//! Columns that may still change on old after the move.

use anyhow::{Result, ensure};
use crossfade_model::Side;
use crossfade_tests::Flavor;

use crate::stage::{give, nothing_aside, settled, shop, user};

pub async fn allowed_columns_still_cross(flavor: Flavor) -> Result<()> {
    let mut migration = shop(flavor, "columns").await?;
    let (old, new) = (migration.old.clone(), migration.new.clone());
    let m = &migration;
    for id in 1..=5 {
        give(m, id, Side::New, 1).await?;
    }
    // Alone.
    m.on(&old, &["UPDATE {schema}.users SET password = 'p1' WHERE id = 1"]).await?;
    ensure!(settled(m).await?.is_empty());
    ensure!(user(m, 1).await?.as_deref() == Some("ann mail1 p1 0"), "{:?}", user(m, 1).await?);
    // Beside a change of another column on new that neither knew of.
    m.apart(
        &["UPDATE {schema}.users SET password = 'p2', banned = 1 WHERE id = 1"],
        &["UPDATE {schema}.users SET name = 'on new' WHERE id = 1"],
    )
    .await?;
    ensure!(settled(m).await?.is_empty());
    ensure!(user(m, 1).await?.as_deref() == Some("on new mail1 p2 1"), "{:?}", user(m, 1).await?);
    // Several times, beside several changes on new.
    m.apart(
        &[
            "UPDATE {schema}.users SET password = 'p3' WHERE id = 2",
            "UPDATE {schema}.users SET password = 'p4' WHERE id = 2",
        ],
        &[
            "UPDATE {schema}.users SET name = 'once' WHERE id = 2",
            "UPDATE {schema}.users SET name = 'twice' WHERE id = 2",
        ],
    )
    .await?;
    ensure!(settled(m).await?.is_empty());
    ensure!(user(m, 2).await?.as_deref() == Some("twice mail2 p4 0"), "{:?}", user(m, 2).await?);
    // Together with what may not change: that is undone and recorded, and the rest crosses.
    m.on(&old, &["UPDATE {schema}.users SET password = 'p5', name = 'late' WHERE id = 3"]).await?;
    let lost = settled(m).await?;
    ensure!(lost.len() == 1 && lost[0].contains("`password` crossed, and `name` did not"), "{lost:#?}");
    ensure!(user(m, 3).await?.as_deref() == Some("ann mail3 p5 0"), "{:?}", user(m, 3).await?);
    // Of a column that both changed, new has the last word.
    m.apart(
        &["UPDATE {schema}.users SET password = 'by old' WHERE id = 4"],
        &["UPDATE {schema}.users SET password = 'by new' WHERE id = 4"],
    )
    .await?;
    let lost = settled(m).await?;
    ensure!(lost.len() == 2, "{lost:#?}");
    ensure!(user(m, 4).await?.as_deref() == Some("ann mail4 by new 0"), "{:?}", user(m, 4).await?);
    // A row that new has deleted stays deleted.
    m.apart(
        &["UPDATE {schema}.users SET password = 'p6' WHERE id = 5"],
        &["DELETE FROM {schema}.orders WHERE id = 50", "DELETE FROM {schema}.users WHERE id = 5"],
    )
    .await?;
    settled(m).await?;
    ensure!(user(m, 5).await?.is_none());
    // Allowed is what changes on old, not on new before the move.
    m.on(&new, &["UPDATE {schema}.users SET password = 'too early' WHERE id = 6"]).await?;
    settled(m).await?;
    ensure!(user(m, 6).await?.as_deref() == Some("ann mail6 p0 0"));
    nothing_aside(m).await?;
    migration.stop_both().await
}

/// The unique value is somebody else's on new: nothing waits for it.
pub async fn an_allowed_column_that_is_refused_is_undone(flavor: Flavor) -> Result<()> {
    let mut migration = shop(flavor, "refused").await?;
    let m = &migration;
    give(m, 1, Side::New, 1).await?;
    give(m, 2, Side::New, 1).await?;
    m.apart(
        &["UPDATE {schema}.users SET email = 'wanted' WHERE id = 1"],
        &["UPDATE {schema}.users SET email = 'wanted' WHERE id = 2"],
    )
    .await?;
    let lost = settled(m).await?;
    ensure!(lost.len() == 1 && lost[0].starts_with("forward/old users"), "{lost:#?}");
    ensure!(user(m, 1).await?.as_deref() == Some("ann mail1 p0 0"), "{:?}", user(m, 1).await?);
    ensure!(user(m, 2).await?.as_deref() == Some("ann wanted p0 0"), "{:?}", user(m, 2).await?);
    migration.stop_both().await
}
