//! What keeps users from writing, and what happens where it does not in time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Server, SharedPair};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Flavor, Migration, SideUrls, on_both_brands, says};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

use crate::application::{Application, acknowledge, flag};
use crate::stage::{
    LIMIT, THREE, change, conclude, setup, staged, staged_alone, staged_on, until_flag, until_mirrored,
};

/// An account that may do what the migration needs, may set read_only, and may not write in spite of it where that can be told apart.
const LIMITED: &str = "limited";
const PASSWORD: &str = "l1mited";

async fn who_does_not_acknowledge_undoes_it(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "late_instance", "timeout = \"1500ms\"")).await?;
    let application = Application::start(&migration, &THREE).await?;
    let before = flag(&migration).await?;
    acknowledge(&migration.new, &migration.pair, "hanging", before.version, 600_000_000).await?;
    let begun = Instant::now();
    let undone = change(&migration, &["cutover"], 1).await?;
    ensure!(undone["state"] == "undone" && undone["phase"] == "write_both", "{undone:#}");
    let reason = undone["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("hanging had not acknowledged the flag"), "{reason}");
    println!("{flavor:?}: undone {:.1} s after the command", begun.elapsed().as_secs_f64());
    let after = flag(&migration).await?;
    ensure!(after.value == 1 && !after.fenced && after.version > before.version, "{before:?} {after:?}");
    until_mirrored(&migration).await?;

    // One whose time is over is not waited for.
    acknowledge(&migration.new, &migration.pair, "hanging", before.version, 300_000).await?;
    change(&migration, &["cutover"], 0).await?;
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

/// Somebody has written something, and does not commit.
async fn open_transaction(migration: &Migration) -> Result<mysql_async::Conn> {
    let mut conn = migration.old.get_conn().await?;
    conn.query_drop("BEGIN").await?;
    conn.query_drop(format!("INSERT INTO `{}`.item (writer, n, v) VALUES ('open', 1, 1)", migration.schema)).await?;
    Ok(conn)
}

async fn an_open_transaction_is_waited_for(flavor: Flavor) -> Result<()> {
    let mut migration = staged_alone(&setup(flavor, "open_transaction", "timeout = \"2s\"")).await?;
    let application = Application::start(&migration, &THREE).await?;
    let mut conn = open_transaction(&migration).await?;
    let undone = change(&migration, &["cutover"], 1).await?;
    let reason = undone["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("had written something and not committed it"), "{undone:#}");
    until_flag(&migration, 1).await?;

    // It commits under the fence, and crosses.
    let commits = async {
        until("the fence", LIMIT, || async {
            let now = flag(&migration).await?;
            Ok(if now.fenced { Progress::Reached(()) } else { Progress::NotYet(format!("{now:?}")) })
        })
        .await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        conn.query_drop("COMMIT").await?;
        anyhow::Ok(())
    };
    let (done, ()) = tokio::try_join!(change(&migration, &["cutover"], 0), commits)?;
    ensure!(done["pause_ms"].as_u64().is_some_and(|ms| ms >= 300), "{done:#}");
    let mut new = migration.new.get_conn().await?;
    let crossed: Option<u64> =
        new.query_first(format!("SELECT id FROM `{}`.item WHERE writer = 'open'", migration.schema)).await?;
    ensure!(crossed.is_some(), "what was committed under the fence has not crossed");
    drop(new);
    migration.on(&migration.new, &["DELETE FROM {schema}.item WHERE writer = 'open'"]).await?;
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

async fn an_open_transaction_is_ended_if_so_wished(flavor: Flavor) -> Result<()> {
    let mut migration = staged_alone(&setup(flavor, "ended", "end_transactions_after = \"500ms\"")).await?;
    let application = Application::start(&migration, &THREE).await?;
    let mut conn = open_transaction(&migration).await?;
    let done = change(&migration, &["cutover"], 0).await?;
    ensure!(done["pause_ms"].as_u64().is_some_and(|ms| ms >= 500), "{done:#}");
    ensure!(conn.query_drop("COMMIT").await.is_err(), "it should have lost its session");
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

async fn a_transaction_that_only_locks_is_waited_for(flavor: Flavor) -> Result<()> {
    waits_for_one_that_locks(flavor, "locks_first", "FOR UPDATE").await
}

async fn a_transaction_that_only_shares_locks_is_waited_for(flavor: Flavor) -> Result<()> {
    waits_for_one_that_locks(flavor, "shares_first", "LOCK IN SHARE MODE").await
}

/// One that has only locked something so far, and writes under the fence.
async fn waits_for_one_that_locks(flavor: Flavor, name: &'static str, lock: &str) -> Result<()> {
    let mut migration = staged_alone(&setup(flavor, name, "require_instances = false")).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.item (writer, n, v) VALUES ('locked', 1, 1)"]).await?;
    let mut conn = migration.old.get_conn().await?;
    let item = format!("`{}`.item", migration.schema);
    conn.query_drop("BEGIN").await?;
    conn.query_drop(format!("SELECT * FROM {item} WHERE writer = 'locked' {lock}")).await?;
    let commits = async {
        until("the fence", LIMIT, || async {
            let now = flag(&migration).await?;
            Ok(if now.fenced { Progress::Reached(()) } else { Progress::NotYet(format!("{now:?}")) })
        })
        .await?;
        // Long enough to be looked at before and after it writes.
        tokio::time::sleep(Duration::from_millis(500)).await;
        conn.query_drop(format!("UPDATE {item} SET v = 2 WHERE writer = 'locked'")).await?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        conn.query_drop("COMMIT").await?;
        anyhow::Ok(())
    };
    let (done, ()) = tokio::try_join!(change(&migration, &["cutover"], 0), commits)?;
    ensure!(done["pause_ms"].as_u64().is_some_and(|ms| ms >= 1_200), "{done:#}");
    let mut new = migration.new.get_conn().await?;
    let crossed: Option<i32> = new.query_first(format!("SELECT v FROM {item} WHERE writer = 'locked'")).await?;
    ensure!(crossed == Some(2), "what was written under the fence has not crossed before the flip: {crossed:?}");
    drop(new);
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

async fn the_side_itself_refuses_writes(flavor: Flavor) -> Result<()> {
    let (mut migration, application) = read_only_stage(flavor, "read_only").await?;
    let done = change(&migration, &["cutover"], 0).await?;
    ensure!(
        done["steps"].as_array().is_some_and(|steps| steps.iter().any(|step| step["step"] == "refuse")),
        "{done:#}"
    );
    println!("{flavor:?}: the pause by read_only was {} ms", done["pause_ms"]);
    ensure!(!is_read_only(&migration.old).await?, "old is still read-only");
    if flavor == Flavor::MySql {
        // The store is on new, where the account could not write either.
        says(&migration, &["rollback", "--dry-run"], 1, &["fence", "CONNECTION_ADMIN"]).await?;
    }
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

/// The tool dies while old is read-only: the sync processes let it take writes again.
async fn a_side_that_was_left_read_only_is_released(flavor: Flavor) -> Result<()> {
    let (mut migration, application) = read_only_stage(flavor, "left_read_only").await?;
    migration.expect_lines(&["has died; old takes writes again"]);
    let (code, output) = migration.crossfade_with(&["cutover"], &[("CROSSFADE_FAILPOINT", "switch-drain")]).await?;
    ensure!(code.is_none(), "{output}");
    ensure!(is_read_only(&migration.old).await?, "it should have died later");
    until("old writable again", LIMIT, || async {
        let refuses = is_read_only(&migration.old).await?;
        Ok(if refuses { Progress::NotYet("read-only".to_owned()) } else { Progress::Reached(()) })
    })
    .await?;
    until_flag(&migration, 1).await?;
    let done = change(&migration, &["cutover"], 0).await?;
    ensure!(done["phase"] == "read_new", "{done:#}");
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

/// It is frozen where it has yet to look whether its cutover goes on, and where it has looked: others undo it meanwhile.
async fn a_tool_that_wakes_up_late_refuses_nothing(flavor: Flavor) -> Result<()> {
    let (mut migration, application) = read_only_stage(flavor, "late_tool").await?;
    migration.expect_lines(&["has died; old takes writes again", "error: "]);
    for point in ["switch-refuse:1:stop", "switch-refusing:1:stop"] {
        let mut tool = migration.tool("late", &["cutover"], &[("CROSSFADE_FAILPOINT", point)])?;
        tool.until_frozen(LIMIT).await?;
        until("somebody who undoes it", LIMIT, || async {
            let mut conn = migration.new.get_conn().await?;
            let question = "SELECT memory FROM crossfade.switch_run WHERE pair = ? ORDER BY id DESC LIMIT 1";
            let memory: Option<String> = conn.exec_first(question, (&migration.pair,)).await?;
            let memory = memory.unwrap_or_default();
            let undone = memory.contains("\"refuses\":null") && memory.contains("\"fenced_from\":");
            Ok(if undone { Progress::Reached(()) } else { Progress::NotYet(memory) })
        })
        .await?;
        tool.resume()?;
        let status = tool.wait(LIMIT).await?;
        ensure!(!status.success(), "{point}: {status}");
        ensure!(!is_read_only(&migration.old).await?, "{point}: old was set read-only by one that had been undone");
    }
    change(&migration, &["cutover"], 0).await?;
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

async fn read_only_stage(flavor: Flavor, name: &'static str) -> Result<(Migration, Application)> {
    let servers = SharedPair::own(Server::builder(flavor).relaxed()).await?;
    let urls = SideUrls { old: limited(servers.old()).await?, new: limited(servers.new()).await? };
    let setup = setup(flavor, name, "fence = \"read_only\"\ntimeout = \"3s\"");
    let setup = crossfade_tests::Setup { urls: Some(urls), ..setup };
    let migration = staged_on(&setup, servers).await?;
    migration.expect_lines(READ_ONLY);
    let application = Application::start(&migration, &THREE).await?;
    Ok((migration, application))
}

/// Old takes nothing for a moment, not even what reverse applies.
pub const READ_ONLY: &[&str] = &[
    "applying failed; trying again",
    "the heartbeat on the target failed; trying again",
    "old tombstones could not be purged",
    "the target cannot be read; trying again",
];

/// As `check` asks for, and no more than `[cutover]` says.
pub async fn limited(server: &Server) -> Result<String> {
    let mut conn = server.connect().await?;
    let account = format!("{LIMITED}@'127.0.0.1'");
    conn.query_drop(format!("CREATE USER {account} IDENTIFIED BY '{PASSWORD}'")).await?;
    let rights = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, TRIGGER, CREATE VIEW, SHOW VIEW, \
                  PROCESS, REPLICATION SLAVE, REPLICATION CLIENT";
    conn.query_drop(format!("GRANT {rights} ON *.* TO {account}")).await?;
    let more = match server.flavor() {
        Flavor::MySql => "SYSTEM_VARIABLES_ADMIN, XA_RECOVER_ADMIN",
        Flavor::MariaDb => "READ_ONLY ADMIN",
    };
    conn.query_drop(format!("GRANT {more} ON *.* TO {account}")).await?;
    conn.disconnect().await?;
    Ok(server.url(LIMITED, PASSWORD))
}

async fn is_read_only(pool: &Pool) -> Result<bool> {
    let mut conn = pool.get_conn().await?;
    conn.query_first("SELECT @@GLOBAL.read_only").await?.context("no answer")
}

on_both_brands! {
    p9_who_does_not_acknowledge_undoes_it => who_does_not_acknowledge_undoes_it,
    p9_an_open_transaction_is_waited_for => an_open_transaction_is_waited_for,
    p9_an_open_transaction_is_ended_if_so_wished => an_open_transaction_is_ended_if_so_wished,
    p9_the_side_itself_refuses_writes => the_side_itself_refuses_writes,
    p9_a_side_that_was_left_read_only_is_released => a_side_that_was_left_read_only_is_released,
    p9_a_transaction_that_only_locks_is_waited_for => a_transaction_that_only_locks_is_waited_for,
    p9_a_transaction_that_only_shares_locks_is_waited_for => a_transaction_that_only_shares_locks_is_waited_for,
    p9_a_tool_that_wakes_up_late_refuses_nothing => a_tool_that_wakes_up_late_refuses_nothing,
}
