//! P4 for families of which many changes arrive at once: while both directions rest, users of both sides give parents other keys,
//! and children to them; one direction catches up, they go on, and then the other one catches up. Every family by itself is a
//! case, so a run has many.
//!
//! A seed decides what users do. `CROSSFADE_SEED=7` runs that seed alone, `CROSSFADE_SOAK=1` runs twenty with twice the families.

use anyhow::{Context, Result};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_tests::{Direction, Migration, Setup, is_soak};
use mysql_async::prelude::Queryable;
use mysql_async::{Error, Pool};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::orphans::{LIMIT, make_coded_places, until_nothing_waits, until_passed};
use crate::{MYSQL_NATIVE, seeds, servers_with};

/// Statements of one family on one side between two pauses, at most.
const MOST_STATEMENTS: usize = 5;

/// The numbers of a family's rows begin with its own.
fn row(family: u32, number: u32) -> u32 {
    family * 10 + number
}

/// A family as users of one side see it.
struct Family {
    number: u32,
    /// Keys that users of this side alone move parents to: where both sides move different parents to one key, and each has
    /// given the other's parent a child, a person has to decide.
    own_keys: [u32; 2],
}

impl Family {
    fn place(&self, rng: &mut StdRng) -> u32 {
        row(self.number, rng.random_range(1..=6))
    }

    /// What a user tries; the server refuses much of it.
    fn statement(&self, rng: &mut StdRng) -> Option<String> {
        let child = ["notes", "notes", "seats", "guests"].choose(rng)?;
        let (id, place, to) =
            (row(self.number, rng.random_range(1..=3)), self.place(rng), row(self.number, *self.own_keys.choose(rng)?));
        Some(match rng.random_range(0..14) {
            0..=3 => format!("UPDATE {{schema}}.places SET id = {to} WHERE id = {place}"),
            4 => format!("UPDATE {{schema}}.places SET v = v + 1 WHERE id = {place}"),
            5 => format!("DELETE FROM {{schema}}.places WHERE id = {place}"),
            // A code that is given to different rows on both sides is for a person to decide.
            6 => format!("INSERT INTO {{schema}}.places (id, code, v) VALUES ({place}, 'n{}', 1)", rng.random::<u32>()),
            7..=9 => format!("INSERT INTO {{schema}}.{child} (id, place) VALUES ({id}, {place})"),
            10 => format!("UPDATE {{schema}}.{child} SET place = {place} WHERE id = {id}"),
            11 => format!("UPDATE {{schema}}.{child} SET place = NULL WHERE id = {id}"),
            12 => format!("DELETE FROM {{schema}}.{child} WHERE id = {id}"),
            _ => format!("UPDATE {{schema}}.{child} SET v = 5 WHERE id = {id}"),
        })
    }
}

async fn families_in_phases(flavor: Flavor, name: &'static str, options: &[(&str, &str)]) -> Result<()> {
    let servers = servers_with(flavor, options).await?;
    for seed in seeds(1)? {
        println!("{name}: seed {seed}");
        let setup = Setup::new(flavor, name);
        families_of(seed, &setup, servers).await.with_context(|| format!("CROSSFADE_SEED={seed}"))?;
    }
    Ok(())
}

async fn families_of(seed: u64, setup: &Setup, servers: &'static SharedPair) -> Result<()> {
    let mut migration = Migration::on_servers(setup, servers).await?;
    make_coded_places(&migration).await?;
    migration.init().await?;
    migration.start_both().await?;
    let families = if is_soak() { 120 } else { 60 };
    let first = |family: u32, place: u32| {
        format!("INSERT INTO {{schema}}.places (id, code, v) VALUES ({0}, 'p{0}', 1)", row(family, place))
    };
    let before: Vec<String> = (1..=families).flat_map(|family| [first(family, 1), first(family, 2)]).collect();
    attempt(&migration, &migration.old, &before).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let first = if seed.is_multiple_of(2) { Direction::Forward } else { Direction::Reverse };
    let known = migration.status().read().await?.number(first.as_str(), "last_seq");
    let mut rng = StdRng::seed_from_u64(seed);
    let [on_old, on_new] = users_work(&migration, families, &mut rng).await?;
    migration.go_on(&[first]).await?;
    let more = if first == Direction::Forward { on_old } else { on_new };
    until_passed(&migration, first, known + more).await?;
    users_work(&migration, families, &mut rng).await?;
    migration.go_on(&[first.opposite()]).await?;
    until_nothing_waits(&migration).await?;
    migration.stop_both().await
}

/// Users of both sides work on every family; tells how many statements have changed something, on old and on new.
async fn users_work(migration: &Migration, families: u32, rng: &mut StdRng) -> Result<[u64; 2]> {
    let mut changed = [0; 2];
    let sides = [(&migration.old, [3, 4]), (&migration.new, [5, 6])];
    for ((pool, own_keys), changed) in sides.into_iter().zip(&mut changed) {
        let mut texts = Vec::new();
        for number in 1..=families {
            let family = Family { number, own_keys };
            texts.extend((0..rng.random_range(0..=MOST_STATEMENTS)).filter_map(|_| family.statement(rng)));
        }
        *changed = attempt(migration, pool, &texts).await?;
    }
    Ok(changed)
}

/// Runs statements of which the server may refuse some; tells how many have changed something.
async fn attempt(migration: &Migration, pool: &Pool, statements: &[String]) -> Result<u64> {
    let (mut conn, mut changed) = (pool.get_conn().await?, 0);
    for text in statements {
        match conn.query_drop(text.replace("{schema}", &migration.schema)).await {
            Ok(()) => changed += u64::from(conn.affected_rows() > 0),
            Err(Error::Server(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(changed)
}

#[tokio::test]
async fn p4_families_in_phases_on_mysql() -> Result<()> {
    families_in_phases(Flavor::MySql, "phases", &[]).await
}

#[tokio::test]
async fn p4_families_in_phases_where_cascades_are_unlogged() -> Result<()> {
    families_in_phases(Flavor::MySql, "phases_unlogged", MYSQL_NATIVE.options).await
}

#[tokio::test]
async fn p4_families_in_phases_on_mariadb() -> Result<()> {
    families_in_phases(Flavor::MariaDb, "phases", &[]).await
}
