//! Why a change of the phase does not go on.

use crossfade_applier::ApplyError;
use crossfade_catalog::CatalogError;
use crossfade_message::StoreError;
use crossfade_model::Side;

/// Of another part that was asked.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the {side} side cannot be reached")]
    Connect {
        side: Side,
        #[source]
        source: CatalogError,
    },
    #[error("the {side} side could not {what}")]
    Server {
        side: Side,
        what: &'static str,
        #[source]
        source: mysql_async::Error,
    },
    #[error("the {side} side does not answer")]
    Silent { side: Side },
    #[error("the flag cannot be written on the {side} side")]
    Mirror {
        side: Side,
        #[source]
        source: ApplyError,
    },
    #[error("the position of the {side} side cannot be read")]
    Position {
        side: Side,
        #[source]
        source: Cause,
    },
    #[error("what the gates ask for cannot be seen")]
    Gates(#[source] Cause),
    #[error("who has authority cannot be written on the {side} side")]
    Authority {
        side: Side,
        #[source]
        source: ApplyError,
    },
    #[error("the entities' rows cannot be compared")]
    Rows(#[source] Cause),
    #[error("the sides cannot be compared")]
    Comparison(#[source] Cause),
    #[error("the report cannot be written")]
    Report(#[source] Cause),
    #[error("the store's server cannot be reached")]
    StoreServer(#[source] CatalogError),
    #[error("the pair cannot be removed from the store")]
    Removal(#[source] mysql_async::Error),
    #[error("the checkpoints of the {side} side cannot be read")]
    Checkpoint {
        side: Side,
        #[source]
        source: ApplyError,
    },
    /// Something that was waited for has not come; what, and since when.
    #[error("{waited_for}, and that took longer than {limit}")]
    NotInTime { waited_for: String, limit: String },
    #[error("{0}")]
    Refused(String),
    #[error("another tool has {run} in hand: {holder}")]
    Busy { run: String, holder: String },
    /// Its time was over before it was renewed.
    #[error("somebody else has taken {run} over")]
    TakenOver { run: String },
    #[error("what the store keeps of {run} cannot be read: {reason}")]
    Unreadable { run: String, reason: String },
}

impl ControlError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ControlError::Store(source) => source.hint(),
            ControlError::Connect { source, .. } | ControlError::StoreServer(source) => source.hint(),
            ControlError::Removal(_) => Some("run it again: it goes on where it was"),
            ControlError::Mirror { source, .. }
            | ControlError::Authority { source, .. }
            | ControlError::Checkpoint { source, .. } => source.hint(),
            ControlError::Server { .. } => Some("`crossfade check` prints the GRANT that is missing, if that is why"),
            ControlError::Silent { .. } => Some("check that its server runs"),
            ControlError::Busy { .. } => Some("wait until it ends; where it has died, run this again in a few seconds"),
            ControlError::TakenOver { .. } => Some("`crossfade status` shows the phase; run this again to go on"),
            ControlError::Unreadable { .. } => Some("use the program that has begun it"),
            ControlError::Position { .. }
            | ControlError::Gates(_)
            | ControlError::Rows(_)
            | ControlError::Comparison(_)
            | ControlError::Report(_)
            | ControlError::NotInTime { .. }
            | ControlError::Refused(_) => None,
        }
    }
}
