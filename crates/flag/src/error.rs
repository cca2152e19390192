//! What can go wrong.

use std::time::Duration;

/// Why there is no answer, or no leave to write. Nothing of it is a reason to write anyway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlagError {
    /// What the client was given makes no sense. All of it is listed.
    #[error("the flag cannot be followed: {}", problems.join("; "))]
    Setup { problems: Vec<String> },
    /// The flag is not known, or what is known is too old, or this instance is not registered. It may be over at any moment: an
    /// application answers 503, and its caller comes again.
    #[error("the flag is not known: {reason}")]
    Unknown { reason: String },
    /// A fence stood all the time that a write waits. As [`FlagError::Unknown`], it may be over at any moment.
    #[error("nobody may write: version {version} of the flag is fenced, and no later one came within {waited:?}")]
    Fenced { version: u64, waited: Duration },
    /// Nothing valid is known of an entity. As [`FlagError::Unknown`], it may be over at any moment.
    #[error("it is not known which side the entity is on: {reason}")]
    EntityUnknown { reason: String },
    /// A fence stood all the time that a write of an entity waits. It may be over at any moment.
    #[error("nobody may write {entity}: version {version} of it is fenced, and no later one came within {waited:?}")]
    EntityFenced { entity: String, version: u64, waited: Duration },
    /// An entity was fenced, or has moved, while it was written. What is not committed must be rolled back.
    #[error("{entity} is not what it was when its write began: it has version {version} now, or is fenced")]
    EntityChanged { entity: String, version: u64 },
    /// [`FlagClient::close`](crate::FlagClient::close) was called.
    #[error("this instance has ended")]
    Closed,
}
