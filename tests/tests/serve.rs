//! P7: over HTTP nothing is ready while it stands, waits or is retried, and the numbers are those of `status`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::process::Process;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Migration, Setup, binary};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(60);

const CREATE: &str = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v INT, \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";

struct Served {
    process: Process,
    address: String,
}

impl Served {
    async fn start(migration: &Migration) -> Result<Served> {
        let log = migration.folder.join("serve.log.txt");
        let config = migration.config().to_string_lossy().into_owned();
        let words = ["--config", &config, "serve", "--listen", "127.0.0.1:0"].map(str::to_owned);
        let process = Process::start(&binary(), &words, &[], &log)?;
        let address = until("an address", LIMIT, || async {
            let told = std::fs::read_to_string(&log).unwrap_or_default();
            let address = told.split_once("http://").and_then(|(_, rest)| rest.split_once(": /healthz"));
            Ok(match address {
                Some((address, _)) => Progress::Reached(address.to_owned()),
                None => Progress::NotYet(told),
            })
        })
        .await?;
        Ok(Served { process, address })
    }

    /// Code and body.
    async fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut connection = TcpStream::connect(&self.address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        let code = head.split(' ').nth(1).context("no code")?.parse()?;
        Ok((code, body.to_owned()))
    }

    async fn until(&self, path: &str, code: u16, part: &str) -> Result<()> {
        until(part, LIMIT, || async {
            let (found, body) = self.get(path).await?;
            let reached = found == code && body.contains(part);
            Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(format!("{found}: {body}")) })
        })
        .await
        .with_context(|| format!("{path} does not become {code}"))
    }
}

async fn only_what_runs_is_ready(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "serve")).await?;
    migration.on_both(&[CREATE]).await?;
    migration.init().await?;
    let mut served = Served::start(&migration).await?;
    served.until("/readyz", 503, "\"ready\":false").await?;
    migration.start_both().await?;
    served.until("/readyz", 200, "\"ready\":true").await?;

    // Both sides write one row at once.
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (1, 1)"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    served.until("/readyz", 503, "\"state\":\"paused\"").await?;
    migration.on(&migration.old, &["UPDATE {schema}.t SET v = 2"]).await?;
    migration.on(&migration.new, &["UPDATE {schema}.t SET v = 3"]).await?;
    migration.go_on(&Direction::BOTH).await?;
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(status.total("conflicts_lost") == 1, "{}", status.0);
    served.until("/readyz", 200, "\"ready\":true").await?;
    let lost = format!("{{stream=\"forward/old\",table=\"{}.t\",outcome=\"lost\"}} 1", migration.schema);
    served.until("/metrics", 200, &format!("crossfade_conflicts_total{lost}")).await?;
    served.until("/v1/status", 200, "\"last_seq\":2").await?;

    // A direction whose process is dead is not ready; the other one is.
    migration.expect_lines(KILLED);
    migration.process(Direction::Reverse)?.kill9().await?;
    served.until("/readyz", 503, "died without a word").await?;
    served.until("/readyz?direction=forward", 200, "\"ready\":true").await?;
    migration.stop(Direction::Forward).await?;
    served.until("/readyz?direction=forward", 503, "\"state\":\"stopped\"").await?;
    served.process.terminate()?;
    ensure!(served.process.wait(LIMIT).await?.success(), "serve did not end well");
    migration.forget();
    Ok(())
}

#[tokio::test]
async fn p7_only_what_runs_is_ready_on_mysql() -> Result<()> {
    only_what_runs_is_ready(Flavor::MySql).await
}

#[tokio::test]
async fn p7_only_what_runs_is_ready_on_mariadb() -> Result<()> {
    only_what_runs_is_ready(Flavor::MariaDb).await
}
