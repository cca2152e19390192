//! Findings about one server's settings.

use std::time::Duration;

use crossfade_config::Settings;
use crossfade_model::Side;

use super::{Finding, Severity};
use crate::{GtidMode, SUPPORTED_VERSIONS, ServerFacts, SupportLevel};

/// A process that stands still over a weekend must find its place in the binlog again.
const SHORT_RETENTION: Duration = Duration::from_secs(3 * 86_400);

/// What concerns every server that crossfade talks to. `side` is none for a store of its own.
pub(super) fn version_findings(side: Option<Side>, facts: &ServerFacts) -> Option<Finding> {
    let version = facts.version.to_string();
    match facts.support_level() {
        SupportLevel::Supported => None,
        SupportLevel::Expected => Some(Finding::new(
            Severity::Warning,
            "version-untested",
            side,
            &version,
            format!("{version} is expected to work, but was not tested"),
            format!("run crossfade's tests against it (`make test CROSSFADE_MYSQLD=…`); {SUPPORTED_VERSIONS}"),
        )),
        SupportLevel::Refused => Some(Finding::new(
            Severity::Error,
            "version-refused",
            side,
            &version,
            format!("{version} is not supported"),
            format!("upgrade the server; {SUPPORTED_VERSIONS}"),
        )),
    }
}

/// What concerns the server whose binlog is read.
pub(super) fn binlog_findings(side: Side, facts: &ServerFacts) -> Vec<Finding> {
    let binlog = &facts.binlog;
    if !binlog.enabled {
        return vec![Finding::new(
            Severity::Error,
            "binlog-off",
            side,
            "log_bin",
            "the binlog is off, so no change can be seen",
            "restart the server without `skip-log-bin`, and with `log_bin = binlog`, a `server_id` of its own, \
             `binlog_format = ROW` and `binlog_row_metadata = FULL` in its option file",
        )];
    }
    let mut findings = Vec::new();
    let mut add = |severity, code, subject: &str, message: String, remedy: &str| {
        findings.push(Finding::new(severity, code, side, subject, message, remedy));
    };
    if facts.server_id == 0 {
        let message = "`server_id` is 0, and such a server lets nobody read its binlog".to_owned();
        add(Severity::Error, "server-id-zero", "server_id", message, "SET GLOBAL server_id = <a number of its own>;");
    }
    if binlog.format != "ROW" {
        let message = format!("`binlog_format` is {}: changes are logged as statements, not as rows", binlog.format);
        let remedy = "SET GLOBAL binlog_format = 'ROW';  -- and end the sessions that began before";
        add(Severity::Error, "binlog-format", "binlog_format", message, remedy);
    }
    if binlog.row_image != "FULL" {
        let message = format!("`binlog_row_image` is {}: rows are logged with holes", binlog.row_image);
        let remedy = "SET GLOBAL binlog_row_image = 'FULL';  -- and end the sessions that began before";
        add(Severity::Error, "binlog-row-image", "binlog_row_image", message, remedy);
    }
    if binlog.row_metadata != "FULL" {
        let found = if binlog.row_metadata.is_empty() { "unknown to the server" } else { &binlog.row_metadata };
        let message =
            format!("`binlog_row_metadata` is {found}: a schema change while a process stands still stops it");
        add(
            Severity::Warning,
            "binlog-row-metadata",
            "binlog_row_metadata",
            message,
            "SET GLOBAL binlog_row_metadata = 'FULL';",
        );
    }
    if binlog.sync_binlog != 1 {
        let message =
            format!("`sync_binlog` is {}: a crash of the machine can lose logged changes", binlog.sync_binlog);
        add(Severity::Warning, "sync-binlog", "sync_binlog", message, "SET GLOBAL sync_binlog = 1;");
    }
    // What was there before is copied from old only.
    if side == Side::Old && !binlog.orders_commits {
        let message = "`binlog_order_commits` is off: what is logged may be seen late, so no history can be copied";
        let remedy = "SET GLOBAL binlog_order_commits = ON;  -- while `crossfade backfill` copies";
        add(Severity::Warning, "binlog-order-commits", "binlog_order_commits", message.to_owned(), remedy);
    }
    if let Some(retention) = binlog.retention.filter(|retention| *retention < SHORT_RETENTION) {
        let kept = humantime::format_duration(retention);
        let message = format!("binlogs are kept for {kept}: a process that stands still for longer cannot go on");
        add(
            Severity::Warning,
            "binlog-retention",
            "binlog_expire_logs_seconds",
            message,
            "SET GLOBAL binlog_expire_logs_seconds = 604800;",
        );
    }
    if matches!(facts.gtid_mode, GtidMode::Off | GtidMode::Permissive) {
        let message = "GTIDs are off: positions mean nothing on another server, so a fail-over ends the migration";
        add(
            Severity::Warning,
            "gtid-off",
            "gtid_mode",
            message.to_owned(),
            "switch `gtid_mode` to ON step by step (MySQL manual, \"Enabling GTID Transactions Online\")",
        );
    }
    findings
}

/// What concerns a server that is written to.
pub(super) fn target_findings(side: Option<Side>, facts: &ServerFacts, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |severity, code, subject: &str, message: String, remedy: String| {
        findings.push(Finding::new(severity, code, side, subject, message, remedy));
    };
    if facts.read_only {
        let message = "the server is read-only, and crossfade writes to both sides".to_owned();
        add(Severity::Error, "read-only", "read_only", message, "SET GLOBAL read_only = OFF;".to_owned());
    }
    if facts.flush_log_at_commit != 1 {
        let found = facts.flush_log_at_commit;
        let message =
            format!("`innodb_flush_log_at_trx_commit` is {found}: a crash of the machine can lose committed changes");
        let remedy = "SET GLOBAL innodb_flush_log_at_trx_commit = 1;".to_owned();
        add(Severity::Warning, "flush-log-at-commit", "innodb_flush_log_at_trx_commit", message, remedy);
    }
    let needed = settings.apply.batch_bytes.saturating_mul(4);
    if facts.max_allowed_packet_bytes < needed {
        let found = facts.max_allowed_packet_bytes;
        let message = format!("`max_allowed_packet` is {found} bytes, too little for batches of `batch_bytes`");
        let remedy = format!("SET GLOBAL max_allowed_packet = {};", needed.next_multiple_of(1 << 20));
        add(Severity::Warning, "max-allowed-packet", "max_allowed_packet", message, remedy);
    }
    findings
}
