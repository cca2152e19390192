//! One connection of a proxy: two ways, each carried by itself.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::{Carriage, CommitFate, Lost, Orders, count};

const CHUNK_BYTES: usize = 64 << 10;
/// Most bytes that go through in one lot when they go in pieces.
const PIECE_BYTES: usize = 900;
/// A COMMIT as clients send it: the packet's length and number, the command's code, and the word.
const COMMIT: &[u8] = b"\x07\0\0\0\x03COMMIT";
/// A COMMIT that comes late finds the connection open for so long after it.
const LINGER: Duration = Duration::from_secs(1);

/// How one way came to its end.
enum End {
    /// Both ends shall see it.
    Seen,
    /// The other end is not told.
    Unseen,
    /// The client's end is closed; what it sent last arrives at the server in a while.
    Late { to_server: OwnedWriteHalf, sent: Vec<u8>, delay: Duration },
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

/// What both ways of a connection know.
struct Connection<'o> {
    orders: &'o Orders,
    /// Which half-open order came last before the connection.
    since: u64,
    /// The server's next answer is lost, and the connection with it.
    loses_answer: AtomicBool,
    /// Counted as half-open.
    counted: AtomicBool,
    /// Of the words without which no COMMIT meets a fate.
    unsaid: Mutex<Vec<&'static str>>,
}

pub(super) async fn between(client: TcpStream, server: TcpStream, orders: &Arc<Orders>) {
    // Small packets shall not wait for each other. A socket that is gone says so when it is read.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let connection = Connection {
        orders,
        since: orders.half_open.borrow().0,
        loses_answer: AtomicBool::new(false),
        counted: AtomicBool::new(false),
        unsaid: Mutex::new(orders.words.to_vec()),
    };
    let mut cuts = orders.cuts.subscribe();
    tokio::select! {
        _ = cuts.changed() => count(&orders.counters.cut),
        () = connection.carry(client, server) => {}
    }
}

impl Connection<'_> {
    async fn carry(&self, client: TcpStream, server: TcpStream) {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let end = {
            let requests = self.one_way(Way::ToServer, from_client, to_server);
            let answers = self.one_way(Way::ToClient, from_server, to_client);
            tokio::pin!(requests, answers);
            tokio::select! {
                end = &mut requests => match end {
                    Ok(End::Unseen) => answers.await,
                    end => end,
                },
                end = &mut answers => match end {
                    Ok(End::Unseen) => requests.await,
                    end => end,
                },
            }
        };
        // The client's end is closed by now. A read or write that failed is an end that the other side sees.
        if let Ok(End::Late { mut to_server, sent, delay }) = end {
            tokio::time::sleep(delay).await;
            let _ = to_server.write_all(&sent).await;
            tokio::time::sleep(LINGER).await;
        }
    }

    async fn one_way(&self, way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<End> {
        let mut carriage = self.orders.carriage.subscribe();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = from.read(&mut buffer).await;
            let is_lost = self.loses(way);
            let bytes = match read {
                Ok(0) | Err(_) if is_lost => return Ok(End::Unseen),
                Ok(0) => return Ok(End::Seen),
                read => &buffer[..read?],
            };
            if is_lost {
                if !self.counted.swap(true, Ordering::SeqCst) {
                    count(&self.orders.counters.half_open);
                }
                continue;
            }
            if way == Way::ToClient && self.loses_answer.load(Ordering::SeqCst) {
                count(&self.orders.counters.cut);
                return Ok(End::Seen);
            }
            if way == Way::ToServer
                && let Some(fate) = self.fate(bytes)
            {
                match fate {
                    CommitFate::AnswerLost => self.loses_answer.store(true, Ordering::SeqCst),
                    CommitFate::AnswerLostThenAway => {
                        self.orders.is_away.store(true, Ordering::SeqCst);
                        self.loses_answer.store(true, Ordering::SeqCst);
                    }
                    CommitFate::NeverSent => {
                        count(&self.orders.counters.cut);
                        return Ok(End::Seen);
                    }
                    CommitFate::SentLate(delay) => {
                        count(&self.orders.counters.cut);
                        return Ok(End::Late { to_server: to, sent: bytes.to_vec(), delay });
                    }
                    CommitFate::Delayed(delay) => tokio::time::sleep(delay).await,
                }
            }
            self.give(bytes, &mut to, &mut carriage).await?;
        }
    }

    /// What the COMMIT meets that these bytes end with, if anything.
    fn fate(&self, bytes: &[u8]) -> Option<CommitFate> {
        let says = |word: &&str| bytes.windows(word.len()).any(|window| window == word.as_bytes());
        let mut unsaid = self.unsaid.lock().unwrap_or_else(PoisonError::into_inner);
        unsaid.retain(|word| !says(word));
        if !unsaid.is_empty() || !bytes.ends_with(COMMIT) {
            return None;
        }
        count(&self.orders.counters.watched_commits);
        let fate = self.orders.fates().pop_front()?;
        count(&self.orders.counters.commits);
        Some(fate)
    }

    fn loses(&self, way: Way) -> bool {
        let (number, lost) = *self.orders.half_open.borrow();
        let lost = lost.filter(|_| number != self.since);
        lost.is_some_and(|lost| match way {
            Way::ToServer => Lost::requests(lost),
            Way::ToClient => Lost::answers(lost),
        })
    }

    async fn give(
        &self,
        bytes: &[u8],
        to: &mut OwnedWriteHalf,
        carriage: &mut watch::Receiver<Carriage>,
    ) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let manner = *carriage.borrow_and_update();
            let (lot, delay) = match manner {
                Carriage::Whole => (rest.len(), Duration::ZERO),
                Carriage::Slow { bytes_per_second } => {
                    // A tenth of a second's worth, so that a new order is soon obeyed.
                    let lot = rest.len().min((bytes_per_second / 10).max(1) as usize);
                    (lot, Duration::from_secs_f64(lot as f64 / f64::from(bytes_per_second.max(1))))
                }
                Carriage::Pieces { longest_delay } => {
                    let mut rng = rand::rng();
                    let lot = rng.random_range(1..=rest.len().min(PIECE_BYTES));
                    (lot, rng.random_range(Duration::ZERO..=longest_delay))
                }
            };
            if manner != Carriage::Whole {
                count(&self.orders.counters.delayed);
                // What is slow no more is not waited for.
                let _ = tokio::time::timeout(delay, carriage.changed()).await;
            }
            let (now, later) = rest.split_at(lot);
            to.write_all(now).await?;
            rest = later;
        }
        Ok(())
    }
}
