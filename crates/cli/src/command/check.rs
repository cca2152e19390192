//! `crossfade check`: every precondition, all findings together, each with its remedy.

use std::time::Duration;

use crossfade_applier::{ProbeLoad, probe_load};
use crossfade_catalog::Servers;
use crossfade_catalog::check::{Finding, Report, Severity, check};
use crossfade_config::Settings;
use crossfade_model::Side;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{open_store, print_json};
use crate::args::CheckArgs;
use crate::output::out;
use crate::sync::runners;

/// Below this the new side catches up slowly, if at all, after it was away.
const LITTLE_HEADROOM: f64 = 2.0;

#[derive(Serialize)]
struct Checked<'c> {
    #[serde(flatten)]
    report: &'c Report,
    /// Only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_load: Option<ProbeLoad>,
}

/// Exit code 1 where a finding is an error, 3 where a server could not be reached.
pub async fn run(settings: &Settings, args: &CheckArgs, stop: CancellationToken) -> anyhow::Result<u8> {
    let checking = async { check(settings, store_findings(settings).await).await };
    let mut report = tokio::select! {
        // Nothing is written by then that would have to be cleared away.
        () = stop.cancelled() => return Ok(3),
        report = checking => report,
    };
    let unreachable = report.findings.iter().any(|finding| finding.code == "unreachable");
    let probe_load = match args.probe_load && !unreachable {
        true => Some(probe(settings, Duration::from_secs(args.seconds), &stop).await?),
        false => None,
    };
    if let Some(load) = &probe_load {
        report.findings.push(load_finding(load));
        report = Report::new(report.findings);
    }
    if args.json {
        print_json(&Checked { report: &report, probe_load })?;
    } else {
        print(&report);
    }
    Ok(if unreachable { 3 } else { u8::from(report.has_errors()) })
}

async fn probe(settings: &Settings, time: Duration, stop: &CancellationToken) -> anyhow::Result<ProbeLoad> {
    let (old, new) = (Servers::new(settings.old.urls()), Servers::new(settings.new.urls()));
    eprintln!("writing to schema `crossfade` of the new side for {}", humantime::format_duration(time));
    Ok(probe_load(&old, &new, settings.apply.lanes, time, stop).await?)
}

fn load_finding(load: &ProbeLoad) -> Finding {
    let mebibytes = |bytes: Option<f64>| {
        bytes.map_or(String::new(), |bytes| format!(" and {:.1} MiB of binlog", bytes / f64::from(1 << 20)))
    };
    let verdict = match load.headroom {
        Some(headroom) => format!("it takes {headroom:.1} times as much"),
        None => "that is too little to tell anything of its busy hours".to_owned(),
    };
    let message = format!(
        "for {:.1} s the new side took {:.0} changes{} a second in {} lanes; the old side wrote {:.0}{} a second: {verdict}",
        load.seconds,
        load.target_changes_per_second,
        mebibytes(load.target_binlog_bytes_per_second),
        load.lanes,
        load.source_changes_per_second,
        mebibytes(load.source_binlog_bytes_per_second),
    );
    let is_little = load.headroom.is_some_and(|headroom| headroom < LITTLE_HEADROOM);
    let (severity, remedy) = match is_little {
        true => (
            Severity::Warning,
            "give the new side a faster disk or more memory, or try more `lanes` in `[apply]`; what waits grows where it takes less",
        ),
        false => (Severity::Info, "repeat it at the busiest hour of the old side"),
    };
    Finding::new(severity, "probe-load", Side::New, "crossfade.probe", message, remedy)
}

/// What only the store knows: whether the two processes run with different rules.
pub async fn store_findings(settings: &Settings) -> Vec<Finding> {
    let store = open_store(settings);
    // Before `init` there is no store, and a server that is away is the check's own finding.
    let Ok(runners) = runners(&store).await else { return Vec::new() };
    let Some((first, rest)) = runners.split_first() else { return Vec::new() };
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
