//! What fences by `read_only` and by account rely on, asked of the servers themselves.

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
async fn a_session_that_waits_to_set_it_has_its_lock_to_its_end(flavor: Flavor) -> Result<()> {
    let server = Server::builder(flavor).relaxed().start().await?;
    let (mut locks, mut root) = (user(&server).await?, server.connect().await?);
    locks.query_drop("LOCK TABLES app.t WRITE").await?;
    let mut waits = server.connect().await?;
    waits.query_drop("DO GET_LOCK('guard', 0)").await?;
    let setting = tokio::spawn(async move { code(waits.query_drop("SET GLOBAL read_only = 1").await) });
    let is_used = "SELECT IS_USED_LOCK('guard')";
    let session: Option<Option<u64>> = root.query_first(is_used).await?;
    let session = session.flatten().context("nobody has the lock")?;
    let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE id = ? AND info LIKE 'SET GLOBAL%'";
    while root.exec_first::<u64, _, _>(waiting, (session,)).await? != Some(1) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    root.query_drop(format!("KILL {session}")).await?;
    // Its client hears of it sooner than it gives up its wait: on MariaDB it then still gets the lock, if that is free.
    ensure!(setting.await?.is_none());
    while root.query_first::<Option<u64>, _>(is_used).await?.flatten().is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    locks.query_drop("UNLOCK TABLES").await?;
    let refuses: bool = root.query_first("SELECT @@GLOBAL.read_only").await?.context("no answer")?;
    ensure!(!refuses, "it was set all the same");
    Ok(())
}

/// So their end is needed in any case; and a lock keeps nobody out who is in.
async fn a_session_keeps_what_its_schema_gave_it(flavor: Flavor) -> Result<()> {
    let server = Server::builder(flavor).relaxed().start().await?;
    let (mut inside, mut root) = (user(&server).await?, server.connect().await?);
    inside.query_drop("USE app").await?;
    root.query_drop("REVOKE INSERT ON app.* FROM app@'127.0.0.1'").await?;
    let after_revoke = code(inside.query_drop("INSERT INTO t VALUES (1)").await);
    println!("{flavor:?}: an insert after REVOKE ends with {after_revoke:?}");
    ensure!(after_revoke.is_none(), "it has lost its privilege: {after_revoke:?}");
    root.query_drop("ALTER USER app@'127.0.0.1' ACCOUNT LOCK").await?;
    inside.query_drop("INSERT INTO t VALUES (2)").await?;
    let refused = Conn::new(Opts::from_url(&server.url("app", "app"))?).await;
    let code = code(refused.map(|_| ()));
    // ER_ACCOUNT_HAS_BEEN_LOCKED of each brand.
    ensure!(code == Some(if flavor == Flavor::MySql { 3118 } else { 4151 }), "{code:?}");
    root.query_drop("ALTER USER IF EXISTS app@'127.0.0.1' ACCOUNT UNLOCK").await?;
    drop(Conn::new(Opts::from_url(&server.url("app", "app"))?).await?);
    Ok(())
}

on_both_brands! {
    a_transaction_that_is_open_cannot_commit => a_transaction_that_is_open_cannot_commit_any_more,
    a_locked_table_is_waited_for => a_locked_table_is_waited_for_and_no_longer,
    a_session_that_waits_has_its_lock_to_its_end => a_session_that_waits_to_set_it_has_its_lock_to_its_end,
    a_session_keeps_what_its_schema_gave => a_session_keeps_what_its_schema_gave_it,
}
