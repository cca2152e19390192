//! What comparisons of both sides have found.

use chrono::{DateTime, NaiveDateTime, Utc};
use crossfade_model::TableName;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::mysql::MySqlRow;
use sqlx::{MySql, QueryBuilder, Row};

use crate::stream::utc;
use crate::{Store, StoreError};

/// So many comparisons of a pair are kept, with their differences.
const KEPT_VERIFICATIONS: u32 = 20;

/// A comparison, as the store keeps it.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    pub id: u64,
    pub asked: String,
    /// It was made in the background, by the forward process.
    pub continuous: bool,
    pub begun_at: DateTime<Utc>,
    /// `None` while it runs, and for one that was broken off.
    pub ended_at: Option<DateTime<Utc>>,
    /// Tables that a round in the background compares.
    pub tables: Option<u32>,
    /// What was found of each table, in the background of those that are done; JSON.
    pub reports: Option<Box<RawValue>>,
}

/// A row that is missing or different, to be kept. Everything but the table and the kind is JSON.
#[derive(Debug, Clone)]
pub struct NewDifference {
    pub table: TableName,
    pub kind: &'static str,
    pub row_key: Option<String>,
    pub columns: String,
    pub old_image: Option<String>,
    pub new_image: Option<String>,
}

/// A row that was missing or different, as it was kept.
#[derive(Debug, Clone, Serialize)]
pub struct ListedDifference {
    pub id: u64,
    pub table_schema: String,
    pub table_name: String,
    pub kind: String,
    pub row_key: Option<Box<RawValue>>,
    /// The columns that differ, `{"old": …, "new": …}` by their names on both sides.
    pub columns: Option<Box<RawValue>>,
    pub old_image: Option<Box<RawValue>>,
    pub new_image: Option<Box<RawValue>>,
    pub found_at: DateTime<Utc>,
}

/// Which comparisons are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparisons {
    /// Those that people have asked for.
    Asked,
    /// Those of the forward process, in the background.
    Rounds,
}

impl Comparisons {
    fn condition(self) -> &'static str {
        match self {
            Comparisons::Asked => "epoch IS NULL",
            Comparisons::Rounds => "epoch IS NOT NULL",
        }
    }
}

/// What a person has wished of comparing in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyWish {
    pub on: bool,
    pub since: DateTime<Utc>,
}

/// A comparison that is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenVerification {
    pub id: u64,
    /// Of the forward direction's lease, where the process makes it in the background.
    pub epoch: Option<u64>,
}

impl OpenVerification {
    /// Another process makes it now.
    fn check(self, matched: u64) -> Result<(), StoreError> {
        if matched >= 1 {
            return Ok(());
        }
        let mine = self.epoch.unwrap_or_default();
        Err(StoreError::Overtaken { subject: format!("comparison {}", self.id), mine, current: mine })
    }
}

impl Store {
    /// Begins a comparison, and forgets those of its kind that were long ago. `epoch`: as in [`OpenVerification`]; `tables`:
    /// how many a round in the background is to compare.
    pub async fn begin_verification(
        &self,
        asked: &str,
        epoch: Option<u64>,
        tables: Option<u32>,
    ) -> Result<OpenVerification, StoreError> {
        let during = || StoreError::during("begin a comparison");
        let begun = sqlx::query(
            "INSERT INTO verification (pair, asked, begun_at, epoch, tables) VALUES (?, ?, UTC_TIMESTAMP(6), ?, ?)",
        )
        .bind(&*self.pair)
        .bind(asked)
        .bind(epoch)
        .bind(tables)
        .execute(&self.pool)
        .await
        .map_err(during())?;
        let kind = if epoch.is_some() { Comparisons::Rounds } else { Comparisons::Asked };
        let mut query = QueryBuilder::<MySql>::new("SELECT id FROM verification WHERE pair = ");
        query.push_bind(&*self.pair).push(" AND ").push(kind.condition());
        query.push(" ORDER BY id DESC LIMIT 1000 OFFSET ").push_bind(KEPT_VERIFICATIONS);
        let old: Vec<u64> = query.build_query_scalar().fetch_all(&self.pool).await.map_err(during())?;
        for id in old {
            for statement in [
                "DELETE FROM difference WHERE pair = ? AND verification = ?",
                "DELETE FROM verification WHERE pair = ? AND id = ?",
            ] {
                let forgotten = sqlx::query(statement).bind(&*self.pair).bind(id).execute(&self.pool).await;
                forgotten.map_err(during())?;
            }
        }
        Ok(OpenVerification { id: begun.last_insert_id(), epoch })
    }

    /// Takes a round of the background over that a process of an older lease has begun, or that is one's own. What has been
    /// found of a table that is not in its reports is forgotten.
    ///
    /// # Errors
    ///
    /// [`StoreError::Overtaken`] where a newer one has it.
    pub async fn adopt_round(&self, round: u64, epoch: u64) -> Result<OpenVerification, StoreError> {
        let adopted = sqlx::query("UPDATE verification SET epoch = ? WHERE pair = ? AND id = ? AND epoch <= ?")
            .bind(epoch)
            .bind(&*self.pair)
            .bind(round)
            .bind(epoch)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("take a comparison over"))?;
        let open = OpenVerification { id: round, epoch: Some(epoch) };
        open.check(adopted.rows_affected())?;
        Ok(open)
    }

    /// Keeps what a round has found so far; `reports` is JSON.
    ///
    /// # Errors
    ///
    /// [`StoreError::Overtaken`] where another process makes it now.
    pub async fn keep_reports(&self, verification: OpenVerification, reports: &str) -> Result<(), StoreError> {
        let kept = sqlx::query("UPDATE verification SET reports = ? WHERE pair = ? AND id = ? AND epoch <=> ?")
            .bind(reports)
            .bind(&*self.pair)
            .bind(verification.id)
            .bind(verification.epoch)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("keep what a comparison has found"))?;
        verification.check(kept.rows_affected())
    }

    /// Forgets a round of the background that has not ended and is to be made anew, with what it has found.
    ///
    /// # Errors
    ///
    /// [`StoreError::Overtaken`] where a newer process has it, or it has ended.
    pub async fn give_up_round(&self, round: u64, epoch: u64) -> Result<(), StoreError> {
        let given_up = sqlx::query(
            "DELETE v, d FROM verification v LEFT JOIN difference d ON d.pair = v.pair AND d.verification = v.id
             WHERE v.pair = ? AND v.id = ? AND v.epoch <= ? AND v.ended_at IS NULL",
        )
        .bind(&*self.pair)
        .bind(round)
        .bind(epoch)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("give a comparison up"))?;
        OpenVerification { id: round, epoch: Some(epoch) }.check(given_up.rows_affected())
    }

    /// A table is compared anew, as long as nobody else makes the comparison.
    pub async fn forget_differences(
        &self,
        verification: OpenVerification,
        table: &TableName,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE d FROM difference d JOIN verification v ON v.pair = d.pair AND v.id = d.verification
             WHERE d.pair = ? AND d.verification = ? AND d.table_schema = ? AND d.table_name = ? AND v.epoch <=> ?",
        )
        .bind(&*self.pair)
        .bind(verification.id)
        .bind(&*table.schema)
        .bind(&*table.table)
        .bind(verification.epoch)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("forget differences"))?;
        Ok(())
    }

    /// Whether the forward process is to compare in the background; `None` where nobody has wished anything.
    pub async fn verify_wish(&self) -> Result<Option<VerifyWish>, StoreError> {
        let wish: Option<(String, NaiveDateTime)> =
            sqlx::query_as("SELECT wish, changed_at FROM verify_wish WHERE pair = ?")
                .bind(&*self.pair)
                .fetch_optional(&self.pool)
                .await
                .map_err(StoreError::during("read a wish"))?;
        Ok(wish.map(|(wish, changed_at)| VerifyWish { on: wish == "on", since: utc(changed_at) }))
    }

    pub async fn set_verify_wish(&self, on: bool) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO verify_wish (pair, wish, changed_at) VALUES (?, ?, UTC_TIMESTAMP(6))
             ON DUPLICATE KEY UPDATE wish = VALUES(wish), changed_at = VALUES(changed_at)",
        )
        .bind(&*self.pair)
        .bind(if on { "on" } else { "off" })
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("keep a wish"))?;
        Ok(())
    }

    /// Keeps a row that differs, as long as nobody else makes the comparison.
    pub async fn keep_difference(
        &self,
        verification: OpenVerification,
        difference: &NewDifference,
    ) -> Result<(), StoreError> {
        let kept = sqlx::query(
            "INSERT INTO difference (pair, verification, table_schema, table_name, kind, row_key, columns, old_image,
               new_image, found_at)
             SELECT pair, id, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6) FROM verification
             WHERE pair = ? AND id = ? AND epoch <=> ?",
        )
        .bind(&*difference.table.schema)
        .bind(&*difference.table.table)
        .bind(difference.kind)
        .bind(&difference.row_key)
        .bind(&difference.columns)
        .bind(&difference.old_image)
        .bind(&difference.new_image)
        .bind(&*self.pair)
        .bind(verification.id)
        .bind(verification.epoch)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("keep a difference"))?;
        verification.check(kept.rows_affected())
    }

    /// Ends a comparison; `reports` is JSON.
    pub async fn end_verification(&self, verification: OpenVerification, reports: &str) -> Result<(), StoreError> {
        let ended = sqlx::query(
            "UPDATE verification SET ended_at = UTC_TIMESTAMP(6), reports = ? WHERE pair = ? AND id = ? AND epoch <=> ?",
        )
        .bind(reports)
        .bind(&*self.pair)
        .bind(verification.id)
        .bind(verification.epoch)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("end a comparison"))?;
        verification.check(ended.rows_affected())
    }

    /// A comparison by its number; `None` where there is none.
    pub async fn verification(&self, id: u64) -> Result<Option<Verification>, StoreError> {
        let mut query = QueryBuilder::<MySql>::new("SELECT * FROM verification WHERE pair = ");
        query.push_bind(&*self.pair).push(" AND id = ").push_bind(id);
        Ok(self.read_verifications(query).await?.into_iter().next())
    }

    /// The last comparisons of a kind, the latest first.
    pub async fn verifications(&self, kind: Comparisons, limit: u32) -> Result<Vec<Verification>, StoreError> {
        let mut query = QueryBuilder::<MySql>::new("SELECT * FROM verification WHERE pair = ");
        query.push_bind(&*self.pair).push(" AND ").push(kind.condition());
        query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
        self.read_verifications(query).await
    }

    async fn read_verifications(&self, mut query: QueryBuilder<MySql>) -> Result<Vec<Verification>, StoreError> {
        let during = || StoreError::during("read comparisons");
        let rows = query.build().fetch_all(&self.pool).await.map_err(during())?;
        let read = |row: &MySqlRow| -> Result<Verification, sqlx::Error> {
            Ok(Verification {
                id: row.try_get("id")?,
                asked: row.try_get("asked")?,
                continuous: row.try_get::<Option<u64>, _>("epoch")?.is_some(),
                tables: row.try_get("tables")?,
                begun_at: utc(row.try_get::<NaiveDateTime, _>("begun_at")?),
                ended_at: row.try_get::<Option<NaiveDateTime>, _>("ended_at")?.map(utc),
                reports: json(row, "reports")?,
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(during())
    }

    /// Differences that a comparison has kept, in the order in which they were found.
    pub async fn differences(
        &self,
        verification: u64,
        table: Option<&TableName>,
        limit: u32,
    ) -> Result<Vec<ListedDifference>, StoreError> {
        let during = || StoreError::during("read differences");
        let mut query = QueryBuilder::<MySql>::new("SELECT * FROM difference WHERE pair = ");
        query.push_bind(&*self.pair).push(" AND verification = ").push_bind(verification);
        if let Some(table) = table {
            query.push(" AND table_schema = ").push_bind(&*table.schema);
            query.push(" AND table_name = ").push_bind(&*table.table);
        }
        query.push(" ORDER BY id LIMIT ").push_bind(limit);
        let rows = query.build().fetch_all(&self.pool).await.map_err(during())?;
        let read = |row: &MySqlRow| -> Result<ListedDifference, sqlx::Error> {
            Ok(ListedDifference {
                id: row.try_get("id")?,
                table_schema: row.try_get("table_schema")?,
                table_name: row.try_get("table_name")?,
                kind: row.try_get("kind")?,
                row_key: json(row, "row_key")?,
                columns: json(row, "columns")?,
                old_image: json(row, "old_image")?,
                new_image: json(row, "new_image")?,
                found_at: utc(row.try_get::<NaiveDateTime, _>("found_at")?),
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(during())
    }
}

/// JSON as it was written; what cannot be read is left out.
fn json(row: &MySqlRow, column: &str) -> Result<Option<Box<RawValue>>, sqlx::Error> {
    Ok(row.try_get::<Option<String>, _>(column)?.and_then(|text| RawValue::from_string(text).ok()))
}
