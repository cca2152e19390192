//! What can stand between a reader and its source: a server that asks for other accounts, a slow link, one that breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What the driver says it can do and the reader's own connection does not (CLIENT_MULTI_STATEMENTS).
const DRIVERS_MARK: u8 = 1;
/// Where the name of the user begins in what a client says first: behind flags, sizes and room.
const USER_AT: usize = 4 + 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The reader's own connection is asked for an authentication plugin that only others could know.
    OtherPlugin,
    /// The server knows another user than the one of the reader's own connection.
    OtherUser,
    /// The source's bytes come at so many a second.
    Slow { bytes: usize },
    /// So many connections end after so many bytes of the source's.
    Cut { connections: usize, bytes: usize },
}

/// Forwards a port.
pub struct Relay {
    pub port: u16,
    connections: Arc<AtomicUsize>,
}

impl Relay {
    pub async fn to(port: u16, trouble: Trouble) -> Relay {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let relay = Relay { port: listener.local_addr().unwrap().port(), connections: Arc::default() };
        let (connections, cut) = (relay.connections.clone(), Arc::<AtomicUsize>::default());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                tokio::spawn(between(client, server, trouble, cut.clone()));
            }
        });
        relay
    }

    /// How many were made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Ends with the first of both who ends.
async fn between(client: TcpStream, server: TcpStream, trouble: Trouble, cut: Arc<AtomicUsize>) -> Option<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    to_client.write_all(&packet(&mut from_server).await?).await.ok()?;
    let mut hello = packet(&mut from_client).await?;
    let is_drivers = hello[4 + 2] & DRIVERS_MARK != 0;
    if trouble == Trouble::OtherPlugin && !is_drivers {
        let asked = b"\xfeauthentication_of_tomorrow\0abcdefghijklmnopqrst\0";
        to_client.write_all(&[&[asked.len() as u8, 0, 0, hello[3] + 1], &asked[..]].concat()).await.ok()?;
        // Who does not know the plugin has nothing more to say, the password least of all.
        assert_eq!(from_client.read(&mut [0]).await.unwrap_or(0), 0);
        return None;
    }
    if trouble == Trouble::OtherUser && !is_drivers {
        hello[USER_AT] ^= 1;
    }
    to_server.write_all(&hello).await.ok()?;
    tokio::select! {
        done = forward(from_client, to_server) => done,
        done = give(from_server, to_client, trouble, cut) => done,
    }
}

async fn packet(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4];
    from.read_exact(&mut bytes).await.ok()?;
    let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]) as usize;
    bytes.resize(4 + length, 0);
    from.read_exact(&mut bytes[4..]).await.ok()?;
    Some(bytes)
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Option<()> {
    tokio::io::copy(&mut from, &mut to).await.ok().map(drop)
}

async fn give(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, trouble: Trouble, cut: Arc<AtomicUsize>) -> Option<()> {
    let mut bytes = vec![0; 16 << 10];
    let mut given = 0;
    loop {
        let count = from.read(&mut bytes).await.ok().filter(|count| *count > 0)?;
        given += count;
        match trouble {
            Trouble::Slow { bytes } => {
                tokio::time::sleep(Duration::from_secs_f64(count as f64 / bytes as f64)).await;
            }
            Trouble::Cut { connections, bytes } if given > bytes && cut.load(Ordering::SeqCst) < connections => {
                cut.fetch_add(1, Ordering::SeqCst);
                return None;
            }
            _ => {}
        }
        to.write_all(&bytes[..count]).await.ok()?;
    }
}
