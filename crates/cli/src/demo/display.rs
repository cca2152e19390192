//! Live progress on a terminal, plain lines elsewhere. All of it goes to standard error.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crossfade_testkit::quiet::Status;
use crossfade_testkit::workload::Counts;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Without a terminal, a line this often is enough.
const PLAIN_INTERVAL: Duration = Duration::from_secs(4);

pub struct Display {
    bars: MultiProgress,
    terminal: bool,
    began: Instant,
}

impl Display {
    pub fn new() -> Display {
        Display { bars: MultiProgress::new(), terminal: std::io::stderr().is_terminal(), began: Instant::now() }
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        let line = format!("{:>5.1} s  {text}", self.began.elapsed().as_secs_f64());
        if self.terminal {
            // Above the bars; a terminal that is gone is no reason to stop.
            let _ = self.bars.println(line);
        } else {
            eprintln!("{line}");
        }
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A bar towards `total`.
    pub fn bar(&self, what: &'static str, total: u64) -> Bar {
        let bar = if self.terminal { self.bars.add(ProgressBar::new(total)) } else { ProgressBar::hidden() };
        bar.set_style(style("         {prefix} {wide_bar:.cyan/blue} {human_pos} of {human_len}"));
        bar.set_prefix(what);
        Bar { bar }
    }

    /// Something that turns while one waits.
    pub fn spinner(&self, what: &'static str) -> Bar {
        let bar = if self.terminal { self.bars.add(ProgressBar::new_spinner()) } else { ProgressBar::hidden() };
        bar.set_style(style("         {prefix} {spinner} {elapsed}"));
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Bar { bar }
    }

    /// The lines that show how changes travel.
    pub fn scene(&self, duration: Duration) -> Scene {
        let line = || {
            let bar = if self.terminal { self.bars.add(ProgressBar::new_spinner()) } else { ProgressBar::hidden() };
            bar.set_style(style("         {msg}"));
            bar
        };
        let time = self.bar("writing", duration.as_millis() as u64);
        time.bar.set_style(style("         writing {wide_bar:.cyan/blue} {elapsed}"));
        Scene { time, lines: [line(), line(), line(), line()], plain: !self.terminal, said: Cell::new(None) }
    }

    pub fn finish(&self) {
        let _ = self.bars.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[derive(Clone)]
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    pub fn advance(&self, by: u64) {
        self.bar.inc(by);
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A line for each side and each direction.
pub struct Scene {
    time: Bar,
    lines: [ProgressBar; 4],
    plain: bool,
    said: Cell<Option<Duration>>,
}

impl Scene {
    pub fn show(&self, at: Duration, old: &Counts, new: &Counts, status: &Status) {
        let texts = [
            side("old", old),
            side("new", new),
            direction("forward", "old → new", status),
            direction("reverse", "new → old", status),
        ];
        self.time.bar.set_position(at.as_millis() as u64);
        for (line, text) in self.lines.iter().zip(&texts) {
            line.set_message(text.clone());
        }
        if self.plain && self.said.get().is_none_or(|said| at >= said + PLAIN_INTERVAL) {
            self.said.set(Some(at));
            eprintln!("         after {:.0} s of writing:", at.as_secs_f64());
            texts.iter().for_each(|text| eprintln!("           {text}"));
        }
    }

    pub fn finish(&self) {
        self.time.finish();
        self.lines.iter().for_each(ProgressBar::finish_and_clear);
    }
}

fn side(name: &str, counts: &Counts) -> String {
    format!(
        "{name:<8} {:>9} transactions written, {:>9} row changes",
        grouped(counts.transactions),
        grouped(counts.changes)
    )
}

fn direction(name: &str, arrow: &str, status: &Status) -> String {
    let prefix = format!("{name}/");
    let stream =
        status.streams().iter().find(|stream| stream["stream"].as_str().is_some_and(|s| s.starts_with(&prefix)));
    let state = stream.and_then(|stream| stream["state"].as_str()).unwrap_or("unknown");
    let lag = stream.and_then(|stream| stream["lag_seconds"].as_f64());
    let lag = lag.map_or_else(|| "unknown".to_owned(), |seconds| format!("{seconds:.2} s"));
    format!(
        "{arrow} {:>9} captured, {:>9} applied, {:>9} echoes recognised, lag {lag}, {state}",
        grouped(status.number(name, "captured")),
        grouped(status.number(name, "applied")),
        grouped(status.number(name, "echoes")),
    )
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
