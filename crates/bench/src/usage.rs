//! What a process has used, from `/proc`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// CPU time and memory of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// User and system, of all its threads so far and of its children that have ended. In steps of a hundredth of a second.
    pub cpu_seconds: f64,
    /// The most memory it ever held at once; 0 where that is not known.
    pub peak_bytes: u64,
    /// It has ended and waits to be reaped; its memory is gone, its CPU time is final.
    pub ended: bool,
}

impl Usage {
    pub fn of(pid: u32) -> Result<Usage> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let stat = std::fs::read_to_string(folder.join("stat")).context("a process that is measured is gone")?;
        let (state, ticks) = state_and_ticks(&stat).context("the kernel describes a process in an unknown way")?;
        let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
        // A process that has ended has no such lines any more.
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        Ok(Usage {
            cpu_seconds: ticks as f64 / per_second,
            peak_bytes: peak_bytes(&status).unwrap_or(0),
            ended: matches!(state, 'Z' | 'X'),
        })
    }
}

/// Fields 3 and 14 to 17. The name before them may hold spaces and parentheses.
fn state_and_ticks(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let ticks: Option<Vec<u64>> = fields.skip(10).take(4).map(|ticks| ticks.parse().ok()).collect();
    let ticks = ticks.filter(|ticks| ticks.len() == 4)?;
    Some((state, ticks.iter().sum()))
}

fn peak_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read_whatever_the_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 9 9 20 0 1 0 100 1 1";
        assert_eq!(state_and_ticks(stat), Some(('S', 318)));
        assert_eq!(state_and_ticks("7 (cut) S 1 7"), None);
        assert_eq!(peak_bytes("Name:\tx\nVmHWM:\t    2048 kB\n"), Some(2 << 20));
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.peak_bytes > 100_000 && !usage.ended, "{usage:?}");
    }
}
