//! Cutovers, writers and a server that fails, by chance: what a cutover has waited for is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use super::fake::{Fake, Mood};
use crate::{FlagClient, Phase};

const SEEDS: u64 = 30;
const LENGTH: Duration = Duration::from_secs(180);

#[derive(Default)]
struct Counts {
    /// No earlier version is written by any more, as far as the cutovers know.
    floor: AtomicU64,
    writes: AtomicU64,
    rolled_back: AtomicU64,
    cutovers: AtomicU64,
    given_up: AtomicU64,
}

fn chance(random: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.random_range(from..to))
}

async fn write(client: FlagClient, counts: Arc<Counts>, mut random: StdRng) {
    loop {
        let so_long = match random.random_range(0..20) {
            0 => chance(&mut random, 1_000, 15_000),
            _ => chance(&mut random, 0, 200),
        };
        if let Ok(guard) = client.begin_write().await {
            sleep(so_long).await;
            if guard.is_still_valid() {
                let floor = counts.floor.load(SeqCst);
                assert!(guard.version() >= floor, "a write by {} after all had acknowledged {floor}", guard.version());
                counts.writes.fetch_add(1, SeqCst);
            } else {
                counts.rolled_back.fetch_add(1, SeqCst);
            }
        }
        sleep(chance(&mut random, 1, 50)).await;
    }
}

async fn fail(fake: Fake, mut random: StdRng) {
    loop {
        let mood = match random.random_range(0..5) {
            0 => Mood::Gone,
            1 => Mood::Mute,
            2 => Mood::Refusing,
            3 => Mood::Slow(chance(&mut random, 0, 2_000), chance(&mut random, 0, 2_000)),
            _ => Mood::Slow(chance(&mut random, 0, 50), chance(&mut random, 0, 50)),
        };
        fake.feel(mood);
        let most = if random.random_bool(0.3) { 14_000 } else { 1_500 };
        sleep(chance(&mut random, 0, most)).await;
        fake.feel(Mood::Well);
        sleep(chance(&mut random, 0, 6_000)).await;
    }
}

async fn cut_over(fake: Fake, counts: Arc<Counts>, mut random: StdRng) {
    loop {
        sleep(chance(&mut random, 0, 3_000)).await;
        let before = fake.inside().flag;
        let fenced = before.version + 1;
        fake.set(fenced, before.phase, true);
        let until = Instant::now() + Duration::from_secs(15);
        while fake.acknowledged().iter().any(|version| *version < fenced) && Instant::now() < until {
            sleep(Duration::from_millis(10)).await;
        }
        if fake.acknowledged().iter().any(|version| *version < fenced) {
            counts.given_up.fetch_add(1, SeqCst);
            fake.set(fenced + 1, before.phase, false);
            continue;
        }
        counts.floor.store(fenced, SeqCst);
        sleep(chance(&mut random, 0, 2_000)).await;
        let next = if before.phase == Phase::WriteBoth { Phase::ReadNew } else { Phase::WriteBoth };
        fake.set(fenced + 1, next, false);
        counts.cutovers.fetch_add(1, SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_writes_by_a_version_that_a_cutover_has_left_behind() {
    let counts = Arc::new(Counts::default());
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut another = || StdRng::seed_from_u64(random.random());
        let fake = Fake::new(Phase::WriteBoth);
        counts.floor.store(0, SeqCst);
        let mut tasks = tokio::task::JoinSet::new();
        for instance in ["a", "b"] {
            let client = fake.builder().instance(instance).start().expect("it is set up well");
            for _ in 0..2 {
                tasks.spawn(write(client.clone(), counts.clone(), another()));
            }
        }
        tasks.spawn(fail(fake.clone(), another()));
        tasks.spawn(cut_over(fake.clone(), counts.clone(), another()));
        tokio::select! {
            () = sleep(LENGTH) => {}
            ended = tasks.join_next() => panic!("seed {seed}: {ended:?}"),
        }
        tasks.shutdown().await;
    }
    let told =
        [&counts.writes, &counts.rolled_back, &counts.cutovers, &counts.given_up].map(|count| count.load(SeqCst));
    assert!(told.iter().all(|count| *count > SEEDS / 3), "it has not tried enough: {told:?}");
}
