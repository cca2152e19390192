//! What a person has asked for with one command, and the batches in which it is carried out.

use std::time::Duration;

use crossfade_model::{EntityKey, Side};
use crossfade_rules::{EntityState, EntityStep};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{MySql, QueryBuilder, Row};

use super::{KEYS, among, key_of, number_of, repeated, side_of};
use crate::connections::{in_time, statements};
use crate::lease::micros;
use crate::switch_run::meet;
use crate::{Store, StoreError};

/// A move, or a return, of the entities that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityRun {
    pub id: u64,
    pub to: Side,
    /// The same words go on with it.
    pub words: String,
    /// All that it is about are requested.
    pub has_asked: bool,
}

/// What came of asking for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntityHeld {
    /// It is the asker's; `true`: somebody else had begun it, and has died.
    Mine(EntityRun, bool),
    Theirs {
        holder: String,
        run: EntityRun,
    },
}

/// Entities that are taken up together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityBatch {
    pub id: u64,
    pub run: u64,
    pub to: Side,
    pub keys: Vec<EntityKey>,
}

/// A batch that was left behind, in part or as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBatch {
    pub batch: EntityBatch,
    /// Decided, and the nodes may not know: key and version.
    pub decided: Vec<(EntityKey, u64)>,
}

const HOLD: &str = "hold what moves entities";
const ASK: &str = "keep which entities are asked for";
const TAKE: &str = "take entities up";
const READ: &str = "read what moves entities";

impl Store {
    /// Takes the open run with these words for `ttl`, or begins one.
    pub async fn hold_entity_run(
        &self,
        to: Side,
        words: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<EntityHeld, StoreError> {
        let during = || StoreError::during(HOLD);
        let work = || async {
            let mut transaction = self.patient.begin().await.map_err(during())?;
            meet(&mut transaction, &self.pair).await.map_err(during())?;
            let open = sqlx::query(
                "SELECT id, goes_to, words, has_asked, holder, held_until > UTC_TIMESTAMP(6) AS is_held FROM entity_run
                 WHERE pair = ? AND state = 'open' AND goes_to = ? AND words = ? ORDER BY id DESC LIMIT 1",
            )
            .bind(&*self.pair)
            .bind(number_of(to))
            .bind(words)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(during())?;
            let held = match open {
                Some(row) => {
                    let run = run_of(&row)?;
                    let of: String = row.try_get("holder").map_err(during())?;
                    let is_held: i64 = row.try_get("is_held").map_err(during())?;
                    if is_held != 0 && of != holder {
                        return Ok(EntityHeld::Theirs { holder: of, run });
                    }
                    sqlx::query(
                        "UPDATE entity_run SET holder = ?, held_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND WHERE id = ?",
                    )
                    .bind(holder)
                    .bind(micros(ttl))
                    .bind(run.id)
                    .execute(&mut *transaction)
                    .await
                    .map_err(during())?;
                    EntityHeld::Mine(run, true)
                }
                None => {
                    let id = sqlx::query(
                        "INSERT INTO entity_run (pair, goes_to, words, state, holder, held_until, begun_at)
                         VALUES (?, ?, ?, 'open', ?, UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, UTC_TIMESTAMP(6))",
                    )
                    .bind(&*self.pair)
                    .bind(number_of(to))
                    .bind(words)
                    .bind(holder)
                    .bind(micros(ttl))
                    .execute(&mut *transaction)
                    .await
                    .map_err(during())?
                    .last_insert_id();
                    EntityHeld::Mine(EntityRun { id, to, words: words.to_owned(), has_asked: false }, false)
                }
            };
            transaction.commit().await.map_err(during())?;
            Ok(held)
        };
        repeated(|| in_time(HOLD, statements(4), work())).await
    }

    /// Holds a run for another `ttl`; no time lets go of it. `false`: somebody else has it, or it is over.
    pub async fn renew_entity_run(&self, id: u64, holder: &str, ttl: Duration) -> Result<bool, StoreError> {
        let renewed = sqlx::query(
            "UPDATE entity_run SET held_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND
             WHERE id = ? AND holder = ? AND state = 'open'",
        )
        .bind(micros(ttl))
        .bind(id)
        .bind(holder)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during(HOLD))?;
        Ok(renewed.rows_affected() > 0)
    }

    /// Takes a run over that nobody holds any more. `None`: somebody does, or it is over.
    pub async fn take_entity_run(&self, id: u64, holder: &str, ttl: Duration) -> Result<Option<EntityRun>, StoreError> {
        let during = || StoreError::during(HOLD);
        let taken = sqlx::query(
            "UPDATE entity_run SET holder = ?, held_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND
             WHERE id = ? AND state = 'open' AND (held_until <= UTC_TIMESTAMP(6) OR holder = ?)",
        )
        .bind(holder)
        .bind(micros(ttl))
        .bind(id)
        .bind(holder)
        .execute(&self.pool)
        .await
        .map_err(during())?;
        if taken.rows_affected() == 0 {
            return Ok(None);
        }
        let row = sqlx::query("SELECT id, goes_to, words, has_asked FROM entity_run WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(during())?;
        row.as_ref().map(run_of).transpose()
    }

    /// The open runs, and who holds each; nobody where his time is over.
    pub async fn open_entity_runs(&self) -> Result<Vec<(EntityRun, Option<String>)>, StoreError> {
        let during = || StoreError::during(READ);
        let rows = sqlx::query(
            "SELECT id, goes_to, words, has_asked, holder, held_until > UTC_TIMESTAMP(6) AS is_held FROM entity_run
             WHERE pair = ? AND state = 'open' ORDER BY id",
        )
        .bind(&*self.pair)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        let read = |row: &MySqlRow| -> Result<(EntityRun, Option<String>), StoreError> {
            let is_held: i64 = row.try_get("is_held").map_err(during())?;
            let holder: String = row.try_get("holder").map_err(during())?;
            Ok((run_of(row)?, (is_held != 0).then_some(holder)))
        };
        rows.iter().map(read).collect()
    }

    /// Asks for entities that are not on the run's side and not in hand of a run that somebody holds. Gives how many were free.
    /// `None`: somebody else has the run.
    pub async fn ask_for_entities(
        &self,
        run: &EntityRun,
        holder: &str,
        keys: &[EntityKey],
    ) -> Result<Option<u64>, StoreError> {
        let mut asked = 0;
        for keys in keys.chunks(KEYS) {
            match self.ask_for_some(run, holder, keys).await? {
                Some(some) => asked += some,
                None => return Ok(None),
            }
        }
        Ok(Some(asked))
    }

    async fn ask_for_some(&self, run: &EntityRun, holder: &str, keys: &[EntityKey]) -> Result<Option<u64>, StoreError> {
        let during = || StoreError::during(ASK);
        let rest = self.rest_side().await?;
        let open = self.open_entity_runs().await?;
        let held: Vec<u64> = open
            .into_iter()
            .filter(|(other, holder)| other.id != run.id && holder.is_some())
            .map(|(other, _)| other.id)
            .collect();
        let work = || async {
            let mut transaction = self.patient.begin().await.map_err(during())?;
            if !is_held(&mut transaction, run.id, holder).await? {
                return Ok(None);
            }
            let mut list = QueryBuilder::<MySql>::new("SELECT entity FROM entity WHERE given AND COALESCE(side, ");
            list.push_bind(number_of(rest)).push(") <> ").push_bind(number_of(run.to));
            list.push(" AND (").push(states(EntityStep::Ask)).push(" OR state = 'requested' AND run NOT IN (");
            list.push_bind(run.id);
            for other in &held {
                list.push(", ").push_bind(*other);
            }
            list.push(")) AND pair = ").push_bind(&*self.pair);
            among(&mut list, keys);
            list.push(" FOR UPDATE");
            let rows = list.build().fetch_all(&mut *transaction).await.map_err(during())?;
            let free = rows.iter().map(|row| key_of(row, "entity")).collect::<Result<Vec<_>, _>>()?;
            if !free.is_empty() {
                let mut ask = QueryBuilder::<MySql>::new(
                    "UPDATE entity SET state = 'requested', attempts = 0, reason = NULL, batch = NULL,
                       requested_at = UTC_TIMESTAMP(6), changed_at = UTC_TIMESTAMP(6), run = ",
                );
                ask.push_bind(run.id).push(" WHERE pair = ").push_bind(&*self.pair);
                among(&mut ask, &free);
                ask.build().execute(&mut *transaction).await.map_err(during())?;
                tell(&mut transaction, &self.pair, &free).await.map_err(during())?;
            }
            transaction.commit().await.map_err(during())?;
            Ok(Some(free.len() as u64))
        };
        repeated(|| in_time(ASK, statements(4), work())).await
    }

    /// All that a run is about are requested.
    pub async fn end_asking(&self, run: &EntityRun, holder: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE entity_run SET has_asked = TRUE WHERE id = ? AND holder = ? AND state = 'open'")
            .bind(run.id)
            .bind(holder)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during(ASK))?;
        Ok(done.rows_affected() > 0)
    }

    /// How many entities of a run are in each state, and how many it has asked for in all.
    pub async fn run_counts(&self, run: u64) -> Result<Vec<(EntityState, u64)>, StoreError> {
        let during = || StoreError::during(READ);
        let rows =
            sqlx::query("SELECT state, CAST(COUNT(*) AS UNSIGNED) AS n FROM entity WHERE run = ? GROUP BY state")
                .bind(run)
                .fetch_all(&self.pool)
                .await
                .map_err(during())?;
        let mut counts = Vec::with_capacity(rows.len());
        for row in &rows {
            counts.push((super::state_of(row)?, row.try_get("n").map_err(during())?));
        }
        Ok(counts)
    }

    /// Takes up to `most` of a run's entities up: those first that were tried least. `None`: nothing is left, or somebody else has
    /// the run.
    pub async fn next_batch(
        &self,
        run: &EntityRun,
        holder: &str,
        most: u32,
    ) -> Result<Option<EntityBatch>, StoreError> {
        let during = || StoreError::during(TAKE);
        let work = || async {
            let mut transaction = self.patient.begin().await.map_err(during())?;
            if !is_held(&mut transaction, run.id, holder).await? {
                return Ok(None);
            }
            // Not those that have come there meanwhile, with all others.
            let rows = sqlx::query(
                "SELECT entity FROM entity WHERE run = ? AND state = 'requested' AND
                   COALESCE(side, (SELECT rest.side FROM entity AS rest WHERE rest.pair = ? AND rest.entity = ''), ?) <> ?
                 ORDER BY attempts, entity LIMIT ? FOR UPDATE",
            )
            .bind(run.id)
            .bind(&*self.pair)
            .bind(number_of(Side::Old))
            .bind(number_of(run.to))
            .bind(most)
            .fetch_all(&mut *transaction)
            .await
            .map_err(during())?;
            let keys = rows.iter().map(|row| key_of(row, "entity")).collect::<Result<Vec<_>, _>>()?;
            if keys.is_empty() {
                return Ok(None);
            }
            let id = sqlx::query(
                "INSERT INTO entity_batch (pair, run, entities, begun_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))",
            )
            .bind(&*self.pair)
            .bind(run.id)
            .bind(keys.len() as u64)
            .execute(&mut *transaction)
            .await
            .map_err(during())?
            .last_insert_id();
            let mut take = QueryBuilder::<MySql>::new(
                "UPDATE entity SET state = 'copying', changed_at = UTC_TIMESTAMP(6), batch = ",
            );
            take.push_bind(id).push(" WHERE state = 'requested' AND pair = ").push_bind(&*self.pair);
            among(&mut take, &keys);
            take.build().execute(&mut *transaction).await.map_err(during())?;
            tell(&mut transaction, &self.pair, &keys).await.map_err(during())?;
            transaction.commit().await.map_err(during())?;
            Ok(Some(EntityBatch { id, run: run.id, to: run.to, keys }))
        };
        repeated(|| in_time(TAKE, statements(5), work())).await
    }

    /// What of a run was taken up and not brought to an end.
    pub async fn open_batches(&self, run: &EntityRun) -> Result<Vec<OpenBatch>, StoreError> {
        let during = || StoreError::during(READ);
        let rows = sqlx::query(
            "SELECT entity, batch, version, given FROM entity
             WHERE run = ? AND (state IN ('copying', 'verified') OR NOT given) ORDER BY batch, entity",
        )
        .bind(run.id)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        let mut open: Vec<OpenBatch> = Vec::new();
        for row in &rows {
            let id: u64 = row.try_get::<Option<u64>, _>("batch").map_err(during())?.unwrap_or(0);
            if open.last().is_none_or(|last| last.batch.id != id) {
                let batch = EntityBatch { id, run: run.id, to: run.to, keys: Vec::new() };
                open.push(OpenBatch { batch, decided: Vec::new() });
            }
            let Some(last) = open.last_mut() else { continue };
            let key = key_of(row, "entity")?;
            let given: i64 = row.try_get::<i8, _>("given").map_err(during())?.into();
            if given == 0 {
                last.decided.push((key, row.try_get("version").map_err(during())?));
            } else {
                last.batch.keys.push(key);
            }
        }
        Ok(open)
    }

    /// How many entities are being moved right now.
    pub async fn entities_at_work(&self) -> Result<u64, StoreError> {
        sqlx::query_scalar(
            "SELECT CAST(COUNT(*) AS UNSIGNED) FROM entity WHERE pair = ? AND (state IN ('copying', 'verified') OR NOT given)",
        )
        .bind(&*self.pair)
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::during(READ))
    }

    /// Whether any entity is decided that not both nodes may know of.
    pub async fn has_decided_entities(&self) -> Result<bool, StoreError> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM entity WHERE pair = ? AND given = FALSE LIMIT 1")
            .bind(&*self.pair)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::during(READ))?;
        Ok(found.is_some())
    }

    /// Ends a run. What it has asked for and not taken up rests where it is; gives how many these are. `None`: somebody else has
    /// it.
    pub async fn end_entity_run(&self, run: &EntityRun, holder: &str) -> Result<Option<u64>, StoreError> {
        const END: &str = "end what moves entities";
        let during = || StoreError::during(END);
        let work = || async {
            let mut transaction = self.patient.begin().await.map_err(during())?;
            if !is_held(&mut transaction, run.id, holder).await? {
                return Ok(None);
            }
            let withdrawn = sqlx::query(
                "UPDATE entity SET state = CASE side WHEN 1 THEN 'moved' WHEN 0 THEN 'returned' ELSE 'eligible' END,
                   batch = NULL, changed_at = UTC_TIMESTAMP(6) WHERE run = ? AND state = 'requested'",
            )
            .bind(run.id)
            .execute(&mut *transaction)
            .await
            .map_err(during())?
            .rows_affected();
            sqlx::query(
                "UPDATE entity_run SET state = 'done', ended_at = UTC_TIMESTAMP(6), held_until = UTC_TIMESTAMP(6) WHERE id = ?",
            )
            .bind(run.id)
            .execute(&mut *transaction)
            .await
            .map_err(during())?;
            transaction.commit().await.map_err(during())?;
            Ok(Some(withdrawn))
        };
        repeated(|| in_time(END, statements(3), work())).await
    }
}

/// The condition that a step leads on from an entity's state.
pub(super) fn states(step: EntityStep) -> String {
    let states: Vec<String> = EntityState::before(step).iter().map(|state| format!("'{state}'")).collect();
    format!("state IN ({})", states.join(", "))
}

/// Keeps the run as the holder's until the transaction ends.
pub(super) async fn is_held(connection: &mut MySqlConnection, run: u64, holder: &str) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT id FROM entity_run WHERE id = ? AND holder = ? AND state = 'open' FOR UPDATE")
        .bind(run)
        .bind(holder)
        .fetch_optional(connection)
        .await
        .map_err(StoreError::during(HOLD))?;
    Ok(row.is_some())
}

/// Keeps the state that these entities have now, for who asks for their life.
pub(super) async fn tell(connection: &mut MySqlConnection, pair: &str, keys: &[EntityKey]) -> Result<(), sqlx::Error> {
    for keys in keys.chunks(KEYS) {
        let mut events = QueryBuilder::<MySql>::new(
            "INSERT INTO entity_event (pair, entity, state, side, version, run, batch, reason, at)
             SELECT pair, entity, state, side, version, run, batch, reason, UTC_TIMESTAMP(6) FROM entity WHERE pair = ",
        );
        events.push_bind(pair);
        among(&mut events, keys);
        events.build().execute(&mut *connection).await?;
    }
    Ok(())
}

fn run_of(row: &MySqlRow) -> Result<EntityRun, StoreError> {
    let during = || StoreError::during(READ);
    Ok(EntityRun {
        id: row.try_get("id").map_err(during())?,
        to: side_of(row, "goes_to")?.unwrap_or(Side::New),
        words: row.try_get("words").map_err(during())?,
        has_asked: row.try_get::<i8, _>("has_asked").map_err(during())? != 0,
    })
}
