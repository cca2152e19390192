//! P1, P2: a target or a store that has lost its last transactions, by a restore or a crash. What can be made right is applied
//! once more; where it cannot, the stream stops and says what to do. And programs of neighbouring versions work together.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_tests::{Direction, Migration, Setup};
use crossfade_tests::{lines::AWAY, on_both_brands};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

const LIMIT: Duration = Duration::from_secs(60);
const CREATE: &str = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(40) NOT NULL, \
    updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";

const REPLAYED: &[&str] = &[
    "the target has lost its last transactions (a restore or a fail-over)",
    "reading again from there reason=\"it was put back to what the source has\"",
];

/// A migration on servers of its own, whose store is on the old side or on a third server.
async fn prepared(flavor: Flavor, name: &'static str, store: Option<&Server>) -> Result<Migration> {
    let servers = SharedPair::own(Server::builder(flavor).relaxed()).await?;
    let store = store.unwrap_or(servers.old()).root_url();
    let settings = format!("\n[store]\nurl = \"{store}\"\n");
    let migration = Migration::on_servers(&Setup { settings, ..Setup::new(flavor, name) }, servers).await?;
    migration.on_both(&[CREATE]).await?;
    migration.init().await?;
    Ok(migration)
}

async fn insert(migration: &Migration, pool: &Pool, first: u32, last: u32) -> Result<()> {
    for id in first..=last {
        migration.on(pool, &[&format!("INSERT INTO {{schema}}.t (id, v) VALUES ({id}, 'row {id}')")]).await?;
    }
    Ok(())
}

async fn until_status(migration: &Migration, what: &str, is_reached: impl Fn(&Status) -> bool) -> Result<Status> {
    until(what, LIMIT, || async {
        let status = migration.status().read().await?;
        Ok(if is_reached(&status) { Progress::Reached(status) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

async fn until_settled(migration: &Migration, direction: &str, seq: u64) -> Result<()> {
    until_status(migration, "all settled", |status| status.number(direction, "settled_seq") == seq).await?;
    Ok(())
}

/// Waits for the end of a process that cannot go on, and gives what it said.
async fn refused(migration: &mut Migration, direction: Direction) -> Result<String> {
    migration.expect_lines(&["error: "]);
    let status = migration.process(direction)?.wait(LIMIT).await?;
    let log = std::fs::read_to_string(migration.log(direction))?;
    ensure!(!status.success(), "{} ended well\n{log}", direction.as_str());
    Ok(log)
}

/// What a backup of the files has: the data directory of a server that was stopped in good order.
struct Backup {
    server: &'static Server,
    copy: PathBuf,
}

impl Backup {
    async fn take(server: &'static Server) -> Result<Backup> {
        server.stop().await?;
        let copy = server.data_dir().with_extension("backup");
        copy_folder(&server.data_dir(), &copy)?;
        server.restart().await?;
        Ok(Backup { server, copy })
    }

    /// Puts it back. On a new machine MySQL has an identity of its own.
    async fn restore(self, is_new_machine: bool) -> Result<()> {
        self.server.stop().await?;
        let data = self.server.data_dir();
        std::fs::remove_dir_all(&data)?;
        std::fs::rename(&self.copy, &data)?;
        if is_new_machine {
            std::fs::remove_file(data.join("auto.cnf"))?;
        }
        self.server.restart().await?;
        Ok(())
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(done.success(), "the files could not be copied");
    Ok(())
}

/// The target goes back to a backup while only forward has ever run: it gets what it lacks once more, and what was kept of how
/// messages ended there is replaced.
async fn a_restored_target_is_replayed(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "target_restored", None).await?;
    migration.expect_lines(REPLAYED);
    migration.crossfade(&["stop", "reverse", "--capture"]).await?;
    migration.start(Direction::Forward, &[])?;
    insert(&migration, &migration.old, 1, 20).await?;
    until_settled(&migration, "forward", 20).await?;
    migration.stop(Direction::Forward).await?;
    let backup = Backup::take(migration.servers.new()).await?;
    // The target refuses a row that it will not refuse once it is restored.
    migration.on(&migration.new, &["ALTER TABLE {schema}.t ADD CONSTRAINT refuses CHECK (id <> 30)"]).await?;
    migration.start(Direction::Forward, &[])?;
    insert(&migration, &migration.old, 21, 40).await?;
    migration
        .on(
            &migration.old,
            &["UPDATE {schema}.t SET v = 'changed' WHERE id IN (5, 25)", "DELETE FROM {schema}.t WHERE id = 7"],
        )
        .await?;
    until_settled(&migration, "forward", 43).await?;
    until_status(&migration, "a row refused", |status| status.number("forward", "open_failures") == 1).await?;
    migration.stop(Direction::Forward).await?;
    backup.restore(false).await?;
    insert(&migration, &migration.old, 41, 45).await?;
    migration.start(Direction::Forward, &[])?;
    let status = until_status(&migration, "all applied again", |status| {
        status.number("forward", "settled_seq") == 48 && status.number("forward", "open_failures") == 0
    })
    .await?;
    ensure!(status.number("forward", "last_seq") == 48, "captured twice: {}", status.0);
    let comparison = migration.compare().await?;
    ensure!(comparison.is_equal(), "the sides differ\n{comparison}\n{}", migration.log_ends());
    let log = std::fs::read_to_string(migration.log(Direction::Forward))?;
    ensure!(log.contains("applied once more"), "nobody was told:\n{log}");
    migration.stop(Direction::Forward).await?;
    migration.forget();
    Ok(())
}

/// As if the message table were so many days older up to a message: the days' partitions are there, and its blocks lie in them.
async fn age(migration: &Migration, stream: &str, last_seq: u64, days: u32) -> Result<()> {
    let mut store = migration.old.get_conn().await?;
    for table in ["message_block", "message_large"] {
        let days = [days, 0];
        let names = days.map(|ago| format!("DATE_FORMAT(UTC_DATE() - INTERVAL {ago} DAY, 'p%Y%m%d')"));
        let ends = days.map(|ago| format!("CAST(UTC_DATE() - INTERVAL {ago} DAY + INTERVAL 1 DAY AS CHAR)"));
        let query = format!("SELECT {}, {}, {}, {}", names[0], ends[0], names[1], ends[1]);
        let (before, before_end, today, today_end): (String, String, String, String) =
            store.query_first(query).await?.context("a row")?;
        store
            .query_drop(format!(
                "ALTER TABLE crossfade.{table} REORGANIZE PARTITION {today} INTO (PARTITION {before} VALUES LESS THAN \
                 ('{before_end}'), PARTITION {today} VALUES LESS THAN ('{today_end}'))"
            ))
            .await?;
    }
    let update = "UPDATE crossfade.message_block SET day = UTC_DATE() - INTERVAL ? DAY \
                  WHERE pair = ? AND stream = ? AND last_seq <= ?";
    store.exec_drop(update, (days, &migration.pair, stream, last_seq)).await?;
    ensure!(store.affected_rows() > 0, "no block ends at message {last_seq} or before");
    Ok(())
}

/// The target goes back to before what the message table still holds: nothing is written to it, and the reason is exact.
async fn a_target_from_before_the_retention(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "beyond_retention", None).await?;
    migration.crossfade(&["stop", "reverse", "--capture"]).await?;
    migration.start(Direction::Forward, &[])?;
    insert(&migration, &migration.old, 1, 10).await?;
    until_settled(&migration, "forward", 10).await?;
    migration.stop(Direction::Forward).await?;
    let backup = Backup::take(migration.servers.new()).await?;
    migration.start(Direction::Forward, &[])?;
    insert(&migration, &migration.old, 11, 15).await?;
    until_settled(&migration, "forward", 15).await?;
    insert(&migration, &migration.old, 16, 20).await?;
    until_settled(&migration, "forward", 20).await?;
    migration.stop(Direction::Forward).await?;
    age(&migration, "forward/old", 15, 9).await?;
    let purged = migration.crossfade(&["messages", "purge", "--older-than", "2d"]).await?;
    ensure!(purged.contains("dropped 1 day"), "{purged}");
    backup.restore(false).await?;
    let before = migration.status().read().await?;
    migration.start(Direction::Forward, &[])?;
    let told = refused(&mut migration, Direction::Forward).await?;
    let reason = "the target has lost transactions of forward/old (a restore or a fail-over), and messages 11 to 15 that it \
                  lacks are purged";
    ensure!(told.contains(reason), "{told}");
    ensure!(told.contains("bring the target back to a newer state") && told.contains("`[store] retention`"), "{told}");
    let after = migration.status().read().await?;
    ensure!(before.all("settled_seq") == after.all("settled_seq"), "{} {}", before.0, after.0);
    let forward = after.streams().iter().find(|stream| stream["stream"] == "forward/old").context("no forward")?;
    ensure!(
        forward["state"] == "stopped" && forward["reason"].as_str().is_some_and(|told| told == reason),
        "{forward}"
    );
    let rows: Option<u64> =
        migration.new.get_conn().await?.query_first(format!("SELECT COUNT(*) FROM `{}`.t", migration.schema)).await?;
    ensure!(rows == Some(10), "the target was written to: {rows:?} rows");
    migration.forget();
    Ok(())
}

/// As a replica that was a little behind takes the place of the target: it lacks only what crossfade wrote. Both directions go on.
async fn a_target_that_lost_echoes_only(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "echoes_lost", None).await?;
    migration.expect_lines(REPLAYED);
    migration.start_both().await?;
    insert(&migration, &migration.old, 1, 10).await?;
    insert(&migration, &migration.new, 101, 110).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await?;
    let backup = Backup::take(migration.servers.new()).await?;
    migration.start_both().await?;
    insert(&migration, &migration.old, 11, 20).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await?;
    backup.restore(true).await?;
    // Users of the target are there before crossfade is.
    insert(&migration, &migration.new, 111, 115).await?;
    migration.on(&migration.new, &["UPDATE {schema}.t SET v = 'after the fail-over' WHERE id = 5"]).await?;
    migration.on(&migration.old, &["UPDATE {schema}.t SET v = 'old at the same time' WHERE id = 105"]).await?;
    migration.start_both().await?;
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(status.number("forward", "last_seq") == 21, "forward captured twice, or too little: {}", status.0);
    ensure!(status.number("reverse", "last_seq") == 16, "reverse captured an echo, or too little: {}", status.0);
    migration.stop_both().await
}

/// What users of the target had changed is lost with it, and the other side has it: nobody can say which side is right.
async fn a_target_that_lost_changes_of_users(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "users_lost", None).await?;
    migration.start_both().await?;
    insert(&migration, &migration.old, 1, 5).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await?;
    let backup = Backup::take(migration.servers.new()).await?;
    migration.start_both().await?;
    insert(&migration, &migration.old, 6, 10).await?;
    insert(&migration, &migration.new, 101, 103).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await?;
    backup.restore(flavor == Flavor::MySql).await?;
    let before = migration.status().read().await?;
    migration.start(Direction::Forward, &[])?;
    let told = refused(&mut migration, Direction::Forward).await?;
    ensure!(told.contains("has lost its last transactions") && told.contains("hint:"), "{told}");
    ensure!(flavor != Flavor::MySql || told.contains("3 changes by its users"), "{told}");
    let after = migration.status().read().await?;
    ensure!(before.all("settled_seq") == after.all("settled_seq"), "{} {}", before.0, after.0);
    let state =
        after.streams().iter().find(|stream| stream["stream"] == "forward/old").map(|stream| stream["state"].clone());
    ensure!(state == Some("stopped".into()), "{}", after.0);
    migration.forget();
    Ok(())
}

/// The store goes back to a dump while the target goes on.
async fn a_restored_store_stops_the_streams(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "store_restored", None).await?;
    migration.start_both().await?;
    insert(&migration, &migration.old, 1, 10).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await?;
    let (old, dump) = (migration.servers.old(), migration.folder.join("store.sql"));
    let tables = "message_block message_large outcome failure stream stream_report lease mark journal heartbeat_seen layout \
                  direction canary returned_rows store_version";
    // Numbers of transactions stay out of it: they are the server's, not the store's.
    let numbers = if flavor == Flavor::MySql { "--set-gtid-purged=OFF" } else { "" };
    shell(old, "mysqldump", &format!("--skip-lock-tables {numbers} crossfade {tables} > {}", dump.display()))?;
    migration.start_both().await?;
    insert(&migration, &migration.old, 11, 20).await?;
    insert(&migration, &migration.new, 101, 110).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await?;
    shell(old, "mysql", &format!("crossfade < {}", dump.display()))?;
    for direction in Direction::BOTH {
        migration.start(direction, &[])?;
        let told = refused(&mut migration, direction).await?;
        ensure!(told.contains("beyond the stream's last message"), "{told}");
        ensure!(told.contains("the store is older than the target"), "{told}");
    }
    let comparison = migration.compare().await?;
    ensure!(comparison.is_equal(), "somebody wrote\n{comparison}");
    migration.forget();
    Ok(())
}

/// The client programs of the server, or those of this machine.
fn shell(server: &Server, program: &str, words: &str) -> Result<()> {
    let beside = server.binary().path().with_file_name(program);
    let program = if beside.is_file() { beside } else { PathBuf::from(program) };
    let account = format!("-uroot -h127.0.0.1 -P{} --default-character-set=utf8mb4", server.port());
    let command = format!("{} {account} {words}", program.display());
    let done = Command::new("sh").arg("-c").arg(&command).output()?;
    ensure!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// The store is killed and has lost what it had not written yet, with both processes at work. Whoever misses messages ends; started
/// again, it goes on where none of them was applied, and else stops with the remedy. Nothing is captured twice.
async fn a_store_that_lost_its_last_transactions(flavor: Flavor) -> Result<()> {
    let lazy = Server::builder(flavor).relaxed().option("innodb_flush_log_at_timeout", 20);
    let store: &'static Server = Box::leak(Box::new(lazy.start().await?));
    let mut migration = prepared(flavor, "store_forgets", Some(store)).await?;
    migration.start_both().await?;
    // From here on, commits stay in the server's memory for a while.
    store.connect().await?.query_drop("SET GLOBAL innodb_flush_log_at_trx_commit = 0").await?;
    insert(&migration, &migration.old, 1, 20).await?;
    insert(&migration, &migration.new, 101, 120).await?;
    let before = migration.status().until_quiet(LIMIT).await?;
    migration.expect_lines(AWAY);
    store.kill9().await?;
    insert(&migration, &migration.old, 21, 40).await?;
    insert(&migration, &migration.new, 121, 140).await?;
    store.restart().await?;
    let mut stopped = 0;
    for direction in Direction::BOTH {
        let kept = until_known(&migration, direction).await?;
        if kept >= before.number(direction.as_str(), "last_seq") {
            continue;
        }
        let told = refused(&mut migration, direction).await?;
        ensure!(told.contains("has lost messages") || told.contains("beyond its last message"), "{told}");
        migration.start(direction, &[])?;
        let told = refused(&mut migration, direction).await?;
        ensure!(told.contains("the store is older than the target"), "{told}");
        stopped += 1;
    }
    println!("{flavor:?}: {stopped} directions stopped");
    if stopped > 0 {
        migration.forget();
        return Ok(());
    }
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(
        Direction::BOTH.iter().all(|direction| status.number(direction.as_str(), "last_seq") == 40),
        "{}",
        status.0
    );
    migration.stop_both().await
}

/// What the store knows of a direction once it answers again.
async fn until_known(migration: &Migration, direction: Direction) -> Result<u64> {
    let status = until_status(migration, "the store back", |status| !status.streams().is_empty()).await?;
    Ok(status.number(direction.as_str(), "last_seq"))
}

async fn versions(store: &Pool) -> Result<(u32, u32)> {
    let query = "SELECT major, minor FROM crossfade.store_version";
    store.get_conn().await?.query_first(query).await?.context("a store has a version")
}

/// Neighbouring versions of the store run together, a newer one is refused, and an older one is migrated beside a process at work.
async fn versions_run_together(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "versions", None).await?;
    migration.start_both().await?;
    let (major, minor) = versions(&migration.old).await?;
    let set = |major: u32, minor: u32| format!("UPDATE crossfade.store_version SET major = {major}, minor = {minor}");
    // The next minor version: whoever runs goes on, and so does one that is started again.
    migration.on(&migration.old, &[&set(major, minor + 1)]).await?;
    insert(&migration, &migration.old, 1, 5).await?;
    migration.stop(Direction::Reverse).await?;
    migration.start(Direction::Reverse, &[])?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.init().await?;
    ensure!(versions(&migration.old).await? == (major, minor + 1), "`init` has taken a newer version back");
    // Further away, or the next major version: refused, with a reason, by every command that starts.
    for newer in [(major, minor + 2), (major + 1, 0)] {
        migration.on(&migration.old, &[&set(newer.0, newer.1)]).await?;
        for words in [&["sync", "reverse"][..], &["status"], &["init"]] {
            let (code, _, told) = migration.crossfade_any(words).await?;
            ensure!(
                code == Some(3) && told.contains("does not understand") && told.contains("hint:"),
                "{words:?}: {code:?} {told}"
            );
        }
    }
    // The version before: refused with the way on, and migrated while a process works.
    let before = if minor > 0 { (major, minor - 1) } else { (major - 1, 0) };
    migration.on(&migration.old, &[&set(before.0, before.1)]).await?;
    migration.stop(Direction::Reverse).await?;
    let (code, _, told) = migration.crossfade_any(&["sync", "reverse"]).await?;
    ensure!(code == Some(3) && told.contains("crossfade init"), "{code:?} {told}");
    migration.init().await?;
    ensure!(versions(&migration.old).await? == (major, minor), "not migrated");
    insert(&migration, &migration.old, 6, 10).await?;
    migration.start(Direction::Reverse, &[])?;
    insert(&migration, &migration.new, 101, 105).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// A process with other rules than the one that runs is refused, whatever its direction, and a standby of it too.
async fn different_rules_do_not_run_together(flavor: Flavor) -> Result<()> {
    let mut migration = prepared(flavor, "rules_differ", None).await?;
    migration.start(Direction::Forward, &[])?;
    until_status(&migration, "forward running", |status| {
        status.streams().iter().any(|stream| stream["stream"] == "forward/old" && stream["holder"].is_string())
    })
    .await?;
    let same = std::fs::read_to_string(migration.config())?;
    let other = same.replace("[store]", "[conflict]\nprefer = \"old\"\n\n[store]");
    ensure!(same != other);
    std::fs::write(migration.config(), &other)?;
    for direction in Direction::BOTH {
        let (code, _, told) = migration.crossfade_any(&["sync", direction.as_str()]).await?;
        ensure!(code == Some(3) && told.contains("runs with rules"), "{}: {code:?} {told}", direction.as_str());
        ensure!(told.contains("hint:"), "no way on: {told}");
    }
    std::fs::write(migration.config(), &same)?;
    migration.start(Direction::Reverse, &[])?;
    insert(&migration, &migration.old, 1, 3).await?;
    insert(&migration, &migration.new, 101, 103).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

on_both_brands! {
    p1_p2_a_restored_target_is_replayed => a_restored_target_is_replayed,
    p1_a_target_from_before_the_retention_is_refused => a_target_from_before_the_retention,
    p1_a_target_that_lost_changes_of_users_stops => a_target_that_lost_changes_of_users,
    p2_a_restored_store_stops_the_streams => a_restored_store_stops_the_streams,
    p1_p2_a_store_that_lost_its_last_transactions => a_store_that_lost_its_last_transactions,
    p2_versions_run_together => versions_run_together,
    p4_different_rules_do_not_run_together => different_rules_do_not_run_together,
}

/// MariaDB's positions do not tell which transactions a server has.
#[tokio::test]
async fn p1_p3_a_target_that_lost_echoes_only_on_mysql() -> Result<()> {
    a_target_that_lost_echoes_only(Flavor::MySql).await
}
