//! How messages ended that did not simply apply.

use std::collections::HashMap;

use crossfade_model::{Clock, Message, MessageId, StreamId, TableName};
use serde::{Deserialize, Serialize};
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, MySql, QueryBuilder};

use crate::connections::in_time;
use crate::stream::to_json;
use crate::{Store, StoreError, image_json, row_key_json};

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Pending,
    Applied,
    /// Waits for the opposite direction before it can be judged.
    Held,
    /// Its contents had been overtaken anyway.
    Stale,
    ConflictLost,
    /// A later message of the same row stood in for it.
    Superseded,
    /// Parked, with a row in `failure`.
    Failed,
    /// Given up by a person.
    Discarded,
}

impl Status {
    pub const ALL: [Status; 8] = [
        Status::Pending,
        Status::Applied,
        Status::Held,
        Status::Stale,
        Status::ConflictLost,
        Status::Superseded,
        Status::Failed,
        Status::Discarded,
    ];

    /// As the view `message` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Applied => "applied",
            Status::Held => "held",
            Status::Stale => "stale",
            Status::ConflictLost => "conflict_lost",
            Status::Superseded => "superseded",
            Status::Failed => "failed",
            Status::Discarded => "discarded",
        }
    }
}

impl std::str::FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Status, String> {
        let all = || Status::ALL.map(Status::as_str).join(", ");
        let found = Status::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is not a status; it is one of {}", all()))
    }
}

/// The end of a message that did not simply apply. Row key and images are taken from the message itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub seq: u64,
    /// The table at the source.
    pub table: TableName,
    /// Not `pending` or `failed`, which have no row of this kind.
    pub status: Status,
    pub reason: String,
    /// The message that won.
    pub winner: Option<MessageId>,
    pub source_clock: Option<Clock>,
    pub target_clock: Option<Clock>,
}

impl Outcome {
    /// Without a winner, and without clocks.
    pub fn undisputed(seq: u64, table: TableName, status: Status, reason: String) -> Outcome {
        Outcome { seq, table, status, reason, winner: None, source_clock: None, target_clock: None }
    }
}

/// What is shown of a message beside its end.
#[derive(Clone, Default)]
pub(crate) struct Images {
    pub row_key: Option<String>,
    pub before: Option<String>,
    pub after: Option<String>,
    /// What the writer had before him.
    pub seen: String,
}

/// Rows of one statement, and bytes of images after which a statement ends. One row has up to three of [`IMAGE_BYTES`], so that
/// each is below every server's default packet size (MySQL 5.7: 4 MiB).
pub(crate) const STATEMENT_ROWS: usize = 500;
const STATEMENT_BYTES: usize = 2 << 20;

/// Images above this are left out: the message itself keeps them.
pub(crate) const IMAGE_BYTES: usize = 1 << 20;

impl Store {
    /// Keeps outcomes, in one transaction. One that is recorded again replaces the one before; so a message that ended
    /// twice, leaving one key and arriving at another, shows how its later part ended.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if the stream has no such message.
    pub async fn record_outcomes(&self, stream: &StreamId, outcomes: &[Outcome]) -> Result<(), StoreError> {
        let during = || StoreError::during("record outcomes");
        if outcomes.is_empty() {
            return Ok(());
        }
        let images = self.images_of(stream, outcomes.iter().map(|outcome| outcome.seq)).await?;
        let mut rows: Vec<_> = outcomes.iter().zip(&images).collect();
        // In one order, or lanes that record at once meet in deadlocks: a row that INSERT … ON DUPLICATE KEY UPDATE finds is locked,
        // and where its page splits, the gap before it too, under READ COMMITTED as well (InnoDB's lock_rec_inherit_to_gap). Who
        // waits so waits for one who is further on. Of two ends of one message the later stays last.
        rows.sort_by_key(|(outcome, _)| outcome.seq);
        let work = async {
            let mut connection = self.pool.acquire().await.map_err(during())?;
            let mut transaction = connection.begin().await.map_err(during())?;
            for chunk in chunks(&rows) {
                insert_outcomes(&mut transaction, &self.pair, stream, chunk).await.map_err(during())?;
            }
            transaction.commit().await.map_err(during())?;
            connection.keep();
            Ok(())
        };
        in_time("record outcomes", bytes_of(&images), work).await
    }

    /// What people are shown of messages, in the order of `seqs`.
    pub(crate) async fn images_of(
        &self,
        stream: &StreamId,
        seqs: impl Iterator<Item = u64>,
    ) -> Result<Vec<Images>, StoreError> {
        let seqs: Vec<u64> = seqs.collect();
        let messages = self.read_some(stream, &seqs.iter().copied().collect()).await?;
        let images: HashMap<u64, Images> = messages.iter().map(|message| (message.seq, Images::of(message))).collect();
        let copy = |seq: u64| {
            images.get(&seq).cloned().ok_or_else(|| StoreError::Missing {
                stream: stream.clone(),
                first: seq,
                last: seq,
            })
        };
        seqs.into_iter().map(copy).collect()
    }
}

pub(crate) fn bytes_of(images: &[Images]) -> u64 {
    images.iter().map(|images| images.bytes() as u64).sum()
}

impl Images {
    /// Images above the bound are left out: the message keeps them.
    fn of(message: &Message) -> Images {
        let change = &message.change;
        let image = |row: &Option<crossfade_model::Row>| {
            let row = row.as_ref().filter(|_| change.memory_bytes() <= IMAGE_BYTES)?;
            Some(image_json(&change.layout, row)).filter(|json| json.len() <= IMAGE_BYTES)
        };
        Images {
            row_key: row_key_json(change).filter(|key| key.len() <= IMAGE_BYTES),
            before: image(&change.before),
            after: image(&change.after),
            seen: to_json(&*message.seen),
        }
    }

    fn bytes(&self) -> usize {
        let images = [&self.row_key, &self.before, &self.after].into_iter().flatten();
        self.seen.len() + images.map(String::len).sum::<usize>()
    }
}

/// Splits rows so that each part fits into a statement.
pub(crate) fn chunks<'a, T>(rows: &'a [(T, &'a Images)]) -> Vec<&'a [(T, &'a Images)]> {
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (index, (_, images)) in rows.iter().enumerate() {
        if index > start && (index - start >= STATEMENT_ROWS || bytes + images.bytes() > STATEMENT_BYTES) {
            parts.push(&rows[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += images.bytes();
    }
    parts.push(&rows[start..]);
    parts
}

async fn insert_outcomes(
    connection: &mut MySqlConnection,
    pair: &str,
    stream: &StreamId,
    outcomes: &[(&Outcome, &Images)],
) -> Result<(), sqlx::Error> {
    let mut query = QueryBuilder::<MySql>::new(
        "INSERT INTO outcome (pair, stream, seq, table_schema, table_name, row_key, status, reason, winner, source_clock,
           target_clock, before_image, after_image, seen, decided_at) ",
    );
    query.push_values(outcomes, |mut row, (outcome, images)| {
        row.push_bind(pair)
            .push_bind(stream.as_str())
            .push_bind(outcome.seq)
            .push_bind(&*outcome.table.schema)
            .push_bind(&*outcome.table.table)
            .push_bind(&images.row_key)
            .push_bind(outcome.status.as_str())
            .push_bind(cut(&outcome.reason))
            .push_bind(outcome.winner.as_ref().map(ToString::to_string))
            .push_bind(outcome.source_clock.map(|clock| clock.0))
            .push_bind(outcome.target_clock.map(|clock| clock.0))
            .push_bind(&images.before)
            .push_bind(&images.after)
            .push_bind(&images.seen)
            .push("UTC_TIMESTAMP(6)");
    });
    query.push(
        " ON DUPLICATE KEY UPDATE row_key = VALUES(row_key), status = VALUES(status), reason = VALUES(reason),
           winner = VALUES(winner), source_clock = VALUES(source_clock), target_clock = VALUES(target_clock),
           before_image = VALUES(before_image), after_image = VALUES(after_image), seen = VALUES(seen),
           decided_at = VALUES(decided_at)",
    );
    query.build().execute(connection).await?;
    Ok(())
}

/// TEXT holds 65,535 bytes; a reason that long has said what it has to say earlier.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(8000)]
}
