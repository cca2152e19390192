//! A migration that is about to be cut over.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Server, SharedPair};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::lines::AWAY;
use crossfade_tests::{Direction, Flavor, Migration, Setup, json};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use serde_json::Value;

use crate::application::{Application, Ledger, Shape, TABLE, flag, has_all};

pub const LIMIT: Duration = Duration::from_secs(60);

/// 3 instances that write 500 times a second together.
pub const THREE: Shape = Shape { name: "web", instances: 3, writers: 4, rate: 500.0 };

/// `cutover` is what the test wants in `[cutover]`. How far a direction may be behind is of interest only where that is tested: a
/// machine that does much else is late.
pub fn setup(flavor: Flavor, name: &'static str, cutover: &str) -> Setup {
    let lag = if cutover.contains("max_lag") { "" } else { "max_lag = \"20s\"\n" };
    Setup { settings: format!("[cutover]\n{lag}{cutover}\n"), ..Setup::new(flavor, name) }
}

/// Both processes run, both sides are compared, and the phase is write_both.
pub async fn staged(setup: &Setup) -> Result<Migration> {
    begin(Migration::new(setup).await?).await
}

pub async fn staged_on(setup: &Setup, servers: &'static SharedPair) -> Result<Migration> {
    begin(Migration::on_servers(setup, servers).await?).await
}

async fn begin(mut migration: Migration) -> Result<Migration> {
    migration.on_both(&[TABLE]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.crossfade(&["verify"]).await?;
    migration.crossfade(&["flag", "set", "write_both"]).await?;
    Ok(migration)
}

/// What a command that changes sides reports, and that it ended with this code.
pub async fn change(migration: &Migration, words: &[&str], code: i32) -> Result<Value> {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    let (found, report) = json(migration, &words).await?;
    ensure!(found == Some(code), "`{}` ended with {found:?}: {report:#}\n{}", words.join(" "), migration.log_ends());
    Ok(report)
}

/// Waits until the store says this phase to users who may write.
pub async fn until_flag(migration: &Migration, value: u8) -> Result<()> {
    until("the flag", LIMIT, || async {
        let now = flag(migration).await?;
        let is_there = now.value == value && !now.fenced;
        Ok(if is_there { Progress::Reached(()) } else { Progress::NotYet(format!("{now:?}")) })
    })
    .await
}

/// The flag on a side's node: version, value, fenced.
pub async fn mirrored(migration: &Migration, pool: &Pool) -> Result<Option<(u64, u8, bool)>> {
    let mut conn = pool.get_conn().await?;
    let question = "SELECT version, flag, fenced FROM crossfade.flag WHERE pair = ?";
    Ok(conn.exec_first(question, (&migration.pair,)).await?)
}

/// Both nodes say what the store says.
pub async fn until_mirrored(migration: &Migration) -> Result<()> {
    until("the flag on both nodes", LIMIT, || async {
        let now = flag(migration).await?;
        let wanted = Some((now.version, now.value, now.fenced));
        let found = [mirrored(migration, &migration.old).await?, mirrored(migration, &migration.new).await?];
        let equal = found.iter().all(|one| *one == wanted);
        Ok(if equal { Progress::Reached(()) } else { Progress::NotYet(format!("{found:?}, not {wanted:?}")) })
    })
    .await
}

/// The application ends: the side in charge has every acknowledged write, both sides are equal, and numbers were given once.
pub async fn conclude(migration: &mut Migration, application: Application) -> Result<Ledger> {
    let ledger = application.finish().await?;
    let in_charge = if flag(migration).await?.value >= 2 { &migration.new } else { &migration.old };
    migration.until_quiet_and_equal(LIMIT).await?;
    has_all(migration, in_charge, &ledger).await?;
    until_mirrored(migration).await?;
    Ok(ledger)
}

/// On servers that nobody else has: what is done there would meet other tests.
pub async fn staged_alone(setup: &Setup) -> Result<Migration> {
    staged_on(setup, SharedPair::own(Server::builder(setup.flavor).relaxed()).await?).await
}

/// Starts a direction whose process was killed, and waits until it is well.
pub async fn start_again(migration: &mut Migration, direction: Direction) -> Result<()> {
    migration.expect_lines(AWAY);
    migration.start(direction, &[])?;
    migration.status().until_running(LIMIT).await.with_context(|| migration.log_ends())?;
    until("both directions up to date", LIMIT, || async {
        let status = migration.status().read().await?;
        let is_late = |stream: &Value| stream["lag_seconds"].as_f64().is_none_or(|lag| lag > 1.0);
        let late = status.streams().iter().any(is_late);
        Ok(if late { Progress::NotYet(status.0.to_string()) } else { Progress::Reached(()) })
    })
    .await
}
