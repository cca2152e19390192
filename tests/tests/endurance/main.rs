//! Both directions at a steady rate for long: memory, lag and numbers of files stay as they are.
//!
//! `make soak SUITE=endurance` takes an hour for each brand, one after the other; `CROSSFADE_ENDURANCE_SECONDS` asks for another time,
//! and `CROSSFADE_ENDURANCE_RATE` for another number of changes a second, of both sides together.

mod course;
mod users;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server};
use crossfade_tests::{Direction, Migration, Setup, is_soak, on_both_brands};
use tokio::sync::Mutex;

use self::course::{Course, Sample};
use self::users::{TABLE, Users};

const QUIET_LIMIT: Duration = Duration::from_secs(300);
/// The long form's promise, of both sides together.
const LEAST_OF_RATE: f64 = 0.9;
/// Of the samples that the long form asks for, so many may be missing: the machine is busy.
const MOST_MISSING: f64 = 0.1;
/// The default of `[memory] limit`, for each process.
const MOST_MEMORY_BYTES: u64 = 512 << 20;
const MOST_OPEN_FILES: u64 = 100;

/// Both brands at once would be twice the rate.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

struct Plan {
    lasts: Duration,
    /// Changes a second of both sides together.
    rate: u32,
    sample_every: Duration,
}

impl Plan {
    fn asked() -> Result<Plan> {
        let asked = |name: &str, usual: u32| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name} is no number")),
            Err(_) => Ok(usual),
        };
        let (usual_seconds, usual_rate) = if is_soak() { (3_600, 3_000) } else { (25, 200) };
        let seconds = asked("CROSSFADE_ENDURANCE_SECONDS", usual_seconds)?;
        let rate = asked("CROSSFADE_ENDURANCE_RATE", usual_rate)?;
        ensure!(seconds >= 1 && rate >= 2, "{seconds} s at {rate} changes a second are too few");
        Ok(Plan {
            lasts: Duration::from_secs(seconds.into()),
            rate,
            sample_every: Duration::from_secs_f64((f64::from(seconds) / 360.0).max(0.5)),
        })
    }
}

async fn flat_for_long(flavor: Flavor) -> Result<()> {
    let plan = Plan::asked()?;
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut migration = Migration::new(&Setup::new(flavor, "endurance")).await?;
    migration.on_both(&[TABLE]).await?;
    migration.init().await?;
    migration.start_both().await?;
    users::load(&migration.old, &migration.schema).await?;
    let (loaded, _) = migration.until_quiet_and_equal(QUIET_LIMIT).await?;

    let begun = Instant::now();
    let old = Users::start(&migration.old, &migration.schema, "old", plan.rate / 2);
    let new = Users::start(&migration.new, &migration.schema, "new", plan.rate / 2);
    let (mut course, mut missing) = (Course::default(), Vec::new());
    while begun.elapsed() < plan.lasts {
        tokio::time::sleep(plan.sample_every).await;
        let written = old.changes() + new.changes() + loaded.total("settled_seq");
        match sample(&mut migration, written).await {
            Ok(sample) => course.note(Sample { second: begun.elapsed().as_secs(), ..sample }),
            Err(error) => missing.push(format!("{error:#}")),
        }
    }
    let written = tokio::try_join!(old.finish(), new.finish())?;
    let seconds = begun.elapsed().as_secs_f64();
    let (status, comparison) = migration.until_quiet_and_equal(QUIET_LIMIT).await?;
    let rates = [written.0, written.1].map(|changes| changes as f64 / seconds);
    println!(
        "{flavor:?}: {seconds:.0} s, {:.0} changes/s on old and {:.0} on new, {} conflicts, {} echoes, equal in {} rows",
        rates[0],
        rates[1],
        status.total("conflicts_lost"),
        status.total("echoes"),
        comparison.rows_compared()
    );
    println!("{}", course.table());
    ensure!(status.total("open_failures") == 0, "rows were parked: {}", status.0);
    ensure!(rates.iter().all(|rate| *rate > 0.0), "somebody wrote nothing: {rates:?}");
    for direction in Direction::BOTH {
        let process = migration.process(direction)?;
        let (memory, files) = (process.peak_memory_bytes()?, process.open_files()?);
        ensure!(memory <= MOST_MEMORY_BYTES, "{} took {} MiB", direction.as_str(), memory >> 20);
        ensure!(files <= MOST_OPEN_FILES, "{} has {files} files open", direction.as_str());
    }
    if is_soak() {
        let samples = course.len() + missing.len();
        ensure!(missing.len() as f64 <= samples as f64 * MOST_MISSING, "of {samples} samples are missing: {missing:?}");
        let least = f64::from(plan.rate) * LEAST_OF_RATE;
        ensure!(rates.iter().sum::<f64>() >= least, "users made only {rates:?} changes a second");
        course.must_be_flat(plan.rate)?;
    }
    migration.stop_both().await
}

/// `written`: messages that there are to be by now, as users have been told.
async fn sample(migration: &mut Migration, written: u64) -> Result<Sample> {
    let status = migration.status().read().await?;
    let mut sample = Sample {
        waiting_changes: written.saturating_sub(status.total("settled_seq")),
        server_files: files(migration.servers.old())? + files(migration.servers.new())?,
        ..Sample::default()
    };
    for direction in Direction::BOTH {
        let process = migration.process(direction)?;
        sample.memory_bytes += process.resident_memory_bytes()?;
        sample.open_files += process.open_files()?;
    }
    Ok(sample)
}

/// Of a server's data: its tables, partitions and binlogs.
fn files(server: &Server) -> Result<u64> {
    let mut folders = vec![server.data_dir()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            // It is gone by now.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("cannot list {}", folder.display()))?,
        };
        for entry in entries {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => folders.push(entry.path()),
                false => files += 1,
            }
        }
    }
    Ok(files)
}

on_both_brands! {
    p8_flat_for_long => flat_for_long,
}
