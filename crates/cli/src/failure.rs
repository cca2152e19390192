//! How a command ends when it does not end well: message, next step, exit code.

use std::fmt;

/// Who can fix it; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command's own finding: a gate closed, a mismatch, a failed check.
    Finding,
    /// Usage or configuration.
    Usage,
}

/// A failure with a next step, for people.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    message: String,
    hint: String,
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code for an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Failure>().map(|failure| failure.kind) {
        Some(Kind::Finding) => 1,
        Some(Kind::Usage) => 2,
        None if error.downcast_ref::<crossfade_config::Problems>().is_some() => 2,
        None => 3,
    }
}

/// The next step that the error, or one of its causes, knows.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.hint.clone()).filter(|hint| !hint.is_empty());
        }
        if let Some(error) = cause.downcast_ref::<crossfade_binlog::BinlogError>() {
            return error.hint();
        }
        let known = cause
            .downcast_ref::<crossfade_catalog::CatalogError>()
            .and_then(crossfade_catalog::CatalogError::hint)
            .or_else(|| cause.downcast_ref::<crossfade_message::StoreError>().and_then(|error| error.hint()))
            .or_else(|| {
                cause.downcast_ref::<crossfade_applier::ApplyError>().and_then(crossfade_applier::ApplyError::hint)
            });
        known.map(str::to_owned)
    })
}

/// Prints an error with all its causes and its next step to standard error.
pub fn report(error: &anyhow::Error) {
    if let Some(problems) = error.downcast_ref::<crossfade_config::Problems>() {
        eprintln!("{problems}");
        return;
    }
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    eprintln!("error: {}", causes.join(": "));
    if let Some(hint) = hint(error) {
        eprintln!("hint: {hint}");
    }
}
