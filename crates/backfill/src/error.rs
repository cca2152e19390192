//! What can go wrong when a table is copied.

use crossfade_applier::{ApplyError, with_causes};
use crossfade_catalog::{CatalogError, class_of};
use crossfade_message::StoreError;
use crossfade_rules::trouble::Remedy;

#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    #[error("the source cannot be read")]
    Source(#[source] crossfade_applier::Refusal),
    /// While indexes are dropped or built.
    #[error("the target does not answer")]
    Target(#[source] mysql_async::Error),
    #[error(transparent)]
    Connect(#[from] CatalogError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The chunk is read again.
    #[error("the reader of the source has not passed a chunk's marks")]
    MarksNotPassed,
    #[error("the reverse direction does not tell what users of the target did; is its process running?")]
    OppositeAway,
    /// Then a snapshot may lack what the binlog has before a mark.
    #[error("`binlog_order_commits` is off at the source: SET GLOBAL binlog_order_commits = ON")]
    CommitsUnordered,
    /// Then what it shows is no state that the source ever had.
    #[error("the replica of `from` does not keep the order of commits: SET GLOBAL replica_preserve_commit_order = ON")]
    ReplicaUnordered,
    #[error(
        "the replica of `from` has not got what the source had a minute ago; does it replicate schema `crossfade`?"
    )]
    ReplicaBehind,
    #[error("the store does not say where the copy is to go on")]
    Bound,
    #[error("the process ends")]
    Ended,
}

impl BackfillError {
    /// It passes by itself, so that the chunk is to be read and written anew.
    pub fn passes(&self) -> bool {
        match self {
            BackfillError::Source(source) => class_of(source.driver_error()).remedy() != Remedy::Stop,
            BackfillError::Target(source) => class_of(source).remedy() != Remedy::Stop,
            BackfillError::Connect(error) => error.remedy().passes(),
            BackfillError::Store(error) => error.may_be_over_later(),
            BackfillError::Apply(ApplyError::Store(error)) => error.may_be_over_later(),
            BackfillError::Apply(error) => error.remedy().passes(),
            BackfillError::Bound | BackfillError::CommitsUnordered | BackfillError::ReplicaUnordered => false,
            BackfillError::MarksNotPassed
            | BackfillError::OppositeAway
            | BackfillError::ReplicaBehind
            | BackfillError::Ended => true,
        }
    }

    /// With its causes, in one line.
    pub fn told(&self) -> String {
        with_causes(self)
    }
}

impl From<mysql_async::Error> for BackfillError {
    fn from(error: mysql_async::Error) -> BackfillError {
        BackfillError::Source(error.into())
    }
}
