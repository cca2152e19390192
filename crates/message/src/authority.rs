//! Which side has authority over an entity at each message of a stream: captured with the messages, from the same binlog.

use std::collections::BTreeMap;

use crossfade_model::{EntityKey, Given, Side, StreamId};
use crossfade_rules::AuthorityChange;
use sqlx::mysql::MySqlConnection;
use sqlx::{MySql, QueryBuilder, Row};

use crate::{Store, StoreError};

/// Keys of one statement.
const KEYS: usize = 1_000;

/// A change of authority as it was read from the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedAuthority {
    pub given: Given,
    /// It holds for the stream's messages from this one on.
    pub from_seq: u64,
}

/// As the tables hold a side.
pub(crate) fn side_number(side: Side) -> u8 {
    match side {
        Side::Old => 0,
        Side::New => 1,
    }
}

fn side_of(number: u8) -> Side {
    if number == 0 { Side::Old } else { Side::New }
}

impl Store {
    /// All changes of authority over these entities in a stream, each entity's in the order of their places. Entities that never
    /// had one are left out.
    pub async fn authority(
        &self,
        stream: &StreamId,
        entities: &[&EntityKey],
    ) -> Result<BTreeMap<EntityKey, Vec<AuthorityChange>>, StoreError> {
        let mut found: BTreeMap<EntityKey, Vec<AuthorityChange>> = BTreeMap::new();
        for keys in entities.chunks(KEYS) {
            let mut query = QueryBuilder::<MySql>::new(
                "SELECT entity, from_seq, side, version FROM authority_change WHERE pair = ",
            );
            query.push_bind(&*self.pair).push(" AND stream = ").push_bind(stream.as_str()).push(" AND entity IN (");
            let mut list = query.separated(", ");
            for key in keys {
                list.push_bind(key.as_str().as_bytes());
            }
            query.push(") ORDER BY entity, from_seq");
            let rows = query.build().fetch_all(&self.pool).await.map_err(StoreError::during(WHAT))?;
            for row in rows {
                let (key, change) = read(&row).map_err(StoreError::during(WHAT))?;
                found.entry(key).or_default().push(change);
            }
        }
        Ok(found)
    }

    /// The first message after `first`, up to `last`, from which on some authority is another: what is before it and what is
    /// after it are judged by different ones.
    pub async fn authority_turns(&self, stream: &StreamId, first: u64, last: u64) -> Result<Option<u64>, StoreError> {
        let turn: Option<u64> = sqlx::query_scalar(
            "SELECT MIN(from_seq) FROM authority_change WHERE pair = ? AND stream = ? AND from_seq > ? AND from_seq <= ?",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(first)
        .bind(last)
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::during(WHAT))?;
        Ok(turn)
    }

    /// Keeps changes of authority in a capture's transaction. What was read before is not there twice.
    pub(crate) async fn keep_authority(
        &self,
        connection: &mut MySqlConnection,
        stream: &StreamId,
        captured: &[CapturedAuthority],
    ) -> Result<(), sqlx::Error> {
        for part in captured.chunks(KEYS) {
            let mut query = QueryBuilder::<MySql>::new(
                "INSERT INTO authority_change (pair, stream, entity, from_seq, side, version) ",
            );
            query.push_values(part, |mut row, captured| {
                row.push_bind(&*self.pair)
                    .push_bind(stream.as_str())
                    .push_bind(captured.given.entity.as_str().as_bytes())
                    .push_bind(captured.from_seq)
                    .push_bind(side_number(captured.given.side))
                    .push_bind(captured.given.version);
            });
            // The later of two at one place holds.
            query.push(
                " ON DUPLICATE KEY UPDATE side = IF(VALUES(version) >= version, VALUES(side), side),
                   version = GREATEST(version, VALUES(version))",
            );
            query.build().execute(&mut *connection).await?;
        }
        Ok(())
    }
}

const WHAT: &str = "tell who has authority";

fn read(row: &sqlx::mysql::MySqlRow) -> Result<(EntityKey, AuthorityChange), sqlx::Error> {
    let key: Vec<u8> = row.try_get(0)?;
    let key = match key.is_empty() {
        true => EntityKey::rest(),
        false => String::from_utf8(key)
            .ok()
            .and_then(|text| EntityKey::parse(&text))
            .ok_or_else(|| sqlx::Error::Decode("an entity's key is no text".into()))?,
    };
    let change =
        AuthorityChange { from_seq: row.try_get(1)?, side: side_of(row.try_get(2)?), version: row.try_get(3)? };
    Ok((key, change))
}
