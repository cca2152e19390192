//! `[throttle]`: when crossfade's own work waits for the databases.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::ServerUrl;
use crate::quantity;
use crate::reader::Section;

/// What is looked at, and from where on work waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThrottleSettings {
    pub limits: ThrottleLimits,
    /// Replicas of either side whose lag counts.
    pub replicas: Vec<ServerUrl>,
    /// A command, or an address that begins with `http://`; what it answers begins with a number.
    pub probe: Option<String>,
}

/// Above these, work waits; `None` for no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThrottleLimits {
    /// On a side, crossfade's own included.
    pub threads_running: Option<u32>,
    /// Of any of the named replicas.
    pub replica_lag: Option<Duration>,
    /// Of a small commit.
    pub latency: Option<Duration>,
    /// Of the number that the probe tells.
    pub probe_limit: Option<u32>,
    /// That are copied or compared.
    pub rows_per_second: Option<u32>,
}

/// Without another one, where replicas are named.
const REPLICA_LAG: &str = "10s";

const NUMBERS: RangeInclusive<u32> = 1..=u32::MAX;

impl ThrottleLimits {
    /// The names that [`set`](Self::set) knows.
    pub const NAMES: [&str; 5] = ["threads_running", "replica_lag", "latency", "probe_limit", "rows_per_second"];

    /// Sets a limit by its name, as a person writes it; `off` for none.
    ///
    /// # Errors
    ///
    /// What is wrong, as a fragment.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || match value {
            "off" => Ok(None),
            _ => value
                .parse()
                .ok()
                .filter(|number| NUMBERS.contains(number))
                .map(Some)
                .ok_or_else(|| format!("`{value}` is not a whole number of at least 1, nor `off`")),
        };
        let duration = || match value {
            "off" => Ok(None),
            _ => quantity::duration(value)
                .map(Some)
                .ok_or_else(|| format!("`{value}` is not a length of time as `250ms`, nor `off`")),
        };
        match name {
            "threads_running" => self.threads_running = number()?,
            "replica_lag" => self.replica_lag = duration()?,
            "latency" => self.latency = duration()?,
            "probe_limit" => self.probe_limit = number()?,
            "rows_per_second" => self.rows_per_second = number()?,
            _ => return Err(format!("`{name}` is no limit; they are {}", Self::NAMES.join(", "))),
        }
        Ok(())
    }

    /// Each limit by its name, as [`set`](Self::set) takes it.
    pub fn named(&self) -> [(&'static str, String); 5] {
        let number = |limit: Option<u32>| limit.map_or_else(|| "off".to_owned(), |limit| limit.to_string());
        let duration = |limit: Option<Duration>| {
            limit.map_or_else(|| "off".to_owned(), |limit| humantime::format_duration(limit).to_string())
        };
        [
            ("threads_running", number(self.threads_running)),
            ("replica_lag", duration(self.replica_lag)),
            ("latency", duration(self.latency)),
            ("probe_limit", number(self.probe_limit)),
            ("rows_per_second", number(self.rows_per_second)),
        ]
    }

    /// Something may keep work waiting.
    pub fn are_any(&self) -> bool {
        let ThrottleLimits { threads_running, replica_lag, latency, probe_limit, rows_per_second: _ } = self;
        threads_running.is_some() || replica_lag.is_some() || latency.is_some() || probe_limit.is_some()
    }
}

pub(crate) fn read(root: &mut Section) -> ThrottleSettings {
    let mut section = root.section_or_empty("throttle", "[throttle]");
    let replicas = section.urls("replicas").unwrap_or_default();
    let probe = section.text("probe", "\"http://127.0.0.1:9100/load\"");
    if let Some(text) = probe.as_ref().filter(|text| text.value.starts_with("https://")) {
        let remedy = "let a command ask it, as in `probe = \"curl -sf https://…\"`";
        section.problem(text.line, "`probe` begins with `https://`", remedy);
    }
    if probe.is_some() && !section.has("probe_limit") {
        section.missing("probe_limit", "80");
    }
    let mut number = |key: &'static str| {
        let is_there = section.has(key);
        let number = section.number(key, NUMBERS, 1);
        is_there.then_some(number)
    };
    let threads_running = number("threads_running");
    let probe_limit = number("probe_limit");
    let rows_per_second = number("rows_per_second");
    let mut duration = |key: &'static str, default: &str| {
        let is_there = section.has(key);
        let duration = section.duration(key, Duration::from_millis(1), default);
        is_there.then_some(duration)
    };
    let latency = duration("latency", "100ms");
    let lag = duration("replica_lag", REPLICA_LAG);
    let replica_lag = lag.or_else(|| quantity::duration(REPLICA_LAG)).filter(|_| !replicas.is_empty());
    let limits = ThrottleLimits { threads_running, replica_lag, latency, probe_limit, rows_per_second };
    section.finish();
    ThrottleSettings { limits, replicas, probe: probe.map(|text| text.value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_as_they_are_shown() {
        let mut limits = ThrottleLimits::default();
        assert!(!limits.are_any());
        for (name, value) in
            [("threads_running", "40"), ("replica_lag", "2s"), ("latency", "80ms"), ("rows_per_second", "off")]
        {
            limits.set(name, value).unwrap();
        }
        assert!(limits.are_any());
        let mut again = ThrottleLimits { rows_per_second: Some(1), ..ThrottleLimits::default() };
        limits.named().iter().for_each(|(name, value)| again.set(name, value).unwrap());
        assert_eq!(again, limits);
        assert!(limits.set("latency", "80").is_err() && limits.set("threads_running", "0").is_err());
        assert!(limits.set("load", "1").unwrap_err().contains("probe_limit"));
    }
}
