//! P4 on real servers: whatever users of both sides do to the same rows at once, whatever fails meanwhile, both sides end
//! equal.
//!
//! A seed decides what the writers try, which faults come, and when. `CROSSFADE_SEED=7` runs that seed alone;
//! `CROSSFADE_SOAK=1` runs twenty seeds per kind of server, with three times the faults.

mod absent;
mod chains;
mod faults;
mod followers;
mod late;
mod mend;
mod moved;
mod moved_orphans;
mod orphans;
mod outcome;
mod parked;
mod phases;
mod reckoning;
mod run;
mod sight;
mod silently;
mod starved;
mod uniques;
mod went_back;

use anyhow::{Context, Result, bail, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_tests::{Migration, Setup, is_soak};
use outcome::Outcome;
use run::Run;
use tokio::sync::OnceCell;

/// Both directions of a migration of table `t`, which has a key, a value and a clock, run.
async fn of_one_table(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let mut migration = Migration::new(&Setup::new(flavor, name)).await?;
    migration
        .on_both(&["CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL, updated_at TIMESTAMP(6) \
             NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))"])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    Ok(migration)
}

/// Servers with these options, which tests share that do nothing to the servers themselves.
async fn servers_with(flavor: Flavor, options: &[(&str, &str)]) -> Result<&'static SharedPair> {
    static NATIVE: OnceCell<&SharedPair> = OnceCell::const_new();
    if options.is_empty() {
        return Ok(SharedPair::get(flavor).await);
    }
    ensure!((flavor, options) == (Flavor::MySql, MYSQL_NATIVE.options), "no test shares servers with {options:?}");
    Ok(*NATIVE.get_or_try_init(|| own_servers(flavor, options)).await?)
}

/// Servers with these options for one test alone.
async fn own_servers(flavor: Flavor, options: &[(&str, &str)]) -> Result<&'static SharedPair> {
    let builder = Server::builder(flavor).relaxed();
    let builder = options.iter().fold(builder, |builder, (name, value)| builder.option(name, value));
    Ok(SharedPair::own(builder).await?)
}

/// Servers that the seeds of one test have for themselves.
#[derive(Debug, Clone, Copy)]
struct Stand {
    flavor: Flavor,
    /// What the server calls itself in the output, and the name of the test that runs on it.
    label: &'static str,
    test: &'static str,
    options: &'static [(&'static str, &'static str)],
}

const MYSQL: Stand = Stand { flavor: Flavor::MySql, label: "MySQL", test: "p4_random_work_on_mysql", options: &[] };

/// As 8.0 does, it leaves out of its binlog what a foreign key changes.
const MYSQL_NATIVE: Stand = Stand {
    flavor: Flavor::MySql,
    label: "MySQL, native foreign keys",
    test: "p4_random_work_with_unlogged_cascades_on_mysql",
    options: &[("innodb_native_foreign_keys", "ON")],
};

const MARIADB: Stand =
    Stand { flavor: Flavor::MariaDb, label: "MariaDB", test: "p4_random_work_on_mariadb", options: &[] };

async fn every_seed_ends_equal(stand: Stand, usual: u64) -> Result<()> {
    let seeds = seeds(usual)?;
    let servers = own_servers(stand.flavor, stand.options).await?;
    let mut total = Outcome::default();
    let mut failed = Vec::new();
    println!("{}: {}", stand.label, Outcome::head());
    for seed in &seeds {
        match Run::carry_out(stand, servers, *seed).await {
            Ok(outcome) => {
                println!("{}: {}", stand.label, outcome.line(&seed.to_string()));
                total = total.plus(&outcome);
            }
            Err(error) => {
                println!("{}: seed {seed} failed: {error:#}\n{}", stand.label, rerun(stand, *seed));
                linger(stand, servers).await;
                failed.push(*seed);
            }
        }
    }
    println!("{}: {}", stand.label, total.line("all"));
    if !failed.is_empty() {
        bail!("{}: of the seeds {seeds:?} these failed: {failed:?}\n{}", stand.label, rerun(stand, failed[0]));
    }
    ensure!(total.happened.mid_work > 0, "{}: no process was killed in mid-work: {total:?}", stand.label);
    Ok(())
}

fn rerun(stand: Stand, seed: u64) -> String {
    let soak = if is_soak() { "CROSSFADE_SOAK=1 " } else { "" };
    format!(
        "run it alone: {soak}CROSSFADE_SEED={seed} cargo test -p crossfade-tests --test convergence {} -- --exact --nocapture",
        stand.test
    )
}

/// With `CROSSFADE_LINGER=1` the servers of a failed seed stay for an hour, to be looked at.
async fn linger(stand: Stand, servers: &SharedPair) {
    if std::env::var_os("CROSSFADE_LINGER").is_some() {
        println!("{}: old is {}, new is {}", stand.label, servers.old().root_url(), servers.new().root_url());
        tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
    }
}

/// The seed that is asked for, or `usual` many, or twenty.
fn seeds(usual: u64) -> Result<Vec<u64>> {
    match std::env::var("CROSSFADE_SEED") {
        Ok(seed) => Ok(vec![seed.parse().with_context(|| format!("CROSSFADE_SEED is no number: {seed}"))?]),
        Err(_) => Ok((1..=if is_soak() { 20 } else { usual }).collect()),
    }
}

#[tokio::test]
async fn p4_random_work_on_mysql() -> Result<()> {
    every_seed_ends_equal(MYSQL, 3).await
}

#[tokio::test]
async fn p4_random_work_with_unlogged_cascades_on_mysql() -> Result<()> {
    every_seed_ends_equal(MYSQL_NATIVE, 1).await
}

#[tokio::test]
async fn p4_random_work_on_mariadb() -> Result<()> {
    every_seed_ends_equal(MARIADB, 3).await
}
