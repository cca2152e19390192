//! Users of both sides, and the books about what they did: what was acknowledged must be there, once, and come from users alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Server;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::stage::{LIMIT, Stage};

const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";
const HOT_ROWS: u64 = 20;
/// Between two transactions of one user.
const PACE: Duration = Duration::from_millis(8);

/// Users of one side write to a table of their own, and to rows that both sides' users change.
pub fn tables() -> Vec<String> {
    let own =
        |side| format!("CREATE TABLE {{schema}}.of_{side} (id BIGINT PRIMARY KEY, v VARCHAR(40) NOT NULL, {CLOCK})");
    let rows: Vec<String> = (1..=HOT_ROWS).map(|id| format!("({id}, 'x', '2020-01-01')")).collect();
    vec![
        own("old"),
        own("new"),
        format!("CREATE TABLE {{schema}}.hot (id BIGINT PRIMARY KEY, v VARCHAR(40) NOT NULL, {CLOCK})"),
        format!("INSERT INTO {{schema}}.hot VALUES {}", rows.join(",")),
    ]
}

/// A user at work. Goes on at another server when told to.
pub struct User {
    side: &'static str,
    server: watch::Sender<String>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<BTreeSet<u64>>,
    acknowledged: watch::Receiver<u64>,
}

impl User {
    pub fn start(side: &'static str, schema: &str, server: &Server) -> User {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, url) = watch::channel(server.root_url());
        let (count, acknowledged) = watch::channel(0);
        let task = tokio::spawn(work(side, schema.to_owned(), url, stop.clone(), count));
        User { side, server: sender, stop, task, acknowledged }
    }

    pub fn goes_to(&self, server: &Server) {
        self.server.send_replace(server.root_url());
    }

    /// Waits until so many more transactions are acknowledged.
    pub async fn until_wrote(&mut self, more: u64) -> Result<()> {
        let until = *self.acknowledged.borrow() + more;
        let wrote = tokio::time::timeout(LIMIT, self.acknowledged.wait_for(|count| *count >= until)).await;
        wrote.with_context(|| format!("users of {} do not get on", self.side))?.context("the user has ended")?;
        Ok(())
    }

    pub async fn stop(self) -> Result<(&'static str, BTreeSet<u64>)> {
        self.stop.store(true, Ordering::Relaxed);
        Ok((self.side, self.task.await.context("a user panicked")?))
    }
}

async fn work(
    side: &'static str,
    schema: String,
    url: watch::Receiver<String>,
    stop: Arc<AtomicBool>,
    count: watch::Sender<u64>,
) -> BTreeSet<u64> {
    let mut acknowledged = BTreeSet::new();
    let mut connection: Option<(String, Conn)> = None;
    let mut id = 0;
    while !stop.load(Ordering::Relaxed) {
        id += 1;
        let now = url.borrow().clone();
        if connection.as_ref().is_none_or(|(at, _)| *at != now) {
            let opened = async { Conn::new(Opts::from_url(&now).ok()?).await.ok() };
            connection = opened.await.map(|conn| (now, conn));
        }
        if let Some((_, conn)) = &mut connection {
            match transaction(conn, side, &schema, id).await {
                Ok(()) => {
                    acknowledged.insert(id);
                    count.send_replace(acknowledged.len() as u64);
                }
                // A deadlock with the applier has an end; after anything else nobody knows.
                Err(mysql_async::Error::Server(error)) if [1213, 1205, 1020].contains(&error.code) => {
                    conn.query_drop("ROLLBACK").await.ok();
                }
                Err(_) => connection = None,
            }
        }
        tokio::time::sleep(PACE).await;
    }
    acknowledged
}

async fn transaction(conn: &mut Conn, side: &str, schema: &str, id: u64) -> Result<(), mysql_async::Error> {
    conn.query_drop("BEGIN").await?;
    conn.query_drop(format!("INSERT INTO `{schema}`.of_{side} (id, v) VALUES ({id}, 'row {id}')")).await?;
    let hot = 1 + id * 7 % HOT_ROWS;
    conn.query_drop(format!("UPDATE `{schema}`.hot SET v = '{side} {id}' WHERE id = {hot}")).await?;
    conn.query_drop("COMMIT").await
}

/// Both sides are equal; everything that was acknowledged is there; each row was captured once, where users wrote it.
pub async fn settle(stage: &Stage, users: Vec<User>) -> Result<()> {
    let mut written = Vec::new();
    for user in users {
        written.push(user.stop().await?);
    }
    let (status, comparison) = stage.migration.until_quiet_and_equal(LIMIT).await?;
    let schema = &stage.migration.schema;
    let (mut there, mut lost) = (0, 0);
    for (side, acknowledged) in &written {
        let rows: BTreeSet<u64> =
            column(stage, &format!("SELECT id FROM `{schema}`.of_{side}")).await?.into_iter().collect();
        let missing: Vec<&u64> = acknowledged.difference(&rows).collect();
        lost += missing.len();
        ensure!(missing.is_empty(), "{side}: {} acknowledged rows are lost: {missing:?}", missing.len());
        let stream = if *side == "old" { "forward/old" } else { "reverse/new" };
        // As many messages as rows, each of which came by a message: none came twice.
        let captured = format!(
            "SELECT COUNT(*), CAST(SUM(stream = '{stream}') AS UNSIGNED) FROM crossfade.message \
             WHERE pair = '{}' AND table_name = 'of_{side}'",
            stage.migration.pair
        );
        let counts: Option<(usize, usize)> = stage.migration.new.get_conn().await?.query_first(captured).await?;
        ensure!(
            counts == Some((rows.len(), rows.len())),
            "{side}: {} rows; messages, and those of its users: {counts:?}",
            rows.len()
        );
        there += rows.len();
    }
    ensure!(status.total("open_failures") == 0, "rows were parked: {}", status.0);
    println!(
        "{:?}: {there} rows of users, lost {lost}, doubled 0, echoed 0 ({} echoes recognised), {} rows equal",
        stage.migration.servers.flavor(),
        status.total("echoes"),
        comparison.rows_compared()
    );
    Ok(())
}

async fn column(stage: &Stage, question: &str) -> Result<Vec<u64>> {
    Ok(stage.migration.new.get_conn().await?.query(question).await?)
}
