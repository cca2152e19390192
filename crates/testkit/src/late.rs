//! A way to a server on which every answer arrives late, one after the other without a gap: as from a replica that lags.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Forwards a loopback port to a server.
#[derive(Debug)]
pub struct LateWay {
    port: u16,
    late_by: watch::Sender<Duration>,
    acceptor: JoinHandle<()>,
}

impl LateWay {
    /// Not late at first.
    pub async fn start(server_port: u16) -> Result<LateWay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("nobody can listen")?;
        let port = listener.local_addr()?.port();
        let (late_by, told) = watch::channel(Duration::ZERO);
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, server_port));
        let acceptor = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A connection ends when either end does; how does not matter.
                tokio::spawn(carry(client, server, told.clone()));
            }
        });
        Ok(LateWay { port, late_by, acceptor })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the server says from now on arrives so much later.
    pub fn be_late_by(&self, late_by: Duration) {
        self.late_by.send_replace(late_by);
    }
}

impl Drop for LateWay {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn carry(client: TcpStream, server: SocketAddr, late_by: watch::Receiver<Duration>) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let (answers, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async {
        let mut bytes = vec![0; 1 << 16];
        loop {
            let length = from_server.read(&mut bytes).await?;
            let at = Instant::now() + *late_by.borrow();
            if length == 0 || answers.send((at, bytes[..length].to_vec())).is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        while let Some((at, bytes)) = due.recv().await {
            tokio::time::sleep_until(at).await;
            to_client.write_all(&bytes).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = tokio::io::copy(&mut from_client, &mut to_server) => ended.map(drop),
        ended = read => ended,
        ended = write => ended,
    }
}
