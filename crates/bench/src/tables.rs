//! Figures as tables: for a terminal, and as Markdown for the documentation.

use clap::ValueEnum;
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table};

use crate::contender::Contender;
use crate::figures::{
    CaptureRun, DELAY_BOUNDS_MS, DelayRun, Delays, EchoRun, Figures, GrowthRun, HistoryRun, Ratio, RoundTrip, Run,
    Spread, Used, each_once,
};
use crate::history::Way;
use crate::stage::Durability;

/// How tables look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Terminal,
    Markdown,
}

/// All tables, for a terminal.
pub fn all(figures: &Figures) -> String {
    let parts = [
        throughput(figures, Durability::Durable, Look::Terminal),
        ratios(figures, Durability::Durable, Look::Terminal),
        throughput(figures, Durability::Relaxed, Look::Terminal),
        ratios(figures, Durability::Relaxed, Look::Terminal),
        delays(figures, Look::Terminal),
        histogram(figures, Look::Terminal),
        round_trips(figures, Look::Terminal),
        decoding(figures, Look::Terminal),
        captures(figures, Look::Terminal),
        echoes(figures, Look::Terminal),
        growth(figures, Look::Terminal),
        history(figures, Look::Terminal),
    ];
    let mut text = parts.into_iter().flatten().collect::<Vec<String>>().join("\n\n");
    for line in figures.failures() {
        text.push_str(&format!("\n{line}"));
    }
    text
}

/// `None` if nothing of the kind was measured; so are all below.
pub fn throughput(figures: &Figures, durability: Durability, look: Look) -> Option<String> {
    let mut table = new_table(
        look,
        &[
            "server",
            "work",
            "contender",
            "rows/s",
            "lowest to highest",
            "CPU s: source",
            "target",
            "tool",
            "peak MiB: source",
            "target",
            "tool",
        ],
        3,
    );
    for subject in figures.measured(durability) {
        for &contender in Contender::value_variants() {
            let runs = figures.of(&subject, contender);
            if runs.is_empty() {
                continue;
            }
            let (rows, range) = match figures.rows_per_second(&subject, contender) {
                Some(Spread { median, lowest, highest }) => {
                    (grouped(median), format!("{} to {}", grouped(lowest), grouped(highest)))
                }
                None => ("failed".to_owned(), String::new()),
            };
            let mut cells = vec![subject.flavor.clone(), subject.workload.clone(), contender.to_string(), rows, range];
            let measured: Vec<&Run> = runs.into_iter().filter(|run| run.failure.is_none()).collect();
            cells.extend(used(&measured));
            table.add_row(cells);
        }
    }
    filled(table)
}

fn used(runs: &[&Run]) -> [String; 6] {
    let median = |value: &dyn Fn(&Run) -> Option<f64>| Spread::of(runs.iter().filter_map(|run| value(run)));
    let seconds = |value: &dyn Fn(&Run) -> Option<f64>| {
        median(value).map_or_else(|| "–".to_owned(), |spread| format!("{:.1}", spread.median))
    };
    let mebibytes = |value: &dyn Fn(&Run) -> Option<u64>| {
        let highest = runs.iter().filter_map(|run| value(run)).max();
        highest.map_or_else(|| "–".to_owned(), |bytes| (bytes >> 20).to_string())
    };
    [
        seconds(&|run| Some(run.used.source_cpu_seconds)),
        seconds(&|run| Some(run.used.target_cpu_seconds)),
        seconds(&|run| run.used.tool_cpu_seconds),
        mebibytes(&|run| Some(run.used.source_peak_bytes)),
        mebibytes(&|run| Some(run.used.target_peak_bytes)),
        mebibytes(&|run| run.used.tool_peak_bytes),
    ]
}

pub fn ratios(figures: &Figures, durability: Durability, look: Look) -> Option<String> {
    let mut table = new_table(look, &["server", "work", "contender", "times", "of"], 3);
    for Ratio { subject, ours, theirs, times } in figures.ratios(durability) {
        let [ours, theirs] = [ours, theirs].map(|contender| contender.to_string());
        table.add_row([subject.flavor, subject.workload, ours, format!("{times:.2}"), theirs]);
    }
    filled(table)
}

pub fn delays(figures: &Figures, look: Look) -> Option<String> {
    let header = [
        "server",
        "contender",
        "changes/s",
        "median ms",
        "inserts",
        "updates",
        "99th ms",
        "worst ms",
        "a commit on the source ms",
        "tool CPU s",
    ];
    let mut table = new_table(look, &header, 2);
    for (subject, runs) in delay_subjects(figures) {
        let median = |value: fn(&Delays) -> f64| Spread::of(runs.iter().map(|run| value(run)));
        let shown = |value| median(value).map_or_else(|| "failed".to_owned(), |spread| format!("{:.1}", spread.median));
        let tool = Spread::of(runs.iter().filter_map(|run| run.used.tool_cpu_seconds));
        table.add_row([
            subject.0.to_owned(),
            subject.1.to_owned(),
            median(|run| run.rate).map_or_else(|| grouped(subject.2.into()), |spread| grouped(spread.median)),
            shown(|run| run.median_ms),
            shown(|run| run.insert_median_ms),
            shown(|run| run.update_median_ms),
            shown(|run| run.percentile_99_ms),
            shown(|run| run.worst_ms),
            shown(|run| run.commit_median_ms),
            tool.map_or_else(|| "–".to_owned(), |spread| format!("{:.1}", spread.median)),
        ]);
    }
    filled(table)
}

/// The share of changes by their delay, all rounds together.
pub fn histogram(figures: &Figures, look: Look) -> Option<String> {
    let bounds = DELAY_BOUNDS_MS.map(|bound| format!("≤ {bound} ms"));
    let mut header = vec!["server", "contender", "changes/s"];
    header.extend(bounds.iter().map(String::as_str));
    header.push("more");
    let mut table = new_table(look, &header, 2);
    for (subject, runs) in delay_subjects(figures) {
        let changes: u64 = runs.iter().map(|run| run.changes as u64).sum();
        let mut cells = vec![subject.0.to_owned(), subject.1.to_owned(), grouped(subject.2.into())];
        for place in 0..=DELAY_BOUNDS_MS.len() {
            let count: u64 = runs.iter().filter_map(|run| run.histogram.get(place)).sum();
            cells.push(match count {
                0 => String::new(),
                count => format!("{:.1} %", 100.0 * count as f64 / changes as f64),
            });
        }
        table.add_row(cells);
    }
    filled(table)
}

pub fn round_trips(figures: &Figures, look: Look) -> Option<String> {
    let header = ["server", "after changes/s", "trips", "median ms", "99th ms", "worst ms", "echoes"];
    let mut table = new_table(look, &header, 1);
    for (subject, runs) in delay_subjects(figures) {
        let trips: Vec<&RoundTrip> = runs.iter().filter_map(|run| run.round_trip.as_ref()).collect();
        let median = |value: fn(&RoundTrip) -> f64| Spread::of(trips.iter().map(|trip| value(trip)));
        let Some(typical) = median(|trip| trip.median_ms) else { continue };
        let shown = |value| median(value).map_or_else(String::new, |spread| format!("{:.1}", spread.median));
        table.add_row([
            subject.0.to_owned(),
            grouped(subject.2.into()),
            trips.iter().map(|trip| trip.trips).sum::<u32>().to_string(),
            format!("{:.1}", typical.median),
            shown(|trip| trip.percentile_99_ms),
            shown(|trip| trip.worst_ms),
            trips.iter().map(|trip| trip.echoes).sum::<u64>().to_string(),
        ]);
    }
    filled(table)
}

/// Server, contender and rate, and the rounds; none where one has failed.
type DelaySubject<'f> = ((&'f str, &'f str, u32), Vec<&'f Delays>);

/// Each once, in the order they were measured.
fn delay_subjects(figures: &Figures) -> Vec<DelaySubject<'_>> {
    let rounds = |subject| {
        let rounds = figures.delays.iter().filter(|run| run.subject() == subject);
        rounds.map(|run| run.delays.as_ref()).collect::<Option<Vec<&Delays>>>().unwrap_or_default()
    };
    each_once(figures.delays.iter().map(DelayRun::subject))
        .into_iter()
        .map(|subject| (subject, rounds(subject)))
        .collect()
}

pub fn decoding(figures: &Figures, look: Look) -> Option<String> {
    let mut table = new_table(look, &["server", "rows", "bytes a row", "rows/s per core", "lowest to highest"], 1);
    for run in &figures.decoding {
        table.add_row([
            run.flavor.clone(),
            grouped(run.rows as f64),
            run.bytes_per_row.to_string(),
            grouped(run.rows_per_cpu_second),
            format!("{} to {}", grouped(run.lowest), grouped(run.highest)),
        ]);
    }
    filled(table)
}

pub fn captures(figures: &Figures, look: Look) -> Option<String> {
    let header =
        ["server", "work", "rows/s", "lowest to highest", "CPU s: source", "target", "tool", "tool per 100,000 rows"];
    let mut table = new_table(look, &header, 2);
    for subject in each_once(figures.captures.iter().map(CaptureRun::subject)) {
        let runs: Vec<&CaptureRun> = figures.captures.iter().filter(|run| run.subject() == subject).collect();
        let Some(rate) = Spread::of(runs.iter().map(|run| run.rows_per_second)) else { continue };
        let seconds = |value: fn(&CaptureRun) -> Option<f64>| {
            let spread = Spread::of(runs.iter().filter_map(|run| value(run)));
            spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.1}", spread.median))
        };
        table.add_row([
            subject.0.to_owned(),
            subject.1.to_owned(),
            grouped(rate.median),
            format!("{} to {}", grouped(rate.lowest), grouped(rate.highest)),
            seconds(|run| Some(run.used.source_cpu_seconds)),
            seconds(|run| Some(run.used.target_cpu_seconds)),
            seconds(|run| run.used.tool_cpu_seconds),
            seconds(|run| Some(run.used.tool_cpu_seconds? * 100_000.0 / run.changes as f64)),
        ]);
    }
    filled(table)
}

/// The ratio is the median of those of the rounds.
pub fn echoes(figures: &Figures, look: Look) -> Option<String> {
    let header =
        ["server", "work", "changes", "echoes", "passed rows/s", "captured rows/s", "ratio", "lowest to highest"];
    let mut table = new_table(look, &header, 2);
    for subject in each_once(figures.echoes.iter().map(EchoRun::subject)) {
        let of = |value: fn(&EchoRun) -> f64| {
            Spread::of(figures.echoes.iter().filter(|run| run.subject() == subject).map(value))
        };
        let median = |value| of(value).map_or_else(String::new, |spread| grouped(spread.median));
        let Some(ratio) = of(EchoRun::ratio) else { continue };
        table.add_row([
            subject.0.to_owned(),
            subject.1.to_owned(),
            median(|run| run.changes as f64),
            median(|run| run.echoes as f64),
            median(|run| run.passed_per_second),
            median(|run| run.captured_per_second),
            format!("{:.1}", ratio.median),
            format!("{:.1} to {:.1}", ratio.lowest, ratio.highest),
        ]);
    }
    filled(table)
}

pub fn growth(figures: &Figures, look: Look) -> Option<String> {
    let mut table =
        new_table(look, &["server", "with", "at least", "when a round began", "rows/s", "lowest to highest"], 2);
    for subject in each_once(figures.growth.iter().map(GrowthRun::subject)) {
        let runs = || figures.growth.iter().filter(|run| run.subject() == subject);
        let Some(rate) = Spread::of(runs().map(|run| run.rows_per_second)) else { continue };
        let Some(found) = Spread::of(runs().map(|run| run.found as f64)) else { continue };
        table.add_row([
            subject.0.to_owned(),
            subject.1.to_owned(),
            grouped(subject.2 as f64),
            format!("{} to {}", grouped(found.lowest), grouped(found.highest)),
            grouped(rate.median),
            format!("{} to {}", grouped(rate.lowest), grouped(rate.highest)),
        ]);
    }
    filled(table)
}

/// Beside each rate how many times the others' it is.
pub fn history(figures: &Figures, look: Look) -> Option<String> {
    let header = [
        "server",
        "work",
        "by",
        "rows/s",
        "lowest to highest",
        "crossfade is so many times as fast",
        "CPU s: source",
        "target",
        "tool",
    ];
    let mut table = new_table(look, &header, 3);
    let rate = |subject: (&str, &str, &str)| {
        let runs = figures.history.iter().filter(|run| run.subject() == subject);
        Spread::of(runs.map(|run| run.rows_per_second))
    };
    for subject in each_once(figures.history.iter().map(HistoryRun::subject)) {
        let Some(Spread { median, lowest, highest }) = rate(subject) else { continue };
        let crossfade = Way::Crossfade.to_string();
        let ours = rate((subject.0, subject.1, &crossfade)).filter(|_| subject.2 != crossfade);
        let runs = || figures.history.iter().filter(|other| other.subject() == subject);
        let seconds = |value: fn(&Used) -> Option<f64>| {
            let spread = Spread::of(runs().filter_map(|run| value(&run.used)));
            spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.1}", spread.median))
        };
        table.add_row([
            subject.0.to_owned(),
            subject.1.to_owned(),
            subject.2.to_owned(),
            grouped(median),
            format!("{} to {}", grouped(lowest), grouped(highest)),
            ours.map_or_else(String::new, |ours| format!("{:.2}", ours.median / median)),
            seconds(|used| Some(used.source_cpu_seconds)),
            seconds(|used| Some(used.target_cpu_seconds)),
            seconds(|used| used.tool_cpu_seconds),
        ]);
    }
    filled(table)
}

/// The first `names` columns hold names, the others numbers.
fn new_table(look: Look, header: &[&str], names: usize) -> Table {
    let mut table = Table::new();
    table.set_header(header);
    match look {
        Look::Terminal => {
            table.load_preset(UTF8_FULL_CONDENSED);
            for column in table.column_iter_mut().skip(names) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Look::Markdown => {
            table.load_preset(ASCII_MARKDOWN);
        }
    }
    table
}

fn filled(table: Table) -> Option<String> {
    (table.row_count() > 0).then(|| table.to_string())
}

/// A whole number with commas: `12,345`.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"].map(str::to_owned),
            [0.4, 999.0, 1_000.0, 1_234_567.2].map(grouped)
        );
    }
}
