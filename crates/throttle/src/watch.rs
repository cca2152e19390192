//! Looks every second at what is limited.

use std::time::Duration;

use crossfade_catalog::Servers;
use crossfade_config::{ServerUrl, ThrottleLimits};
use crossfade_model::Side;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::gate::{Reason, Seen, Throttle};
use crate::outside;
use crate::server::{Server, ServerError};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whoever does not answer so long cannot be read.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What is looked at.
pub struct Watch {
    pub pair: String,
    pub old: Servers,
    pub new: Servers,
    /// Servers whose lag counts; of either side.
    pub replicas: Vec<ServerUrl>,
    /// A command, or an address that begins with `http://`, which tells a number.
    pub probe: Option<String>,
    pub limits: watch::Receiver<ThrottleLimits>,
}

/// The servers, with the connections to them.
struct Looked {
    sides: [(Side, Server); 2],
    replicas: Vec<(String, Server)>,
}

impl Watch {
    /// Looks until `stop`. What is limited and was not yet looked at keeps work waiting.
    pub fn start(self, stop: CancellationToken) -> Throttle {
        let first = match self.limits.borrow().are_any() {
            true => vec![Reason { side: None, text: "the databases were not looked at yet".to_owned() }],
            false => Vec::new(),
        };
        let rows_per_second = self.limits.borrow().rows_per_second;
        let (sender, seen) = watch::channel(Seen { reasons: first, rows_per_second });
        let throttle = Throttle::of(seen);
        let asked = throttle.clone();
        tokio::spawn(async move {
            let mut looked = Looked {
                sides: [(Side::Old, Server::new(self.old.clone())), (Side::New, Server::new(self.new.clone()))],
                replicas: self
                    .replicas
                    .iter()
                    .map(|url| (url.address(), Server::new(Servers::new(vec![url.clone()]))))
                    .collect(),
            };
            let mut limits = self.limits.clone();
            loop {
                let now = limits.borrow_and_update().clone();
                // The rate waits for no server's answer.
                sender.send_if_modified(|known| {
                    std::mem::replace(&mut known.rows_per_second, now.rows_per_second) != now.rows_per_second
                });
                let seen = Seen {
                    reasons: looked.reasons(&self, &now, asked.is_asked()).await,
                    rows_per_second: now.rows_per_second,
                };
                sender.send_if_modified(|known| std::mem::replace(known, seen.clone()) != seen);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    Ok(()) = limits.changed() => {}
                }
            }
        });
        throttle
    }
}

impl Looked {
    async fn reasons(&mut self, watch: &Watch, limits: &ThrottleLimits, is_asked: bool) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for (side, server) in &mut self.sides {
            let side = *side;
            if let Some(limit) = limits.threads_running {
                let read = answered(server.threads_running()).await;
                let text = above(read, u64::from(limit), |threads| {
                    format!("{side} has {threads} threads running, more than {limit}")
                });
                add(&mut reasons, Some(side), text, &format!("the threads of {side}"), server);
            }
            // Measuring writes, so nobody is measured for nothing.
            if let Some(limit) = limits.latency.filter(|_| is_asked) {
                let read = answered(server.commit_time(&watch.pair)).await;
                let text = above(read, limit, |took| {
                    format!("a small commit on {side} takes {} ms, more than {limit:?}", took.as_millis())
                });
                add(&mut reasons, Some(side), text, &format!("the latency of {side}"), server);
            }
        }
        if let Some(limit) = limits.replica_lag {
            for (address, server) in &mut self.replicas {
                let read = answered(server.replica_lag()).await;
                let text = above(read, limit, |lag| {
                    format!("the replica {address} is {} s behind, more than {limit:?}", lag.as_secs())
                });
                add(&mut reasons, None, text, &format!("the lag of {address}"), server);
            }
        }
        reasons.extend(probed(watch, limits).await);
        reasons
    }
}

async fn probed(watch: &Watch, limits: &ThrottleLimits) -> Option<Reason> {
    let (probe, limit) = (watch.probe.as_deref()?, f64::from(limits.probe_limit?));
    let text = match timeout(ANSWER_LIMIT, outside::ask(probe)).await {
        Ok(Ok(number)) if number <= limit => return None,
        Ok(Ok(number)) => format!("the probe says {number}, more than {limit}"),
        Ok(Err(error)) => format!("the probe cannot be read: {error}"),
        Err(_) => format!("the probe cannot be read: no answer in {} s", ANSWER_LIMIT.as_secs()),
    };
    Some(Reason { side: None, text })
}

/// What is said of a number above its limit. `Err`: it cannot be read, and why.
fn above<T: PartialOrd>(
    read: Result<T, String>,
    limit: T,
    say: impl FnOnce(T) -> String,
) -> Result<Option<String>, String> {
    read.map(|read| (read > limit).then(|| say(read)))
}

fn add(
    reasons: &mut Vec<Reason>,
    side: Option<Side>,
    text: Result<Option<String>, String>,
    what: &str,
    server: &mut Server,
) {
    match text {
        Ok(text) => reasons.extend(text.map(|text| Reason { side, text })),
        Err(error) => {
            server.forget();
            reasons.push(Reason { side, text: format!("{what} cannot be read: {error}") });
        }
    }
}

async fn answered<T>(asking: impl Future<Output = Result<T, ServerError>>) -> Result<T, String> {
    match timeout(ANSWER_LIMIT, asking).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer in {} s", ANSWER_LIMIT.as_secs())),
    }
}
