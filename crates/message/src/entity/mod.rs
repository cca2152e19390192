//! Entities: where each stands, which side has authority over its rows, and who moves it.
//!
//! Every step is a compare-and-set of the entities' state, in one transaction with the line that tells it later, and only for who
//! holds the [run](EntityRun). What is answered about an entity follows from its row alone. A fence has an end by the store's
//! clock, and whoever finds it over lifts it by a new version before he answers; so an entity is never decided over an answer
//! that was given after its fence.

mod answer;
mod run;
mod step;

use chrono::{DateTime, NaiveDateTime, Utc};
use crossfade_model::{EntityKey, Side};
use crossfade_rules::{EntityState, Remedy};
use sqlx::mysql::MySqlRow;
use sqlx::{MySql, QueryBuilder, Row};

use crate::connections::{in_time, statements};
use crate::stream::utc;
use crate::{Store, StoreError};

pub use answer::EntityAnswer;
pub use run::{EntityBatch, EntityHeld, EntityRun, OpenBatch};
pub use step::{BatchStep, Stepped};

/// Keys of one statement.
const KEYS: usize = 500;

/// Another tool at the same rows, and the like.
const MOST_REPEATS: u32 = 20;

/// Reasons are told shorter than this.
const REASON_MOST_CHARS: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    pub key: EntityKey,
    pub state: EntityState,
    /// `None`: the side of all that have none of their own.
    pub side: Option<Side>,
    /// One more with each change of what is answered.
    pub version: u64,
    /// Nobody writes its rows.
    pub fenced: bool,
    /// Attempts that were undone since it was asked for, and why the last one was.
    pub attempts: u32,
    pub reason: Option<String>,
    pub run: Option<u64>,
    pub batch: Option<u64>,
    /// Of its last fence that was not undone.
    pub pause_ms: Option<u64>,
    pub changed_at: DateTime<Utc>,
}

/// A state that an entity has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityEvent {
    pub state: EntityState,
    pub side: Option<Side>,
    pub version: u64,
    pub run: Option<u64>,
    pub batch: Option<u64>,
    pub reason: Option<String>,
    pub at: DateTime<Utc>,
}

const READ: &str = "read entities";
const COLUMNS: &str = "entity, state, side, version, fenced_until > UTC_TIMESTAMP(6) OR NOT given AS fenced, attempts, reason, run, \
                       batch, pause_ms, changed_at";

/// Does work again that the server has rolled back for a deadlock.
async fn repeated<T, F: Future<Output = Result<T, StoreError>>>(work: impl Fn() -> F) -> Result<T, StoreError> {
    let mut repeats = 0;
    loop {
        match work().await {
            Err(error) if error.remedy() == Remedy::RetryAtOnce && repeats < MOST_REPEATS => repeats += 1,
            ended => return ended,
        }
    }
}

impl Store {
    /// Makes entities known that are not yet; `seen`: their rows were seen on the old side. Gives how many were not known.
    pub async fn add_entities(&self, keys: &[EntityKey], seen: bool) -> Result<u64, StoreError> {
        let mut added = 0;
        for keys in keys.chunks(KEYS) {
            added += self.add_some(keys, seen).await?;
        }
        Ok(added)
    }

    async fn add_some(&self, keys: &[EntityKey], seen: bool) -> Result<u64, StoreError> {
        const ADD: &str = "keep entities";
        let during = || StoreError::during(ADD);
        let work = || async {
            let mut transaction = self.patient.begin().await.map_err(during())?;
            let mut known = QueryBuilder::<MySql>::new("SELECT COUNT(*) FROM entity WHERE pair = ");
            known.push_bind(&*self.pair);
            among(&mut known, keys);
            let known: i64 = known.build_query_scalar().fetch_one(&mut *transaction).await.map_err(during())?;
            let mut insert =
                QueryBuilder::<MySql>::new("INSERT INTO entity (pair, entity, state, version, changed_at) ");
            insert.push_values(keys, |mut row, key| {
                row.push_bind(&*self.pair);
                row.push_bind(key.as_str().as_bytes());
                row.push_bind(EntityState::Identified.as_str());
                row.push("0, UTC_TIMESTAMP(6)");
            });
            insert.push(" ON DUPLICATE KEY UPDATE entity = VALUES(entity)");
            insert.build().execute(&mut *transaction).await.map_err(during())?;
            let mut events = QueryBuilder::<MySql>::new(
                "INSERT INTO entity_event (pair, entity, state, version, at)
                 SELECT pair, entity, state, version, UTC_TIMESTAMP(6) FROM entity WHERE state = 'identified' AND pair = ",
            );
            events.push_bind(&*self.pair);
            among(&mut events, keys);
            events.push(
                " AND NOT EXISTS (SELECT 1 FROM entity_event past WHERE past.pair = entity.pair AND past.entity = entity.entity)",
            );
            events.build().execute(&mut *transaction).await.map_err(during())?;
            if seen {
                let mut list =
                    QueryBuilder::<MySql>::new("SELECT entity FROM entity WHERE state = 'identified' AND pair = ");
                list.push_bind(&*self.pair);
                among(&mut list, keys);
                list.push(" FOR UPDATE");
                let rows = list.build().fetch_all(&mut *transaction).await.map_err(during())?;
                let fresh = rows.iter().map(|row| key_of(row, "entity")).collect::<Result<Vec<_>, _>>()?;
                if !fresh.is_empty() {
                    let mut see = QueryBuilder::<MySql>::new(
                        "UPDATE entity SET state = 'eligible', reason = NULL, changed_at = UTC_TIMESTAMP(6) WHERE pair = ",
                    );
                    see.push_bind(&*self.pair);
                    among(&mut see, &fresh);
                    see.build().execute(&mut *transaction).await.map_err(during())?;
                    run::tell(&mut transaction, &self.pair, &fresh).await.map_err(during())?;
                }
            }
            transaction.commit().await.map_err(during())?;
            Ok((keys.len() as u64).saturating_sub(known.unsigned_abs()))
        };
        repeated(|| in_time(ADD, statements(6), work())).await
    }

    pub async fn entity(&self, key: &EntityKey) -> Result<Option<Entity>, StoreError> {
        let question = format!("SELECT {COLUMNS} FROM entity WHERE pair = ? AND entity = ?");
        let row = sqlx::query(sqlx::AssertSqlSafe(question))
            .bind(&*self.pair)
            .bind(key.as_str().as_bytes())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::during(READ))?;
        row.as_ref().map(entity_of).transpose()
    }

    /// In the order of their keys, behind `after`; those that stand for all others are left out.
    pub async fn entities(
        &self,
        state: Option<EntityState>,
        after: Option<&EntityKey>,
        limit: u32,
    ) -> Result<Vec<Entity>, StoreError> {
        let mut question =
            QueryBuilder::<MySql>::new(format!("SELECT {COLUMNS} FROM entity WHERE entity <> '' AND pair = "));
        question.push_bind(&*self.pair);
        if let Some(state) = state {
            question.push(" AND state = ").push_bind(state.as_str());
        }
        if let Some(after) = after {
            question.push(" AND entity > ").push_bind(after.as_str().as_bytes());
        }
        question.push(" ORDER BY entity LIMIT ").push_bind(limit);
        let rows = question.build().fetch_all(&self.pool).await.map_err(StoreError::during(READ))?;
        rows.iter().map(entity_of).collect()
    }

    /// Entities in one of these states that are not on a side, behind `after` in the order of their keys; `spread`: in no order that
    /// says anything, from anywhere.
    pub async fn entities_to_move(
        &self,
        to: Side,
        states: &[EntityState],
        spread: bool,
        after: Option<&EntityKey>,
        limit: u32,
    ) -> Result<Vec<EntityKey>, StoreError> {
        let rest = self.rest_side().await?;
        let mut question = QueryBuilder::<MySql>::new("SELECT entity FROM entity WHERE entity <> '' AND state IN (");
        let mut list = question.separated(", ");
        for state in states {
            list.push_bind(state.as_str());
        }
        question.push(") AND COALESCE(side, ").push_bind(number_of(rest)).push(") <> ").push_bind(number_of(to));
        question.push(" AND pair = ").push_bind(&*self.pair);
        if let (Some(after), false) = (after, spread) {
            question.push(" AND entity > ").push_bind(after.as_str().as_bytes());
        }
        question.push(if spread { " ORDER BY CRC32(entity), entity LIMIT " } else { " ORDER BY entity LIMIT " });
        question.push_bind(limit);
        let rows = question.build().fetch_all(&self.pool).await.map_err(StoreError::during(READ))?;
        rows.iter().map(|row| key_of(row, "entity")).collect()
    }

    /// How many there are of each state that any of them has, by side.
    pub async fn entity_counts(&self) -> Result<Vec<(EntityState, Option<Side>, u64)>, StoreError> {
        let during = || StoreError::during(READ);
        let rows = sqlx::query(
            "SELECT state, side, CAST(COUNT(*) AS UNSIGNED) AS n FROM entity WHERE pair = ? AND entity <> '' GROUP BY state, side",
        )
        .bind(&*self.pair)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        let mut counts = Vec::with_capacity(rows.len());
        for row in &rows {
            counts.push((state_of(row)?, side_of(row, "side")?, row.try_get("n").map_err(during())?));
        }
        counts.sort();
        Ok(counts)
    }

    /// Oldest first; the last 200.
    pub async fn entity_events(&self, key: &EntityKey) -> Result<Vec<EntityEvent>, StoreError> {
        let during = || StoreError::during("read the life of an entity");
        let mut rows = sqlx::query(
            "SELECT state, side, version, run, batch, reason, at FROM entity_event WHERE pair = ? AND entity = ?
             ORDER BY id DESC LIMIT 200",
        )
        .bind(&*self.pair)
        .bind(key.as_str().as_bytes())
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        rows.reverse();
        let read = |row: &MySqlRow| -> Result<EntityEvent, StoreError> {
            Ok(EntityEvent {
                state: state_of(row)?,
                side: side_of(row, "side")?,
                version: row.try_get("version").map_err(during())?,
                run: row.try_get("run").map_err(during())?,
                batch: row.try_get("batch").map_err(during())?,
                reason: row.try_get("reason").map_err(during())?,
                at: utc(row.try_get::<NaiveDateTime, _>("at").map_err(during())?),
            })
        };
        rows.iter().map(read).collect()
    }
}

/// Adds the condition that an entity is one of these.
fn among(question: &mut QueryBuilder<MySql>, keys: &[EntityKey]) {
    question.push(" AND entity IN (");
    let mut list = question.separated(", ");
    for key in keys {
        list.push_bind(key.as_str().as_bytes().to_vec());
    }
    question.push(")");
}

fn number_of(side: Side) -> u8 {
    match side {
        Side::Old => 0,
        Side::New => 1,
    }
}

fn side_of(row: &MySqlRow, column: &str) -> Result<Option<Side>, StoreError> {
    let number: Option<u8> = row.try_get(column).map_err(StoreError::during(READ))?;
    let unknown = |number| StoreError::Unreadable { what: "entity", reason: format!("{number} is no side") };
    number
        .map(|number| match number {
            0 => Ok(Side::Old),
            1 => Ok(Side::New),
            number => Err(unknown(number)),
        })
        .transpose()
}

fn state_of(row: &MySqlRow) -> Result<EntityState, StoreError> {
    let text: String = row.try_get("state").map_err(StoreError::during(READ))?;
    let unknown = || StoreError::Unreadable { what: "entity", reason: format!("`{text}` is no state of one") };
    EntityState::parse(&text).ok_or_else(unknown)
}

fn key_of(row: &MySqlRow, column: &str) -> Result<EntityKey, StoreError> {
    let bytes: Vec<u8> = row.try_get(column).map_err(StoreError::during(READ))?;
    let unreadable = || StoreError::Unreadable { what: "entity", reason: "its key is no text".to_owned() };
    let text = String::from_utf8(bytes).map_err(|_| unreadable())?;
    if text.is_empty() { Ok(EntityKey::rest()) } else { EntityKey::parse(&text).ok_or_else(unreadable) }
}

fn entity_of(row: &MySqlRow) -> Result<Entity, StoreError> {
    let during = || StoreError::during(READ);
    let fenced: Option<i64> = row.try_get("fenced").map_err(during())?;
    Ok(Entity {
        key: key_of(row, "entity")?,
        state: state_of(row)?,
        side: side_of(row, "side")?,
        version: row.try_get("version").map_err(during())?,
        fenced: fenced.is_some_and(|fenced| fenced != 0),
        attempts: row.try_get("attempts").map_err(during())?,
        reason: row.try_get("reason").map_err(during())?,
        run: row.try_get("run").map_err(during())?,
        batch: row.try_get("batch").map_err(during())?,
        pause_ms: row.try_get("pause_ms").map_err(during())?,
        changed_at: utc(row.try_get::<NaiveDateTime, _>("changed_at").map_err(during())?),
    })
}

fn cut(reason: &str) -> String {
    reason.chars().take(REASON_MOST_CHARS).collect()
}
