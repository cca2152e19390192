//! Points where a process can be made to die, or to freeze, for tests of recovery and of schedules.
//!
//! `CROSSFADE_FAILPOINT=<point>` ends the process with SIGKILL when it reaches the point; `<point>:<n>` at the n-th time.
//! `<point>:<n>:stop` freezes it there instead, until it gets SIGCONT.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

/// Every point that `CROSSFADE_FAILPOINT` may name.
const POINTS: [&str; 52] = [
    "after-read",
    "inside-capture",
    "after-capture",
    "mid-lane",
    "between-lanes",
    "after-target-commit",
    "before-settle",
    "request-begun",
    "request-tried",
    "discarded",
    "between-marks",
    "chunk-read",
    "mid-chunk",
    "after-chunk-commit",
    "rows-compared",
    "table-compared",
    "index-dropped",
    "before-indexes",
    "index-built",
    "table-created",
    "switch-gates",
    "switch-start",
    "switch-canary",
    "switch-fence",
    "switch-acknowledge",
    "switch-refuse",
    "switch-refusing",
    "switch-quiet",
    "switch-drain",
    "switch-count",
    "switch-mark",
    "switch-flip",
    "switch-flipped",
    "switch-mirror",
    "flag-set",
    "switch-release",
    "switch-end",
    "entity-copying",
    "entity-verified",
    "entity-fenced",
    "entity-quiet",
    "entity-drained",
    "entity-decide",
    "entity-decided",
    "entity-lifted",
    "switch-compare",
    "switch-end_forward",
    "switch-end_reverse",
    "switch-report",
    "switch-leave",
    "switch-remove",
    "schemas-dropped",
];

/// A signal has arrived by then.
const SOON: Duration = Duration::from_millis(100);

/// Called by every part with the name of the point that it has reached.
pub type Probe = Arc<dyn Fn(&'static str) + Send + Sync>;

/// The probe that the environment asks for. One that does nothing, usually.
pub fn from_environment() -> anyhow::Result<Probe> {
    let Ok(wanted) = std::env::var("CROSSFADE_FAILPOINT") else { return Ok(Arc::new(|_| {})) };
    let (wanted, signal) = match wanted.strip_suffix(":stop") {
        Some(rest) => (rest, Signal::SIGSTOP),
        None => (wanted.as_str(), Signal::SIGKILL),
    };
    let (name, times) = wanted.split_once(':').unwrap_or((wanted, "1"));
    let Some(point) = POINTS.into_iter().find(|point| *point == name) else {
        anyhow::bail!("CROSSFADE_FAILPOINT names `{name}`; it is one of {}", POINTS.join(", "));
    };
    let left = AtomicU64::new(times.parse().map_err(|_| anyhow::anyhow!("`{times}` is not a number of times"))?);
    Ok(Arc::new(move |reached| {
        if reached == point && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            send_to_itself(signal);
        }
    }))
}

fn send_to_itself(signal: Signal) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), signal);
    // The signal may be handled by another thread; nothing may happen meanwhile.
    match signal {
        Signal::SIGKILL => loop {
            std::thread::park();
        },
        _ => std::thread::sleep(SOON),
    }
}
