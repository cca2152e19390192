//! Points where a process can be made to die, for tests of recovery.
//!
//! `CROSSFADE_FAILPOINT=<point>` ends the process with SIGKILL when it reaches the point; `<point>:<n>` at the n-th time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every point that `CROSSFADE_FAILPOINT` may name.
const POINTS: [&str; 10] = [
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
];

/// Called by every part with the name of the point that it has reached.
pub type Probe = Arc<dyn Fn(&'static str) + Send + Sync>;

/// The probe that the environment asks for. One that does nothing, usually.
pub fn from_environment() -> anyhow::Result<Probe> {
    let Ok(wanted) = std::env::var("CROSSFADE_FAILPOINT") else { return Ok(Arc::new(|_| {})) };
    let (name, times) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    let Some(point) = POINTS.into_iter().find(|point| *point == name) else {
        anyhow::bail!("CROSSFADE_FAILPOINT names `{name}`; it is one of {}", POINTS.join(", "));
    };
    let left = AtomicU64::new(times.parse().map_err(|_| anyhow::anyhow!("`{times}` is not a number of times"))?);
    Ok(Arc::new(move |reached| {
        if reached == point && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            die();
        }
    }))
}

fn die() {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    // The signal may be handled by another thread; nothing may happen meanwhile.
    loop {
        std::thread::park();
    }
}
