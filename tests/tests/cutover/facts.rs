//! What the fence by `read_only` relies on, asked of the servers themselves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::Server;
use crossfade_tests::{Flavor, on_both_brands};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};

/// ER_OPTION_PREVENTS_STATEMENT
const READ_ONLY: u16 = 1290;
/// ER_LOCK_WAIT_TIMEOUT
const LOCK_WAIT: u16 = 1205;

async fn user(server: &Server) -> Result<Conn> {
    let mut root = server.connect().await?;
    root.query_drop("CREATE USER IF NOT EXISTS app@'127.0.0.1' IDENTIFIED BY 'app'").await?;
    root.query_drop("CREATE DATABASE IF NOT EXISTS app").await?;
    root.query_drop("CREATE TABLE IF NOT EXISTS app.t (id INT PRIMARY KEY) ENGINE = InnoDB").await?;
    root.query_drop("GRANT ALL ON app.* TO app@'127.0.0.1'").await?;
    root.disconnect().await?;
    Ok(Conn::new(Opts::from_url(&server.url("app", "app"))?).await?)
}

fn code(result: Result<(), mysql_async::Error>) -> Option<u16> {
    match result {
        Err(mysql_async::Error::Server(error)) => Some(error.code),
        _ => None,
    }
}

/// It is not waited for, and what it has written is never committed.
async fn a_transaction_that_is_open_cannot_commit_any_more(flavor: Flavor) -> Result<()> {
    let server = Server::builder(flavor).relaxed().start().await?;
    let (mut open, mut root) = (user(&server).await?, server.connect().await?);
    open.query_drop("BEGIN").await?;
    open.query_drop("INSERT INTO app.t VALUES (1)").await?;
    let asked = Instant::now();
    root.query_drop("SET GLOBAL read_only = 1").await?;
    println!("{flavor:?}: set after {:?} beside an open transaction", asked.elapsed());
    ensure!(asked.elapsed() < Duration::from_secs(5));
    ensure!(code(open.query_drop("COMMIT").await) == Some(READ_ONLY), "it was committed");
    root.query_drop("SET GLOBAL read_only = 0").await?;
    let rows: u64 = root.query_first("SELECT COUNT(*) FROM app.t").await?.context("no count")?;
    ensure!(rows == 0, "{rows} rows");
    Ok(())
}

/// It is waited for as long as the session waits for locks, and then nothing is set, also later.
async fn a_locked_table_is_waited_for_and_no_longer(flavor: Flavor) -> Result<()> {
    let server = Server::builder(flavor).relaxed().start().await?;
    let (mut locks, mut root) = (user(&server).await?, server.connect().await?);
    locks.query_drop("LOCK TABLES app.t WRITE").await?;
    root.query_drop("SET SESSION lock_wait_timeout = 1").await?;
    let asked = Instant::now();
    let found = code(root.query_drop("SET GLOBAL read_only = 1").await);
    println!("{flavor:?}: {found:?} after {:?} beside a locked table", asked.elapsed());
    ensure!(found == Some(LOCK_WAIT) && asked.elapsed() < Duration::from_secs(8), "{found:?}");
    locks.query_drop("UNLOCK TABLES").await?;
    let refuses: bool = root.query_first("SELECT @@GLOBAL.read_only").await?.context("no answer")?;
    ensure!(!refuses, "it was set all the same");
    Ok(())
}

/// By which a session that is about to set it is known, and ended.
async fn a_session_that_waits_to_set_it_shows_its_statement(flavor: Flavor) -> Result<()> {
    let server = Server::builder(flavor).relaxed().start().await?;
    let (mut locks, mut root) = (user(&server).await?, server.connect().await?);
    locks.query_drop("LOCK TABLES app.t WRITE").await?;
    let mut waits = server.connect().await?;
    let setting = tokio::spawn(async move { code(waits.query_drop("SET GLOBAL read_only = 1 /* crossfade */").await) });
    let session = loop {
        let listed: Vec<mysql_async::Row> = root.query("SHOW FULL PROCESSLIST").await?;
        let sets = |row: &&mysql_async::Row| {
            let text = row.get_opt::<String, _>("Info").and_then(Result::ok);
            text.as_deref() == Some("SET GLOBAL read_only = 1 /* crossfade */")
        };
        match listed.iter().find(sets).and_then(|row| row.get::<u64, _>(0)) {
            Some(session) => break session,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    root.query_drop(format!("KILL {session}")).await?;
    // Its client hears of it sooner than it gives up its wait: on MariaDB it then still gets the lock, if that is free.
    ensure!(setting.await?.is_none());
    while sessions(&mut root).await?.contains(&session) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    locks.query_drop("UNLOCK TABLES").await?;
    let refuses: bool = root.query_first("SELECT @@GLOBAL.read_only").await?.context("no answer")?;
    ensure!(!refuses, "it was set all the same");
    Ok(())
}

async fn sessions(conn: &mut Conn) -> Result<Vec<u64>> {
    let listed: Vec<mysql_async::Row> = conn.query("SHOW FULL PROCESSLIST").await?;
    Ok(listed.iter().filter_map(|row| row.get(0)).collect())
}

on_both_brands! {
    a_transaction_that_is_open_cannot_commit => a_transaction_that_is_open_cannot_commit_any_more,
    a_locked_table_is_waited_for => a_locked_table_is_waited_for_and_no_longer,
    a_session_that_waits_shows_its_statement => a_session_that_waits_to_set_it_shows_its_statement,
}
