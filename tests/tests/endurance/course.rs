//! How much was used over time.

use std::fmt::Write;

use anyhow::{Result, ensure};

/// Both processes together, and the servers of both sides.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    pub second: u64,
    pub memory_bytes: u64,
    pub open_files: u64,
    /// Written by users, and not applied yet.
    pub waiting_changes: u64,
    pub server_files: u64,
}

/// Between the second quarter and the last one memory may grow by a tenth, and by what an allocator keeps.
const MORE_MEMORY_BYTES: u64 = 8 << 20;
const MORE_FILES: u64 = 10;
/// So much later than before is as late as before.
const MORE_LAG_SECONDS: u64 = 2;
const QUARTERS: usize = 4;

#[derive(Debug, Default)]
pub struct Course(Vec<Sample>);

impl Course {
    pub fn note(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Medians of each quarter of the time; fewer with too few samples.
    fn quarters(&self) -> Vec<Sample> {
        let place = |quarter: usize| quarter * self.0.len() / QUARTERS;
        let samples = (0..QUARTERS).map(|quarter| &self.0[place(quarter)..place(quarter + 1)]);
        samples.filter(|samples| !samples.is_empty()).map(median).collect()
    }

    /// A row for each quarter.
    pub fn table(&self) -> String {
        let mut table =
            "| from second | memory MiB | open files | waiting changes | servers' files |\n|---|---|---|---|---|"
                .to_owned();
        for Sample { second, memory_bytes, open_files, waiting_changes, server_files } in self.quarters() {
            let memory = memory_bytes >> 20;
            let _ = write!(table, "\n| {second} | {memory} | {open_files} | {waiting_changes} | {server_files} |");
        }
        table
    }

    /// Compares the last quarter with the second one: the first is for filling caches.
    pub fn must_be_flat(&self, changes_per_second: u32) -> Result<()> {
        let quarters = self.quarters();
        let [_, before, _, after] = quarters[..] else { anyhow::bail!("{} samples are too few", self.0.len()) };
        let told = self.table();
        let memory = before.memory_bytes + before.memory_bytes / 10 + MORE_MEMORY_BYTES;
        ensure!(after.memory_bytes <= memory, "memory grows:\n{told}");
        ensure!(after.open_files <= before.open_files + MORE_FILES, "open files become more:\n{told}");
        ensure!(after.server_files <= before.server_files + MORE_FILES, "the servers' files become more:\n{told}");
        let lag = before.waiting_changes + u64::from(changes_per_second) * MORE_LAG_SECONDS;
        ensure!(after.waiting_changes <= lag, "it falls behind:\n{told}");
        Ok(())
    }
}

/// Of each number by itself; the second is that of the first sample.
fn median(samples: &[Sample]) -> Sample {
    let of = |number: fn(&Sample) -> u64| {
        let mut numbers: Vec<u64> = samples.iter().map(number).collect();
        numbers.sort_unstable();
        numbers.get(numbers.len() / 2).copied().unwrap_or_default()
    };
    Sample {
        second: samples.first().map_or(0, |sample| sample.second),
        memory_bytes: of(|sample| sample.memory_bytes),
        open_files: of(|sample| sample.open_files),
        waiting_changes: of(|sample| sample.waiting_changes),
        server_files: of(|sample| sample.server_files),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(sample: impl Fn(u64) -> Sample) -> Course {
        Course((0..400).map(sample).collect())
    }

    fn usual(second: u64) -> Sample {
        Sample { second, memory_bytes: 100 << 20, open_files: 40, waiting_changes: second % 50, server_files: 900 }
    }

    #[test]
    fn what_stays_as_it_is_is_flat_and_what_grows_is_not() {
        course(usual).must_be_flat(1_000).unwrap();
        let grown = |grows: fn(&mut Sample)| {
            let grown = course(|second| {
                let mut sample = usual(second);
                grows(&mut sample);
                sample
            });
            grown.must_be_flat(1_000)
        };
        let refused = |grows: fn(&mut Sample)| grown(grows).unwrap_err().to_string();
        // From the middle of the second quarter to that of the last one it is 200 samples: less than, and more than is allowed.
        grown(|sample| sample.memory_bytes += sample.second * 80_000).unwrap();
        assert!(refused(|sample| sample.memory_bytes += sample.second * 110_000).contains("memory"));
        grown(|sample| sample.open_files += sample.second / 25).unwrap();
        assert!(refused(|sample| sample.open_files += sample.second / 15).contains("open files"));
        grown(|sample| sample.server_files += sample.second / 25).unwrap();
        assert!(refused(|sample| sample.server_files += sample.second / 15).contains("servers' files"));
        grown(|sample| sample.waiting_changes += sample.second * 9).unwrap();
        assert!(refused(|sample| sample.waiting_changes += sample.second * 11).contains("falls behind"));
        assert!(course(usual).table().contains("| 300 | 100 | 40 | 25 | 900 |"), "{}", course(usual).table());
        assert!(Course(vec![usual(1)]).must_be_flat(1_000).is_err());
    }
}
