//! Whoever dies around a change of authority: it is read again at its place.

use anyhow::{Result, ensure};
use crossfade_model::Side;
use crossfade_tests::lines::{AWAY, KILLED, REPLACED};
use crossfade_tests::{Direction, Flavor, Migration};

use crate::stage::{LIMIT, give, settled, shop, user, value};

/// What users do around the move: written in time, and late.
async fn around_the_move(migration: &Migration, id: u32) -> Result<()> {
    let (old, new) = (&migration.old, &migration.new);
    migration.on(old, &[&format!("UPDATE {{schema}}.users SET name = 'in time' WHERE id = {id}")]).await?;
    migration.on(old, &[&format!("UPDATE {{schema}}.orders SET note = 'in time' WHERE id = {id}0")]).await?;
    give(migration, id, Side::New, 1).await?;
    migration
        .on(old, &[&format!("UPDATE {{schema}}.users SET name = 'late', password = 'p1' WHERE id = {id}")])
        .await?;
    migration.on(old, &[&format!("DELETE FROM {{schema}}.items WHERE id = {id}01")]).await?;
    let item = format!("INSERT INTO {{schema}}.items (id, order_id, what) VALUES ({id}03, {id}0, 'on new')");
    migration.on(new, &[&item]).await
}

async fn ended_alike(migration: &Migration, id: u32) -> Result<()> {
    let lost = settled(migration).await?;
    let of_user: Vec<&String> = lost.iter().filter(|line| line.contains(&format!("user {id} "))).collect();
    ensure!(of_user.len() == 2, "{of_user:#?}");
    let found = user(migration, id).await?;
    ensure!(found.as_deref() == Some(&format!("in time mail{id} p1 0")), "{found:?}");
    let items = format!("SELECT GROUP_CONCAT(id ORDER BY id) FROM {{schema}}.items WHERE order_id = {id}0");
    let found = value(migration, &items).await?;
    ensure!(found.as_deref() == Some(&format!("{id}01,{id}02,{id}03")), "{found:?}");
    Ok(())
}

pub async fn whoever_is_killed_all_is_judged_alike(flavor: Flavor) -> Result<()> {
    const POINTS: [(&str, Direction); 8] = [
        ("after-read:2", Direction::Forward),
        ("inside-capture:2", Direction::Forward),
        ("after-capture:3", Direction::Forward),
        ("mid-lane:2", Direction::Forward),
        ("after-target-commit:2", Direction::Forward),
        ("inside-capture:1", Direction::Reverse),
        ("mid-lane:1", Direction::Reverse),
        ("after-target-commit:1", Direction::Reverse),
    ];
    let mut migration = shop(flavor, "killed").await?;
    migration.expect_lines(KILLED);
    migration.expect_lines(AWAY);
    for (id, (point, direction)) in (1..).zip(POINTS) {
        migration.stop(direction).await?;
        migration.start(direction, &[("CROSSFADE_FAILPOINT", point)])?;
        around_the_move(&migration, id).await?;
        let died = migration.process(direction)?.wait(LIMIT).await?;
        ensure!(!died.success(), "it was not killed at {point}");
        migration.start(direction, &[])?;
        ended_alike(&migration, id).await?;
        println!("{flavor:?}: {} killed at {point}", direction.as_str());
    }
    migration.stop_both().await
}

/// Another process takes over in the middle of it.
pub async fn who_takes_over_judges_alike(flavor: Flavor) -> Result<()> {
    let mut migration = shop(flavor, "taken_over").await?;
    for lines in [KILLED, AWAY, REPLACED] {
        migration.expect_lines(lines);
    }
    for (id, direction) in [(1, Direction::Forward), (2, Direction::Reverse)] {
        let standby = migration.standby(direction)?;
        migration.rest(&[direction]).await?;
        around_the_move(&migration, id).await?;
        migration.process(direction)?.kill9().await?;
        migration.replace(direction, standby);
        migration.go_on(&[direction]).await?;
        ended_alike(&migration, id).await?;
    }
    migration.stop_both().await
}
