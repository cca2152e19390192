//! `crossfade check`: every precondition, all findings together, each with its remedy.

use crossfade_catalog::check::{Finding, Report, Severity, check};
use crossfade_config::Settings;

use super::{new_table, open_store, print_json};

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

fn print(report: &Report) {
    if report.findings.is_empty() {
        println!("everything is ready");
        return;
    }
    let mut table = new_table(&["", "side", "subject", "finding", "remedy"]);
    for finding in &report.findings {
        let mark = match finding.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        let side = finding.side.map_or(String::new(), |side| side.to_string());
        table.add_row([
            mark,
            &side,
            &finding.subject,
            &format!("{} [{}]", finding.message, finding.code),
            &finding.remedy,
        ]);
    }
    println!("{table}");
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    println!("{} errors, {} warnings", count(Severity::Error), count(Severity::Warning));
}
