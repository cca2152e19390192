//! A COMMIT whose answer is lost, and a target that is away when it is asked what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::sql;
use crossfade_testkit::workload;
use crossfade_tests::lines::AWAY;
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::prelude::Queryable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Side::{New, Old};
use crate::{LIMIT, in_turn};

/// In the text of the statement with which a transaction begins that tries again what was set aside.
const RETRY: &[u8] = b"parked = COALESCE";
/// No canary names the table.
const TABLE: &[u8] = b"`stock`";
const COMMIT: &[u8] = b"COMMIT";

/// The way to a server. When told to, it lets the next retry's COMMIT through, keeps the answer, breaks the connection and
/// takes no new one.
struct Link {
    port: u16,
    state: Arc<LinkState>,
}

#[derive(Default)]
struct LinkState {
    breaks_next: AtomicBool,
    is_away: AtomicBool,
    refused: AtomicU32,
}

impl Link {
    async fn to(server_port: u16) -> Result<Link> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let link = Link { port: listener.local_addr()?.port(), state: Arc::default() };
        let state = link.state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if state.is_away.load(SeqCst) {
                    state.refused.fetch_add(1, SeqCst);
                    continue;
                }
                tokio::spawn(carry(client, server_port, state.clone()));
            }
        });
        Ok(link)
    }
}

/// Carries both ways until one end closes, or the connection breaks.
async fn carry(client: TcpStream, server_port: u16, state: Arc<LinkState>) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server_port)).await?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let is_broken = AtomicBool::default();
    let upward = async {
        let (mut bytes, mut retries, mut writes) = ([0; 1 << 16], false, false);
        loop {
            let sent = match from_client.read(&mut bytes).await? {
                0 => return Ok(()),
                length => &bytes[..length],
            };
            retries |= contains(sent, RETRY);
            writes |= contains(sent, TABLE);
            if retries && writes && contains(sent, COMMIT) && state.breaks_next.swap(false, SeqCst) {
                is_broken.store(true, SeqCst);
                state.is_away.store(true, SeqCst);
            }
            to_server.write_all(sent).await?;
        }
    };
    let downward = async {
        let mut bytes = [0; 1 << 16];
        loop {
            let length = from_server.read(&mut bytes).await?;
            if length == 0 || is_broken.load(SeqCst) {
                return Ok(());
            }
            to_client.write_all(&bytes[..length]).await?;
        }
    };
    tokio::select! {
        ended = upward => ended,
        ended = downward => ended,
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A sum that did not fit is tried again and written, but nobody hears of it, and when it is asked for, the target is away:
/// it must not be added once more.
pub async fn a_retried_sum_counts_once(flavor: Flavor) -> Result<()> {
    let tables = "[[table]]\nname = \"{schema}.*\"\nclock = \"updated_at\"\nmerge = \"columns\"\n\
         merge_rules = { pieces = \"sum-delta\" }\n";
    let setup = Setup { tables: tables.to_owned(), ..Setup::new(flavor, "lost_answer") };
    let mut migration = Migration::new(&setup).await?;
    let link = Link::to(migration.servers.new().port()).await?;
    migration.expect_lines(AWAY);
    let direct = migration.url(workload::Side::New);
    let through_link = direct.replace(&format!(":{}", migration.servers.new().port()), &format!(":{}", link.port));
    let configuration = migration.configuration(&setup).replace(
        &format!("[new]\nurl = \"{direct}\""),
        &format!("[new]\nurl = \"{through_link}/?ssl-mode=DISABLED\"\n\n[store]\nurl = \"{direct}\"\n\n[apply]\ncanary_every = \"1h\""),
    );
    std::fs::write(migration.config(), configuration)?;
    let create = "CREATE TABLE {schema}.stock (id INT PRIMARY KEY, pieces INT UNSIGNED NOT NULL, \
         updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";
    migration.on_both(&[create]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.stock VALUES (1, 10, NOW(6))"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;

    // Both sides sell more than there is.
    migration.rest(&Direction::BOTH).await?;
    let sell = "UPDATE {schema}.stock SET pieces = pieces - 8";
    in_turn(&migration, &[(Old, sell), (New, sell)]).await?;
    migration.go_on(&Direction::BOTH).await?;
    until_aside(&migration, 2).await?;
    migration.stop(Direction::Forward).await?;
    in_turn(&migration, &[(New, "UPDATE {schema}.stock SET pieces = pieces + 20")]).await?;

    // A process that starts tries again at once.
    link.state.breaks_next.store(true, SeqCst);
    migration.start(Direction::Forward, &[])?;
    until("the target away", LIMIT, || async {
        let refused = link.state.refused.load(SeqCst);
        Ok(if refused > 0 { Progress::Reached(()) } else { Progress::NotYet("nobody has come".to_owned()) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    link.state.is_away.store(false, SeqCst);
    until_aside(&migration, 0).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let query = format!("SELECT pieces FROM {}.stock", sql::name(&migration.schema));
    let left: Option<u32> = migration.new.get_conn().await?.query_first(query).await?;
    ensure!(left == Some(14), "{left:?} pieces are left of 10 - 8 - 8 + 20");
    migration.stop_both().await
}

async fn until_aside(migration: &Migration, expected: u64) -> Result<()> {
    until("sums set aside", LIMIT, || async {
        let status = migration.status().read().await?;
        let reached = status.total("open_failures") + status.total("held") == expected;
        Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}
