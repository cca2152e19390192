//! Settings: read, checked, typed.
//!
//! # What it is for
//!
//! [`Settings::load`] turns a TOML file and the environment into values that need no further checking: lengths of time
//! are [`std::time::Duration`]s, sizes are bytes, URLs are taken apart, table names are matched by [`TablePattern`]s.
//!
//! # What it promises
//!
//! - No connection is made and no file but the configuration is opened.
//! - All [`Problems`] are reported together, each with file, line and remedy. Unknown keys are problems.
//! - Secrets never print: a password is a [`Secret`], and no problem's text repeats a URL, or a wrong value that
//!   a variable gave.
//!
//! # How it fails
//!
//! With [`Problems`], and never by a panic, whatever the file holds.

mod cutover;
mod entity;
mod environment;
mod problem;
mod quantity;
mod reader;
mod secret;
mod settings;
mod table;
mod throttle;
mod url;

pub use cutover::{AccountName, CutoverSettings, Fence};
pub use entity::{EntityReach, EntitySettings, EntityTable};
pub use problem::{Problem, Problems};
pub use secret::Secret;
pub use settings::{
    ApplySettings, BackfillSettings, ConflictSettings, HttpSettings, MemorySettings, Settings, SideSettings,
    StoreSettings, VerifySettings,
};
pub use table::{Policy, SelectedTable, TablePattern, TableSettings};
pub use throttle::{ThrottleLimits, ThrottleSettings};
pub use url::{Endpoint, ServerUrl, TlsMode};
