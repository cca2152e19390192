//! How a command ends when it does not end well: message, next step, exit code.

use std::fmt;

use crate::output::visible;

/// Who can fix it; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command's own finding: a gate closed, a mismatch, a failed check.
    Finding,
    /// Usage or configuration.
    Usage,
    /// What this program meets while it runs.
    Internal,
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
        Some(Kind::Internal) | None => 3,
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
        if let Some(error) = cause.downcast_ref::<crossfade_verify::VerifyError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<crossfade_schema::SchemaError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<crossfade_control::ControlError>() {
            return error.hint().map(str::to_owned);
        }
        let known = cause
            .downcast_ref::<crossfade_catalog::CatalogError>()
            .and_then(crossfade_catalog::CatalogError::hint)
            .or_else(|| cause.downcast_ref::<crossfade_message::StoreError>().and_then(|error| error.hint()))
            .or_else(|| cause.downcast_ref::<crossfade_server::ServerError>().map(|error| error.hint()))
            .or_else(|| {
                cause.downcast_ref::<crossfade_applier::ApplyError>().and_then(crossfade_applier::ApplyError::hint)
            });
        known.map(str::to_owned)
    })
}

/// Tells an error with all its causes and its next step on standard error: for people, or as a line of the JSON log.
pub fn report(error: &anyhow::Error, log_json: bool) {
    if let Some(problems) = error.downcast_ref::<crossfade_config::Problems>() {
        eprintln!("{}", visible(&problems.to_string()));
        return;
    }
    let (message, hint) = (with_causes(error), hint(error));
    if log_json {
        tracing::error!(hint, "{message}");
        return;
    }
    eprintln!("error: {}", visible(&message));
    if let Some(hint) = hint {
        eprintln!("hint: {}", visible(&hint));
    }
}

/// The message and its causes. Drivers tell a cause in their own message too: what has been said is not said again.
pub fn with_causes(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .map(ToString::to_string)
        .fold(error.to_string(), |told, cause| if told.contains(&cause) { told } else { format!("{told}: {cause}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("connection refused").context("I/O error: connection refused").context("no store");
        assert_eq!(with_causes(&error), "no store: I/O error: connection refused");
    }
}
