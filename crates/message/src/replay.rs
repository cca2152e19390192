//! Going back: a target that has lost its last transactions gets their messages once more, and a source that has is read again.

use crossfade_model::{Position, Seen, StreamId};

use crate::stream::to_json;
use crate::{Store, StoreError, StreamState};

impl Store {
    /// The messages after `seq` are to be applied again: what was kept of how they ended is forgotten, and none of them counts
    /// as settled. The journal says why. Calling it again changes nothing.
    pub async fn replay_after(&self, stream: &StreamId, seq: u64, reason: &str) -> Result<(), StoreError> {
        let during = || StoreError::during("go back to an earlier message");
        let mut transaction = self.patient.begin().await.map_err(during())?;
        let moved = sqlx::query("UPDATE stream SET settled_seq = ? WHERE pair = ? AND stream = ? AND settled_seq > ?")
            .bind(seq)
            .bind(&*self.pair)
            .bind(stream.as_str())
            .bind(seq)
            .execute(&mut *transaction)
            .await
            .map_err(during())?;
        if moved.rows_affected() > 0 {
            for query in [
                "DELETE FROM outcome WHERE pair = ? AND stream = ? AND seq > ?",
                "DELETE FROM failure WHERE pair = ? AND stream = ? AND seq > ?",
            ] {
                let delete = sqlx::query(query).bind(&*self.pair).bind(stream.as_str()).bind(seq);
                delete.execute(&mut *transaction).await.map_err(during())?;
            }
            sqlx::query("INSERT INTO journal (pair, kind, text, written_at) VALUES (?, 'replay', ?, UTC_TIMESTAMP(6))")
                .bind(&*self.pair)
                .bind(crate::outcome::cut(reason))
                .execute(&mut *transaction)
                .await
                .map_err(during())?;
        }
        transaction.commit().await.map_err(during())
    }

    /// The stream is read from `position` on, of which `seen` holds, if it still is where `from` says; `false` if it is not.
    /// Its messages stay.
    pub async fn reread_from(&self, from: &StreamState, position: &Position, seen: &Seen) -> Result<bool, StoreError> {
        let end = crossfade_model::ResumePoint::from(position.clone());
        let moved = sqlx::query(
            "UPDATE stream SET position = ?, seen = ? WHERE pair = ? AND stream = ? AND last_seq = ? AND position = ?",
        )
        .bind(to_json(&end))
        .bind(to_json(seen))
        .bind(&*self.pair)
        .bind(from.stream.as_str())
        .bind(from.last_seq)
        .bind(to_json(&from.position))
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("read a stream again"))?;
        Ok(moved.rows_affected() == 1)
    }
}
