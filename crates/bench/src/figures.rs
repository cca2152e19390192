//! What was measured.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use std::time::Duration;

use crate::calls::{Broken, Call};
use crate::contender::Contender;
use crate::machine::Machine;
use crate::recording::Recording;
use crate::stage::Durability;
use crate::usage::Usage;

/// Everything of one call, and what stands [of earlier ones](Figures::behind).
#[derive(Debug, Deserialize)]
pub struct Figures {
    pub machine: Machine,
    pub conditions: Conditions,
    pub calls: Vec<Call>,
    pub runs: Vec<Run>,
    pub delays: Vec<DelayRun>,
    pub decoding: Vec<DecodingRun>,
    pub captures: Vec<CaptureRun>,
    // Earlier figures have none.
    #[serde(default)]
    pub echoes: Vec<EchoRun>,
    pub growth: Vec<GrowthRun>,
    pub history: Vec<HistoryRun>,
    pub broken: Vec<Broken>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    pub rows: u64,
    pub history_rows: u64,
    pub rounds: u32,
    pub delay_seconds: u32,
    pub rates: Vec<u32>,
    pub growth_messages: Vec<u64>,
    pub settings: String,
    /// Of tables, workloads and the store.
    pub definitions: u32,
}

/// One contender, one workload, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    pub flavor: String,
    pub workload: String,
    pub durability: String,
    pub contender: String,
    pub round: u32,
    pub changes: u64,
    pub seconds: f64,
    pub rows_per_second: f64,
    pub used: Used,
    /// Why there are no figures.
    pub failure: Option<String>,
}

/// What contenders are compared in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub flavor: String,
    pub workload: String,
    pub durability: String,
}

/// How many times as many rows a second one contender takes in as another.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratio {
    pub subject: Subject,
    pub ours: Contender,
    pub theirs: Contender,
    pub times: f64,
}

/// CPU seconds and peaks of memory in bytes. `None` where a contender has no process of its own.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Used {
    pub source_cpu_seconds: f64,
    pub target_cpu_seconds: f64,
    pub tool_cpu_seconds: Option<f64>,
    pub source_peak_bytes: u64,
    pub target_peak_bytes: u64,
    pub tool_peak_bytes: Option<u64>,
}

/// How long changes took to become visible, at one rate, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DelayRun {
    pub flavor: String,
    pub contender: String,
    pub round: u32,
    /// Changes a second that were to be written.
    pub wanted_rate: u32,
    pub delays: Option<Delays>,
    /// Why there are none, or no round trips.
    pub failure: Option<String>,
}

/// In milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delays {
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
    /// Changes by their delay: up to each of [`DELAY_BOUNDS_MS`], then those above all.
    pub histogram: Vec<u64>,
    pub round_trip: Option<RoundTrip>,
    pub used: Used,
}

pub const DELAY_BOUNDS_MS: [u32; 8] = [2, 4, 8, 16, 32, 64, 128, 256];

/// Changes that are answered on the target, until the source sees the answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RoundTrip {
    pub trips: u32,
    pub median_ms: f64,
    pub percentile_99_ms: f64,
    pub worst_ms: f64,
    /// Messages of both directions beyond what was written: what came back of itself.
    pub echoes: u64,
}

/// Copying or comparing all rows, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
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

/// Capturing a workload into the message table, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CaptureRun {
    pub flavor: String,
    pub workload: String,
    pub round: u32,
    pub changes: u64,
    pub rows_per_second: f64,
    pub used: Used,
}

/// Passing what forward has written of a workload, and capturing the same rows as a user's, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EchoRun {
    pub flavor: String,
    pub workload: String,
    pub round: u32,
    /// Of the workload.
    pub changes: u64,
    /// Rows that forward has written of them.
    pub echoes: u64,
    /// Rows a second, where they are recognised.
    pub passed_per_second: f64,
    /// Rows a second, where they are taken for a user's.
    pub captured_per_second: f64,
}

/// Single-row inserts where there are so many messages, or tables, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GrowthRun {
    pub flavor: String,
    /// `messages` or `tables`.
    pub growing: String,
    pub size: u64,
    /// As many as there were when the round began.
    pub found: u64,
    pub round: u32,
    pub rows_per_second: f64,
}

/// Decoding a saved binlog in memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    pub fn new(machine: Machine, conditions: Conditions, calls: Vec<Call>) -> Figures {
        Figures {
            machine,
            conditions,
            calls,
            runs: Vec::new(),
            delays: Vec::new(),
            decoding: Vec::new(),
            captures: Vec::new(),
            echoes: Vec::new(),
            growth: Vec::new(),
            history: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// A line for each run that has no figures, or not all.
    pub fn failures(&self) -> Vec<String> {
        let runs = self.runs.iter().filter(|run| run.failure.is_some()).map(Run::line);
        let delays = self.delays.iter().filter(|run| run.failure.is_some()).map(DelayRun::line);
        runs.chain(delays).chain(self.broken.iter().map(Broken::line)).collect()
    }

    /// Rows a second of one contender over its rounds; `None` if it took no part or failed in one.
    pub fn rows_per_second(&self, subject: &Subject, contender: Contender) -> Option<Spread> {
        let runs = self.of(subject, contender);
        if runs.iter().any(|run| run.failure.is_some()) {
            return None;
        }
        Spread::of(runs.iter().map(|run| run.rows_per_second))
    }

    pub fn of(&self, subject: &Subject, contender: Contender) -> Vec<&Run> {
        let name = contender.to_string();
        self.runs.iter().filter(|run| run.contender == name && run.subject() == *subject).collect()
    }

    /// Each once, in the order they were measured.
    pub fn measured(&self, durability: Durability) -> Vec<Subject> {
        let wanted = durability.to_string();
        each_once(self.runs.iter().map(Run::subject).filter(|subject| subject.durability == wanted))
    }

    /// Medians of rows a second of crossfade, over those of all others.
    pub fn ratios(&self, durability: Durability) -> Vec<Ratio> {
        let mut ratios = Vec::new();
        for subject in self.measured(durability) {
            for ours in [Contender::Crossfade, Contender::CrossfadePair] {
                for &theirs in Contender::value_variants() {
                    let median = |who| self.rows_per_second(&subject, who).map(|spread| spread.median);
                    let is_other = !matches!(theirs, Contender::Crossfade | Contender::CrossfadePair);
                    if let (true, Some(our), Some(their)) = (is_other, median(ours), median(theirs)) {
                        ratios.push(Ratio { subject: subject.clone(), ours, theirs, times: our / their });
                    }
                }
            }
        }
        ratios
    }

    pub fn to_json(&self) -> Value {
        let rounded = |ratio: f64| json!((ratio * 100.0).round() / 100.0);
        let ratios = [Durability::Durable, Durability::Relaxed].map(|durability| self.ratios(durability));
        let named = |ratio: Ratio| (ratio.name(), rounded(ratio.times));
        let mut ratios: Map<String, Value> = ratios.into_iter().flatten().map(named).collect();
        for (flavor, workload) in each_once(self.echoes.iter().map(EchoRun::subject)) {
            let of_it = self.echoes.iter().filter(|run| run.subject() == (flavor, workload));
            if let Some(ratio) = Spread::of(of_it.map(EchoRun::ratio)) {
                ratios.insert(format!("{flavor}/{workload}/echoes/captured"), rounded(ratio.median));
            }
        }
        json!({
            "ratios": ratios,
            "machine": self.machine,
            "conditions": self.conditions,
            "calls": self.calls,
            "runs": self.runs,
            "delays": self.delays,
            "decoding": self.decoding,
            "captures": self.captures,
            "echoes": self.echoes,
            "growth": self.growth,
            "history": self.history,
            "broken": self.broken,
        })
    }
}

impl Ratio {
    /// `MySQL/W1/crossfade/replication-serial`, with `relaxed` behind it where servers are.
    fn name(&self) -> String {
        let Subject { flavor, workload, durability } = &self.subject;
        let relaxed = if *durability == Durability::Relaxed.to_string() { "/relaxed" } else { "" };
        format!("{flavor}/{workload}/{}/{}{relaxed}", self.ours, self.theirs)
    }
}

impl Run {
    pub fn is_relaxed(&self) -> bool {
        self.durability == Durability::Relaxed.to_string()
    }

    pub fn new(recording: &Recording, durability: Durability, contender: Contender, round: u32) -> Run {
        Run {
            flavor: recording.flavor.to_string(),
            workload: recording.workload.to_string(),
            durability: durability.to_string(),
            contender: contender.to_string(),
            round,
            changes: recording.changes,
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

    pub fn subject(&self) -> Subject {
        Subject { flavor: self.flavor.clone(), workload: self.workload.clone(), durability: self.durability.clone() }
    }

    pub fn line(&self) -> String {
        let Run { flavor, workload, durability, contender, round, .. } = self;
        let who = format!("{flavor} {workload} {durability} {contender}, round {round}");
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
            tool_peak_bytes: tool.map(|usage| usage.peak_bytes).filter(|bytes| *bytes > 0),
        }
    }

    fn line(&self) -> String {
        let peak = self.tool_peak_bytes.map_or_else(String::new, |peak| format!(" ({} MiB)", peak >> 20));
        let tool = self.tool_cpu_seconds.map_or_else(String::new, |cpu| format!(", tool {cpu:.1}{peak}"));
        format!("CPU s: source {:.1}, target {:.1}{tool}", self.source_cpu_seconds, self.target_cpu_seconds)
    }
}

impl CaptureRun {
    pub fn line(&self) -> String {
        let CaptureRun { flavor, workload, round, rows_per_second, used, .. } = self;
        format!("{flavor} capture of {workload}, round {round}: {rows_per_second:.0} rows/s; {}", used.line())
    }

    /// What is measured.
    pub fn subject(&self) -> (&str, &str) {
        (&self.flavor, &self.workload)
    }
}

impl EchoRun {
    pub fn line(&self) -> String {
        let EchoRun { flavor, workload, round, changes: _, echoes, passed_per_second, captured_per_second } = self;
        format!(
            "{flavor} echoes of {workload}, round {round}: {echoes} passed at {passed_per_second:.0} rows/s, captured at \
             {captured_per_second:.0}"
        )
    }

    /// How many times as fast rows are passed as captured.
    pub fn ratio(&self) -> f64 {
        self.passed_per_second / self.captured_per_second
    }

    /// What is measured.
    pub fn subject(&self) -> (&str, &str) {
        (&self.flavor, &self.workload)
    }
}

impl GrowthRun {
    pub fn line(&self) -> String {
        let GrowthRun { flavor, growing, found, round, rows_per_second, .. } = self;
        format!("{flavor} with {found} {growing}, round {round}: {rows_per_second:.0} rows/s")
    }

    /// What is measured.
    pub fn subject(&self) -> (&str, &str, u64) {
        (&self.flavor, &self.growing, self.size)
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
        let DelayRun { flavor, contender, round, wanted_rate, .. } = self;
        let who = format!("{flavor} delay of {contender} at {wanted_rate} changes/s, round {round}");
        let failure = self.failure.as_ref().map_or_else(String::new, |reason| format!("FAILED: {reason}; "));
        let Some(delays) = &self.delays else { return format!("{who}: {failure}") };
        let trips = delays.round_trip.as_ref().map_or_else(String::new, |trip| {
            format!("; there and back {:.1}, 99th {:.1}, {} echoes", trip.median_ms, trip.percentile_99_ms, trip.echoes)
        });
        format!(
            "{who}: {failure}median {:.1} ms (inserts {:.1}, updates {:.1}), 99th {:.1}, worst {:.1}; a commit {:.1}{trips}; {}",
            delays.median_ms,
            delays.insert_median_ms,
            delays.update_median_ms,
            delays.percentile_99_ms,
            delays.worst_ms,
            delays.commit_median_ms,
            delays.used.line()
        )
    }

    /// What is measured, and of whom.
    pub fn subject(&self) -> (&str, &str, u32) {
        (&self.flavor, &self.contender, self.wanted_rate)
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

/// In the order in which they came first.
pub fn each_once<S: PartialEq>(subjects: impl Iterator<Item = S>) -> Vec<S> {
    let mut once = Vec::new();
    for subject in subjects {
        if !once.contains(&subject) {
            once.push(subject);
        }
    }
    once
}

/// The value that a share of the sorted values does not exceed; between two values where the share falls between them.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * (sorted.len().checked_sub(1)?) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use super::*;

    pub fn figures(rates: &[(Contender, f64)]) -> Figures {
        let machine = Machine {
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_gibibytes: 8,
            distribution: "a system".to_owned(),
            crossfade: "crossfade 0.1.0".to_owned(),
            servers: BTreeMap::from([("MariaDB".to_owned(), "10.11.14".to_owned())]),
        };
        let conditions = Conditions {
            rows: 100,
            history_rows: 100,
            rounds: 3,
            delay_seconds: 1,
            rates: vec![200],
            growth_messages: vec![10_000],
            settings: String::new(),
            definitions: 1,
        };
        let call = Call {
            at: "2026-01-01 00:00 UTC".to_owned(),
            build: "1234".to_owned(),
            kernel: "6.1".to_owned(),
            load_before: 0.5,
            measured: rates.first().map(|_| "MariaDB W1".to_owned()).into_iter().collect(),
        };
        let mut figures = Figures::new(machine, conditions, vec![call]);
        for (round, (contender, rate)) in rates.iter().enumerate() {
            figures.runs.push(Run {
                flavor: "MariaDB".to_owned(),
                workload: "W1".to_owned(),
                durability: "durable".to_owned(),
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

    /// Of each server one of each kind, and of throughput a relaxed one too.
    pub fn one_of_each(flavors: &[&str]) -> Figures {
        let mut all = figures(&[]);
        let run = figures(&[(Contender::Crossfade, 900.0)]).runs.remove(0);
        for flavor in flavors.iter().map(|flavor| (*flavor).to_owned()) {
            let relaxed = Durability::Relaxed.to_string();
            all.runs.push(Run { flavor: flavor.clone(), ..run.clone() });
            all.runs.push(Run { flavor: flavor.clone(), durability: relaxed, ..run.clone() });
            all.delays.push(DelayRun {
                flavor: flavor.clone(),
                contender: "crossfade".to_owned(),
                round: 1,
                wanted_rate: 200,
                delays: None,
                failure: None,
            });
            let (rows_per_cpu_second, lowest, highest) = (1.0, 1.0, 1.0);
            let decoded =
                DecodingRun { flavor: flavor.clone(), rows: 1, bytes_per_row: 1, rows_per_cpu_second, lowest, highest };
            all.decoding.push(decoded);
            all.captures.push(CaptureRun {
                flavor: flavor.clone(),
                workload: "W1".to_owned(),
                round: 1,
                changes: 1,
                rows_per_second: 1.0,
                used: Used::default(),
            });
            all.echoes.push(EchoRun {
                flavor: flavor.clone(),
                workload: "W1".to_owned(),
                round: 1,
                changes: 1,
                captured_per_second: 1.0,
                echoes: 1,
                passed_per_second: 1.0,
            });
            for growing in ["messages", "tables"] {
                let (size, found, round, rows_per_second) = (1, 1, 1, 1.0);
                let (flavor, growing) = (flavor.clone(), growing.to_owned());
                all.growth.push(GrowthRun { flavor, growing, size, found, round, rows_per_second });
            }
            for work in ["copying", "comparing"] {
                all.history.push(HistoryRun {
                    flavor: flavor.clone(),
                    work: work.to_owned(),
                    way: "crossfade".to_owned(),
                    round: 1,
                    rows: 1,
                    seconds: 1.0,
                    rows_per_second: 1.0,
                    used: Used::default(),
                });
            }
        }
        all
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
        let figures = figures(&rates);
        let ratios = figures.ratios(Durability::Durable);
        let named: Vec<(String, f64)> = ratios.iter().map(|ratio| (ratio.name(), ratio.times)).collect();
        assert_eq!(named, [("MariaDB/W1/crossfade/replication-serial".to_owned(), 3.0)]);
        assert!(figures.ratios(Durability::Relaxed).is_empty());
    }

    #[test]
    fn a_contender_that_failed_once_has_no_figure() {
        let mut figures = figures(&[(Contender::Crossfade, 900.0), (Contender::ReplicationSerial, 100.0)]);
        figures.runs[0].failed("the target has 99 rows".to_owned());
        let subject = figures.runs[0].subject();
        assert_eq!(figures.rows_per_second(&subject, Contender::Crossfade), None);
        assert!(figures.ratios(Durability::Durable).is_empty());
        assert_eq!(figures.failures().len(), 1);
        let page = crate::page::render(&figures, "bars.svg", "all.json");
        assert!(page.contains("| failed") && page.contains("a processor"), "{page}");
        assert!(!page.contains("900"), "{page}");
        let chart = crate::chart::render(&figures).unwrap();
        assert!(chart.contains(">replication-serial<") && !chart.contains(">crossfade<"), "{chart}");
    }
}
