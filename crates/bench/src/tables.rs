//! Figures as tables: for a terminal, and as Markdown for the documentation.

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table};

use crate::contender::Contender;
use crate::figures::{DelayRun, Figures, Run, Spread, Used};
use crate::history::Way;

const CONTENDERS: [Contender; 4] =
    [Contender::Crossfade, Contender::CrossfadePair, Contender::ReplicationSerial, Contender::ReplicationFour];

/// How tables look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Terminal,
    Markdown,
}

/// All tables, for a terminal.
pub fn all(figures: &Figures) -> String {
    let parts = [
        throughput(figures, Look::Terminal),
        ratios(figures, Look::Terminal),
        delays(figures, Look::Terminal),
        decoding(figures, Look::Terminal),
        history(figures, Look::Terminal),
    ];
    let mut text = parts.into_iter().flatten().collect::<Vec<String>>().join("\n\n");
    for run in figures.failures() {
        text.push_str(&format!("\n{}", run.line()));
    }
    text
}

/// `None` if nothing of the kind was measured; so are all below.
pub fn throughput(figures: &Figures, look: Look) -> Option<String> {
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
    for (flavor, workload) in figures.measured() {
        for contender in CONTENDERS {
            let runs = figures.of(&flavor, &workload, contender);
            if runs.is_empty() {
                continue;
            }
            let (rows, range) = match figures.rows_per_second(&flavor, &workload, contender) {
                Some(Spread { median, lowest, highest }) => {
                    (grouped(median), format!("{} to {}", grouped(lowest), grouped(highest)))
                }
                None => ("failed".to_owned(), String::new()),
            };
            let mut cells = vec![flavor.clone(), workload.clone(), contender.to_string(), rows, range];
            cells.extend(used(&runs));
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

pub fn ratios(figures: &Figures, look: Look) -> Option<String> {
    let mut table = new_table(look, &["server", "work", "contender", "times", "of"], 3);
    for (name, ratio) in figures.ratios() {
        let parts: Vec<&str> = name.split('/').collect();
        let [flavor, workload, ours, theirs] = parts[..] else { continue };
        table.add_row([flavor, workload, ours, &format!("{ratio:.2}"), theirs]);
    }
    filled(table)
}

pub fn delays(figures: &Figures, look: Look) -> Option<String> {
    let mut table = new_table(
        look,
        &[
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
        ],
        2,
    );
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for run in &figures.delays {
        let who = (run.flavor.as_str(), run.contender.as_str());
        if seen.contains(&who) {
            continue;
        }
        seen.push(who);
        let runs: Vec<&DelayRun> =
            figures.delays.iter().filter(|other| (other.flavor.as_str(), other.contender.as_str()) == who).collect();
        let median = |value: fn(&DelayRun) -> f64| Spread::of(runs.iter().map(|run| value(run)));
        let shown = |value| median(value).map_or_else(String::new, |spread| format!("{:.1}", spread.median));
        let tool = Spread::of(runs.iter().filter_map(|run| run.used.tool_cpu_seconds));
        table.add_row([
            run.flavor.clone(),
            run.contender.clone(),
            median(|run| run.rate).map_or_else(String::new, |spread| format!("{:.0}", spread.median)),
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
    let mut seen = Vec::new();
    for run in &figures.history {
        let subject = run.subject();
        if seen.contains(&subject) {
            continue;
        }
        seen.push(subject);
        let Some(Spread { median, lowest, highest }) = rate(subject) else { continue };
        let ours =
            rate((subject.0, subject.1, &Way::Crossfade.to_string())).filter(|_| run.way != Way::Crossfade.to_string());
        let runs = || figures.history.iter().filter(|other| other.subject() == subject);
        let seconds = |value: fn(&Used) -> Option<f64>| {
            let spread = Spread::of(runs().filter_map(|run| value(&run.used)));
            spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.1}", spread.median))
        };
        table.add_row([
            run.flavor.clone(),
            run.work.clone(),
            run.way.clone(),
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
