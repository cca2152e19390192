//! A migration of which one side has a replica.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, ServerBuilder, SharedPair};
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_testkit::sql;
use crossfade_tests::lines::{AWAY, MOVED};
use crossfade_tests::{Direction, Migration, Setup, account_url};
use mysql_async::prelude::{FromRow, Queryable};
use serde_json::Value;

pub const LIMIT: Duration = Duration::from_secs(60);

/// How the servers of the side with the replica are named in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// `urls`, the replica first.
    ReplicaFirst,
    /// `urls`, the primary first.
    PrimaryFirst,
    /// `url` is the primary, `binlog_url` the replica.
    BinlogUrl,
    /// `urls` of the new side, the replica first. The store is there, too.
    OnNew,
}

pub struct Stage {
    pub migration: Migration,
    pub replica: Server,
    named: Named,
}

impl Stage {
    /// Servers made alike but for the options of the primary and of its replica; the tables are `{schema}.…`
    /// statements for both sides.
    pub async fn new(
        name: &'static str,
        servers: ServerBuilder,
        of_primary: &[(&str, &str)],
        replica: ServerBuilder,
        named: Named,
        tables: &[&str],
    ) -> Result<Stage> {
        let pair = SharedPair::own(servers).await?;
        let followed = if named == Named::OnNew { pair.new() } else { pair.old() };
        if !of_primary.is_empty() {
            followed.restart_with(of_primary).await?;
        }
        let replica = replica.start().await?;
        replica.follow(followed).await?;
        let setup =
            Setup { settings: "[apply]\ncanary_every = \"1s\"\n".to_owned(), ..Setup::new(pair.flavor(), name) };
        let migration = Migration::on_servers(&setup, pair).await?;
        migration.expect_lines(AWAY);
        migration.expect_lines(MOVED);
        let (primary, other) = (account_url(followed), account_url(&replica));
        let url = format!("url = \"{primary}\"\n");
        let configuration = std::fs::read_to_string(migration.config())?;
        ensure!(configuration.contains(&url), "{configuration}");
        let instead = match named {
            Named::ReplicaFirst | Named::OnNew => format!("urls = [\"{other}\", \"{primary}\"]\n"),
            Named::PrimaryFirst => format!("urls = [\"{primary}\", \"{other}\"]\n"),
            Named::BinlogUrl => format!("{url}binlog_url = \"{other}\"\n"),
        };
        std::fs::write(migration.config(), configuration.replace(&url, &instead))?;
        migration.on_both(tables).await?;
        replica.until_followed(followed).await?;
        migration.init().await?;
        Ok(Stage { migration, replica, named })
    }

    /// The server that the replica follows at first.
    pub fn primary(&self) -> &'static Server {
        match self.named {
            Named::OnNew => self.migration.servers.new(),
            _ => self.migration.servers.old(),
        }
    }

    /// The replica takes the primary's place, for the migration's users too.
    pub async fn promote(&mut self) -> Result<()> {
        self.replica.promote().await?;
        let pool = sql::pool(&self.replica.root_url(), 12)?;
        match self.named {
            Named::OnNew => self.migration.new = pool,
            _ => self.migration.old = pool,
        }
        Ok(())
    }

    pub async fn until_status(&self, what: &str, is_reached: impl Fn(&Status) -> bool) -> Result<Status> {
        until(what, LIMIT, || async {
            let status = self.migration.status().read().await?;
            Ok(if is_reached(&status) { Progress::Reached(status) } else { Progress::NotYet(status.0.to_string()) })
        })
        .await
        .with_context(|| self.migration.log_ends())
    }

    /// Waits until a direction's process has ended with an error, and returns what `status` says of it.
    pub async fn until_stopped(&mut self, direction: Direction) -> Result<String> {
        self.migration.expect_lines(&["error: "]);
        let ended = self.migration.process(direction)?.wait(LIMIT).await?;
        ensure!(!ended.success(), "{} ended well\n{}", direction.as_str(), self.migration.log_ends());
        let status = self.until_status("stopped", |status| stream(status, direction)["state"] == "stopped").await?;
        Ok(stream(&status, direction)["reason"].as_str().unwrap_or_default().to_owned())
    }
}

pub fn builder(flavor: Flavor) -> ServerBuilder {
    Server::builder(flavor).relaxed()
}

pub fn stream(status: &Status, direction: Direction) -> &Value {
    let prefix = format!("{}/", direction.as_str());
    let is_its = |stream: &&Value| stream["stream"].as_str().is_some_and(|name| name.starts_with(&prefix));
    status.streams().iter().find(is_its).unwrap_or(&Value::Null)
}

pub async fn ask<T: FromRow + Send + 'static>(server: &Server, question: &str) -> Result<T> {
    let mut conn = server.connect().await?;
    let answer = conn.query_first(question).await.with_context(|| format!("cannot ask: {question}"))?;
    answer.with_context(|| format!("no answer: {question}"))
}

pub async fn run(server: &Server, statements: &[&str]) -> Result<()> {
    let mut conn = server.connect().await?;
    for statement in statements {
        conn.query_drop(*statement).await.with_context(|| format!("cannot run: {statement}"))?;
    }
    Ok(())
}
