//! Every precondition of a migration, looked at before it begins.
//!
//! A check changes nothing, and goes on after each finding, so that all come at once. What it cannot ask is a finding too.

pub(crate) mod binlog;
mod finding;
pub(crate) mod grants;
mod presence;
pub(crate) mod privileges;
mod replica;
mod server;
mod sides;
mod tables;

use std::time::Duration;

use crossfade_config::{Policy, ServerUrl, Settings, TablePattern};
use crossfade_model::{Side, TableName};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::time::Instant;

pub use finding::{Finding, Report, Severity};

use crate::{CatalogError, Purpose, ServerFacts, Servers, connect, table_shapes};
use privileges::Account;
use sides::SideClock;
use tables::Tables;

/// How long the growth of binlogs is watched.
const GROWTH_SAMPLE: Duration = Duration::from_secs(1);

/// Looks at both sides and the store. `others` are findings of other parts, which the report then holds too.
///
/// Never fails: a server that cannot be asked is a finding (`unreachable`, `check-incomplete`). Takes a second, in which
/// the binlogs' growth is measured.
pub async fn check(settings: &Settings, others: Vec<Finding>) -> Report {
    let mut findings = others;
    let (old, new, store) = tokio::join!(
        SideServers::open(settings, Side::Old),
        SideServers::open(settings, Side::New),
        open_store(settings),
    );
    let mut keep = |side: Option<Side>, opened: Result<SideServers, CatalogError>| {
        opened.map_err(|error| findings.push(error_finding(side, "unreachable", &error))).ok()
    };
    let (mut old, mut new) = (keep(Some(Side::Old), old), keep(Some(Side::New), new));
    match store {
        Ok(Some(store)) => findings.extend(store_findings(settings, &store)),
        Ok(None) => {}
        Err(error) => findings.push(error_finding(None, "unreachable", &error)),
    }
    let before = (binlog_bytes(&mut old).await, binlog_bytes(&mut new).await);
    let started = Instant::now();
    for side in [&mut old, &mut new].into_iter().flatten() {
        findings.extend(side.own_findings(settings));
        findings.extend(side.replica_findings(settings).await);
    }
    if let (Some(old), Some(new)) = (&mut old, &mut new) {
        findings.extend(pair_findings(settings, old, new).await);
    }
    tokio::time::sleep_until(started + GROWTH_SAMPLE).await;
    let seconds = started.elapsed().as_secs_f64();
    let rate = |before: Option<u64>, after: Option<u64>| Some((after?.saturating_sub(before?) as f64 / seconds) as u64);
    let after = (binlog_bytes(&mut old).await, binlog_bytes(&mut new).await);
    findings.extend(binlog::growth_finding(settings, rate(before.0, after.0), rate(before.1, after.1)));
    Report::new(findings)
}

/// A connection with what is known of its server.
struct Server {
    conn: Conn,
    facts: ServerFacts,
    account: Account,
}

impl Server {
    async fn open(url: &ServerUrl) -> Result<Server, CatalogError> {
        let mut conn = connect(url, Purpose::Catalog).await?;
        let facts = ServerFacts::read(&mut conn).await?;
        let account = Account::read(&mut conn, facts.dialect()).await?;
        Ok(Server { conn, facts, account })
    }
}

/// A side's server and, where it is another one, the server whose binlog is read.
struct SideServers {
    side: Side,
    target: Server,
    target_url: ServerUrl,
    reader: Option<Server>,
    /// The other servers of `urls` that could be reached, with their addresses.
    others: Vec<(String, Server)>,
    /// About those that could not.
    away: Vec<Finding>,
    clock: SideClock,
}

impl SideServers {
    async fn open(settings: &Settings, side: Side) -> Result<SideServers, CatalogError> {
        let mut urls = settings.side(side).urls();
        let target_url = urls.remove(Servers::new(urls.clone()).primary().await?);
        let mut target = Server::open(&target_url).await?;
        let (mut others, mut away) = (Vec::new(), Vec::new());
        for url in urls {
            match Server::open(&url).await {
                Ok(server) => others.push((url.address(), server)),
                Err(error) => away.push(error_finding(Some(side), "unreachable", &error)),
            }
        }
        let reader = match &settings.side(side).binlog_url {
            Some(url) => Some(Server::open(url).await?),
            None => None,
        };
        // No row where the server has no table of time zones for its own default.
        let utc_offset_minutes: Option<Option<i64>> = target
            .conn
            .query_first("SELECT TIMESTAMPDIFF(MINUTE, UTC_TIMESTAMP(), CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', @@global.time_zone))")
            .await
            .map_err(|source| CatalogError::Query { what: "the time zone", source })?;
        let clock = SideClock { utc_offset_minutes: utc_offset_minutes.flatten() };
        Ok(SideServers { side, target, target_url, reader, others, away, clock })
    }

    fn reader(&mut self) -> &mut Server {
        self.reader.as_mut().unwrap_or(&mut self.target)
    }

    /// What settings and grants tell without another question.
    fn own_findings(&mut self, settings: &Settings) -> Vec<Finding> {
        let (side, is_store) = (self.side, self.side == Side::New && settings.store.url.is_none());
        let mut findings = server::target_findings(Some(side), &self.target.facts, settings);
        findings.extend(server::version_findings(Some(side), &self.target.facts));
        findings.extend(self.target.account.own_schema_findings(Some(side), is_store));
        let reader = self.reader();
        findings.extend(server::version_findings(Some(side), &reader.facts));
        findings.extend(server::binlog_findings(side, &reader.facts));
        findings.extend(reader.account.binlog_findings(side, reader.facts.dialect()));
        findings.append(&mut self.away);
        for (_, other) in &self.others {
            findings.extend(server::version_findings(Some(side), &other.facts));
            findings.extend(server::binlog_findings(side, &other.facts));
            findings.extend(other.account.binlog_findings(side, other.facts.dialect()));
            findings.extend(other.account.own_schema_findings(Some(side), is_store));
        }
        findings
    }

    /// What only servers that replicate from another need.
    async fn replica_findings(&mut self, settings: &Settings) -> Vec<Finding> {
        let (side, several) = (self.side, !self.others.is_empty());
        let mut findings = Vec::new();
        // Where nothing else is read, the server's format is a finding of its own.
        if self.reader.is_some() {
            findings.extend(replica::row_session_finding(side, &self.target_url, &self.target).await);
        }
        if several {
            findings.extend(replica::fail_over_findings(side, &self.target_url.address(), &self.target));
        }
        let replica = self.reader.as_mut().zip(settings.side(side).binlog_url.as_ref());
        let replica = replica.map(|(server, url)| (url.address(), server));
        let others = self.others.iter_mut().map(|(address, server)| (address.clone(), server));
        for (address, server) in replica.into_iter().chain(others) {
            if several {
                findings.extend(replica::fail_over_findings(side, &address, server));
            }
            findings.extend(replica::log_findings(side, &address, server));
            match replica::filter_findings(side, &address, server, several).await {
                Ok(found) => findings.extend(found),
                Err(error) => findings.push(error_finding(Some(side), "check-incomplete", &error)),
            }
        }
        findings
    }
}

async fn open_store(settings: &Settings) -> Result<Option<Server>, CatalogError> {
    match &settings.store.url {
        Some(url) => Server::open(url).await.map(Some),
        None => Ok(None),
    }
}

fn store_findings(settings: &Settings, store: &Server) -> Vec<Finding> {
    let mut findings = server::target_findings(None, &store.facts, settings);
    findings.extend(server::version_findings(None, &store.facts));
    findings.extend(store.account.own_schema_findings(None, true));
    findings
}

async fn binlog_bytes(side: &mut Option<SideServers>) -> Option<u64> {
    let reader = side.as_mut()?.reader();
    binlog::binlog_bytes(&mut reader.conn, reader.facts.dialect()).await
}

/// What needs both sides: the pair itself, and the tables.
async fn pair_findings(settings: &Settings, old: &mut SideServers, new: &mut SideServers) -> Vec<Finding> {
    let compares_times = settings.tables.iter().any(|table| table.policy == Policy::Newest);
    let both = ((&old.target.facts, &old.clock), (&new.target.facts, &new.clock));
    let mut findings = sides::both_sides_findings(both.0, both.1, compares_times);
    let tables = match read_tables(settings, old, new).await {
        Ok(tables) => tables,
        Err(error) => {
            findings.push(error_finding(None, "check-incomplete", &error));
            return findings;
        }
    };
    findings.extend(tables.findings(settings, &old.target.facts, &new.target.facts));
    let counted = tables.with_auto_increment();
    findings.extend(sides::auto_increment_finding(&old.target.facts, &new.target.facts, &counted));
    for side in [old, new] {
        findings.extend(table_findings(settings, side, &tables).await);
    }
    findings
}

async fn read_tables<'s>(
    settings: &'s Settings,
    old: &mut SideServers,
    new: &mut SideServers,
) -> Result<Tables<'s>, CatalogError> {
    let old_shapes = table_shapes(&mut old.target.conn, &settings.old_patterns()).await?;
    let mut tables = Tables::new(settings, old_shapes);
    let wanted: Vec<TablePattern> = tables.selected.iter().map(|table| TablePattern::exact(&table.new)).collect();
    tables.set_new(table_shapes(&mut new.target.conn, &wanted).await?);
    Ok(tables)
}

/// What has to be asked of a side, knowing its tables. A question that fails does not prevent the others.
async fn table_findings(settings: &Settings, servers: &mut SideServers, tables: &Tables<'_>) -> Vec<Finding> {
    let side = servers.side;
    let mut findings = Vec::new();
    let or_error = |result: Result<Vec<Finding>, CatalogError>| {
        result.unwrap_or_else(|error| vec![error_finding(Some(side), "check-incomplete", &error)])
    };
    let missing = tables.missing_on(side);
    let shapes = tables.on(side);
    let Server { conn, account, .. } = &mut servers.target;
    for name in &missing {
        findings.extend(or_error(presence::missing_finding(conn, side, name).await.map(|finding| vec![finding])));
    }
    let by_patterns = tables.unseen_by_patterns(settings, side);
    let unseen: Vec<&TableName> = missing.into_iter().chain(&by_patterns).collect();
    findings.extend(account.unseen_findings(side, &unseen));
    findings.extend(account.table_findings(conn, side, &shapes).await);
    findings.extend(or_error(presence::trigger_findings(conn, side, account, &shapes).await));

    let Server { conn, facts, account } = servers.reader();
    let dialect = facts.dialect();
    findings.extend(or_error(binlog::filter_findings(conn, dialect, side, &tables.schemas(side)).await));
    findings.extend(or_error(binlog::prepared_findings(conn, dialect, side, account.name()).await));
    for (_, other) in &mut servers.others {
        let filters =
            binlog::filter_findings(&mut other.conn, other.facts.dialect(), side, &tables.schemas(side)).await;
        findings.extend(or_error(filters));
    }
    findings
}

fn error_finding(side: Option<Side>, code: &'static str, error: &CatalogError) -> Finding {
    let subject = side.map_or("store", Side::as_str);
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        source = cause.source();
    }
    Finding::new(Severity::Error, code, side, subject, message, error.hint().unwrap_or("see the server's error log"))
}
