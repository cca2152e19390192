//! The servers that hold one side's data, of which one at a time is the primary and takes writes.
//!
//! Where a side has one server, it is the primary, and nothing is asked. Where it has several, every connection is preceded by
//! a look at all of them, since a server that comes back may not know yet that it is the primary no more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossfade_config::ServerUrl;
use crossfade_model::{Executed, GtidSet, MariaDbState, Position};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::{CatalogError, Dialect, Flavor, Purpose, Version, connect};

/// A server that does not answer so long counts as away.
const ANSWER_TIME_OUT: Duration = Duration::from_secs(3);

/// How long something must be wrong that needs a person, before that is certain.
const CERTAIN_AFTER: Duration = Duration::from_secs(3);

/// Lanes that connect at the same moment share one look.
const FRESH: Duration = Duration::from_millis(250);

/// The servers of a side. Cheap to clone; clones know the same.
#[derive(Debug, Clone)]
pub struct Servers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    urls: Vec<ServerUrl>,
    /// What a primary must have.
    captured: Mutex<Option<Position>>,
    /// Replicas that do not get what the primary has: not to be read from.
    stale: Mutex<BTreeSet<usize>>,
    looked: tokio::sync::Mutex<Option<(Instant, Arc<Vec<Standing>>)>>,
    /// The primary as it was found last, and how often another one was.
    found: Mutex<(Option<usize>, u64)>,
}

/// How one of the servers stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Away {
        why: String,
    },
    There {
        writable: bool,
        /// It replays another server's transactions, or tries to.
        replicates: bool,
        executed: Executed,
    },
}

impl From<ServerUrl> for Servers {
    fn from(url: ServerUrl) -> Servers {
        Servers::new(vec![url])
    }
}

impl Servers {
    /// `urls` in the order of preference; at least one.
    pub fn new(urls: Vec<ServerUrl>) -> Servers {
        let inner = Inner {
            urls,
            captured: Mutex::default(),
            stale: Mutex::default(),
            looked: tokio::sync::Mutex::default(),
            found: Mutex::default(),
        };
        Servers { inner: Arc::new(inner) }
    }

    pub fn urls(&self) -> &[ServerUrl] {
        &self.inner.urls
    }

    pub fn are_several(&self) -> bool {
        self.inner.urls.len() > 1
    }

    /// A server without everything before this position is not taken for the primary from now on.
    pub fn must_have(&self, captured: &Position) {
        *self.inner.captured.lock().unwrap_or_else(PoisonError::into_inner) = Some(captured.clone());
    }

    /// Connects to the server that takes writes.
    ///
    /// # Errors
    ///
    /// As those of [`connect`]; where there are several, also those of [`Servers::primary`].
    pub async fn connect(&self, purpose: Purpose) -> Result<Conn, CatalogError> {
        let url = &self.inner.urls[self.primary().await?];
        connect(url, purpose).await
    }

    /// The server that takes writes; the only one where there is one.
    ///
    /// # Errors
    ///
    /// Passing by themselves ([`CatalogError::awaits_servers`]): no server is writable. Needing a person:
    /// [`CatalogError::LostInFailOver`], [`CatalogError::SplitBrain`].
    pub async fn primary(&self) -> Result<usize, CatalogError> {
        if !self.are_several() {
            return Ok(0);
        }
        let (_, primary) = self.look_and_choose().await;
        let primary = primary?;
        let mut found = self.inner.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.0.replace(primary) != Some(primary) {
            found.1 += 1;
        }
        Ok(primary)
    }

    /// The verdict, and the look that it is founded on. A primary counts what it has just written to its binlog as committed a
    /// moment later, and a reader may be sooner: what it lacks, it must lack again and again.
    async fn look_and_choose(&self) -> (Arc<Vec<Standing>>, Result<usize, CatalogError>) {
        let captured = self.inner.captured.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let asked = Instant::now();
        let mut looked = self.look().await;
        loop {
            let chosen = self.choose(&looked, captured.as_ref());
            let is_final = matches!(&chosen, Err(error) if !error.awaits_servers());
            if !is_final || asked.elapsed() >= CERTAIN_AFTER {
                return (looked, chosen);
            }
            tokio::time::sleep(FRESH).await;
            looked = self.look().await;
        }
    }

    /// Changes whenever another server is found to be the primary: connections of before are not to be used again.
    pub fn moves(&self) -> u64 {
        self.inner.found.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Whether a connection made when [`Servers::moves`] was `moves` may still be written through. An account that may write to
    /// read-only servers would not notice by itself. Nothing is asked where there is one server.
    pub async fn still_takes_writes(&self, conn: &mut Conn, moves: u64) -> bool {
        if !self.are_several() {
            return true;
        }
        let asked = tokio::time::timeout(ANSWER_TIME_OUT, first::<bool>(conn, "SELECT @@GLOBAL.read_only")).await;
        self.moves() == moves && matches!(asked, Ok(Ok(Some(false))))
    }

    /// The servers whose binlog may be read from `position` on, the preferred one first: the primary, and replicas that have
    /// everything before it. Never one that takes writes beside the primary.
    ///
    /// # Errors
    ///
    /// As those of [`Servers::primary`], but that none takes writes is no error here;
    /// [`CatalogError::NotYetThere`] where nobody has what is before the position.
    pub async fn readable(&self, position: &Position) -> Result<Vec<ServerUrl>, CatalogError> {
        if !self.are_several() {
            return Ok(self.inner.urls.clone());
        }
        self.must_have(position);
        let (looked, chosen) = self.look_and_choose().await;
        let primary = match chosen {
            Err(error) if !error.awaits_servers() => return Err(error),
            primary => primary.ok(),
        };
        if matches!(position, Position::File { .. }) {
            // It means something on one server alone. Another one refuses it, which is an error only once it is the primary.
            return Ok(vec![self.inner.urls[primary.unwrap_or(0)].clone()]);
        }
        let stale = self.inner.stale.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let has_all = |at: usize, ignored: &BTreeSet<usize>| match &looked[at] {
            Standing::There { executed, .. } if primary == Some(at) || !looked[at].is_candidate() => {
                !ignored.contains(&at) && executed.lacks(position).is_none()
            }
            _ => false,
        };
        let list = |ignored: &BTreeSet<usize>| -> Vec<ServerUrl> {
            (0..looked.len()).filter(|at| has_all(*at, ignored)).map(|at| self.inner.urls[at].clone()).collect()
        };
        let fresh = list(&stale);
        let any = if fresh.is_empty() { list(&BTreeSet::new()) } else { fresh };
        if any.is_empty() {
            return Err(CatalogError::NotYetThere { servers: self.described(&looked, Some(position)) });
        }
        Ok(any)
    }

    /// Says whether a replica gets what the primary has, which decides whether [`Servers::readable`] prefers it.
    pub fn set_stale(&self, at: usize, stale: bool) {
        let mut known = self.inner.stale.lock().unwrap_or_else(PoisonError::into_inner);
        if stale {
            known.insert(at)
        } else {
            known.remove(&at)
        };
    }

    pub fn is_stale(&self, url: &ServerUrl) -> bool {
        let known = self.inner.stale.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().any(|at| self.inner.urls[*at] == *url)
    }

    /// How all servers stand now, or did a moment ago. Servers that do not answer cost a few seconds.
    pub async fn look(&self) -> Arc<Vec<Standing>> {
        let mut looked = self.inner.looked.lock().await;
        if let Some((at, standings)) = &*looked
            && at.elapsed() < FRESH
        {
            return standings.clone();
        }
        let tasks: Vec<_> = self.inner.urls.iter().map(|url| tokio::spawn(Standing::of(url.clone()))).collect();
        let mut standings = Vec::new();
        for task in tasks {
            let ended = |_| Standing::Away { why: "the question was not asked to its end".to_owned() };
            standings.push(task.await.unwrap_or_else(ended));
        }
        let standings = Arc::new(standings);
        *looked = Some((Instant::now(), standings.clone()));
        standings
    }

    /// The one writable server, or of several the one that has what the others have.
    fn choose(&self, looked: &[Standing], captured: Option<&Position>) -> Result<usize, CatalogError> {
        let candidates: Vec<(usize, &Executed)> =
            looked.iter().enumerate().filter_map(|(at, standing)| Some((at, standing.candidate()?))).collect();
        let Some((first, _)) = candidates.first() else {
            return Err(CatalogError::NoPrimary { servers: self.described(looked, None) });
        };
        let address = |at: usize| self.inner.urls[at].address();
        let has_all = |(_, has): &(usize, &Executed)| {
            candidates.iter().all(|(_, other)| std::ptr::eq(*has, *other) || has.lacks_of(other).is_none())
        };
        let Some((primary, has)) = candidates.iter().copied().find(has_all) else {
            // No one has all, so each lacks something of another.
            let apart = candidates.iter().copied().skip(1).find_map(|(at, has)| {
                let of_first = candidates[0].1.lacks_of(has)?;
                Some((at, has.lacks_of(candidates[0].1).unwrap_or_default(), of_first))
            });
            let (other, only_one, only_other) = apart.unwrap_or((*first, String::new(), String::new()));
            return Err(CatalogError::SplitBrain { one: address(*first), other: address(other), only_one, only_other });
        };
        match captured.and_then(|captured| has.lacks(captured)) {
            Some(missing) => Err(CatalogError::LostInFailOver { server: address(primary), missing }),
            None => Ok(primary),
        }
    }

    fn described(&self, looked: &[Standing], position: Option<&Position>) -> String {
        let one =
            |(url, standing): (&ServerUrl, &Standing)| format!("{} {}", url.address(), standing.described(position));
        self.inner.urls.iter().zip(looked).map(one).collect::<Vec<_>>().join("; ")
    }
}

impl Standing {
    async fn of(url: ServerUrl) -> Standing {
        let asking = async {
            let mut conn = connect(&url, Purpose::Catalog).await?;
            Standing::ask(&mut conn).await
        };
        match tokio::time::timeout(ANSWER_TIME_OUT, asking).await {
            Ok(Ok(standing)) => standing,
            Ok(Err(error)) => Standing::Away { why: with_cause(&error) },
            Err(_) => Standing::Away { why: format!("did not answer within {ANSWER_TIME_OUT:?}") },
        }
    }

    /// Asks a server how it stands. Whether it replays cannot be seen without a privilege; then `read_only` alone tells.
    pub async fn ask(conn: &mut Conn) -> Result<Standing, CatalogError> {
        let version: Option<String> = first(conn, "SELECT @@version").await?;
        let version = Version::parse(&version.unwrap_or_default())?;
        let dialect = Dialect::of(&version);
        let question = match version.flavor {
            Flavor::MySql => "SELECT @@GLOBAL.read_only OR @@GLOBAL.super_read_only",
            Flavor::MariaDb => "SELECT @@GLOBAL.read_only",
        };
        let read_only: Option<bool> = first(conn, question).await?;
        let sources: Vec<Row> = conn.query(dialect.replica_status()).await.unwrap_or_default();
        let runs = |row: &Row| {
            dialect
                .replication_threads()
                .iter()
                .any(|thread| row.get_opt::<String, _>(*thread).and_then(Result::ok).is_some_and(|state| state != "No"))
        };
        Ok(Standing::There {
            writable: !read_only.unwrap_or(true),
            replicates: sources.iter().any(runs),
            executed: executed(conn, version.flavor).await?,
        })
    }

    /// Takes writes, and nobody else's transactions.
    pub fn is_candidate(&self) -> bool {
        self.candidate().is_some()
    }

    fn candidate(&self) -> Option<&Executed> {
        match self {
            Standing::There { writable: true, replicates: false, executed } => Some(executed),
            _ => None,
        }
    }

    fn described(&self, position: Option<&Position>) -> String {
        match self {
            Standing::Away { why } => format!("is away ({why})"),
            Standing::There { executed, writable, replicates } => {
                match (position.and_then(|position| executed.lacks(position)), replicates, writable) {
                    (Some(missing), _, _) => format!("lacks {missing}"),
                    (None, true, _) => "replicates from another".to_owned(),
                    (None, false, true) => "takes writes".to_owned(),
                    (None, false, false) => "is read-only".to_owned(),
                }
            }
        }
    }
}

async fn executed(conn: &mut Conn, flavor: Flavor) -> Result<Executed, CatalogError> {
    let unreadable = |what, found: &str| CatalogError::Unexpected { what, found: found.to_owned() };
    match flavor {
        Flavor::MySql => {
            let mode: Option<String> = first(conn, "SELECT @@GLOBAL.gtid_mode").await?;
            if mode.as_deref() != Some("ON") {
                return Ok(Executed::Unknown);
            }
            // What is in the binlog and waits for a replica's word is owned by its session. It is asked for first, since it may
            // be executed a moment later.
            let owned: Option<String> = first(conn, "SELECT @@GLOBAL.gtid_owned").await?;
            let executed: Option<String> = first(conn, "SELECT @@GLOBAL.gtid_executed").await?;
            let read = |what, text: Option<String>| {
                let text: String = text.unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect();
                text.parse::<GtidSet>().map_err(|_| unreadable(what, &text))
            };
            let owned = read("gtid_owned", owned.map(|text| without_owners(&text)))?;
            Ok(Executed::MySql(read("gtid_executed", executed)?.union(&owned)))
        }
        Flavor::MariaDb => {
            let mut state = MariaDbState::default();
            // What a new replica was given is not in its own binlog.
            for question in ["SELECT @@GLOBAL.gtid_binlog_state", "SELECT @@GLOBAL.gtid_slave_pos"] {
                let text: Option<String> = first(conn, question).await?;
                let text = text.unwrap_or_default();
                state.add(&text).ok_or_else(|| unreadable("gtid_binlog_state", &text))?;
            }
            Ok(Executed::MariaDb(state))
        }
    }
}

/// `uuid:4#12:5#13` as the set `uuid:4:5`: what stands after `#` is a session's number.
fn without_owners(owned: &str) -> String {
    let mut is_owner = false;
    let kept = owned.chars().filter(|c| {
        is_owner = (is_owner && c.is_ascii_digit()) || *c == '#';
        !is_owner
    });
    kept.collect()
}

async fn first<T>(conn: &mut Conn, question: &'static str) -> Result<Option<T>, CatalogError>
where
    T: mysql_async::prelude::FromRow + Send + 'static,
{
    conn.query_first(question).await.map_err(|source| CatalogError::Query { what: question, source })
}

fn with_cause(error: &CatalogError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(intervals: &str) -> crossfade_model::GtidSet {
        format!("{A}:{intervals}").parse().unwrap()
    }

    fn there(writable: bool, replicates: bool, intervals: &str) -> Standing {
        Standing::There { writable, replicates, executed: Executed::MySql(set(intervals)) }
    }

    fn choose(captured: &str, looked: &[Standing]) -> Result<usize, CatalogError> {
        let servers =
            Servers::new(["a", "b"].map(|host| ServerUrl::parse(&format!("mysql://u@{host}")).unwrap()).into());
        servers.choose(looked, Some(&Position::MySql { executed: set(captured) }))
    }

    fn away() -> Standing {
        Standing::Away { why: "gone".to_owned() }
    }

    #[test]
    fn the_primary_is_the_one_that_takes_writes_and_has_everything() {
        let cases = [
            ([there(true, false, "1-9"), there(false, true, "1-9")], 0),
            ([there(false, true, "1-9"), there(true, false, "1-9")], 1),
            ([away(), there(true, false, "1-9")], 1),
            // A replica that nobody made read-only.
            ([there(true, true, "1-9"), there(true, false, "1-9")], 1),
            // Equal: nothing has happened from here.
            ([there(true, false, "1-9"), there(true, false, "1-9")], 0),
            // The former primary comes back, and users have gone on elsewhere.
            ([there(true, false, "1-9"), there(true, false, "1-12")], 1),
        ];
        for (looked, expected) in cases {
            assert_eq!(choose("1-9", &looked).unwrap(), expected, "{looked:?}");
        }
    }

    #[test]
    fn transactions_in_flight_are_read_without_their_sessions() {
        assert_eq!(without_owners(&format!("{A}:4#12:5#13,{A}:blue:7#1")), format!("{A}:4:5,{A}:blue:7"));
        assert_eq!(without_owners(""), "");
    }

    #[test]
    fn nobody_is_the_primary_while_none_takes_writes() {
        let error = choose("1", &[away(), there(false, true, "1-9")]).unwrap_err();
        assert!(error.awaits_servers());
        assert!(error.to_string().contains("a:3306 is away (gone); b:3306 replicates from another"), "{error}");
    }

    #[test]
    fn what_is_lost_or_went_apart_is_named() {
        let error = choose("1-9", &[away(), there(true, false, "1-7")]).unwrap_err();
        assert!(!error.awaits_servers() && error.hint().is_some());
        assert!(
            error
                .to_string()
                .contains(&format!("b:3306 takes writes and lacks transactions that were captured before: {A}:8-9")),
            "{error}"
        );
        let error = choose("1-7", &[there(true, false, "1-8"), there(true, false, "1-7:9-10")]).unwrap_err();
        assert!(!error.awaits_servers() && error.hint().is_some());
        assert!(error.to_string().contains(&format!("only a:3306 has {A}:8, only b:3306 has {A}:9-10")), "{error}");
        let unknown = || Standing::There { writable: true, replicates: false, executed: Executed::Unknown };
        assert!(matches!(choose("1", &[unknown(), unknown()]), Err(CatalogError::SplitBrain { .. })));
        assert_eq!(choose("1", &[away(), unknown()]).unwrap(), 1);
    }
}
