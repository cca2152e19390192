//! What was acknowledged to clients, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use crossfade_testkit::sql;
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

/// E-mail address and name, by number.
pub type Rows = BTreeMap<u64, (String, String)>;

/// The longest things that clients saw in a stretch of time.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// Nobody's write was acknowledged.
    pub silence: Duration,
    /// One write was waited for, from the question to its acknowledgement.
    pub write: Duration,
}

#[derive(Debug, Default)]
pub struct Ledger {
    users: BTreeMap<u64, Known>,
    /// Users, by e-mail address, of whom nobody knows whether they were added.
    perhaps_added: BTreeMap<String, String>,
    /// When writes were acknowledged, and how long each was waited for.
    acknowledged: Vec<(Instant, Duration)>,
    /// Writes whose outcome nobody knows.
    pub unknown: u64,
    /// Answers that said: nothing was written, try again.
    pub not_now: u64,
    pub reads: u64,
    /// What a client found that must not be; all stop then.
    pub trouble: Option<String>,
}

#[derive(Debug, Clone)]
struct Known {
    email: String,
    /// By the last write that was acknowledged.
    name: String,
    /// By later ones whose outcome nobody knows.
    perhaps: Vec<String>,
}

impl Ledger {
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    pub fn last_acknowledged(&self) -> Option<Instant> {
        self.acknowledged.last().map(|(at, _)| *at)
    }

    pub fn added(&mut self, id: u64, email: &str, name: &str, asked: Instant) -> Result<()> {
        self.acknowledge(asked);
        let known = Known { email: email.to_owned(), name: name.to_owned(), perhaps: Vec::new() };
        if let Some(before) = self.users.insert(id, known) {
            bail!("number {id} was given to {email}, and to {} before", before.email);
        }
        Ok(())
    }

    pub fn replaced(&mut self, id: u64, name: &str, asked: Instant) {
        self.acknowledge(asked);
        if let Some(known) = self.users.get_mut(&id) {
            known.name = name.to_owned();
            // A write that got its lock before this one was committed, or rolled back, before it.
            known.perhaps.clear();
        }
    }

    pub fn perhaps_added(&mut self, email: &str, name: &str) {
        self.unknown += 1;
        self.perhaps_added.insert(email.to_owned(), name.to_owned());
    }

    pub fn perhaps_replaced(&mut self, id: u64, name: &str) {
        self.unknown += 1;
        if let Some(known) = self.users.get_mut(&id) {
            known.perhaps.push(name.to_owned());
        }
    }

    pub fn email(&self, id: u64) -> Option<String> {
        self.users.get(&id).map(|known| known.email.clone())
    }

    /// Whether a user may be called so by now.
    pub fn may_be_called(&self, id: u64, name: &str) -> bool {
        self.users.get(&id).is_some_and(|known| known.is_called(name))
    }

    fn acknowledge(&mut self, asked: Instant) {
        self.acknowledged.push((Instant::now(), asked.elapsed()));
    }

    /// Of what was acknowledged since a moment.
    pub fn waits(&self, since: Instant) -> Waits {
        let first = self.acknowledged.partition_point(|(at, _)| *at < since);
        let later = &self.acknowledged[first..];
        let silence = later.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or_default();
        let write = later.iter().map(|(_, took)| *took).max().unwrap_or_default();
        Waits { silence, write }
    }

    /// That a side has every write that was acknowledged, and nothing that nobody has written. Gives how many of the uncertain
    /// ones it has.
    pub fn is_kept(&self, found: &Rows) -> Result<u64> {
        let is_kept = |id: &u64, known: &Known| {
            found.get(id).is_some_and(|(email, name)| *email == known.email && known.is_called(name))
        };
        let lost: Vec<_> = self.users.iter().filter(|(id, known)| !is_kept(id, known)).take(5).collect();
        let shown: Vec<_> = lost.iter().map(|(id, _)| found.get(id)).collect();
        ensure!(lost.is_empty(), "acknowledged writes are lost, of {}: {lost:?}; there is {shown:?}", self.users.len());
        let others = found.iter().filter(|(id, _)| !self.users.contains_key(id));
        let (added, nobodys): (Vec<_>, Vec<_>) =
            others.partition(|(_, (email, name))| self.perhaps_added.get(email) == Some(name));
        ensure!(nobodys.is_empty(), "{} rows that nobody has written: {:?}", nobodys.len(), nobodys.first());
        let is_renamed = |id: &u64, known: &Known| found.get(id).is_some_and(|(_, name)| *name != known.name);
        let renamed = self.users.iter().filter(|(id, known)| is_renamed(id, known)).count();
        Ok((added.len() + renamed) as u64)
    }
}

/// The users that a side has.
pub async fn rows(pool: &Pool, schema: &str) -> Result<Rows> {
    let mut conn = pool.get_conn().await?;
    let question = format!("SELECT id, email, name FROM {}", sql::full_name(schema, "users"));
    let rows: Vec<(u64, String, String)> = conn.query(question).await?;
    Ok(rows.into_iter().map(|(id, email, name)| (id, (email, name))).collect())
}

impl Known {
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.perhaps.iter().any(|perhaps| perhaps == name)
    }
}
