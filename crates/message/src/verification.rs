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
    pub begun_at: DateTime<Utc>,
    /// `None` while it runs, and for one that was broken off.
    pub ended_at: Option<DateTime<Utc>>,
    /// What was found of each table; JSON.
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

impl Store {
    /// Begins a comparison, and forgets those that were long ago.
    pub async fn begin_verification(&self, asked: &str) -> Result<u64, StoreError> {
        let during = || StoreError::during("begin a comparison");
        let begun = sqlx::query("INSERT INTO verification (pair, asked, begun_at) VALUES (?, ?, UTC_TIMESTAMP(6))")
            .bind(&*self.pair)
            .bind(asked)
            .execute(&self.pool)
            .await
            .map_err(during())?;
        let oldest: Option<u64> =
            sqlx::query_scalar("SELECT id FROM verification WHERE pair = ? ORDER BY id DESC LIMIT 1 OFFSET ?")
                .bind(&*self.pair)
                .bind(KEPT_VERIFICATIONS)
                .fetch_optional(&self.pool)
                .await
                .map_err(during())?;
        if let Some(oldest) = oldest {
            for statement in [
                "DELETE FROM difference WHERE pair = ? AND verification <= ?",
                "DELETE FROM verification WHERE pair = ? AND id <= ?",
            ] {
                let forgotten = sqlx::query(statement).bind(&*self.pair).bind(oldest).execute(&self.pool).await;
                forgotten.map_err(during())?;
            }
        }
        Ok(begun.last_insert_id())
    }

    pub async fn keep_difference(&self, verification: u64, difference: &NewDifference) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO difference (pair, verification, table_schema, table_name, kind, row_key, columns, old_image,
               new_image, found_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))",
        )
        .bind(&*self.pair)
        .bind(verification)
        .bind(&*difference.table.schema)
        .bind(&*difference.table.table)
        .bind(difference.kind)
        .bind(&difference.row_key)
        .bind(&difference.columns)
        .bind(&difference.old_image)
        .bind(&difference.new_image)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("keep a difference"))?;
        Ok(())
    }

    /// Ends a comparison; `reports` is JSON.
    pub async fn end_verification(&self, verification: u64, reports: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE verification SET ended_at = UTC_TIMESTAMP(6), reports = ? WHERE pair = ? AND id = ?")
            .bind(reports)
            .bind(&*self.pair)
            .bind(verification)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("end a comparison"))?;
        Ok(())
    }

    /// A comparison by its number, or the last one; `None` where there is none.
    pub async fn verification(&self, id: Option<u64>) -> Result<Option<Verification>, StoreError> {
        let during = || StoreError::during("read comparisons");
        let mut query = QueryBuilder::<MySql>::new("SELECT * FROM verification WHERE pair = ");
        query.push_bind(&*self.pair);
        if let Some(id) = id {
            query.push(" AND id = ").push_bind(id);
        }
        query.push(" ORDER BY id DESC LIMIT 1");
        let row = query.build().fetch_optional(&self.pool).await.map_err(during())?;
        let read = |row: MySqlRow| -> Result<Verification, sqlx::Error> {
            Ok(Verification {
                id: row.try_get("id")?,
                asked: row.try_get("asked")?,
                begun_at: utc(row.try_get::<NaiveDateTime, _>("begun_at")?),
                ended_at: row.try_get::<Option<NaiveDateTime>, _>("ended_at")?.map(utc),
                reports: json(&row, "reports")?,
            })
        };
        row.map(read).transpose().map_err(during())
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
