//! `crossfade serve` of a migration.

use std::time::Duration;

use anyhow::{Context, Result};
use crossfade_testkit::process::Process;
use crossfade_testkit::quiet::{Progress, until};

use crate::Migration;
use crate::http::{Answer, HttpClient};

const LIMIT: Duration = Duration::from_secs(60);

/// Dropping it kills the process.
pub struct Served {
    pub process: Process,
    pub address: String,
}

impl Served {
    /// At a port that is free.
    pub async fn start(migration: &Migration) -> Result<Served> {
        Served::start_at(migration, "127.0.0.1:0").await
    }

    /// Returns when it answers.
    pub async fn start_at(migration: &Migration, listen: &str) -> Result<Served> {
        let process = migration.tool("serve", &["serve", "--listen", listen], &[])?;
        let log = process.log().to_owned();
        let address = until("an address", LIMIT, || async {
            let told = std::fs::read_to_string(&log).unwrap_or_default();
            // One that was killed has told its own before.
            let address = told.rsplit_once("http://").and_then(|(_, rest)| rest.split_once(": /healthz"));
            let Some((address, _)) = address else { return Ok(Progress::NotYet(told)) };
            let answers = HttpClient::new(address).ask("GET", "/healthz", "").await.is_ok();
            Ok(if answers { Progress::Reached(address.to_owned()) } else { Progress::NotYet(told.clone()) })
        })
        .await?;
        Ok(Served { process, address })
    }

    /// As the client crate takes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.ask("GET", path, "").await
    }

    pub async fn ask(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        Ok(HttpClient::new(&self.address).ask(method, path, body).await?)
    }

    /// Waits for an answer with this code, and this part in its body.
    pub async fn until(&self, path: &str, code: u16, part: &str) -> Result<()> {
        until(part, LIMIT, || async {
            let answer = self.get(path).await?;
            let reached = answer.code == code && answer.body.contains(part);
            Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(format!("{answer:?}")) })
        })
        .await
        .with_context(|| format!("{path} does not become {code}"))
    }
}
