//! Figures that are measured in parts: one call after another, each beside what those before it have measured.

use std::cmp::Reverse;

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use serde::{Deserialize, Serialize};

use crate::args::Measurement;
use crate::figures::{Figures, Run};

/// What one call has measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// When it began.
    pub at: String,
    /// Of the program that was measured: differs where the program does.
    pub build: String,
    /// Of the machine then; calls may be of different days.
    #[serde(default)]
    pub kernel: String,
    /// Processes that wanted to run, on average over the minute before.
    pub load_before: f64,
    /// What its figures stand for, each a server and a measurement, as `MySQL W1`.
    pub measured: Vec<String>,
}

/// A measurement that came to no end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Broken {
    /// As in [`Call::measured`].
    pub subject: String,
    pub reason: String,
}

impl Broken {
    pub fn new(flavor: Flavor, measurement: Measurement, error: &anyhow::Error) -> Broken {
        Broken { subject: subject(flavor, measurement), reason: format!("{error:#}") }
    }

    pub fn line(&self) -> String {
        format!("{}: FAILED: {}", self.subject, self.reason)
    }
}

/// What to do where earlier figures do not fit.
const WITHOUT: &str = "ask for the same as then, or measure everything in one call without --add";

fn subject(flavor: Flavor, measurement: Measurement) -> String {
    format!("{flavor} {measurement}")
}

impl Figures {
    /// Those of earlier calls, with these behind them.
    ///
    /// # Errors
    ///
    /// They were measured on another machine, on other versions of the servers, or otherwise; or both have measured the same.
    pub fn behind(mut self, mut earlier: Figures) -> Result<Figures> {
        let (ours, theirs) = (&self.conditions, &earlier.conditions);
        ensure!(ours == theirs, "they were measured otherwise: {theirs:?}; now it is {ours:?}; {WITHOUT}");
        let (ours, theirs) = (&self.machine, &earlier.machine);
        let alike = ours.is_like(theirs);
        ensure!(alike, "they are of another machine, or of other versions: {theirs:?}; this is {ours:?}; {WITHOUT}");
        let there = |subject: &&String| earlier.calls.iter().any(|call| call.measured.contains(subject));
        let twice = self.calls.iter().flat_map(|call| &call.measured).find(there);
        ensure!(
            twice.is_none(),
            "they have {} as well as others do; leave one of both out",
            twice.map_or("", String::as_str)
        );
        earlier.machine.servers.append(&mut self.machine.servers);
        earlier.calls.append(&mut self.calls);
        earlier.broken.append(&mut self.broken);
        earlier.append(self);
        Ok(earlier)
    }

    /// None, for one measurement more.
    pub fn blank(&self) -> Figures {
        Figures::new(self.machine.clone(), self.conditions.clone(), Vec::new())
    }

    /// What was measured now takes the place of what an earlier call has measured; but where it came to no end, whatever was there
    /// stays.
    pub fn put(&mut self, flavor: Flavor, measurement: Measurement, mut taken: Figures) {
        let subject = subject(flavor, measurement);
        self.broken.retain(|broken| broken.subject != subject);
        let is_broken = !taken.broken.is_empty();
        self.broken.append(&mut taken.broken);
        let earlier = self.take_out(flavor, measurement);
        if is_broken && !earlier.is_empty() {
            return self.append(earlier);
        }
        for call in &mut self.calls {
            call.measured.retain(|measured| *measured != subject);
        }
        if let Some(call) = self.calls.last_mut().filter(|_| !taken.is_empty()) {
            call.measured.push(subject);
        }
        self.append(taken);
    }

    /// Removes what is known of one measurement, and returns it.
    fn take_out(&mut self, flavor: Flavor, measurement: Measurement) -> Figures {
        let (mut out, flavor) = (self.blank(), flavor.to_string());
        match measurement {
            Measurement::Throughput(workload) => {
                let workload = workload.to_string();
                let is_it = |run: &mut Run| run.flavor == flavor && run.workload == workload && !run.is_relaxed();
                out.runs = self.runs.extract_if(.., is_it).collect();
            }
            Measurement::Relaxed => {
                out.runs = self.runs.extract_if(.., |run| run.flavor == flavor && run.is_relaxed()).collect();
            }
            Measurement::Delay => out.delays = self.delays.extract_if(.., |run| run.flavor == flavor).collect(),
            Measurement::Decoding => out.decoding = self.decoding.extract_if(.., |run| run.flavor == flavor).collect(),
            Measurement::Capture => out.captures = self.captures.extract_if(.., |run| run.flavor == flavor).collect(),
            Measurement::Echoes => out.echoes = self.echoes.extract_if(.., |run| run.flavor == flavor).collect(),
            Measurement::Growth(growing) => {
                let growing = growing.to_string();
                out.growth = self.growth.extract_if(.., |run| run.flavor == flavor && run.growing == growing).collect();
            }
            Measurement::History(work) => {
                let work = work.to_string();
                out.history = self.history.extract_if(.., |run| run.flavor == flavor && run.work == work).collect();
            }
        }
        out
    }

    /// MySQL first, and each server's by what is measured, whenever that was.
    fn append(&mut self, mut more: Figures) {
        self.runs.append(&mut more.runs);
        self.runs.sort_by_key(|run| (Reverse(run.flavor.clone()), run.workload.clone()));
        self.delays.append(&mut more.delays);
        self.delays.sort_by_key(|run| Reverse(run.flavor.clone()));
        self.decoding.append(&mut more.decoding);
        self.decoding.sort_by_key(|run| Reverse(run.flavor.clone()));
        self.captures.append(&mut more.captures);
        self.captures.sort_by_key(|run| Reverse(run.flavor.clone()));
        self.echoes.append(&mut more.echoes);
        self.echoes.sort_by_key(|run| Reverse(run.flavor.clone()));
        self.growth.append(&mut more.growth);
        self.growth.sort_by_key(|run| (run.growing.clone(), Reverse(run.flavor.clone())));
        self.history.append(&mut more.history);
        self.history.sort_by_key(|run| (Reverse(run.flavor.clone()), run.work.clone()));
    }

    fn is_empty(&self) -> bool {
        let Figures {
            machine: _,
            conditions: _,
            calls: _,
            broken: _,
            runs,
            delays,
            decoding,
            captures,
            echoes,
            growth,
            history,
        } = self;
        let is_nothing = runs.is_empty() && delays.is_empty() && decoding.is_empty() && captures.is_empty();
        is_nothing && echoes.is_empty() && growth.is_empty() && history.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::contender::Contender;
    use crate::figures::tests::{figures, one_of_each};
    use crate::workload::Workload;

    use super::*;

    const W1: Measurement = Measurement::Throughput(Workload::Inserts);

    fn kept() -> Figures {
        let kept = figures(&[(Contender::Crossfade, 900.0), (Contender::Ceiling, 1_000.0)]);
        let kept = serde_json::from_value(kept.to_json()).unwrap();
        figures(&[]).behind(kept).unwrap()
    }

    #[test]
    fn figures_of_several_calls_stand_beside_each_other_but_nothing_twice() {
        let all = kept().behind(one_of_each(&["MySQL"])).unwrap();
        let before = one_of_each(&["MySQL"]);
        assert_eq!((all.runs.len(), all.delays.len()), (before.runs.len() + 2, before.delays.len()));
        assert_eq!(all.runs[0].flavor, "MySQL");
        assert!(kept().behind(all).unwrap_err().to_string().contains("MariaDB W1"));
    }

    #[test]
    fn what_is_measured_again_takes_the_place_of_what_was_there() {
        let mut all = kept();
        assert_eq!((all.runs.len(), all.calls.len()), (2, 2));
        let mut again = all.blank();
        again.runs = vec![Run { rows_per_second: 700.0, ..all.runs[0].clone() }];
        all.put(Flavor::MariaDb, W1, again);
        assert_eq!(all.runs.iter().map(|run| run.rows_per_second).collect::<Vec<_>>(), [700.0]);
        let measured: Vec<usize> = all.calls.iter().map(|call| call.measured.len()).collect();
        assert_eq!((measured, all.calls[1].measured[0].as_str()), (vec![0, 1], "MariaDB W1"));
    }

    #[test]
    fn what_came_to_no_end_takes_nothing_away() {
        let mut all = kept();
        let mut failed = all.blank();
        failed.broken.push(Broken::new(Flavor::MariaDb, W1, &anyhow::anyhow!("killed")));
        all.put(Flavor::MariaDb, W1, failed);
        assert_eq!((all.runs.len(), all.calls[0].measured.len(), all.calls[1].measured.len()), (2, 1, 0));
        assert_eq!(all.failures(), ["MariaDB W1: FAILED: killed"]);
        assert!(crate::page::render(&all, "bars.svg", "all.json").contains("MariaDB W1: FAILED: killed"));
        let again = Figures { runs: all.runs.clone(), ..all.blank() };
        all.put(Flavor::MariaDb, W1, again);
        assert!(all.failures().is_empty());
    }

    #[test]
    fn each_measurement_takes_the_place_of_its_own_figures_only() {
        let all = || one_of_each(&["MariaDB", "MySQL"]);
        let count = |figures: &Figures| {
            let Figures { runs, delays, decoding, captures, echoes, growth, history, .. } = figures;
            [runs.len(), delays.len(), decoding.len(), captures.len(), echoes.len(), growth.len(), history.len()]
        };
        let before = count(&all());
        for (measurement, place) in [
            (W1, 0),
            (Measurement::Relaxed, 0),
            (Measurement::Delay, 1),
            (Measurement::Decoding, 2),
            (Measurement::Capture, 3),
            (Measurement::Echoes, 4),
            (Measurement::Growth(crate::growth::Growing::Tables), 5),
            (Measurement::History(crate::history::Work::Copying), 6),
        ] {
            let mut figures = all();
            let out = figures.take_out(Flavor::MySql, measurement);
            let mut expected = [0; 7];
            expected[place] = 1;
            assert_eq!(count(&out), expected, "{measurement}");
            assert_eq!(std::array::from_fn(|kind| before[kind] - count(&figures)[kind]), expected, "{measurement}");
            figures.append(out);
            assert_eq!(count(&figures), before);
            assert_eq!(figures.runs[0].flavor, "MySQL");
        }
    }

    #[test]
    fn figures_of_another_machine_or_of_other_sizes_are_not_mixed_in() {
        let refused = |change: fn(&mut Figures)| {
            let mut other = figures(&[]);
            change(&mut other);
            figures(&[]).behind(other).unwrap_err().to_string()
        };
        assert!(refused(|other| other.machine.cores = 4).contains("another machine"));
        let newer = |other: &mut Figures| _ = other.machine.servers.insert("MariaDB".to_owned(), "10.6.1".to_owned());
        assert!(refused(newer).contains("other versions"));
        assert!(refused(|other| other.conditions.rounds = 1).contains("otherwise"));
        assert!(refused(|other| other.conditions.definitions = 2).contains("otherwise"));
        let mut other = figures(&[]);
        other.machine.servers = BTreeMap::from([("MySQL".to_owned(), "9.7.4".to_owned())]);
        assert_eq!(figures(&[]).behind(other).unwrap().machine.servers.len(), 2);
    }
}
