//! The journal of the migration, and its marks.

use chrono::{DateTime, NaiveDateTime, Utc};
use crossfade_model::Position;
use serde::Serialize;
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::error::server_error;
use crate::stream::{from_json, to_json, utc};
use crate::{Store, StoreError};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JournalEntry {
    pub id: u64,
    pub kind: String,
    pub text: String,
    pub written_at: DateTime<Utc>,
}

/// A pair of positions, one per side, taken at the same moment of the migration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mark {
    pub name: String,
    pub old_position: Position,
    pub new_position: Position,
    pub note: Option<String>,
    pub taken_at: DateTime<Utc>,
}

impl Store {
    /// Appends a line. `kind` is a word to filter by, of at most 32 letters.
    pub async fn journal(&self, kind: &str, text: &str) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO journal (pair, kind, text, written_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))")
            .bind(&*self.pair)
            .bind(kind)
            .bind(text)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("write its journal"))?;
        Ok(())
    }

    /// The newest lines, newest first.
    pub async fn journal_entries(&self, limit: u32) -> Result<Vec<JournalEntry>, StoreError> {
        let rows =
            sqlx::query("SELECT id, kind, text, written_at FROM journal WHERE pair = ? ORDER BY id DESC LIMIT ?")
                .bind(&*self.pair)
                .bind(limit)
                .fetch_all(&self.pool)
                .await
                .map_err(StoreError::during("read its journal"))?;
        let read = |row: &MySqlRow| -> Result<JournalEntry, sqlx::Error> {
            Ok(JournalEntry {
                id: row.try_get("id")?,
                kind: row.try_get("kind")?,
                text: row.try_get("text")?,
                written_at: utc(row.try_get::<NaiveDateTime, _>("written_at")?),
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(StoreError::during("read its journal"))
    }

    /// # Errors
    ///
    /// [`StoreError::MarkExists`] if the pair has a mark of that name; it stays as it is.
    pub async fn keep_mark(
        &self,
        name: &str,
        old_position: &Position,
        new_position: &Position,
        note: Option<&str>,
    ) -> Result<(), StoreError> {
        let done = sqlx::query(
            "INSERT INTO mark (pair, name, old_position, new_position, note, taken_at)
             VALUES (?, ?, ?, ?, ?, UTC_TIMESTAMP(6))",
        )
        .bind(&*self.pair)
        .bind(name)
        .bind(to_json(old_position))
        .bind(to_json(new_position))
        .bind(note)
        .execute(&self.pool)
        .await;
        match done {
            Ok(_) => Ok(()),
            // ER_DUP_ENTRY
            Err(error) if server_error(&error) == Some(1062) => Err(StoreError::MarkExists(name.to_owned())),
            Err(error) => Err(StoreError::during("keep a mark")(error)),
        }
    }

    /// Other pairs in this store that have a mark of this name.
    pub async fn pairs_with_mark(&self, name: &str) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar("SELECT pair FROM mark WHERE name = ? AND pair <> ? ORDER BY pair LIMIT 10")
            .bind(name)
            .bind(&*self.pair)
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::during("read the marks"))
    }

    /// Oldest first.
    pub async fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        let during = || StoreError::during("read the marks");
        let rows = sqlx::query("SELECT * FROM mark WHERE pair = ? ORDER BY id")
            .bind(&*self.pair)
            .fetch_all(&self.pool)
            .await
            .map_err(during())?;
        rows.iter()
            .map(|row| {
                let text = |column: &str| row.try_get::<String, _>(column).map_err(during());
                Ok(Mark {
                    name: text("name")?,
                    old_position: from_json("mark", &text("old_position")?)?,
                    new_position: from_json("mark", &text("new_position")?)?,
                    note: row.try_get("note").map_err(during())?,
                    taken_at: utc(row.try_get::<NaiveDateTime, _>("taken_at").map_err(during())?),
                })
            })
            .collect()
    }
}
