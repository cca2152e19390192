//! What was measured.

use serde::Serialize;
use serde_json::{Map, Value, json};

use std::time::Duration;

use crate::contender::Contender;
use crate::machine::Machine;
use crate::recording::Recording;
use crate::usage::Usage;

/// Everything of one call.
#[derive(Debug)]
pub struct Figures {
    pub machine: Machine,
    pub conditions: Conditions,
    pub runs: Vec<Run>,
    pub delays: Vec<DelayRun>,
    pub decoding: Vec<DecodingRun>,
    pub history: Vec<HistoryRun>,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Conditions {
    pub rows: u64,
    pub history_rows: u64,
    pub rounds: u32,
    pub delay_seconds: u32,
    pub rate: u32,
    pub settings: String,
}

/// One contender, one workload, once.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub flavor: String,
    pub workload: String,
    pub contender: String,
    pub round: u32,
    pub changes: u64,
    pub seconds: f64,
    pub rows_per_second: f64,
    pub used: Used,
    /// Why there are no figures.
    pub failure: Option<String>,
}

/// CPU seconds and peaks of memory in bytes. `None` where a contender has no process of its own.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Used {
    pub source_cpu_seconds: f64,
    pub target_cpu_seconds: f64,
    pub tool_cpu_seconds: Option<f64>,
    pub source_peak_bytes: u64,
    pub target_peak_bytes: u64,
    pub tool_peak_bytes: Option<u64>,
}

/// How long changes took to become visible, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct DelayRun {
    pub flavor: String,
    pub contender: String,
    pub round: u32,
    pub changes: usize,
    /// Changes a second that were really written.
    pub rate: f64,
    pub median_ms: f64,
    pub percentile_99_ms: f64,
    pub worst_ms: f64,
    pub insert_median_ms: f64,
    pub update_median_ms: f64,
    /// One durable commit on the source, as its writer saw it.
    pub commit_median_ms: f64,
    pub used: Used,
}

/// Copying or comparing all rows, once.
#[derive(Debug, Clone, Serialize)]
pub struct HistoryRun {
    pub flavor: String,
    pub work: String,
    pub way: String,
    pub round: u32,
    pub rows: u64,
    pub seconds: f64,
    pub rows_per_second: f64,
    pub used: Used,
}

/// Decoding a saved binlog in memory.
#[derive(Debug, Clone, Serialize)]
pub struct DecodingRun {
    pub flavor: String,
    pub rows: u64,
    pub bytes_per_row: u64,
    pub rows_per_cpu_second: f64,
    pub lowest: f64,
    pub highest: f64,
}

/// A median and what it is the median of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Figures {
    pub fn new(machine: Machine, conditions: Conditions) -> Figures {
        Figures { machine, conditions, runs: Vec::new(), delays: Vec::new(), decoding: Vec::new(), history: Vec::new() }
    }

    pub fn failures(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.failure.is_some())
    }

    /// Rows a second of one contender over its rounds; `None` if it took no part or failed in one.
    pub fn rows_per_second(&self, flavor: &str, workload: &str, contender: Contender) -> Option<Spread> {
        let runs = self.of(flavor, workload, contender);
        if runs.iter().any(|run| run.failure.is_some()) {
            return None;
        }
        Spread::of(runs.iter().map(|run| run.rows_per_second))
    }

    pub fn of(&self, flavor: &str, workload: &str, contender: Contender) -> Vec<&Run> {
        let name = contender.to_string();
        let is_it = |run: &&Run| run.flavor == flavor && run.workload == workload && run.contender == name;
        self.runs.iter().filter(is_it).collect()
    }

    /// Brand and workload, each once, in the order they were measured.
    pub fn measured(&self) -> Vec<(String, String)> {
        let mut measured = Vec::new();
        for run in &self.runs {
            let pair = (run.flavor.clone(), run.workload.clone());
            if !measured.contains(&pair) {
                measured.push(pair);
            }
        }
        measured
    }

    /// Medians of rows a second of crossfade, over those of the server's own replication.
    pub fn ratios(&self) -> Vec<(String, f64)> {
        let mut ratios = Vec::new();
        for (flavor, workload) in self.measured() {
            for ours in [Contender::Crossfade, Contender::CrossfadePair] {
                for theirs in [Contender::ReplicationSerial, Contender::ReplicationFour] {
                    let median = |who| self.rows_per_second(&flavor, &workload, who).map(|spread| spread.median);
                    if let (Some(our), Some(their)) = (median(ours), median(theirs)) {
                        ratios.push((format!("{flavor}/{workload}/{ours}/{theirs}"), our / their));
                    }
                }
            }
        }
        ratios
    }

    pub fn to_json(&self) -> Value {
        let rounded = |(name, ratio): (String, f64)| (name, json!((ratio * 100.0).round() / 100.0));
        let ratios: Map<String, Value> = self.ratios().into_iter().map(rounded).collect();
        json!({
            "ratios": ratios,
            "machine": self.machine,
            "conditions": self.conditions,
            "runs": self.runs,
            "delays": self.delays,
            "decoding": self.decoding,
            "history": self.history,
        })
    }
}

impl Run {
    pub fn new(recording: &Recording, contender: Contender, round: u32) -> Run {
        Run {
            flavor: recording.flavor.to_string(),
            workload: recording.workload.to_string(),
            contender: contender.to_string(),
            round,
            changes: recording.rows,
            seconds: 0.0,
            rows_per_second: 0.0,
            used: Used::default(),
            failure: None,
        }
    }

    pub fn succeeded(&mut self, took: Duration, used: Used) {
        self.seconds = took.as_secs_f64();
        self.rows_per_second = self.changes as f64 / self.seconds;
        self.used = used;
    }

    pub fn failed(&mut self, reason: String) {
        self.failure = Some(reason);
    }

    pub fn line(&self) -> String {
        let Run { flavor, workload, contender, round, .. } = self;
        let who = format!("{flavor} {workload} {contender}, round {round}");
        match &self.failure {
            Some(reason) => format!("{who}: FAILED: {reason}"),
            None => format!("{who}: {:.0} rows/s in {:.1} s; {}", self.rows_per_second, self.seconds, self.used.line()),
        }
    }
}

impl Used {
    pub fn between(before: [Usage; 2], after: [Usage; 2], tool: Option<Usage>) -> Used {
        let [source, target] = [0, 1].map(|side| after[side].cpu_seconds - before[side].cpu_seconds);
        Used {
            source_cpu_seconds: source,
            target_cpu_seconds: target,
            tool_cpu_seconds: tool.map(|usage| usage.cpu_seconds),
            source_peak_bytes: after[0].peak_bytes,
            target_peak_bytes: after[1].peak_bytes,
            tool_peak_bytes: tool.map(|usage| usage.peak_bytes),
        }
    }

    fn line(&self) -> String {
        let tool = match (self.tool_cpu_seconds, self.tool_peak_bytes) {
            (Some(cpu), Some(peak)) => format!(", tool {cpu:.1} ({} MiB)", peak >> 20),
            _ => String::new(),
        };
        format!("CPU s: source {:.1}, target {:.1}{tool}", self.source_cpu_seconds, self.target_cpu_seconds)
    }
}

impl HistoryRun {
    pub fn line(&self) -> String {
        let HistoryRun { flavor, work, way, round, rows_per_second, seconds, used, .. } = self;
        format!(
            "{flavor} {work} by {way}, round {round}: {rows_per_second:.0} rows/s in {seconds:.1} s; {}",
            used.line()
        )
    }

    /// What is measured, and by whom.
    pub fn subject(&self) -> (&str, &str, &str) {
        (&self.flavor, &self.work, &self.way)
    }
}

impl DelayRun {
    pub fn line(&self) -> String {
        format!(
            "{} delay of {}, round {}: median {:.1} ms (inserts {:.1}, updates {:.1}), 99th {:.1}, worst {:.1}; a commit {:.1}; {}",
            self.flavor,
            self.contender,
            self.round,
            self.median_ms,
            self.insert_median_ms,
            self.update_median_ms,
            self.percentile_99_ms,
            self.worst_ms,
            self.commit_median_ms,
            self.used.line()
        )
    }
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Some(Spread { median: quantile(&values, 0.5)?, lowest: *values.first()?, highest: *values.last()? })
    }
}

/// The value that a share of the sorted values does not exceed; between two values where the share falls between them.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * (sorted.len().checked_sub(1)?) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rates: &[(Contender, f64)]) -> Figures {
        let machine = Machine {
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_bytes: 8 << 30,
            kernel: "6.1".to_owned(),
            distribution: "a system".to_owned(),
            load_before: 0.5,
            crossfade: "crossfade 0.1.0".to_owned(),
            servers: vec!["MariaDB 10.11.14".to_owned()],
            measured_at: "2026-01-01 00:00 UTC".to_owned(),
        };
        let conditions = Conditions {
            rows: 100,
            history_rows: 100,
            rounds: 3,
            delay_seconds: 1,
            rate: 200,
            settings: String::new(),
        };
        let mut figures = Figures::new(machine, conditions);
        for (round, (contender, rate)) in rates.iter().enumerate() {
            figures.runs.push(Run {
                flavor: "MariaDB".to_owned(),
                workload: "W1".to_owned(),
                contender: contender.to_string(),
                round: round as u32,
                changes: 100,
                seconds: 100.0 / rate,
                rows_per_second: *rate,
                used: Used::default(),
                failure: None,
            });
        }
        figures
    }

    #[test]
    fn quantiles_fall_between_values() {
        let sorted = [1.0, 2.0, 3.0, 5.0];
        assert_eq!([0.0, 0.5, 1.0].map(|share| quantile(&sorted, share)), [Some(1.0), Some(2.5), Some(5.0)]);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn ratios_are_those_of_medians() {
        use Contender::{Crossfade, ReplicationSerial};
        let rates = [
            (Crossfade, 900.0),
            (ReplicationSerial, 100.0),
            (Crossfade, 600.0),
            (ReplicationSerial, 300.0),
            (Crossfade, 100.0),
        ];
        let ratios = figures(&rates).ratios();
        assert_eq!(ratios, [("MariaDB/W1/crossfade/replication-serial".to_owned(), 3.0)]);
    }

    #[test]
    fn a_contender_that_failed_once_has_no_figure() {
        let mut figures = figures(&[(Contender::Crossfade, 900.0), (Contender::ReplicationSerial, 100.0)]);
        figures.runs[0].failed("the target has 99 rows".to_owned());
        assert_eq!(figures.rows_per_second("MariaDB", "W1", Contender::Crossfade), None);
        assert!(figures.ratios().is_empty());
        assert_eq!(figures.failures().count(), 1);
        let page = crate::page::render(&figures);
        assert!(page.contains("| failed") && page.contains("a processor"), "{page}");
        assert!(!page.contains("900"), "{page}");
    }
}
