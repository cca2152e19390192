//! Canaries: tagged transactions by which a process has its tag proved.
//!
//! The process that applies writes one on its target and tells the store where the target stood after it. The process that
//! reads the target must have met it, with its tag, when it has read up to there.

use crossfade_model::{Position, StreamId};

use crate::stream::{from_json, to_json};
use crate::{Store, StoreError};

/// What the reader of the target found instead of a canary with its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostTag {
    /// Nothing at all.
    Hidden,
    /// The canary without the checkpoint row before it.
    Untagged,
}

impl LostTag {
    fn as_str(self) -> &'static str {
        match self {
            LostTag::Hidden => "hidden",
            LostTag::Untagged => "untagged",
        }
    }
}

/// The last canary of a stream's process.
#[derive(Debug, Clone, PartialEq)]
pub struct Canary {
    /// Higher with each one.
    pub counter: u64,
    /// Of the target, after the canary's commit.
    pub position: Position,
    pub lost: Option<LostTag>,
}

impl Store {
    /// Announces a canary that was committed; takes the place of the one before. `stream` is the one whose tag is proved.
    pub async fn announce_canary(
        &self,
        stream: &StreamId,
        counter: u64,
        position: &Position,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO canary (pair, stream, counter, position, lost, sent_at)
             VALUES (?, ?, ?, ?, NULL, UTC_TIMESTAMP(6))
             ON DUPLICATE KEY UPDATE counter = VALUES(counter), position = VALUES(position), lost = NULL,
               sent_at = VALUES(sent_at)",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(counter)
        .bind(to_json(position))
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("announce a canary"))?;
        Ok(())
    }

    pub async fn canary(&self, stream: &StreamId) -> Result<Option<Canary>, StoreError> {
        let row: Option<(u64, String, Option<String>)> =
            sqlx::query_as("SELECT counter, position, lost FROM canary WHERE pair = ? AND stream = ?")
                .bind(&*self.pair)
                .bind(stream.as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(StoreError::during("read a canary"))?;
        let Some((counter, position, lost)) = row else { return Ok(None) };
        let lost = match lost.as_deref() {
            None => None,
            Some("untagged") => Some(LostTag::Untagged),
            Some(_) => Some(LostTag::Hidden),
        };
        Ok(Some(Canary { counter, position: from_json("position of a canary", &position)?, lost }))
    }

    /// The reader of the target has passed a canary's place without meeting it as it should be. Nothing happens if a later
    /// one was announced meanwhile.
    pub async fn canary_lost(&self, stream: &StreamId, counter: u64, lost: LostTag) -> Result<(), StoreError> {
        sqlx::query("UPDATE canary SET lost = ? WHERE pair = ? AND stream = ? AND counter = ?")
            .bind(lost.as_str())
            .bind(&*self.pair)
            .bind(stream.as_str())
            .bind(counter)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("keep that a canary is lost"))?;
        Ok(())
    }
}
