//! How long users wrote nowhere, and in which step.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Those of many changes.
#[derive(Debug, Default)]
pub struct Pauses {
    /// By direction, in milliseconds.
    whole: BTreeMap<String, Vec<u64>>,
    /// In the order of the steps.
    steps: Vec<(String, Vec<u64>)>,
}

/// Before users are kept from writing, and after they write again.
const OUTSIDE: [&str; 6] = ["gates", "start", "canary", "mirror", "release", "end"];

impl Pauses {
    /// Of a change that was done.
    pub fn add(&mut self, report: &Value) -> Result<()> {
        ensure!(report["state"] == "done" && report["reason"].is_null(), "{report:#}");
        let pause = report["pause_ms"].as_u64().with_context(|| format!("no pause in {report:#}"))?;
        let change = report["change"].as_str().unwrap_or_default().to_owned();
        self.whole.entry(change).or_default().push(pause);
        for step in report["steps"].as_array().with_context(|| format!("no steps in {report:#}"))? {
            let name = step["step"].as_str().unwrap_or_default();
            let ms = step["ms"].as_u64().with_context(|| format!("no time in {step}"))?;
            match self.steps.iter_mut().find(|(known, _)| known == name) {
                Some((_, all)) => all.push(ms),
                None if OUTSIDE.contains(&name) => {}
                None => self.steps.push((name.to_owned(), vec![ms])),
            }
        }
        Ok(())
    }

    /// The longest one, in milliseconds.
    pub fn worst(&self) -> u64 {
        self.whole.values().flatten().copied().max().unwrap_or(0)
    }
}

impl fmt::Display for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<14}{:>6}{:>10}{:>18}{:>10}", "", "times", "median", "middle half", "worst")?;
        let whole = self.whole.iter();
        for (name, all) in self.steps.iter().map(|(name, all)| (name, all)).chain(whole) {
            let mut sorted = all.clone();
            sorted.sort_unstable();
            let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
            let middle = format!("{} to {} ms", at(0.25), at(0.75));
            let (median, worst) = (format!("{} ms", at(0.5)), format!("{} ms", at(1.0)));
            writeln!(f, "{name:<14}{:>6}{median:>10}{middle:>18}{worst:>10}", sorted.len())?;
        }
        Ok(())
    }
}
