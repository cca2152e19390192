//! A way to a server on which the network can fail: cut, half-open, slow, in pieces, or exactly between a COMMIT and its answer.
//!
//! Commits are recognised in plain text, so connections must not be encrypted: [`Proxy::url`] sees to that.

mod carry;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How bytes are carried, on connections that are open and on those to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carriage {
    /// As they come.
    Whole,
    /// Each connection has so many bytes a second each way.
    Slow { bytes_per_second: u32 },
    /// A few bytes at a time, each lot at a moment of its own: what was sent later on one connection arrives before what was
    /// sent earlier on another.
    Pieces { longest_delay: Duration },
}

/// What a half-open connection loses. Nobody is told: neither end sees the other one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// What the client says.
    Requests,
    /// What the server says.
    Answers,
    Both,
}

impl Lost {
    fn requests(self) -> bool {
        self != Lost::Answers
    }

    fn answers(self) -> bool {
        self != Lost::Requests
    }
}

/// What becomes of one COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFate {
    /// The server commits; the connection breaks before its answer has come through.
    AnswerLost,
    /// The same, and nobody gets through any more before [`Proxy::come_back`].
    AnswerLostThenAway,
    /// The connection breaks before the server has got it.
    NeverSent,
    /// The connection breaks for the client at once; the server gets the COMMIT so much later.
    SentLate(Duration),
    /// Everything goes well, so much later.
    Delayed(Duration),
}

/// What the proxy has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Incidents {
    /// Connections accepted.
    pub connections: u64,
    /// Connections cut, those at a COMMIT included.
    pub cut: u64,
    /// Connections of which something was lost without a word.
    pub half_open: u64,
    /// COMMITs that have met their fate.
    pub commits: u64,
    /// COMMITs that could have: all, or those of connections that had said the [words](Proxy::watching).
    pub watched_commits: u64,
    /// Connections that were refused while the server was away.
    pub refused: u64,
    /// Lots of bytes that were held back, for being slow or in pieces.
    pub delayed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    cut: AtomicU64,
    half_open: AtomicU64,
    commits: AtomicU64,
    watched_commits: AtomicU64,
    refused: AtomicU64,
    delayed: AtomicU64,
}

/// What is asked of the connections.
#[derive(Debug)]
struct Orders {
    carriage: watch::Sender<Carriage>,
    /// Counts the cuts; a connection that sees it change is cut.
    cuts: watch::Sender<u64>,
    /// What connections lose that were there at the change; its number tells one change from the next.
    half_open: watch::Sender<(u64, Option<Lost>)>,
    fates: Mutex<VecDeque<CommitFate>>,
    /// Fates are for COMMITs of connections that have said all of these.
    words: &'static [&'static str],
    is_away: AtomicBool,
    counters: Counters,
}

impl Orders {
    fn fates(&self) -> MutexGuard<'_, VecDeque<CommitFate>> {
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}

/// Forwards a loopback port to a server. Dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    server: SocketAddr,
    orders: Arc<Orders>,
    acceptor: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port for connections to a server on this machine, which need not run yet.
    pub async fn start(server_port: u16) -> Result<Proxy> {
        Proxy::watching(server_port, &[]).await
    }

    /// Gives fates to COMMITs of connections only that have said all these words before.
    pub async fn watching(server_port: u16, words: &'static [&'static str]) -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a proxy cannot listen")?;
        let port = listener.local_addr()?.port();
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, server_port));
        let orders = Arc::new(Orders {
            carriage: watch::channel(Carriage::Whole).0,
            cuts: watch::channel(0).0,
            half_open: watch::channel((0, None)).0,
            fates: Mutex::default(),
            words,
            is_away: AtomicBool::new(false),
            counters: Counters::default(),
        });
        let acceptor = tokio::spawn(accept(listener, server, orders.clone()));
        Ok(Proxy { port, server, orders, acceptor })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the server, led through the proxy, and unencrypted.
    pub fn url(&self, direct: &str) -> Result<String> {
        let (address, options) = direct.split_once('?').unwrap_or((direct, ""));
        let port = format!(":{}", self.server.port());
        let account = address.trim_end_matches('/').strip_suffix(&port);
        let account = account.with_context(|| format!("the URL of the server does not end with {port}"))?;
        ensure!(!options.contains("ssl-mode"), "the URL asks for encryption, behind which a COMMIT cannot be seen");
        let options = if options.is_empty() { String::new() } else { format!("{options}&") };
        Ok(format!("{account}:{}/?{options}ssl-mode=DISABLED", self.port))
    }

    pub fn carry(&self, carriage: Carriage) {
        self.orders.carriage.send_replace(carriage);
    }

    /// Cuts every connection that is open now.
    pub fn cut(&self) {
        self.orders.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// From now on every connection that is open now loses this, for as long as it lives. New ones are as they should be.
    pub fn half_open(&self, lost: Lost) {
        self.orders.half_open.send_modify(|order| *order = (order.0 + 1, Some(lost)));
    }

    /// The next COMMIT that is sent on any connection, and that no fate waits for yet, meets this one.
    pub fn next_commit(&self, fate: CommitFate) {
        self.orders.fates().push_back(fate);
    }

    /// Cuts every connection, and lets nobody through before [`Proxy::come_back`].
    pub fn go_away(&self) {
        self.orders.is_away.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// The server can be reached again.
    pub fn come_back(&self) {
        self.orders.is_away.store(false, Ordering::SeqCst);
    }

    /// Fates that no COMMIT has met.
    pub fn open_fates(&self) -> usize {
        self.orders.fates().len()
    }

    pub fn incidents(&self) -> Incidents {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let counters = &self.orders.counters;
        Incidents {
            connections: read(&counters.connections),
            cut: read(&counters.cut),
            half_open: read(&counters.half_open),
            commits: read(&counters.commits),
            watched_commits: read(&counters.watched_commits),
            refused: read(&counters.refused),
            delayed: read(&counters.delayed),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, orders: Arc<Orders>) {
    // A connection ends when either end does; how does not matter.
    while let Ok((client, _)) = listener.accept().await {
        if orders.is_away.load(Ordering::SeqCst) {
            count(&orders.counters.refused);
            continue;
        }
        count(&orders.counters.connections);
        let orders = orders.clone();
        tokio::spawn(async move {
            // A server that is away refuses; so does its proxy.
            let Ok(server) = TcpStream::connect(server).await else { return };
            carry::between(client, server, &orders).await;
        });
    }
}

#[cfg(test)]
mod tests;
