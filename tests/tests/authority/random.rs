//! Users of both sides who write whatever they like, while users move there and back without anybody being drained.

use anyhow::Result;
use crossfade_model::Side;
use crossfade_tests::{Direction, Flavor, Migration, rounds};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::stage::{give, nothing_aside, pool, settled, shop};

const USERS: u32 = 6;

pub async fn random_writers_converge(flavor: Flavor) -> Result<()> {
    let seed = match std::env::var("CROSSFADE_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::random(),
    };
    println!("{flavor:?}: the seed is CROSSFADE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut migration = shop(flavor, "random").await?;
    let mut version = 0;
    for round in 0..rounds(4, 60) {
        let lets_rest = round % 2 == 0;
        if lets_rest {
            migration.rest(&Direction::BOTH).await?;
        }
        for _ in 0..40 {
            if random.random_ratio(1, 8) {
                version += 1;
                give(&migration, 1 + random.random_range(0..USERS), any_side(&mut random), version).await?;
            } else {
                write_something(&migration, &mut random).await?;
            }
        }
        if lets_rest {
            migration.go_on(&Direction::BOTH).await?;
        }
        let lost = settled(&migration).await?.len();
        nothing_aside(&migration).await?;
        println!("{flavor:?}: round {round}: {lost} lost for want of authority so far, and both sides are equal");
    }
    migration.stop_both().await
}

fn any_side(random: &mut impl Rng) -> Side {
    if random.random_bool(0.5) { Side::Old } else { Side::New }
}

async fn write_something(migration: &Migration, random: &mut impl Rng) -> Result<()> {
    let side = any_side(random);
    let (user, value) = (1 + random.random_range(0..USERS), random.random_range(0..1000));
    let (order, item) = (user * 10 + random.random_range(0..3), random.random_range(0..4));
    let statement = match random.random_range(0..9) {
        0 => format!("UPDATE {{schema}}.users SET name = 'n{value}' WHERE id = {user}"),
        1 => format!("UPDATE {{schema}}.users SET password = 'p{value}' WHERE id = {user}"),
        2 => format!("UPDATE {{schema}}.users SET banned = {value}, password = 'b{value}' WHERE id = {user}"),
        3 => format!("UPDATE {{schema}}.users SET name = 'm{value}', password = 'm{value}' WHERE id = {user}"),
        4 => format!("INSERT IGNORE INTO {{schema}}.orders (id, user_id, note) VALUES ({order}, {user}, 'o{value}')"),
        5 => format!("UPDATE {{schema}}.orders SET note = 'u{value}' WHERE id = {order}"),
        6 => format!("DELETE FROM {{schema}}.items WHERE id = {order}{item}"),
        7 => format!(
            "INSERT IGNORE INTO {{schema}}.items (id, order_id, what) SELECT {order}{item}, id, 'i{value}' \
             FROM {{schema}}.orders WHERE id = {order}"
        ),
        _ => format!("UPDATE {{schema}}.items SET what = 'w{value}' WHERE id = {order}{item}"),
    };
    migration.on(pool(migration, side), &[&statement]).await
}
