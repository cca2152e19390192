//! Findings about servers that replicate: whether what they replay is in their binlog, whole and in order.

use crossfade_config::ServerUrl;
use crossfade_model::Side;
use mysql_async::Row;
use mysql_async::prelude::Queryable;

use super::privileges::{OWN_SCHEMA, denied};
use super::{Finding, Server, Severity};
use crate::{CatalogError, Flavor, GtidMode, Purpose, connect};

/// The columns of a replica's status that name its filters.
const FILTERS: [&str; 6] = [
    "Replicate_Do_DB",
    "Replicate_Ignore_DB",
    "Replicate_Do_Table",
    "Replicate_Ignore_Table",
    "Replicate_Wild_Do_Table",
    "Replicate_Wild_Ignore_Table",
];

/// What a server needs whose binlog is read in place of another's, or may be one day.
pub(super) fn log_findings(side: Side, address: &str, server: &Server) -> Vec<Finding> {
    let binlog = &server.facts.binlog;
    let mut findings = Vec::new();
    let mut add = |code, subject: &str, message: String, remedy: &str| {
        findings.push(Finding::new(Severity::Error, code, side, subject, message, remedy));
    };
    if binlog.enabled && !binlog.logs_replicated {
        let (name, remedy) = match server.facts.flavor() {
            Flavor::MySql => ("log_replica_updates", "restart it with `log_replica_updates = ON` in its option file"),
            Flavor::MariaDb => ("log_slave_updates", "restart it with `log_slave_updates = ON` in its option file"),
        };
        let message = format!("`{name}` is OFF on {address}: what it replays is not in its binlog");
        add("replica-logs-nothing", name, message, remedy);
    }
    if !binlog.keeps_commit_order {
        let message = format!(
            "{address} replays in parallel and commits in another order than its primary: what comes before what cannot be told"
        );
        let remedy = "SET GLOBAL replica_preserve_commit_order = ON;  -- with replication stopped";
        add("replica-order", "replica_preserve_commit_order", message, remedy);
    }
    findings
}

/// What one of several servers needs so that a stream can go on there.
pub(super) fn fail_over_findings(side: Side, address: &str, server: &Server) -> Option<Finding> {
    matches!(server.facts.gtid_mode, GtidMode::Off | GtidMode::Permissive).then(|| {
        Finding::new(
            Severity::Error,
            "fail-over-without-gtid",
            side,
            "gtid_mode",
            format!("{address} has no GTIDs, so no stream can go on there, nor leave it"),
            "switch `gtid_mode` to ON step by step on all of `urls` (MySQL manual, \"Enabling GTID Transactions Online\"), or \
             name one server with `url`",
        )
    })
}

/// Filters that keep changes from a replica. Where the account may not see them, that is a finding too.
pub(super) async fn filter_findings(
    side: Side,
    address: &str,
    server: &mut Server,
    is_one_of_several: bool,
) -> Result<Vec<Finding>, CatalogError> {
    let dialect = server.facts.dialect();
    let sources: Vec<Row> = match server.conn.query(dialect.replica_status()).await {
        Err(error) if denied(&error) => {
            let privilege = if dialect.flavor() == Flavor::MySql { "REPLICATION CLIENT" } else { "REPLICA MONITOR" };
            let severity = if is_one_of_several { Severity::Error } else { Severity::Warning };
            return Ok(vec![Finding::new(
                severity,
                "replication-unseen",
                side,
                address,
                format!("the account may not see whether {address} replicates, and what it leaves out"),
                format!("GRANT {privilege} ON *.* TO {};", server.account.name()),
            )]);
        }
        rows => rows.map_err(|source| CatalogError::Query { what: "the replica's status", source })?,
    };
    let mut findings = Vec::new();
    for row in &sources {
        for column in FILTERS {
            let filter = row.get_opt::<String, _>(column).and_then(Result::ok).filter(|filter| !filter.is_empty());
            let Some(filter) = filter else { continue };
            findings.push(Finding::new(
                Severity::Warning,
                "replica-filter",
                side,
                column,
                format!(
                    "{address} replays with the filter {column} = {filter}: what it leaves out cannot be seen there"
                ),
                format!("see that it leaves out no synced table and nothing of schema `{OWN_SCHEMA}`"),
            ));
        }
    }
    Ok(findings)
}

/// A server that logs statements must let crossfade's sessions log rows.
pub(super) async fn row_session_finding(side: Side, url: &ServerUrl, server: &Server) -> Option<Finding> {
    let binlog = &server.facts.binlog;
    if !binlog.enabled || binlog.format == "ROW" {
        return None;
    }
    let Err(CatalogError::RowFormat { .. }) = connect(url, Purpose::Apply).await else { return None };
    let privilege = match server.facts.flavor() {
        Flavor::MySql => "SESSION_VARIABLES_ADMIN",
        Flavor::MariaDb => "BINLOG ADMIN",
    };
    Some(Finding::new(
        Severity::Error,
        "privilege-missing",
        side,
        "*.*",
        format!(
            "{} may not log its own changes as rows, and the server's default is {}",
            server.account.name(),
            binlog.format
        ),
        format!("GRANT {privilege} ON *.* TO {};", server.account.name()),
    ))
}
