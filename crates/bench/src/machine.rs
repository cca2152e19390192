//! Where it was measured, and with what.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use crossfade_servers::{Flavor, ServerBinary};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    /// Rounded, since kernels keep different parts of it.
    pub memory_gibibytes: u64,
    pub distribution: String,
    pub crossfade: String,
    /// The version of each that was measured.
    pub servers: BTreeMap<String, String>,
}

impl Machine {
    pub fn ask(crossfade: &Path, flavors: &[Flavor]) -> Result<Machine> {
        let processor = read("/proc/cpuinfo")?;
        let servers = flavors.iter().map(|flavor| Ok((flavor.to_string(), version(*flavor)?)));
        Ok(Machine {
            cpu: field(&processor, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            memory_gibibytes: memory_gibibytes(&read("/proc/meminfo")?),
            distribution: distribution(&read("/etc/os-release").unwrap_or_default()),
            crossfade: crossfade_version(crossfade)?,
            servers: servers.collect::<Result<_>>()?,
        })
    }

    /// Figures of both may stand beside each other.
    pub fn is_like(&self, other: &Machine) -> bool {
        let what = |machine: &Machine| {
            let Machine { cpu, cores, memory_gibibytes, distribution, crossfade, servers: _ } = machine.clone();
            (cpu, cores, memory_gibibytes, distribution, crossfade)
        };
        let same_version = |(flavor, version)| other.servers.get(flavor).is_none_or(|other| other == version);
        what(self) == what(other) && self.servers.iter().all(same_version)
    }
}

/// Differs where the program does.
pub fn build(program: &Path) -> Result<String> {
    let bytes = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Ok(format!("{:08x}", hasher.finish() as u32))
}

/// Processes that want to run, on average over the last minute.
pub fn load() -> Result<f64> {
    Ok(read("/proc/loadavg")?.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0))
}

pub fn kernel() -> Result<String> {
    Ok(read("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

/// As the server's program says it, without the packager's suffix.
pub fn version(flavor: Flavor) -> Result<String> {
    let binary = ServerBinary::find(flavor)?;
    let version = binary.version();
    Ok(format!("{}.{}.{}", version.major, version.minor, version.patch))
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_gibibytes(text: &str) -> u64 {
    let kibibytes = field(text, "MemTotal").and_then(|value| value.strip_suffix(" kB")?.parse::<u64>().ok());
    (kibibytes.unwrap_or(0) + (1 << 19)) >> 20
}

fn distribution(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "unknown".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn crossfade_version(program: &Path) -> Result<String> {
    let output =
        Command::new(program).arg("--version").output().with_context(|| format!("cannot run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
