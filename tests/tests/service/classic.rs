//! An application that writes both sides itself, as the classic flag has it: the same row to old and to new, with its clock. Both
//! sides end equal, and as the application has it, in every phase; also where the application dies between its two writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use crossfade_flag::{FlagClient, Phase, WriteGuard};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Flavor, Migration, Served, Setup, on_both_brands};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Pool};
use tokio::sync::{Mutex, RwLock};
use tokio::task::JoinSet;

use crate::stage::LIMIT;

const WRITERS: u64 = 4;
/// Rows that belong to one writer each.
const OWN: u64 = 10;
/// Rows that all of them write, from 1.
const SHARED: u64 = 5;
const PACE: Duration = Duration::from_millis(12);

/// What tells which version of a row is newer, and by which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Clock {
    /// `newest`: a time that the application takes from its own clock.
    Time,
    /// `version`: the number after the one that it has read.
    Version,
}

impl Clock {
    const ALL: [Clock; 2] = [Clock::Time, Clock::Version];

    fn table(self) -> &'static str {
        match self {
            Clock::Time => "timed",
            Clock::Version => "versioned",
        }
    }
}

const TABLES: [&str; 2] = [
    "CREATE TABLE {schema}.timed (id BIGINT UNSIGNED NOT NULL PRIMARY KEY, v BIGINT NOT NULL, clock DATETIME(6) NOT NULL)",
    "CREATE TABLE {schema}.versioned (id BIGINT UNSIGNED NOT NULL PRIMARY KEY, v BIGINT NOT NULL, clock BIGINT NOT NULL)",
];

const ENTRIES: &str = "[[table]]\nname = \"{schema}.timed\"\nclock = \"clock\"\npolicy = \"newest\"\n\n\
                       [[table]]\nname = \"{schema}.versioned\"\nclock = \"clock\"\npolicy = \"version\"\n";

/// What writers know of their own rows, by table and number: the last value, `None` where the row was deleted; and its clock.
type Own = BTreeMap<(Clock, u64), (Option<i64>, String)>;

#[derive(Default)]
struct Counts {
    /// Each on the sides that the flag names.
    writes: u64,
    /// Of these, such that reached the first side only.
    halves: u64,
}

async fn who_writes_both_sides_converges(flavor: Flavor) -> Result<()> {
    let settings = "[cutover]\nmax_lag = \"20s\"\n".to_owned();
    let setup = Setup { tables: ENTRIES.to_owned(), settings, ..Setup::new(flavor, "classic") };
    let mut migration = Migration::new(&setup).await?;
    migration.on_both(&TABLES).await?;
    migration.init().await?;
    migration.start_both().await?;
    let served = Served::start(&migration).await?;
    let application = Application::start(&migration, &served).await?;
    application.writes_in(&migration, Phase::OldOnly).await?;
    migration.crossfade(&["verify"]).await?;
    migration.crossfade(&["flag", "set", "write_both"]).await?;
    application.writes_in(&migration, Phase::WriteBoth).await?;
    for (command, phase) in [("cutover", Phase::ReadNew), ("rollback", Phase::WriteBoth), ("cutover", Phase::ReadNew)] {
        migration.crossfade(&[command]).await?;
        application.writes_in(&migration, phase).await?;
    }
    // Nothing leads back from there: the application writes new alone.
    let report = migration.folder.join("report").to_string_lossy().into_owned();
    migration.crossfade(&["finish", "--report", &report]).await?;
    for direction in Direction::BOTH {
        let status = migration.process(direction)?.wait(LIMIT).await?;
        ensure!(status.success(), "{} ended with {status}", direction.as_str());
    }
    application.writes_on_new_alone(&migration).await?;
    application.end().await?;
    migration.forget();
    Ok(())
}

struct Application {
    flag: FlagClient,
    own: Arc<Mutex<Own>>,
    counts: Arc<Mutex<Counts>>,
    gate: Arc<RwLock<()>>,
    writers: JoinSet<Result<()>>,
}

impl Application {
    async fn start(migration: &Migration, served: &Served) -> Result<Application> {
        let flag = FlagClient::builder(format!("http://{}", served.address)).instance("classic").connect().await?;
        let (own, counts, gate) = (Arc::default(), Arc::default(), Arc::default());
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let writer = Writer {
                number,
                flag: flag.clone(),
                old: migration.old.clone(),
                new: migration.new.clone(),
                schema: migration.schema.clone(),
                own: Arc::clone(&own),
                counts: Arc::clone(&counts),
            };
            writers.spawn(writer.run(Arc::clone(&gate)));
        }
        Ok(Application { flag, own, counts, gate, writers })
    }

    /// Lets it write for a while in this phase; then, while it rests, both sides are equal, and as the writers have it.
    async fn writes_in(&self, migration: &Migration, phase: Phase) -> Result<()> {
        self.until_writes(phase).await?;
        let _rest = self.gate.write().await;
        let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
        ensure!(status.total("open_failures") == 0, "{}", status.0);
        self.is_as_written(migration, &migration.old).await?;
        let counts = self.counts.lock().await;
        println!(
            "{phase}: {} writes, {} of them of one side only; captured {} and {}, {} lost to the same or a newer version",
            counts.writes,
            counts.halves,
            status.number("forward", "last_seq"),
            status.number("reverse", "last_seq"),
            status.total("conflicts_lost")
        );
        Ok(())
    }

    /// After the end, old is as it was left.
    async fn writes_on_new_alone(&self, migration: &Migration) -> Result<()> {
        self.until_writes(Phase::NewOnly).await?;
        let _rest = self.gate.write().await;
        self.is_as_written(migration, &migration.new).await?;
        ensure!(!migration.compare().await?.is_equal(), "somebody still writes old");
        Ok(())
    }

    async fn until_writes(&self, phase: Phase) -> Result<()> {
        let wanted = self.counts.lock().await.writes + 400;
        until("writes", LIMIT, || async {
            let (now, writes) = (self.flag.phase()?, self.counts.lock().await.writes);
            let is_there = now == phase && writes >= wanted;
            Ok(match is_there {
                true => Progress::Reached(()),
                false => Progress::NotYet(format!("{now}, {writes} of {wanted} writes")),
            })
        })
        .await
    }

    /// Each writer's rows, and all that they share.
    async fn is_as_written(&self, migration: &Migration, pool: &Pool) -> Result<()> {
        let own = self.own.lock().await;
        for clock in Clock::ALL {
            let mut conn = pool.get_conn().await?;
            let question = format!("SELECT id, v FROM `{}`.{}", migration.schema, clock.table());
            let found: BTreeMap<u64, i64> = conn.query(question).await?.into_iter().collect();
            let of_this = own.iter().filter(|((other, _), _)| *other == clock);
            for ((_, id), (wanted, _)) in of_this {
                let has = found.get(id);
                ensure!(has == wanted.as_ref(), "{clock:?}: row {id} is {has:?}, not {wanted:?}");
            }
            let shared = found.keys().filter(|id| **id <= SHARED).count() as u64;
            ensure!(shared == SHARED, "{clock:?}: {shared} shared rows");
        }
        Ok(())
    }

    async fn end(mut self) -> Result<()> {
        self.flag.close().await;
        while let Some(ended) = self.writers.join_next().await {
            ended??;
        }
        Ok(())
    }
}

struct Writer {
    number: u64,
    flag: FlagClient,
    old: Pool,
    new: Pool,
    schema: String,
    own: Arc<Mutex<Own>>,
    counts: Arc<Mutex<Counts>>,
}

/// What is to become of a row.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Value(i64),
    Gone,
}

impl Writer {
    /// Until the flag's client is closed.
    async fn run(self, gate: Arc<RwLock<()>>) -> Result<()> {
        for turn in 1_u64.. {
            tokio::time::sleep(PACE).await;
            let open = gate.read().await;
            let Ok(guard) = self.flag.begin_write().await else { break };
            self.turn(turn, &guard).await.with_context(|| format!("writer {} in {}", self.number, guard.phase()))?;
            drop((guard, open));
        }
        Ok(())
    }

    async fn turn(&self, turn: u64, guard: &WriteGuard) -> Result<()> {
        let clock = Clock::ALL[(turn % 2) as usize];
        let value = i64::try_from(turn * WRITERS + self.number)?;
        let is_own = !turn.is_multiple_of(3);
        let id = if is_own { 100 + self.number * OWN + (turn / 2) % OWN } else { 1 + (turn / 3) % SHARED };
        let wanted = if is_own && turn.is_multiple_of(7) { Wanted::Gone } else { Wanted::Value(value) };
        // One that dies after its first write; what it has told nobody about crosses all the same.
        let dies = turn.is_multiple_of(9);
        let Some(time) = self.both(guard, clock, id, wanted, dies).await? else { return Ok(()) };
        if is_own {
            let known = if let Wanted::Value(value) = wanted { Some(value) } else { None };
            self.own.lock().await.insert((clock, id), (known, time));
        }
        let mut counts = self.counts.lock().await;
        counts.writes += 1;
        counts.halves += u64::from(dies);
        Ok(())
    }

    /// The side that is read first, then the other one, if the flag names both. Gives the clock that it wrote; `None` where another
    /// writer has been there first.
    async fn both(
        &self,
        guard: &WriteGuard,
        clock: Clock,
        id: u64,
        wanted: Wanted,
        dies: bool,
    ) -> Result<Option<String>> {
        let (old, new) = (guard.is_write_old().then_some(&self.old), guard.is_write_new().then_some(&self.new));
        let sides = if guard.phase().is_read_new() { [new, old] } else { [old, new] };
        let mut sides = sides.into_iter().flatten();
        let mut conn = sides.next().context("a flag by which nobody writes")?.get_conn().await?;
        let time = self.next_clock(&mut conn, clock, id).await?;
        if !self.write(&mut conn, clock, id, wanted, &time).await? && clock == Clock::Version {
            return Ok(None);
        }
        if let Some(other) = sides.next().filter(|_| !dies) {
            // crossfade may have been quicker, and then this changes nothing.
            self.write(&mut other.get_conn().await?, clock, id, wanted, &time).await?;
        }
        Ok(Some(time))
    }

    async fn next_clock(&self, conn: &mut Conn, clock: Clock, id: u64) -> Result<String> {
        match clock {
            Clock::Time => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
                let question = "SELECT CAST(FROM_UNIXTIME(0) + INTERVAL ? MICROSECOND AS CHAR)";
                let micros = u64::try_from(now.as_micros())?;
                conn.exec_first(question, (micros,)).await?.context("no time")
            }
            Clock::Version => {
                let question = format!("SELECT clock FROM `{}`.versioned WHERE id = ?", self.schema);
                let now: Option<i64> = conn.exec_first(question, (id,)).await?;
                // A row that is inserted again goes on where the deleted one was: two that begin with 1 would be equally new.
                let before = self.own.lock().await.get(&(clock, id)).map(|(_, version)| version.parse()).transpose()?;
                Ok((now.unwrap_or(0).max(before.unwrap_or(0)) + 1).to_string())
            }
        }
    }

    /// Only over an older version. Whether that changed anything.
    async fn write(&self, conn: &mut Conn, clock: Clock, id: u64, wanted: Wanted, time: &str) -> Result<bool> {
        let table = format!("`{}`.{}", self.schema, clock.table());
        loop {
            let ran = match wanted {
                Wanted::Gone => {
                    conn.exec_drop(format!("DELETE FROM {table} WHERE id = ? AND clock < ?"), (id, time)).await
                }
                Wanted::Value(value) => {
                    let statement = format!(
                        "INSERT INTO {table} (id, v, clock) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE
                         v = IF(clock < VALUES(clock), VALUES(v), v), clock = GREATEST(clock, VALUES(clock))"
                    );
                    conn.exec_drop(statement, (id, value, time)).await
                }
            };
            match ran {
                Err(error) if sql::is_rolled_back(&error) => {}
                ran => {
                    ran?;
                    return Ok(conn.affected_rows() > 0);
                }
            }
        }
    }
}

on_both_brands! {
    p4_who_writes_both_sides_itself_converges => who_writes_both_sides_converges,
}
