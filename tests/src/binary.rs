//! The programs under test, and how long to test them.

use std::path::PathBuf;

/// The binary that was built beside the tests, or the one that `CROSSFADE_BINARY` names.
///
/// # Panics
///
/// If there is none, with the command that builds it: cargo does not build a binary of another package for a test.
pub fn binary() -> PathBuf {
    built("CROSSFADE_BINARY", "crossfade", "crossfade-cli")
}

/// The example service, as [`binary`]; `USERS_SERVICE_BINARY` names another one.
///
/// # Panics
///
/// As there.
pub fn users_service() -> PathBuf {
    built("USERS_SERVICE_BINARY", "users-service", "users-service")
}

fn built(variable: &str, name: &str, package: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a running test has a file");
    // target/<profile>/deps/<test>
    let profile = test.parent().and_then(|deps| deps.parent()).expect("tests lie in target/<profile>/deps");
    let path = profile.join(name);
    assert!(path.is_file(), "{} is missing; build it with: cargo build -p {package}", path.display());
    path
}

/// Whether the long form is wanted.
pub fn is_soak() -> bool {
    std::env::var("CROSSFADE_SOAK").is_ok_and(|value| !value.is_empty() && value != "0")
}

/// How often to repeat: `usual` times, and `soak` times in the long form.
pub fn rounds(usual: u32, soak: u32) -> u32 {
    if is_soak() { soak } else { usual }
}
