//! End-to-end tests: real servers, real processes of the binary `crossfade`, an independent judge.
//!
//! A test binary shares one old and one new server per brand; each test has schemas and a pair name of its own, so tests of one
//! binary run side by side, as several migrations on one pair of servers may.
//!
//! A migration that ends well is asked for what its processes have said: WARN and ERROR lines that the test did not
//! [expect](Migration::expect_lines), and any that tells a password, make it fail.

mod binary;
mod brands;
pub mod http;
pub mod lines;
mod log;
mod migration;
mod monitor;
mod said;
mod served;

pub use crossfade_servers::Flavor;

pub use binary::{binary, is_soak, rounds, users_service};
pub use migration::{Direction, Migration, Setup, SideUrls, account_url, create_account, secrets};
pub use monitor::Monitor;
pub use said::{json, says};
pub use served::Served;
