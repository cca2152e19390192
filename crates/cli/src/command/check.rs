//! `crossfade check`: every precondition, all findings together, each with its remedy.

use crossfade_catalog::check::{Finding, Report, Severity, check};
use crossfade_config::Settings;

use super::{open_store, print_json};
use crate::output::out;

/// Exit code 1 where a finding is an error, 3 where a server could not be reached.
pub async fn run(settings: &Settings, json: bool) -> anyhow::Result<u8> {
    let report = check(settings, store_findings(settings).await).await;
    if json {
        print_json(&report)?;
    } else {
        print(&report);
    }
    let unreachable = report.findings.iter().any(|finding| finding.code == "unreachable");
    Ok(if unreachable { 3 } else { u8::from(report.has_errors()) })
}

/// What only the store knows: whether the two processes run with different rules.
async fn store_findings(settings: &Settings) -> Vec<Finding> {
    let store = open_store(settings);
    // Before `init` there is no store, and a server that is away is the check's own finding.
    let Ok(leases) = store.leases().await else { return Vec::new() };
    let live: Vec<_> = leases.iter().filter(|lease| lease.live).collect();
    let Some((first, rest)) = live.split_first() else { return Vec::new() };
    rest.iter()
        .filter(|lease| lease.rules_hash != first.rules_hash)
        .map(|lease| Finding {
            severity: Severity::Error,
            code: "rules-differ",
            side: None,
            subject: format!("{} and {}", first.subject, lease.subject),
            message: format!("the two processes run with different rules ({} and {})", first.holder, lease.holder),
            remedy: "stop both and start them with the same configuration file".to_owned(),
        })
        .collect()
}

/// Each remedy on a line of its own, so that its SQL can be copied from there.
fn print(report: &Report) {
    for finding in &report.findings {
        let mark = match finding.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        let side = finding.side.map_or(String::new(), |side| format!("{side} "));
        out!("{mark} {side}{}: {} [{}]", finding.subject, finding.message, finding.code);
        out!("  remedy: {}", finding.remedy);
    }
    if report.findings.iter().any(|finding| finding.remedy.contains("SET GLOBAL")) {
        out!("note: what SET GLOBAL sets is gone when the server restarts; write it into its option file too");
    }
    let errors = counted(report.count(Severity::Error), "error");
    let verdict = if report.has_errors() { "" } else { ": nothing stands in the way" };
    out!("{errors}, {}{verdict}", counted(report.count(Severity::Warning), "warning"));
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
