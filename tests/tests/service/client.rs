//! Clients of the service: each adds users, renames them, and reads them, at an even pace.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use crossfade_tests::http::{Answer, HttpClient, Unanswered};
use serde_json::{Value, json};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinSet;

use crate::ledger::Ledger;

/// A client keeps so many users.
const USERS: usize = 20;
/// Before somebody is asked again who could not answer.
const PAUSE: Duration = Duration::from_millis(20);
/// For all clients to rest; one may wait at a fence.
const REST_LIMIT: Duration = Duration::from_secs(60);

/// Clients at work. Dropping it stops them.
pub struct Clients {
    ledger: Arc<Mutex<Ledger>>,
    /// Held for reading by each client while it waits for an answer.
    gate: Arc<RwLock<()>>,
    _tasks: JoinSet<()>,
}

/// While it lives, no client asks anything, and none waits for an answer.
pub struct Rest {
    _gate: OwnedRwLockWriteGuard<()>,
}

impl Clients {
    /// `rate` is how many writes all of them together ask for in a second. Each begins at another instance, and goes to the next
    /// one where it gets no answer.
    pub fn start(addresses: &[String], clients: usize, rate: f64) -> Clients {
        let (ledger, gate, mut tasks) = (Arc::<Mutex<Ledger>>::default(), Arc::<RwLock<()>>::default(), JoinSet::new());
        for number in 0..clients {
            let client = Client {
                number,
                instances: addresses.iter().map(|address| HttpClient::new(address)).collect(),
                at: number % addresses.len(),
                users: Vec::new(),
                added: 0,
                ledger: ledger.clone(),
            };
            tasks.spawn(client.run(gate.clone(), Duration::from_secs_f64(clients as f64 / rate)));
        }
        Clients { ledger, gate, _tasks: tasks }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Lets all rest. Fails where one of them found something that must not be.
    pub async fn rest(&self) -> Result<Rest> {
        let resting = tokio::time::timeout(REST_LIMIT, self.gate.clone().write_owned());
        let gate = resting.await.context("the clients do not come to rest")?;
        self.is_well()?;
        Ok(Rest { _gate: gate })
    }

    pub fn is_well(&self) -> Result<()> {
        match &self.ledger().trouble {
            Some(trouble) => bail!("{trouble}"),
            None => Ok(()),
        }
    }
}

struct Client {
    number: usize,
    instances: Vec<HttpClient>,
    /// The instance that is asked.
    at: usize,
    users: Vec<u64>,
    /// How many additions were tried: no e-mail address is used twice.
    added: u64,
    ledger: Arc<Mutex<Ledger>>,
}

impl Client {
    async fn run(mut self, gate: Arc<RwLock<()>>, pace: Duration) {
        let mut start = tokio::time::Instant::now();
        for turn in 0_u64.. {
            let open = gate.read().await;
            if self.ledger().trouble.is_some() {
                return;
            }
            if let Err(error) = self.turn(turn).await {
                self.ledger().trouble = Some(format!("client {}: {error:#}", self.number));
                return;
            }
            drop(open);
            // Who fell behind does not catch up in a burst.
            start = (start + pace).max(tokio::time::Instant::now() - pace);
            tokio::time::sleep_until(start).await;
        }
    }

    /// A write, and now and then a look at what it has come to.
    async fn turn(&mut self, turn: u64) -> Result<()> {
        let name = format!("name {} of client {}", turn, self.number);
        let written = match self.users.is_empty() || (self.users.len() < USERS && turn.is_multiple_of(4)) {
            true => self.add(&name).await?,
            false => self.rename(self.users[turn as usize % self.users.len()], &name).await?,
        };
        match written {
            Some(id) if turn.is_multiple_of(5) => self.look(id).await,
            _ => Ok(()),
        }
    }

    async fn add(&mut self, name: &str) -> Result<Option<u64>> {
        self.added += 1;
        let email = format!("{}.{}@example.com", self.added, self.number);
        let asked = Instant::now();
        match self.write("POST", "/users", &email, name).await? {
            Outcome::Written(written) => {
                let id = written["id"].as_u64().with_context(|| format!("no number in {written}"))?;
                self.ledger().added(id, &email, name, asked)?;
                self.users.push(id);
                return Ok(Some(id));
            }
            Outcome::Unknown => self.ledger().perhaps_added(&email, name),
            Outcome::NotWritten => {}
        }
        Ok(None)
    }

    async fn rename(&mut self, id: u64, name: &str) -> Result<Option<u64>> {
        let email = self.email(id)?;
        let asked = Instant::now();
        match self.write("PUT", &format!("/users/{id}"), &email, name).await? {
            Outcome::Written(written) => {
                ensure!(written["id"] == id, "user {id} was renamed, and the answer is {written}");
                self.ledger().replaced(id, name, asked);
                return Ok(Some(id));
            }
            Outcome::Unknown => self.ledger().perhaps_replaced(id, name),
            Outcome::NotWritten => {}
        }
        Ok(None)
    }

    /// Who has written through an instance reads through it what was written, whatever the flag does in between.
    async fn look(&mut self, id: u64) -> Result<()> {
        match self.ask("GET", &format!("/users/{id}"), "").await {
            Ok(Answer { code: 200, body }) => {
                let found: Value = serde_json::from_str(&body)?;
                let name = found["name"].as_str().unwrap_or_default();
                ensure!(self.ledger().may_be_called(id, name), "user {id} was written, and then read: {found}");
                self.ledger().reads += 1;
                Ok(())
            }
            Ok(answer) if answer.code == 503 => Ok(()),
            Ok(answer) => bail!("user {id} was written, and then read: {answer:?}"),
            Err(_) => {
                self.go_to_another().await;
                Ok(())
            }
        }
    }

    async fn write(&mut self, method: &str, path: &str, email: &str, name: &str) -> Result<Outcome> {
        let body = json!({ "email": email, "name": name }).to_string();
        let answer = match self.ask(method, path, &body).await {
            Ok(answer) => answer,
            Err(unanswered) => {
                self.go_to_another().await;
                return Ok(match unanswered {
                    Unanswered::NotAsked(_) => Outcome::NotWritten,
                    Unanswered::Lost(_) => Outcome::Unknown,
                });
            }
        };
        let told: Value = serde_json::from_str(&answer.body).with_context(|| format!("{method} {path}: {answer:?}"))?;
        match answer.code {
            200 | 201 => Ok(Outcome::Written(told)),
            503 if told["outcome"] == "not_written" => {
                self.ledger().not_now += 1;
                tokio::time::sleep(PAUSE).await;
                Ok(Outcome::NotWritten)
            }
            500 if told["outcome"] == "unknown" => Ok(Outcome::Unknown),
            _ => bail!("{method} {path} by instance {}: {answer:?}", self.at),
        }
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<Answer, Unanswered> {
        self.instances[self.at].ask(method, path, body).await
    }

    async fn go_to_another(&mut self) {
        self.at = (self.at + 1) % self.instances.len();
        tokio::time::sleep(PAUSE).await;
    }

    fn email(&self, id: u64) -> Result<String> {
        self.ledger().email(id).with_context(|| format!("nobody knows user {id}"))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}

/// What an answer to a write says.
enum Outcome {
    Written(Value),
    NotWritten,
    Unknown,
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
