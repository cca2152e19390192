//! Slows crossfade's own work down before the databases do.
//!
//! Both sides are looked at every second, and whatever else is configured: replicas, and a command or an address that tells a
//! number. While anything is above its limit, work that can wait is kept waiting, and one reason says why.
//!
//! # What it promises
//!
//! - What cannot be read keeps work waiting as well: nobody knows then whether the databases can bear it.
//! - Copying and comparing wait for both sides, applying for the side that it writes to.
//! - Limits may change while work goes on.
//!
//! # How it fails
//!
//! Not at all: a failure is a reason to wait. What it reads, it asks with a bound on time.

mod gate;
mod outside;
mod server;
mod watch;

pub use gate::{Pass, Reason, Throttle};
pub use watch::Watch;
