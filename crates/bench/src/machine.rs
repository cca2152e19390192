//! Where it was measured, and with what.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use crossfade_servers::{Flavor, ServerBinary};
use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub distribution: String,
    /// Processes that wanted to run, on average over the last minute before the first measurement.
    pub load_before: f64,
    pub crossfade: String,
    pub servers: Vec<String>,
    pub measured_at: String,
}

impl Machine {
    pub fn ask(crossfade: &Path, flavors: &[Flavor]) -> Result<Machine> {
        let processor = read("/proc/cpuinfo")?;
        let servers = flavors.iter().map(|flavor| Ok(format!("{flavor} {}", version(*flavor)?)));
        Ok(Machine {
            cpu: field(&processor, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            memory_bytes: memory_bytes(&read("/proc/meminfo")?),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            distribution: distribution(&read("/etc/os-release").unwrap_or_default()),
            load_before: read("/proc/loadavg")?.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            crossfade: crossfade_version(crossfade)?,
            servers: servers.collect::<Result<_>>()?,
            measured_at: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
        })
    }
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

fn memory_bytes(text: &str) -> u64 {
    let kibibytes = field(text, "MemTotal").and_then(|value| value.strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
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
