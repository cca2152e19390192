//! A message beside the row that it is about, as that is now on both sides, and what would become of it.

use std::sync::Arc;

use anyhow::Context;
use crossfade_applier::{Foreseen, KeyColumn, Outlook, opposite_stream, read_row};
use crossfade_catalog::Purpose;
use crossfade_message::{ListedFailure, ListedMessage, ShownEdit, Status, Store, image_json};
use crossfade_model::{Direction, Message, MessageId, Origin, Side, StreamId, TableName, TableShape, Value};
use crossfade_rules::decide::WriteReason;
use crossfade_rules::{TableMapping, Verdict};
use mysql_async::Conn;
use serde::Serialize;
use serde_json::Value as Json;

use crate::failure::{Failure, Kind, with_causes};
use crate::pair::{Pair, connect_side, stream_of};
use crate::sync::runner;

/// All that is shown of one message.
#[derive(Serialize)]
pub struct Portrait {
    #[serde(flatten)]
    pub listed: ListedMessage,
    /// Of a message that the target refuses, or that waits behind one.
    pub failure: Option<FailureLine>,
    /// Corrections by people, oldest first.
    pub edits: Vec<ShownEdit>,
    /// Empty where the sides cannot be looked at.
    pub columns: Vec<ColumnLine>,
    pub rows: Option<Rows>,
    /// Rows of the target that have a unique value which the message brings.
    pub taken: Vec<Taken>,
    /// For a message that is set aside.
    pub on_retry: Option<Prospect>,
    /// Why the row on both sides is not shown.
    pub not_shown: Option<String>,
}

#[derive(Serialize)]
pub struct FailureLine {
    pub error_code: String,
    pub error_text: String,
    pub attempts: u32,
    pub first_failed_at: String,
    pub next_retry_at: Option<String>,
}

/// Whether the row exists on each side.
#[derive(Serialize)]
pub struct Rows {
    pub old: bool,
    pub new: bool,
}

/// Another row with a value that may be there once only.
#[derive(Serialize)]
pub struct Taken {
    /// Where the row is.
    pub side: Side,
    /// The target's names of the columns of the unique key.
    pub columns: Vec<String>,
    pub row: Json,
}

/// One column, by its name at the message's source; values as the message table shows them.
#[derive(Serialize)]
pub struct ColumnLine {
    pub column: String,
    /// The name on the other side, where the column is carried.
    pub target: Option<String>,
    pub before: Option<Json>,
    pub after: Option<Json>,
    /// What a person has put in the place of `after`.
    pub edited: Option<Json>,
    pub old: Option<Json>,
    pub new: Option<Json>,
    /// The two sides differ in it now.
    pub differs: bool,
}

/// What would become of a message that is set aside.
#[derive(Serialize)]
pub struct Prospect {
    /// `applied` or `conflict_lost`, if the target takes it.
    pub status: Status,
    pub text: String,
    /// Messages that are tried before it.
    pub waits_behind: Vec<String>,
    /// What else may decide, where not everything is known.
    pub open: Option<String>,
}

/// What must be known of the pair to draw a portrait.
pub struct Painter<'p> {
    pub store: &'p Store,
    /// Why it cannot be known, where it cannot.
    pub pair: Result<&'p Pair, String>,
    /// What a person thinks of having tried instead.
    pub proposed: Option<&'p Message>,
}

impl Painter<'_> {
    pub async fn paint(&self, id: &MessageId) -> anyhow::Result<Portrait> {
        let unknown = || {
            let hint = "it was purged, or never captured; `crossfade messages list` shows what there is";
            Failure::new(Kind::Finding, format!("there is no message {id}"), hint)
        };
        let listed = self.store.show_message(id).await?.ok_or_else(unknown)?;
        let message = self.store.read_range(&id.stream, id.seq, id.seq).await?.pop().ok_or_else(unknown)?;
        let failure = self.store.failure_of(id).await?;
        let mut edits = self.store.edits_of(id).await?;
        edits.extend(self.proposed.map(|message| ShownEdit::proposed(message, "this dry run")));
        let mut portrait = Portrait {
            columns: Vec::new(),
            rows: None,
            taken: Vec::new(),
            on_retry: None,
            not_shown: None,
            failure: failure.as_ref().map(FailureLine::of),
            edits,
            listed,
        };
        let seen = match &self.pair {
            Ok(pair) => self.look(pair, id, &message, failure.as_ref(), &mut portrait).await,
            Err(why) => Err(anyhow::anyhow!("{why}")),
        };
        if let Err(error) = seen {
            portrait.not_shown = Some(with_causes(&error));
            portrait.columns = columns(&message, None, &portrait.edits, [None, None]);
        }
        Ok(portrait)
    }

    /// Adds what the two sides say.
    async fn look(
        &self,
        pair: &Pair,
        id: &MessageId,
        message: &Message,
        failure: Option<&ListedFailure>,
        portrait: &mut Portrait,
    ) -> anyhow::Result<()> {
        let direction = id.stream.direction();
        let mapping = mapping_of(pair, direction, &message.change.layout.name)?;
        let settings = &pair.settings;
        let mut target = connect_side(settings, direction.target(), Purpose::Apply).await?;
        let outlook = outlook(pair, self.store, direction).await?;
        let set_aside = self.store.set_aside(&id.stream).await?;
        // With the values that it would be tried with.
        let edited = portrait.edits.last().and_then(|edit| edit.message.as_ref());
        let change = edited.map_or(&message.change, |edited| &edited.change).clone();
        let foreseen = outlook.foresee(&Message { change, ..message.clone() }, &set_aside, &mut target).await?;
        let mut source = connect_side(settings, direction.source(), Purpose::Apply).await?;
        let key = |name: fn(&KeyColumn) -> &str| -> Vec<(&str, &Value)> {
            foreseen.key.iter().map(|column| (name(column), &column.value)).collect()
        };
        let shape = |side: Side, name: &TableName| {
            pair.side(side).shapes.get(name).cloned().with_context(|| format!("{name} is not on the {side} side"))
        };
        let source_row = {
            let shape = shape(direction.source(), &mapping.source)?;
            read_row(&mut source, &shape, &key(|column| &column.source)).await?
        };
        let target_shape = shape(direction.target(), &mapping.target)?;
        let target_row = read_row(&mut target, &target_shape, &key(|column| &column.target)).await?;
        if set_aside.contains(&id.seq) {
            portrait.taken = taken(&mut target, direction.target(), &target_shape, &foreseen).await?;
        }
        let rows = [source_row, target_row].map(|row| row.map(|(layout, row)| object(&image_json(&layout, &row))));
        // Nothing is under way on these; how they end does not matter.
        let _ = tokio::join!(source.disconnect(), target.disconnect());
        let is_keyed = !foreseen.key.is_empty();
        let (old, new) = match direction {
            Direction::Forward => (rows[0].is_some(), rows[1].is_some()),
            Direction::Reverse => (rows[1].is_some(), rows[0].is_some()),
        };
        portrait.rows = is_keyed.then_some(Rows { old, new });
        portrait.columns = columns(message, Some(mapping), &portrait.edits, rows);
        if !is_keyed {
            portrait.not_shown = Some("the table has no key to find the row by".to_owned());
        }
        if set_aside.contains(&id.seq) {
            let origin = message.origin;
            portrait.on_retry = Some(self.prospect(&id.stream, &outlook, (origin, foreseen), failure).await?);
        }
        Ok(())
    }

    async fn prospect(
        &self,
        stream: &StreamId,
        outlook: &Outlook,
        (origin, foreseen): (Origin, Foreseen),
        failure: Option<&ListedFailure>,
    ) -> anyhow::Result<Prospect> {
        let (source, target) = (stream.direction().source(), stream.direction().target());
        let opposite = opposite_stream(stream);
        let (status, mut text) = match foreseen.verdict {
            _ if origin == Origin::Asked => {
                (Status::Applied, format!("it is answered: what hangs on the row on {target} goes back to {source}"))
            }
            Verdict::Write(WriteReason::NothingConcurrent) => (
                Status::Applied,
                format!("it is written: its writer knew of all that users of {target} did to the row"),
            ),
            Verdict::Write(WriteReason::Won { loser } | WriteReason::Outranked { loser }) => {
                (Status::Applied, format!("it is written: it wins against {opposite}:{loser}"))
            }
            Verdict::Lose(loss) => {
                (Status::ConflictLost, format!("it loses against {opposite}:{}: {}", loss.winner, loss.reason))
            }
        };
        if foreseen.merges && foreseen.verdict != Verdict::Write(WriteReason::NothingConcurrent) {
            text = format!("{text}; the columns that only one of the two changed are merged");
        }
        if let Some(code) = failure.map(|failure| failure.error_code.as_str()).filter(|code| *code != "behind")
            && status == Status::Applied
        {
            text = format!("{text}; whether {target} still refuses it with error {code} shows when it is tried");
        }
        let id = |seq| MessageId { stream: stream.clone(), seq }.to_string();
        Ok(Prospect {
            status,
            text,
            waits_behind: foreseen.waits_behind.into_iter().map(id).collect(),
            open: self.what_is_open(outlook, &opposite).await?,
        })
    }

    /// What users of the target did and nobody has read yet may decide otherwise.
    async fn what_is_open(&self, outlook: &Outlook, opposite: &StreamId) -> anyhow::Result<Option<String>> {
        if !outlook.opposite_declared {
            return Ok(None);
        }
        let (direction, side) = (opposite.direction(), opposite.direction().source());
        let runs = runner(self.store, direction).await?.is_some();
        let is_caught_up = crate::sync::last_counters(self.store, opposite).await?.caught_up;
        Ok(match (runs, is_caught_up) {
            (true, true) => None,
            (true, false) => Some(format!("{direction} has not yet read all that users wrote on {side}")),
            (false, _) => Some(format!("{direction} does not run: what users wrote on {side} meanwhile is not known")),
        }
        .map(|why| format!("{why}; a newer change of the row may be found there")))
    }
}

/// Rows of the target with other keys that have the unique values which a message brings.
async fn taken(conn: &mut Conn, side: Side, shape: &TableShape, foreseen: &Foreseen) -> anyhow::Result<Vec<Taken>> {
    let own: Vec<Option<usize>> = foreseen.key.iter().map(|column| shape.column(&column.target)).collect();
    let mut taken = Vec::new();
    for unique in &foreseen.unique {
        let wanted: Vec<(&str, &Value)> = unique.iter().map(|column| (&*column.target, &column.value)).collect();
        let Some((layout, row)) = read_row(conn, shape, &wanted).await? else { continue };
        let is_own =
            own.iter().zip(&foreseen.key).all(|(place, column)| place.is_some_and(|at| row[at] == column.value));
        if !is_own {
            let columns = unique.iter().map(|column| column.target.clone()).collect();
            taken.push(Taken { side, columns, row: Json::Object(object(&image_json(&layout, &row))) });
        }
    }
    Ok(taken)
}

impl FailureLine {
    fn of(failure: &ListedFailure) -> FailureLine {
        FailureLine {
            error_code: failure.error_code.clone(),
            error_text: failure.reason.clone(),
            attempts: failure.attempts,
            first_failed_at: failure.first_failed_at.to_rfc3339(),
            next_retry_at: failure.next_retry_at.map(|time| time.to_rfc3339()),
        }
    }
}

/// The mapping of a table that messages of a direction name.
pub fn mapping_of<'p>(pair: &'p Pair, direction: Direction, table: &TableName) -> anyhow::Result<&'p TableMapping> {
    let found = pair.mappings(direction).iter().find(|mapping| mapping.source == *table);
    found.with_context(|| format!("{table} is not synced {direction} any more"))
}

/// What judging messages of a direction needs.
pub async fn outlook(pair: &Pair, store: &Store, direction: Direction) -> anyhow::Result<Outlook> {
    let opposite = store.wish(direction.opposite()).await?;
    Ok(Outlook {
        store: store.clone(),
        stream: stream_of(direction),
        mappings: pair.mappings(direction).into(),
        opposite_mappings: pair.mappings(direction.opposite()).into(),
        target_shapes: pair.target_shapes(direction),
        target_flavor: pair.side(direction.target()).facts.flavor(),
        prefer: pair.settings.conflict.prefer,
        opposite_declared: opposite.is_some_and(|wish| wish.declared),
    })
}

type Image = serde_json::Map<String, Json>;

fn object(json: &str) -> Image {
    serde_json::from_str(json).unwrap_or_default()
}

/// One line per column of the message. `rows` are those of the source and of the target.
fn columns(
    message: &Message,
    mapped: Option<&TableMapping>,
    edits: &[ShownEdit],
    rows: [Option<Image>; 2],
) -> Vec<ColumnLine> {
    let layout = &message.change.layout;
    let image = |row: &Option<Vec<Value>>| row.as_ref().map(|row| object(&image_json(layout, row)));
    let (before, after) = (image(&message.change.before), image(&message.change.after));
    let edited = edits.last().and_then(|edit| edit.image.as_ref()).map(|image| object(image.get()));
    let of_column = |name: &Arc<str>| {
        let of = |image: &Option<Image>| image.as_ref().and_then(|image| image.get(&**name)).cloned();
        let carried =
            mapped.and_then(|mapping| mapping.columns.iter().find(|column| column.source.eq_ignore_ascii_case(name)));
        let at = |row: &Option<Image>, name: &str| {
            let found = row.as_ref()?.iter().find(|(column, _)| column.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        let source = at(&rows[0], name);
        let target = carried.and_then(|column| at(&rows[1], &column.target));
        let differs = mapped.is_some() && carried.is_some() && !is_same(source.as_ref(), target.as_ref());
        let (old, new) = match mapped.map(|mapping| mapping.direction) {
            Some(Direction::Reverse) => (target, source),
            _ => (source, target),
        };
        let edited = of(&edited).filter(|value| Some(value) != of(&after).as_ref());
        let target = carried.map(|column| column.target.clone());
        ColumnLine {
            column: name.to_string(),
            target,
            before: of(&before),
            after: of(&after),
            edited,
            old,
            new,
            differs,
        }
    };
    layout.columns.iter().map(of_column).collect()
}

/// Times with and without digits of a fraction are the same where those are zero.
fn is_same(a: Option<&Json>, b: Option<&Json>) -> bool {
    let bare = |value: &str| match value.split_once('.') {
        Some((whole, fraction)) if whole.contains(':') && fraction.bytes().all(|byte| byte == b'0') => whole.to_owned(),
        _ => value.to_owned(),
    };
    match (a, b) {
        (Some(Json::String(a)), Some(Json::String(b))) => bare(a) == bare(b),
        (a, b) => a == b,
    }
}
