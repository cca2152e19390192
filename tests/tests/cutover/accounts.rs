//! Accounts that a side keeps out, while users change sides.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Server, SharedPair};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Flavor, Migration, Monitor, Setup, SideUrls, on_both_brands, says};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fences::limited;
use crate::stage::{LIMIT, change, setup, staged_on, until_flag};

/// An application that knows nothing of the flag, and writes to old as long as it is let in.
struct Stubborn {
    stop: watch::Sender<bool>,
    writing: JoinHandle<Result<Said>>,
}

#[derive(Debug, Default)]
struct Said {
    acknowledged: Vec<i32>,
    /// Neither yes nor no: its session was ended.
    unknown: Vec<i32>,
    refused: u64,
}

impl Stubborn {
    async fn start(server: &Server, schema: &str) -> Result<Stubborn> {
        let (stop, stopped) = watch::channel(false);
        let options = Opts::from_url(&server.url("app", "app"))?;
        let insert = format!("INSERT INTO `{schema}`.item (writer, n, v) VALUES ('stubborn', ?, 0)");
        let mut conn = Some(Conn::new(options.clone()).await?);
        let writing = tokio::spawn(async move {
            let (mut said, mut n) = (Said::default(), 0);
            while !*stopped.borrow() {
                tokio::time::sleep(Duration::from_millis(3)).await;
                if conn.is_none() {
                    match Conn::new(options.clone()).await {
                        Ok(new) => conn = Some(new),
                        Err(_) => said.refused += 1,
                    }
                }
                let Some(open) = &mut conn else { continue };
                match open.exec_drop(&insert, (n,)).await {
                    Ok(()) => said.acknowledged.push(n),
                    Err(_) => {
                        said.unknown.push(n);
                        conn = None;
                    }
                }
                n += 1;
            }
            Ok(said)
        });
        Ok(Stubborn { stop, writing })
    }

    async fn end(self) -> Result<Said> {
        self.stop.send_replace(true);
        self.writing.await?
    }
}

/// Its privileges come from everywhere: the schema, a table, a column, a role.
async fn create_application(server: &Server, schema: &str) -> Result<()> {
    let mut root = server.connect().await?;
    for statement in [
        "CREATE USER app@'127.0.0.1' IDENTIFIED BY 'app'".to_owned(),
        "CREATE ROLE reads_more".to_owned(),
        format!("GRANT SELECT, INSERT ON `{schema}`.* TO app@'127.0.0.1'"),
        format!("GRANT UPDATE (v) ON `{schema}`.item TO app@'127.0.0.1'"),
        format!("GRANT DELETE ON `{schema}`.item TO app@'127.0.0.1' WITH GRANT OPTION"),
        "GRANT reads_more TO app@'127.0.0.1'".to_owned(),
    ] {
        root.query_drop(&statement).await.with_context(|| statement)?;
    }
    Ok(())
}

/// All that the server tells of the account.
async fn described(server: &Server) -> Result<Vec<String>> {
    let mut root = server.connect().await?;
    let mut lines: Vec<String> = root.query("SHOW GRANTS FOR app@'127.0.0.1'").await?;
    let created: Vec<String> = root.query("SHOW CREATE USER app@'127.0.0.1'").await?;
    lines.extend(created);
    Ok(lines)
}

async fn stage(flavor: Flavor, name: &'static str, more: &str) -> Result<Migration> {
    let servers = SharedPair::own(Server::builder(flavor).relaxed()).await?;
    let urls = SideUrls { old: limited(servers.old()).await?, new: limited(servers.new()).await? };
    let settings = format!("fence = \"account\"\naccount = \"app@127.0.0.1\"\n{more}");
    let migration = staged_on(&Setup { urls: Some(urls), ..setup(flavor, name, &settings) }, servers).await?;
    for server in [servers.old(), servers.new()] {
        create_application(server, &migration.schema).await?;
    }
    Ok(migration)
}

/// The gate names what is missing, one after the other.
async fn until_open(migration: &Migration, flavor: Flavor) -> Result<()> {
    let ends = if flavor == Flavor::MySql { "CONNECTION_ADMIN" } else { "CONNECTION ADMIN" };
    for (missing, told) in [
        ("CREATE USER ON *.*", "may not lock accounts on old"),
        (&*format!("{ends} ON *.*"), "may not end the sessions of others on old"),
    ] {
        says(migration, &["cutover", "--dry-run"], 1, &["fence", told, &format!("GRANT {missing} TO")]).await?;
        for server in [migration.servers.old(), migration.servers.new()] {
            let mut root = server.connect().await?;
            root.query_drop(format!("GRANT {missing} TO limited@'127.0.0.1'")).await?;
        }
    }
    let mut root = migration.servers.old().connect().await?;
    root.query_drop("CREATE USER app@'10.%'").await?;
    says(migration, &["cutover", "--dry-run"], 1, &["old has another account of that user, app@10.%"]).await?;
    root.query_drop("DROP USER app@'10.%'").await?;
    root.query_drop("ALTER USER app@'127.0.0.1' ACCOUNT LOCK").await?;
    says(migration, &["cutover", "--dry-run"], 1, &["is locked on old already", "ACCOUNT UNLOCK"]).await?;
    root.query_drop("ALTER USER app@'127.0.0.1' ACCOUNT UNLOCK").await?;
    says(migration, &["cutover", "--dry-run"], 0, &["app@127.0.0.1 can be locked"]).await?;
    Ok(())
}

async fn accounts_are_kept_out(flavor: Flavor) -> Result<()> {
    let mut migration = stage(flavor, "accounts", "end_transactions_after = \"1s\"").await?;
    until_open(&migration, flavor).await?;
    let before = described(migration.servers.old()).await?;
    println!("{flavor:?}: {before:#?}");
    let stubborn = Stubborn::start(migration.servers.old(), &migration.schema).await?;
    // One that has written, and does not commit, is ended, and what it wrote is rolled back.
    let mut open = Conn::new(Opts::from_url(&migration.servers.old().url("app", "app"))?).await?;
    open.query_drop("BEGIN").await?;
    open.query_drop(format!("INSERT INTO `{}`.item (writer, n, v) VALUES ('open', 1, 1)", migration.schema)).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let done = change(&migration, &["cutover"], 0).await?;
    println!("{flavor:?}: the pause by account was {} ms", done["pause_ms"]);
    ensure!(open.query_drop("COMMIT").await.is_err(), "it should have lost its session");
    ensure!(described(migration.servers.old()).await? == before, "the account is not as it was");
    // It is let in again: what it writes late crosses.
    tokio::time::sleep(Duration::from_millis(200)).await;
    change(&migration, &["rollback"], 0).await?;
    change(&migration, &["cutover"], 0).await?;
    let said = stubborn.end().await?;
    println!(
        "{flavor:?}: {} acknowledged, {} refused, {} unknown",
        said.acknowledged.len(),
        said.refused,
        said.unknown.len()
    );
    ensure!(said.refused > 0 && said.acknowledged.len() > 20, "{said:?}");
    ensure!(described(migration.servers.old()).await? == before, "the account is not as it was");
    migration.until_quiet_and_equal(LIMIT).await?;
    for pool in [&migration.old, &migration.new] {
        let mut conn = pool.get_conn().await?;
        let found: Vec<i32> = conn
            .query(format!("SELECT n FROM `{}`.item WHERE writer = 'stubborn' ORDER BY n", migration.schema))
            .await?;
        let lost: Vec<_> = said.acknowledged.iter().filter(|n| !found.contains(n)).collect();
        ensure!(lost.is_empty(), "acknowledged writes are lost: {lost:?}");
        let more: Vec<_> =
            found.iter().filter(|n| !said.acknowledged.contains(n) && !said.unknown.contains(n)).collect();
        ensure!(more.is_empty(), "rows that nobody has written: {more:?}");
    }
    migration.stop_both().await
}

/// The tool dies while an account is locked: the sync processes let it in again.
async fn accounts_that_were_left_locked_are_let_in(flavor: Flavor) -> Result<()> {
    let mut migration = stage(flavor, "left_locked", "timeout = \"5s\"").await?;
    until_open(&migration, flavor).await?;
    migration.expect_lines(&["has died; old takes writes again"]);
    let before = described(migration.servers.old()).await?;
    for point in ["switch-refusing", "switch-drain"] {
        let (code, output) = migration.crossfade_with(&["cutover"], &[("CROSSFADE_FAILPOINT", point)]).await?;
        ensure!(code.is_none(), "{output}");
        if point == "switch-drain" {
            ensure!(described(migration.servers.old()).await? != before, "it should have died later");
        }
        until_flag(&migration, 1).await?;
        until("the account as before", LIMIT, || async {
            let now = described(migration.servers.old()).await?;
            Ok(if now == before { Progress::Reached(()) } else { Progress::NotYet(format!("{now:?}")) })
        })
        .await?;
    }
    // Where the server does not show what is under way, nobody is taken for idle.
    let monitor = Monitor::start(&migration.old).await?;
    let mut pooled = Conn::new(Opts::from_url(&migration.servers.old().url("app", "app"))?).await?;
    let insert = |n| format!("INSERT INTO `{}`.item (writer, n, v) VALUES ('pooled', {n}, 1)", migration.schema);
    pooled.query_drop("BEGIN").await?;
    pooled.query_drop(insert(1)).await?;
    let undone = change(&migration, &["cutover"], 1).await?;
    let reason = undone["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("old did not list its transactions anew"), "{undone:#}");
    monitor.end().await?;
    pooled.query_drop("COMMIT").await.context("its session was ended")?;
    until_flag(&migration, 1).await?;
    // One that commits under the fence, and stays as in a pool, is ended as soon as it has nothing under way.
    pooled.query_drop("BEGIN").await?;
    pooled.query_drop(insert(2)).await?;
    // It commits when the tool has seen it write: when another one, which has nothing under way, is ended.
    let idle = Conn::new(Opts::from_url(&migration.servers.old().url("app", "app"))?).await?;
    let mut root = migration.servers.old().connect().await?;
    let committing = tokio::spawn(async move {
        let is_there = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE id = {}", idle.id());
        while root.query_first(&is_there).await? != Some(0_u64) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        pooled.query_drop("COMMIT").await?;
        anyhow::Ok(pooled)
    });
    let done = change(&migration, &["cutover"], 0).await?;
    ensure!(done["phase"] == "read_new", "{done:#}");
    ensure!(committing.await??.query_drop("SELECT 1").await.is_err(), "it should have lost its session");
    ensure!(described(migration.servers.old()).await? == before);
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

on_both_brands! {
    p9_accounts_are_kept_out => accounts_are_kept_out,
    p9_accounts_that_were_left_locked_are_let_in => accounts_that_were_left_locked_are_let_in,
}
