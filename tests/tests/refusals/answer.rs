//! The connection ends exactly between a COMMIT and its answer, or just before the COMMIT arrives: the checkpoint says what
//! became of it, and nothing is lost or done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_tests::{Direction, Migration, Setup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{PLAIN, forward_alone, insert, number, on_both_brands, prepare, until_number};

on_both_brands! {
    a_lost_answer_is_looked_up: p7_answer_of_a_commit_lost_on_mysql, p7_answer_of_a_commit_lost_on_mariadb;
}

/// A COM_QUERY packet, as the driver sends it.
const COMMIT: &[u8] = b"\x07\0\0\0\x03COMMIT";

/// Ends connections at COMMITs.
#[derive(Default)]
struct Cutter {
    /// How many more connections end when the answer is there, and how many before the COMMIT is sent on.
    after: AtomicU32,
    before: AtomicU32,
}

impl Cutter {
    fn takes(counter: &AtomicU32) -> bool {
        counter.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    async fn serve(self: Arc<Cutter>, listener: TcpListener, port: u16) {
        while let Ok((client, _)) = listener.accept().await {
            let cutter = self.clone();
            tokio::spawn(async move {
                // How a connection ends is the business of its two ends.
                let _ = cutter.carry(client, port).await;
            });
        }
    }

    async fn carry(&self, mut client: TcpStream, port: u16) -> std::io::Result<()> {
        let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
        let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            tokio::select! {
                read = client.read(&mut asked) => {
                    let asked = &asked[..read?];
                    if asked.is_empty() {
                        return Ok(());
                    }
                    let commits = asked.ends_with(COMMIT);
                    if commits && Cutter::takes(&self.before) {
                        return Ok(());
                    }
                    server.write_all(asked).await?;
                    if commits && Cutter::takes(&self.after) {
                        server.read_exact(&mut answered[..1]).await?;
                        return Ok(());
                    }
                }
                read = server.read(&mut answered) => {
                    let answered = &answered[..read?];
                    if answered.is_empty() {
                        return Ok(());
                    }
                    client.write_all(answered).await?;
                }
            }
        }
    }
}

async fn a_lost_answer_is_looked_up(flavor: Flavor) -> Result<()> {
    let servers = SharedPair::get(flavor).await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let cutter = Arc::new(Cutter::default());
    tokio::spawn(cutter.clone().serve(listener, servers.new().port()));

    // What has no key shows a change that was made twice.
    let keyless = "[[table]]\nname = \"{schema}.log\"\none_way = true\n\n";
    let mut setup = Setup {
        settings: format!("[store]\nurl = \"{}\"\n", servers.old().root_url()),
        ..Setup::new(flavor, "answer")
    };
    setup.tables = format!("{keyless}{}", setup.tables);
    let mut migration = Migration::on_servers(&setup, servers).await?;
    let text = std::fs::read_to_string(migration.config())?;
    let direct = format!("[new]\nurl = \"{}\"", servers.new().root_url());
    let cut = format!("[new]\nurl = \"mysql://root@{address}/?ssl-mode=DISABLED\"");
    ensure!(text.contains(&direct), "{text}");
    std::fs::write(migration.config(), text.replace(&direct, &cut))?;
    prepare(&migration, &[PLAIN, "CREATE TABLE {schema}.log (v VARCHAR(20), {clock})"]).await?;
    forward_alone(&mut migration).await?;

    let log = format!("SELECT COUNT(*) FROM `{}`.log", migration.schema);
    for round in 0..6_u32 {
        let counter = if round % 2 == 0 { &cutter.after } else { &cutter.before };
        // Where the COMMIT never arrived there is a second one.
        counter.store(if round == 5 { 2 } else { 1 }, SeqCst);
        let inserted = insert((0..5).map(|place| (round * 5 + place, round)));
        migration
            .on(&migration.old, &["BEGIN", &inserted, "INSERT INTO {schema}.log (v) VALUES ('x')", "COMMIT"])
            .await?;
        until_number(&migration.new, &log, u64::from(round + 1)).await?;
        ensure!(counter.load(SeqCst) == 0, "no connection ended in round {round}");
    }
    migration.until_quiet_and_equal(crate::LIMIT).await?;
    ensure!(number(&migration.new, &log).await? == 6, "a change was made twice");
    let doubled = migration.status().read().await?;
    ensure!(doubled.number("forward", "last_seq") == 36, "{}", doubled.0);
    migration.stop(Direction::Forward).await?;
    migration.forget();
    Ok(())
}
