//! Blocks to messages.

use std::io::Read;
use std::sync::Arc;

use crossfade_model::{Clock, ColumnKind, JsonDocument, Message, Origin, Row, RowChange, RowOp, Seen, Value};
use flate2::read::ZlibDecoder;

use super::json::{BYTES_OBJECT, decode_base64};
use super::layout::StoredLayout;
use super::scan::{Scan, Unexpected};
use super::{Block, calendar, exact};

/// Why a block cannot be read.
#[derive(Debug)]
pub(crate) enum BlockError {
    /// A layout that the caller did not give.
    UnknownLayout(u64),
    Corrupt(String),
}

impl From<Unexpected> for BlockError {
    fn from(unexpected: Unexpected) -> BlockError {
        BlockError::Corrupt(format!("{} is missing at byte {}", unexpected.wanted, unexpected.at))
    }
}

fn corrupt<T>(reason: &str) -> Result<T, BlockError> {
    Err(BlockError::Corrupt(reason.to_owned()))
}

/// Unpacks a block that was just encoded: the inverse of [`super::encode()`].
///
/// # Errors
///
/// A text that says what is wrong with the block.
pub fn decode(block: &Block) -> Result<Vec<Message>, String> {
    let stored = StoredBlock {
        first_seq: block.first_seq,
        last_seq: block.last_seq,
        seen: &block.seen,
        payload: &block.payload,
        large: &block.large,
    };
    let layout = |id| block.layouts.iter().find(|layout| layout.id == id).map(|stored| stored.layout.clone());
    stored.messages(&layout).map_err(|error| match error {
        BlockError::UnknownLayout(id) => format!("layout {id:016x} is unknown"),
        BlockError::Corrupt(reason) => reason,
    })
}

/// A block as the store has it.
pub(crate) struct StoredBlock<'a> {
    pub first_seq: u64,
    pub last_seq: u64,
    pub seen: &'a str,
    pub payload: &'a [u8],
    /// All parts of `message_large`, joined.
    pub large: &'a [u8],
}

type Layouts<'a> = dyn Fn(u64) -> Option<Arc<crossfade_model::TableLayout>> + 'a;

impl StoredBlock<'_> {
    pub fn messages(&self, layouts: &Layouts<'_>) -> Result<Vec<Message>, BlockError> {
        let json = inflate_payload(self.payload)?;
        let Ok(json) = str::from_utf8(&json) else { return corrupt("its payload is not UTF-8") };
        let seen: Vec<Arc<Seen>> =
            serde_json::from_str(self.seen).map_err(|error| BlockError::Corrupt(error.to_string()))?;
        let large = if self.large.is_empty() { Vec::new() } else { inflate(self.large, 0, u64::MAX)? };
        let mut reader = Reader { seen, large, layouts, prepared: Vec::new(), positions: Arc::from("") };
        let mut messages = Vec::new();
        let mut scan = Scan::new(json);
        scan.expect(b"[", "the array")?;
        for seq in self.first_seq..=self.last_seq {
            if seq > self.first_seq {
                scan.expect(b",", "the next message")?;
            }
            messages.push(reader.message(seq, &mut scan)?);
        }
        scan.expect(b"]", "the end of the array")?;
        if scan.is_at_end() { Ok(messages) } else { corrupt("something follows its last message") }
    }
}

struct Reader<'a> {
    seen: Vec<Arc<Seen>>,
    large: Vec<u8>,
    layouts: &'a Layouts<'a>,
    prepared: Vec<Arc<StoredLayout>>,
    /// The last message's, which the next one often shares.
    positions: Arc<str>,
}

impl Reader<'_> {
    fn message(&mut self, seq: u64, scan: &mut Scan<'_>) -> Result<Message, BlockError> {
        scan.expect(b"{\"t\":", "a message")?;
        let stored = self.layout(scan.parse("a layout")?)?;
        scan.expect(&stored.opening, "schema and table")?;
        let op = read_op(scan)?;
        let mut unread = Vec::new();
        let mut before = read_image(scan, 0, &stored, &mut unread)?;
        let mut after = read_image(scan, 1, &stored, &mut unread)?;
        if scan.skip(b",\"k\":") {
            scan.skip_object()?;
        }
        let origin = if scan.skip(b",\"g\":") { read_origin(scan.plain_string()?)? } else { Origin::User };
        scan.expect(b",\"s\":", "what was seen")?;
        let Some(seen) = self.seen.get(scan.parse::<usize>("what was seen")?).cloned() else {
            return corrupt("a message points beyond what was seen");
        };
        let (mut committed_at_micros, source_position, event_index) = self.read_place(scan)?;
        let effective = if scan.skip(b",\"e\":") { Some(Clock(scan.parse("a clock")?)) } else { None };
        if scan.skip(b",\"m\":") {
            committed_at_micros = scan.parse("a commit time")?;
        }
        self.read_side_values(scan, &mut before, &mut after, &mut unread)?;
        if let Some((_, column)) = unread.first() {
            return corrupt(&format!("the value of column {} cannot be read", stored.layout.columns[*column]));
        }
        scan.expect(b"}", "the end of a message")?;
        if before.is_none() && after.is_none() {
            return corrupt("a message has no image");
        }
        let change = RowChange { layout: stored.layout.clone(), op, before, after, event_index };
        Ok(Message { seq, change, origin, seen, committed_at_micros, source_position, effective })
    }

    fn read_place(&mut self, scan: &mut Scan<'_>) -> Result<(i64, Arc<str>, u32), BlockError> {
        scan.expect(b",\"c\":", "a commit time")?;
        let Some((date, time)) = calendar::parse_datetime(scan.plain_string()?) else {
            return corrupt("a commit time cannot be read");
        };
        scan.expect(b",\"p\":", "a source position")?;
        let position = scan.string()?;
        if *position != *self.positions {
            self.positions = position.into();
        }
        scan.expect(b",\"i\":", "an event index")?;
        Ok((calendar::join_micros(date, time), self.positions.clone(), scan.parse("an event index")?))
    }

    fn layout(&mut self, id: u64) -> Result<Arc<StoredLayout>, BlockError> {
        if let Some(known) = self.prepared.iter().find(|stored| stored.id == id) {
            return Ok(known.clone());
        }
        let layout = (self.layouts)(id).ok_or(BlockError::UnknownLayout(id))?;
        let stored = Arc::new(StoredLayout::prepared(id, layout, Arc::from("")));
        self.prepared.push(stored.clone());
        Ok(stored)
    }

    fn read_side_values(
        &self,
        scan: &mut Scan<'_>,
        before: &mut Option<Row>,
        after: &mut Option<Row>,
        unread: &mut Vec<(u8, usize)>,
    ) -> Result<(), BlockError> {
        let mut put = |image: u8, column: usize, value: Option<Value>| {
            let row = if image == 0 { before.as_mut() } else { after.as_mut() };
            match (row.and_then(|row| row.get_mut(column)), value) {
                (Some(place), Some(value)) => {
                    *place = value;
                    unread.retain(|place| *place != (image, column));
                    Ok(())
                }
                _ => corrupt("a value beside the images cannot be read"),
            }
        };
        entries(scan, b",\"x\":[", |scan, image, column| {
            put(image, column, decode_base64(scan.plain_string()?).and_then(|bytes| exact::from_bytes(&bytes)))
        })?;
        entries(scan, b",\"l\":[", |scan, image, column| {
            let offset: usize = scan.parse("an offset")?;
            scan.expect(b",", "a length")?;
            let len: usize = scan.parse("a length")?;
            let bytes = offset.checked_add(len).and_then(|end| self.large.get(offset..end));
            put(image, column, bytes.and_then(exact::from_bytes))
        })
    }
}

/// Reads `[image,column,…]` as long as there are more.
fn entries(
    scan: &mut Scan<'_>,
    opening: &[u8],
    mut read: impl FnMut(&mut Scan<'_>, u8, usize) -> Result<(), BlockError>,
) -> Result<(), BlockError> {
    if !scan.skip(opening) {
        return Ok(());
    }
    loop {
        scan.expect(b"[", "a value's place")?;
        let image = scan.parse("an image")?;
        scan.expect(b",", "a column")?;
        let column = scan.parse("a column")?;
        scan.expect(b",", "a value")?;
        read(scan, image, column)?;
        scan.expect(b"]", "the end of a value")?;
        if !scan.skip(b",") {
            return Ok(scan.expect(b"]", "the end of the values")?);
        }
    }
}

fn read_op(scan: &mut Scan<'_>) -> Result<RowOp, Unexpected> {
    let ops = [RowOp::Insert, RowOp::Update, RowOp::Delete];
    let Some(op) = ops.into_iter().find(|op| scan.skip(op.as_str().as_bytes())) else {
        return scan.fail("an operation");
    };
    scan.expect(b"\"", "the end of an operation")?;
    Ok(op)
}

fn read_origin(name: &str) -> Result<Origin, BlockError> {
    let origins = [Origin::User, Origin::Sync, Origin::Returned, Origin::Ruled, Origin::Asked];
    match origins.into_iter().find(|origin| origin.as_str() == name) {
        Some(origin) => Ok(origin),
        None => corrupt("a message is of an unknown origin"),
    }
}

/// `unread` takes the columns whose value must stand beside the images, since it is not what the kind writes.
fn read_image(
    scan: &mut Scan<'_>,
    image: u8,
    stored: &StoredLayout,
    unread: &mut Vec<(u8, usize)>,
) -> Result<Option<Row>, BlockError> {
    if !scan.skip(if image == 0 { b",\"b\":" } else { b",\"a\":" }) {
        return Ok(None);
    }
    let mut row = Row::with_capacity(stored.layout.kinds.len());
    for (column, (before_value, kind)) in stored.before_values.iter().zip(&stored.layout.kinds).enumerate() {
        scan.expect(before_value, "a column")?;
        let value = read_value(scan, kind)?;
        if value.is_none() {
            unread.push((image, column));
        }
        row.push(value.unwrap_or(Value::Null));
    }
    scan.expect(b"}", "the end of an image")?;
    Ok(Some(row))
}

/// Reads what [`super::image::push_value`] wrote; `None`, and gone past it, if the kind does not write such a value.
fn read_value(scan: &mut Scan<'_>, kind: &ColumnKind) -> Result<Option<Value>, BlockError> {
    if scan.skip(b"null") {
        return Ok(Some(Value::Null));
    }
    let start = scan.mark();
    match read_as_kind(scan, kind) {
        Ok(Some(value)) => Ok(Some(value)),
        Ok(None) | Err(_) => {
            scan.return_to(start);
            scan.skip_value()?;
            Ok(None)
        }
    }
}

fn read_as_kind(scan: &mut Scan<'_>, kind: &ColumnKind) -> Result<Option<Value>, Unexpected> {
    Ok(Some(match kind {
        ColumnKind::Integer { unsigned: false, .. } => Value::Int(scan.parse("an integer")?),
        ColumnKind::Integer { unsigned: true, .. } => Value::UInt(scan.parse("an integer")?),
        ColumnKind::Float => Value::Float(scan.parse("a number")?),
        ColumnKind::Double => Value::Double(scan.parse("a number")?),
        ColumnKind::Bit { .. } => Value::Bit(scan.parse("bits")?),
        ColumnKind::Decimal { .. } => Value::Decimal(scan.string()?),
        ColumnKind::Text { .. } | ColumnKind::Inet4 | ColumnKind::Inet6 | ColumnKind::Uuid => {
            Value::Text(scan.string()?)
        }
        ColumnKind::Enum { .. } => Value::Enum(scan.string()?),
        ColumnKind::Set { .. } => Value::Set(scan.string()?),
        ColumnKind::Json => Value::Json(JsonDocument { text: scan.string()?, opaque: Vec::new() }),
        ColumnKind::Bytes { .. } => return Ok(read_bytes(scan)?.map(Value::Bytes)),
        ColumnKind::Geometry => return Ok(read_bytes(scan)?.map(Value::Geometry)),
        ColumnKind::Vector => return Ok(read_bytes(scan)?.map(Value::Vector)),
        ColumnKind::Year => return Ok(scan.plain_string()?.parse().ok().map(Value::Year)),
        ColumnKind::Date => return Ok(calendar::parse_date(scan.plain_string()?).map(Value::Date)),
        ColumnKind::Time { .. } => return Ok(parse_time(scan.plain_string()?)),
        ColumnKind::Datetime { .. } => {
            return Ok(calendar::parse_datetime(scan.plain_string()?).map(|(date, time)| Value::Datetime(date, time)));
        }
        ColumnKind::Timestamp { .. } => return Ok(parse_timestamp(scan.plain_string()?)),
        ColumnKind::Other { .. } => return Ok(None),
    }))
}

fn read_bytes(scan: &mut Scan<'_>) -> Result<Option<Vec<u8>>, Unexpected> {
    scan.expect(BYTES_OBJECT, "bytes")?;
    let bytes = decode_base64(scan.plain_string()?);
    scan.expect(b"}", "the end of bytes")?;
    Ok(bytes)
}

fn parse_time(text: &str) -> Option<Value> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (hours, minute, second, micros) = calendar::parse_time(text)?;
    Some(Value::Time { negative, hours, minute, second, micros })
}

fn parse_timestamp(text: &str) -> Option<Value> {
    let (date, time) = calendar::parse_datetime(text)?;
    let is_zero = date.month == 0;
    Some(Value::Timestamp(if is_zero { 0 } else { calendar::join_micros(date, time) }))
}

fn inflate_payload(payload: &[u8]) -> Result<Vec<u8>, BlockError> {
    let Some((len, zlib)) = payload.split_first_chunk::<4>() else { return corrupt("its payload has no length") };
    let len = u32::from_le_bytes(*len) as usize;
    let json = inflate(zlib, len, len as u64 + 1)?;
    if json.len() == len { Ok(json) } else { corrupt("its payload is not as long as it says") }
}

/// Unpacks at most so many bytes.
fn inflate(zlib: &[u8], expected_bytes: usize, most_bytes: u64) -> Result<Vec<u8>, BlockError> {
    // The length is only believed as far as such a ratio is possible, so that a damaged one cannot ask for gigabytes.
    let mut out = Vec::with_capacity(expected_bytes.min(zlib.len().saturating_mul(1100)));
    match ZlibDecoder::new(zlib).take(most_bytes).read_to_end(&mut out) {
        Ok(_) => Ok(out),
        Err(error) => Err(BlockError::Corrupt(format!("it does not unpack: {error}"))),
    }
}
