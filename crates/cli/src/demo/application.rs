//! An application of the demonstration: three instances that follow the flag, take sign-ups on the side that it names, and remember
//! what was acknowledged to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_flag::{FlagClient, Side};
use crossfade_testkit::userdb::Signups;
use mysql_async::{Pool, TxOpts};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::stage::{SCHEMA, Stage};

const INSTANCES: usize = 3;
const WRITERS_EACH: usize = 4;
/// Transactions a second of all writers together.
pub const RATE: u32 = 300;
/// Each of a writer's users is renamed so often.
const RENAMES: u64 = 4;

/// Dropping it stops the writers.
pub struct Application {
    instances: Vec<FlagClient>,
    writers: JoinSet<Result<()>>,
    stop: watch::Sender<bool>,
    ledger: Arc<Mutex<Ledger>>,
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The last name, by e-mail address.
    names: BTreeMap<String, String>,
    pub on_old: u64,
    pub on_new: u64,
    /// How long the longest write was waited for since this was last asked.
    longest: Duration,
}

impl Application {
    /// `address` is where `crossfade serve` answers. Returns when all instances have registered.
    pub async fn start(stage: &Stage, address: &str) -> Result<Application> {
        let (stop, stopped) = watch::channel(false);
        let (ledger, mut instances, mut writers) = (Arc::default(), Vec::new(), JoinSet::new());
        for number in 1..=INSTANCES {
            let name = format!("shop-{number}");
            let flag = FlagClient::builder(format!("http://{address}")).instance(name).connect().await?;
            for _ in 0..WRITERS_EACH {
                let writer = Writer {
                    number: writers.len(),
                    flag: flag.clone(),
                    old: stage.old.clone(),
                    new: stage.new.clone(),
                    signups: Signups::new(SCHEMA),
                    ledger: Arc::clone(&ledger),
                };
                writers.spawn(writer.run(stopped.clone()));
            }
            instances.push(flag);
        }
        Ok(Application { instances, writers, stop, ledger })
    }

    /// Writes acknowledged so far, on old and on new.
    pub fn acknowledged(&self) -> (u64, u64) {
        let ledger = lock(&self.ledger);
        (ledger.on_old, ledger.on_new)
    }

    /// How long the longest write was waited for since the last call.
    pub fn longest_write(&self) -> Duration {
        std::mem::take(&mut lock(&self.ledger).longest)
    }

    /// Ends the writers, and the instances; gives what was acknowledged.
    pub async fn finish(mut self) -> Result<Ledger> {
        self.stop.send_replace(true);
        while let Some(ended) = self.writers.join_next().await {
            ended.context("a writer panicked")??;
        }
        for instance in &self.instances {
            instance.close().await;
        }
        Ok(std::mem::take(&mut lock(&self.ledger)))
    }
}

impl Ledger {
    /// How many writes were acknowledged in all.
    pub fn acknowledged(&self) -> u64 {
        self.on_old + self.on_new
    }

    /// How many users are missing on a side, or are called otherwise than was acknowledged.
    pub async fn lost(&self, pool: &Pool) -> Result<usize> {
        let found = Signups::new(SCHEMA).names(pool).await?;
        Ok(self.names.iter().filter(|(email, name)| found.get(*email) != Some(name)).count())
    }
}

struct Writer {
    number: usize,
    flag: FlagClient,
    old: Pool,
    new: Pool,
    signups: Signups,
    ledger: Arc<Mutex<Ledger>>,
}

impl Writer {
    async fn run(self, stop: watch::Receiver<bool>) -> Result<()> {
        let pace = Duration::from_secs(1) * (INSTANCES * WRITERS_EACH) as u32 / RATE;
        let mut start = tokio::time::Instant::now();
        for turn in 0_u64.. {
            if *stop.borrow() {
                break;
            }
            let (user, renames) = (turn / (RENAMES + 1), turn % (RENAMES + 1));
            let (email, name) = (Signups::email(self.number, user), format!("name {renames}"));
            let asked = Instant::now();
            let side = self.write(&email, &name, renames == 0).await?;
            self.acknowledge(email, name, side, asked.elapsed());
            // Who fell behind does not catch up in a burst.
            let now = tokio::time::Instant::now();
            start = (start + pace).max(now.checked_sub(pace).unwrap_or(now));
            tokio::time::sleep_until(start).await;
        }
        Ok(())
    }

    /// One transaction on the side that the flag names.
    async fn write(&self, email: &str, name: &str, is_first: bool) -> Result<Side> {
        loop {
            let guard = self.flag.begin_write().await?;
            let pool = if guard.side() == Side::Old { &self.old } else { &self.new };
            let mut transaction = pool.start_transaction(TxOpts::new()).await?;
            let written = match is_first {
                true => self.signups.add(&mut transaction, email, name).await,
                false => self.signups.rename(&mut transaction, email, name).await,
            };
            match written {
                Ok(()) => {}
                Err(error) if Signups::may_be_repeated(&error) => continue,
                Err(error) => return Err(error).context("a sign-up failed"),
            }
            ensure!(transaction.affected_rows() == 1, "{email} is not on {}", guard.side());
            ensure!(guard.is_still_valid(), "the flag's server was not heard");
            transaction.commit().await.context("a sign-up failed")?;
            return Ok(guard.side());
        }
    }

    fn acknowledge(&self, email: String, name: String, side: Side, took: Duration) {
        let mut ledger = lock(&self.ledger);
        ledger.names.insert(email, name);
        *(if side == Side::Old { &mut ledger.on_old } else { &mut ledger.on_new }) += 1;
        ledger.longest = ledger.longest.max(took);
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
