//! What takes several steps, a cutover or a rollback: which step it has reached, and what later ones must know.
//!
//! At most one of a pair is open. Who carries it out holds it for a while at a time; when that is over, anybody may go on.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use crossfade_model::Direction;
use serde::Serialize;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Connection, Row};

use crate::lease::micros;
use crate::stream::utc;
use crate::{Store, StoreError, Wish};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SwitchRun {
    pub id: u64,
    /// `cutover`, `rollback`, …
    pub kind: String,
    pub state: SwitchState,
    /// The last one that was begun.
    pub step: String,
    /// JSON, as who carries it out has written it.
    pub memory: String,
    pub begun_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SwitchState {
    /// Set when it begins.
    Open,
    /// Set after its last step.
    Done,
    /// Set when all is as before again.
    Undone,
}

impl SwitchState {
    fn as_str(self) -> &'static str {
        match self {
            SwitchState::Open => "open",
            SwitchState::Done => "done",
            SwitchState::Undone => "undone",
        }
    }

    fn parse(text: &str) -> Option<SwitchState> {
        [SwitchState::Open, SwitchState::Done, SwitchState::Undone].into_iter().find(|state| state.as_str() == text)
    }
}

/// What came of asking for the run that is open.
#[derive(Debug, Clone, PartialEq)]
pub enum Held {
    /// It is now the asker's.
    Mine(SwitchRun),
    /// Another one is at it.
    Theirs { holder: String, run: SwitchRun },
}

const COLUMNS: &str =
    "id, kind, state, step, memory, holder, begun_at, ended_at, held_until > UTC_TIMESTAMP(6) AS is_held";
const BEGIN: &str = "begin what takes several steps";
const READ: &str = "read what takes several steps";

impl Store {
    /// Takes the open run for `ttl`, or begins one of `kind` where none is open.
    pub async fn hold_switch_run(&self, kind: &str, holder: &str, ttl: Duration) -> Result<Held, StoreError> {
        let during = || StoreError::during(BEGIN);
        let mut connection = self.pool.acquire().await.map_err(during())?;
        let mut transaction = connection.begin().await.map_err(during())?;
        meet(&mut transaction, &self.pair).await.map_err(during())?;
        let open = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM switch_run WHERE pair = ? AND state = 'open' ORDER BY id DESC LIMIT 1"
        )))
        .bind(&*self.pair)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(during())?;
        let held = match open {
            Some(row) => {
                let (run, of, is_held) = read(&row)?;
                if is_held && of != holder {
                    return Ok(Held::Theirs { holder: of, run });
                }
                sqlx::query(
                    "UPDATE switch_run SET holder = ?, held_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND WHERE id = ?",
                )
                .bind(holder)
                .bind(micros(ttl))
                .bind(run.id)
                .execute(&mut *transaction)
                .await
                .map_err(during())?;
                run
            }
            None => {
                let id = sqlx::query(
                    "INSERT INTO switch_run (pair, kind, state, step, memory, holder, held_until, begun_at)
                     VALUES (?, ?, 'open', '', '{}', ?, UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, UTC_TIMESTAMP(6))",
                )
                .bind(&*self.pair)
                .bind(kind)
                .bind(holder)
                .bind(micros(ttl))
                .execute(&mut *transaction)
                .await
                .map_err(during())?
                .last_insert_id();
                let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM switch_run WHERE id = ?")))
                    .bind(id)
                    .fetch_one(&mut *transaction)
                    .await
                    .map_err(during())?;
                read(&row)?.0
            }
        };
        transaction.commit().await.map_err(during())?;
        Ok(Held::Mine(held))
    }

    /// Holds a run for another `ttl`. `false`: somebody else has it, or it is over.
    pub async fn renew_switch_run(&self, id: u64, holder: &str, ttl: Duration) -> Result<bool, StoreError> {
        let renewed = sqlx::query(
            "UPDATE switch_run SET held_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND
             WHERE id = ? AND holder = ? AND state = 'open'",
        )
        .bind(micros(ttl))
        .bind(id)
        .bind(holder)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("hold what takes several steps"))?;
        Ok(renewed.rows_affected() > 0)
    }

    /// Keeps the step that is about to begin, and what later ones must know, and holds the run for another `ttl`. `false`:
    /// somebody else has it, or it is over.
    pub async fn keep_switch_step(
        &self,
        id: u64,
        holder: &str,
        ttl: Duration,
        step: &str,
        memory: &str,
    ) -> Result<bool, StoreError> {
        let kept = sqlx::query(
            "UPDATE switch_run SET step = ?, memory = ?, held_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND
             WHERE id = ? AND holder = ? AND state = 'open'",
        )
        .bind(step)
        .bind(memory)
        .bind(micros(ttl))
        .bind(id)
        .bind(holder)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("keep a step"))?;
        Ok(kept.rows_affected() > 0)
    }

    /// Wishes something of a direction as long as the run is the holder's. `false`: somebody else has it, or it is over.
    pub async fn set_wish_of_run(
        &self,
        id: u64,
        holder: &str,
        direction: Direction,
        wish: Wish,
    ) -> Result<bool, StoreError> {
        let during = || StoreError::during("keep a wish");
        let mut connection = self.pool.acquire().await.map_err(during())?;
        let mut transaction = connection.begin().await.map_err(during())?;
        // Whoever takes the run over waits for this, and then finds what was wished.
        meet(&mut transaction, &self.pair).await.map_err(during())?;
        let is_held: Option<u64> = sqlx::query_scalar(
            "SELECT id FROM switch_run WHERE id = ? AND pair = ? AND holder = ? AND state = 'open' FOR UPDATE",
        )
        .bind(id)
        .bind(&*self.pair)
        .bind(holder)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(during())?;
        if is_held.is_none() {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO direction (pair, direction, declared, capture, apply, changed_at)
             VALUES (?, ?, ?, ?, ?, UTC_TIMESTAMP(6))
             ON DUPLICATE KEY UPDATE declared = VALUES(declared), capture = VALUES(capture), apply = VALUES(apply),
               reason = NULL, changed_at = VALUES(changed_at)",
        )
        .bind(&*self.pair)
        .bind(direction.as_str())
        .bind(wish.declared)
        .bind(wish.capture)
        .bind(wish.apply)
        .execute(&mut *transaction)
        .await
        .map_err(during())?;
        transaction.commit().await.map_err(during())?;
        connection.keep();
        Ok(true)
    }

    /// `false`: somebody else has it, or it is over.
    pub async fn end_switch_run(&self, id: u64, holder: &str, state: SwitchState) -> Result<bool, StoreError> {
        let ended = sqlx::query(
            "UPDATE switch_run SET state = ?, ended_at = UTC_TIMESTAMP(6), held_until = UTC_TIMESTAMP(6)
             WHERE id = ? AND holder = ? AND state = 'open'",
        )
        .bind(state.as_str())
        .bind(id)
        .bind(holder)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("end what took several steps"))?;
        Ok(ended.rows_affected() > 0)
    }

    /// The run that is open, and who holds it; nobody where his time is over.
    pub async fn open_switch_run(&self) -> Result<Option<(SwitchRun, Option<String>)>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM switch_run WHERE pair = ? AND state = 'open' ORDER BY id DESC LIMIT 1"
        )))
        .bind(&*self.pair)
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::during(READ))?;
        let Some(row) = row else { return Ok(None) };
        let (run, holder, is_held) = read(&row)?;
        Ok(Some((run, is_held.then_some(holder))))
    }

    /// The run that has ended the migration; `None` as long as it goes on.
    pub async fn ending(&self) -> Result<Option<SwitchRun>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM switch_run WHERE pair = ? AND state = 'done' AND kind IN ('finish', 'abort')
             ORDER BY id DESC LIMIT 1"
        )))
        .bind(&*self.pair)
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::during(READ))?;
        row.map(|row| Ok(read(&row)?.0)).transpose()
    }

    /// Why no process of the pair may run any more; `None` as long as the migration goes on.
    pub async fn end_word(&self) -> Result<Option<String>, StoreError> {
        if let Some(run) = self.ending().await? {
            let word = if run.kind == "abort" { "was aborted" } else { "has ended" };
            let at = run.ended_at.map(|at| format!(" at {} UTC", at.format("%Y-%m-%d %H:%M:%S"))).unwrap_or_default();
            return Ok(Some(format!("the migration {word}{at}")));
        }
        let leaves = |run: &SwitchRun| run.kind == "abort" && matches!(&*run.step, "leave" | "remove");
        let open = self.open_switch_run().await?.map(|(run, _)| run).filter(leaves);
        Ok(open.map(|run| format!("the migration is left by abort {}", run.id)))
    }

    /// Oldest first; those that are over too.
    pub async fn switch_runs(&self) -> Result<Vec<SwitchRun>, StoreError> {
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM switch_run WHERE pair = ? ORDER BY id")))
                .bind(&*self.pair)
                .fetch_all(&self.pool)
                .await
                .map_err(StoreError::during(READ))?;
        rows.iter().map(|row| Ok(read(row)?.0)).collect()
    }
}

/// All who begin a run, take one over, or wish something as its holder meet at these rows, which are there since `init`; before they
/// lock anything else.
pub(crate) async fn meet(connection: &mut MySqlConnection, pair: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT direction FROM direction WHERE pair = ? FOR UPDATE").bind(pair).fetch_all(connection).await?;
    Ok(())
}

fn read(row: &MySqlRow) -> Result<(SwitchRun, String, bool), StoreError> {
    let during = || StoreError::during(READ);
    let text = |column: &str| row.try_get::<String, _>(column).map_err(during());
    let state = text("state")?;
    let unknown = || StoreError::Unreadable { what: "run", reason: format!("`{state}` is no state of one") };
    let run = SwitchRun {
        id: row.try_get("id").map_err(during())?,
        kind: text("kind")?,
        state: SwitchState::parse(&state).ok_or_else(unknown)?,
        step: text("step")?,
        memory: text("memory")?,
        begun_at: utc(row.try_get::<NaiveDateTime, _>("begun_at").map_err(during())?),
        ended_at: row.try_get::<Option<NaiveDateTime>, _>("ended_at").map_err(during())?.map(utc),
    };
    let is_held: i64 = row.try_get("is_held").map_err(during())?;
    Ok((run, text("holder")?, is_held != 0))
}
