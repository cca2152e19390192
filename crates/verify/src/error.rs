//! Why sides could not be compared.

use crossfade_applier::ApplyError;
use crossfade_catalog::CatalogError;
use crossfade_message::StoreError;
use crossfade_model::Side;

/// Nothing of the sides is changed when this comes, but for rows that were repaired before.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("{table} cannot be read on the {side} side")]
    Read { table: String, side: Side, source: mysql_async::Error },
    #[error("a heartbeat cannot be written on the {side} side")]
    Heartbeat { side: Side, source: mysql_async::Error },
    #[error("{table} on the {side} side has rows of which the server gives no digest")]
    NoDigest { table: String, side: Side },
}

impl VerifyError {
    /// What a person can do about it; `None` where the message says it all.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            VerifyError::Catalog(error) => error.hint(),
            VerifyError::Store(error) => error.hint(),
            VerifyError::Apply(error) => error.hint(),
            VerifyError::Heartbeat { .. } => {
                Some("run `crossfade init`; `crossfade check` prints a GRANT that is missing")
            }
            VerifyError::Read { .. } => Some(
                "with `--where`, see that its columns are on both sides; `crossfade check` prints a GRANT that is missing",
            ),
            VerifyError::NoDigest { .. } => Some("raise `max_allowed_packet` on that server"),
        }
    }
}
