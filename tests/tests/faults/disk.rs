//! The target's disk is full, and the store's where that is on the same server: nothing is parked for that, and all goes on when
//! there is room again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::sql;
use crossfade_testkit::userdb::{CLOCK, UserDb};
use crossfade_testkit::workload::{self, Settings, Side, Workload};
use crossfade_tests::lines::AWAY;
use crossfade_tests::{Direction, Migration, Setup, account_url, create_account};
use mysql_async::Pool;

use crate::judge::{Judge, Verdict};
use crate::stand::{LIMIT, Stream, streams};

const USERS: u64 = 200;
const DISK_MIB: u32 = 700;
/// A server that waits for room looks for it once a minute.
const ROOM_LIMIT: Duration = Duration::from_secs(300);
/// So long nothing may end, or seem well. Longer than a lease.
const STAYS_FULL: Duration = Duration::from_secs(30);
/// Changes that do not get through.
const WAITING: u64 = 300;

/// A small disk over the data directory, seen by the server alone: it ends with the server. The data moves onto it.
const SMALL_DISK: &str = r#"
for argument; do case "$argument" in --datadir=*) data="${argument#--datadir=}" ;; esac; done
mkdir -p "$data.stage" && cp -a "$data/." "$data.stage" &&
mount -t tmpfs -o "size=$0m" tmpfs "$data" && cp -a "$data.stage/." "$data" && rm -rf "$data.stage" &&
"#;
const SERVER: &str = r#"exec "$@""#;
/// MySQL ends itself where it cannot write its binlog or a redo log (manual, `binlog_error_action`), which have room here, in a folder
/// that ends with the server's: its tables alone are without.
const SERVER_WITH_LOGS_ELSEWHERE: &str = r#"mkdir -p "$data.logs" && mv "$data/#innodb_redo" "$data.logs/" &&
exec "$@" --log-bin="$data.logs/binlog" --innodb-log-group-home-dir="$data.logs""#;

/// What takes the room on the server's disk. Dropping it gives the room back.
struct Filler(PathBuf);

impl Filler {
    /// Takes all the room there is.
    fn fill(server: &Server) -> Result<Filler> {
        let process = server.pid().context("the server runs")?;
        // Through the server's eyes.
        let path = format!("/proc/{process}/root{}", server.data_dir().join("filler").display());
        let mut filler = Filler(PathBuf::from(&path));
        let mut file = std::fs::File::create(&path).with_context(|| format!("cannot write {path}"))?;
        for chunk in [vec![0; 1 << 20], vec![0; 4096], vec![0; 1]] {
            loop {
                match file.write(&chunk) {
                    Ok(1..) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                    written => {
                        written.with_context(|| format!("cannot fill {path}"))?;
                        break;
                    }
                }
            }
        }
        filler.0 = PathBuf::from(path);
        Ok(filler)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Servers of which the new one is on a small disk.
async fn on_a_small_disk(flavor: Flavor, server: &str) -> Result<&'static SharedPair> {
    let script = format!("{SMALL_DISK}{server}");
    let small = ["unshare", "--mount", "sh", "-c", &script].map(str::to_owned).into_iter();
    let plain = Server::builder(flavor).relaxed();
    let new = plain.clone().launcher(small.chain([DISK_MIB.to_string()]));
    let servers = SharedPair::own_of(plain, new).await.context("a server on a small disk needs root")?;
    let mounted = is_mounted(servers.new())?;
    ensure!(mounted, "the server's data is not on the small disk");
    Ok(servers)
}

/// A migration that runs, and a writer on the old side.
async fn started(servers: &'static SharedPair, settings: String, name: &'static str) -> Result<(Migration, Workload)> {
    let tables = format!(
        "[[table]]\nname = \"{{schema}}.{}\"\nskip = true\n\n[[table]]\nname = \"{{schema}}.*\"\nclock = \"{CLOCK}\"\n",
        workload::LEDGER
    );
    let setup = Setup { tables, settings, ..Setup::new(servers.flavor(), name) };
    let mut migration = Migration::on_servers(&setup, servers).await?;
    migration.expect_lines(AWAY);
    let data = UserDb { schema: migration.schema.clone(), users: USERS, seed: 1 };
    for pool in [&migration.old, &migration.new] {
        data.create(pool).await?;
        data.load(pool, |_| ()).await?;
        workload::create_ledger(pool, &migration.schema).await?;
    }
    migration.init().await?;
    migration.start_both().await?;
    let settings = Settings {
        hot_users: 20,
        rate: Some(80.0),
        ledger: true,
        ..Settings::new(&migration.schema, Side::Old, USERS)
    };
    let old = Workload::start(&migration.old, &settings)?;
    Ok((migration, old))
}

async fn a_disk_that_is_full(flavor: Flavor) -> Result<()> {
    let servers = on_a_small_disk(flavor, SERVER).await?;
    // The store has a disk of its own: what is captured must be kept.
    let store = Server::builder(flavor).relaxed().start().await?;
    create_account(&store).await?;
    let settings = format!("[store]\nurl = \"{}\"\n", account_url(&store));
    let (mut migration, old) = started(servers, settings, "disk_full").await?;
    migration.expect_lines(&["error: the target refused", "reason could not be kept"]);
    let pool = sql::pool(&store.root_url(), 2)?;
    until_captured(&migration, &pool, 100).await?;

    let filler = Filler::fill(servers.new())?;
    let full = forward(&migration, &pool).await?.last;
    until_captured(&migration, &pool, full + WAITING).await.context("with the disk full")?;
    let waited = until("changes that wait", LIMIT, || async {
        let forward = forward(&migration, &pool).await?;
        let waiting = forward.last - forward.settled;
        Ok(if waiting >= WAITING { Progress::Reached(waiting) } else { Progress::NotYet(format!("{waiting} wait")) })
    })
    .await?;
    let status = migration.status().read().await?;
    ensure!(status.total("open_failures") == 0, "rows are parked for a full disk: {}", status.0);
    drop(filler);

    // Whoever has ended with a clear reason is started again; who waits goes on by itself.
    let mut ended = Vec::new();
    for direction in Direction::BOTH {
        if migration.process(direction)?.exit_status()?.is_some() {
            ended.push(direction.as_str());
            migration.start(direction, &[])?;
        }
    }
    let verdict = all_is_well(&migration, old, &pool).await?;
    let ended = if ended.is_empty() { "nobody ended".to_owned() } else { format!("ended: {}", ended.join(", ")) };
    println!(
        "{}",
        verdict.line(
            flavor,
            "new's disk is full",
            "nothing is parked; all goes on when there is room",
            &format!("{waited} changes waited; {ended}")
        )
    );
    migration.stop_both().await
}

/// The store is on the new side, as it is where nothing else is said: what cannot be captured waits in the source's binlog.
async fn a_disk_that_is_full_for_the_store(flavor: Flavor) -> Result<()> {
    let server = match flavor {
        Flavor::MySql => SERVER_WITH_LOGS_ELSEWHERE,
        Flavor::MariaDb => SERVER,
    };
    let servers = on_a_small_disk(flavor, server).await?;
    let (mut migration, old) = started(servers, String::new(), "store_full").await?;
    migration.expect_lines(&["nothing is captured meanwhile", "nothing is applied meanwhile"]);
    let pool = sql::pool(&servers.new().root_url(), 2)?;
    until_captured(&migration, &pool, 100).await?;

    let filler = Filler::fill(servers.new())?;
    let waited = until("nothing is captured", LIMIT, || async {
        let Ok(status) = migration.status().read().await else {
            return Ok(Progress::Reached("the store could not be read".to_owned()));
        };
        let state = status.state("forward").unwrap_or_default().to_owned();
        Ok(if is_green(&state) { Progress::NotYet(status.0.to_string()) } else { Progress::Reached(state) })
    })
    .await?;
    let end = Instant::now() + STAYS_FULL;
    while Instant::now() < end {
        if let Ok(status) = migration.status().read().await {
            let state = status.state("forward").unwrap_or_default();
            ensure!(!is_green(state), "green while nothing is captured: {}", status.0);
        }
        for direction in Direction::BOTH {
            let ended = migration.process(direction)?.exit_status()?;
            ensure!(ended.is_none(), "{} has ended: {ended:?}\n{}", direction.as_str(), migration.log_ends());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    drop(filler);
    until("both go on by themselves", ROOM_LIMIT, || async {
        let Ok(status) = migration.status().read().await else {
            return Ok(Progress::NotYet("the store cannot be read".to_owned()));
        };
        let go_on = Direction::BOTH.iter().all(|direction| status.state(direction.as_str()).is_some_and(is_green));
        Ok(if go_on { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())?;

    let verdict = all_is_well(&migration, old, &pool).await?;
    println!(
        "{}",
        verdict.line(flavor, "the store's disk is full", "nobody ends; all goes on when there is room", &waited)
    );
    migration.stop_both().await
}

/// When nobody writes any more: the sides are equal, nothing is set aside, and nothing was lost, doubled or echoed.
async fn all_is_well(migration: &Migration, old: Workload, store: &Pool) -> Result<Verdict> {
    old.finish().await?;
    let status = migration.status().until_quiet(ROOM_LIMIT).await.with_context(|| migration.log_ends())?;
    let comparison = crate::stand::compare(migration).await?;
    ensure!(comparison.is_equal(), "the sides differ when all is quiet\n{comparison}");
    ensure!(status.total("open_failures") + status.total("held") == 0, "rows are set aside: {}", status.0);
    let verdict = Judge::default().judge(migration, store, &status).await?;
    verdict.ensure_clean()?;
    Ok(verdict)
}

fn is_green(state: &str) -> bool {
    matches!(state, "running" | "catching-up")
}

async fn forward(migration: &Migration, store: &Pool) -> Result<Stream> {
    let streams = streams(migration, store).await?;
    streams.into_iter().find(|stream| stream.name.starts_with("forward/")).context("no forward stream")
}

async fn until_captured(migration: &Migration, store: &Pool, seq: u64) -> Result<()> {
    until("changes captured", LIMIT, || async {
        let last = forward(migration, store).await?.last;
        Ok(if last >= seq { Progress::Reached(()) } else { Progress::NotYet(format!("{last} of {seq}")) })
    })
    .await
}

fn is_mounted(server: &Server) -> Result<bool> {
    let process = server.pid().context("the server runs")?;
    let mounts = std::fs::read_to_string(format!("/proc/{process}/mounts"))?;
    let data = server.data_dir();
    Ok(mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|place| Path::new(place) == data)))
}

#[tokio::test]
async fn p7_a_disk_that_is_full_on_mysql() -> Result<()> {
    a_disk_that_is_full(Flavor::MySql).await
}

#[tokio::test]
async fn p7_a_disk_that_is_full_on_mariadb() -> Result<()> {
    a_disk_that_is_full(Flavor::MariaDb).await
}

#[tokio::test]
async fn p7_a_disk_that_is_full_for_the_store_on_mysql() -> Result<()> {
    a_disk_that_is_full_for_the_store(Flavor::MySql).await
}

#[tokio::test]
async fn p7_a_disk_that_is_full_for_the_store_on_mariadb() -> Result<()> {
    a_disk_that_is_full_for_the_store(Flavor::MariaDb).await
}
