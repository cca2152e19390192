//! Messages to blocks.

use std::io::Write;
use std::sync::Arc;

use crossfade_model::{Message, Origin, Row, Seen, TableLayout};
use flate2::{Compression, write::ZlibEncoder};

use super::image::{LARGE_OBJECT, push_row_key, push_value};
use super::json::{push_base64, push_string};
use super::layout::StoredLayout;
use super::{Block, calendar, exact, number};
use crate::StoreError;

/// A block is closed when its payload reaches this. Far below the `max_allowed_packet` of either server (MariaDB: 16 MiB),
/// which bounds what `UNCOMPRESS()` gives back.
const BLOCK_BYTES: usize = 2 << 20;
const BLOCK_MESSAGES: usize = 2000;

/// In a message that holds more than this, …
const LARGE_MESSAGE_BYTES: usize = 2 << 20;
/// … values above this go out of the payload. A row of the most columns that a table can have then still fits.
const LARGE_VALUE_BYTES: usize = 1 << 10;

/// Packs messages that follow each other without holes. `key_hashes` goes beside `messages`: the hashes of each change's row
/// key before and after (the same one twice where the key did not change); only their upper halves are kept.
///
/// Costs some microseconds of CPU time a message.
///
/// # Errors
///
/// [`StoreError::NotContiguous`], and [`StoreError::BadChange`] for an image that does not fit its layout.
pub fn encode(messages: &[Message], key_hashes: &[[u64; 2]]) -> Result<Vec<Block>, StoreError> {
    let mut blocks = Vec::new();
    let mut known = Vec::new();
    let mut open: Option<OpenBlock> = None;
    for (index, message) in messages.iter().enumerate() {
        let expected = messages[0].seq + index as u64;
        if message.seq != expected {
            return Err(StoreError::NotContiguous { expected, found: message.seq });
        }
        let block = open.get_or_insert_with(|| OpenBlock::new(message));
        block.push(message, &mut known).map_err(|reason| StoreError::BadChange { seq: message.seq, reason })?;
        block.hashes.extend(key_hashes.get(index).into_iter().flatten().map(|hash| (hash >> 32) as u32));
        if block.json.len() >= BLOCK_BYTES || block.count >= BLOCK_MESSAGES {
            blocks.extend(open.take().map(|block| block.close(message)));
        }
    }
    if let (Some(block), Some(last)) = (open, messages.last()) {
        blocks.push(block.close(last));
    }
    Ok(blocks)
}

struct OpenBlock {
    json: Vec<u8>,
    count: usize,
    first_seq: u64,
    committed_from: i64,
    committed_to: i64,
    seen: Vec<Arc<Seen>>,
    hashes: Vec<u32>,
    large: Vec<u8>,
    layouts: Vec<StoredLayout>,
    /// The value members of the message under way.
    exact: Vec<u8>,
    moved: Vec<u8>,
}

impl OpenBlock {
    fn new(first: &Message) -> OpenBlock {
        OpenBlock {
            json: vec![b'['],
            count: 0,
            first_seq: first.seq,
            committed_from: i64::MAX,
            committed_to: i64::MIN,
            seen: Vec::new(),
            hashes: Vec::new(),
            large: Vec::new(),
            layouts: Vec::new(),
            exact: Vec::new(),
            moved: Vec::new(),
        }
    }

    fn push(&mut self, message: &Message, known: &mut Vec<StoredLayout>) -> Result<(), String> {
        let stored = stored_layout(known, &message.change.layout);
        check(message, &stored.layout)?;
        if !self.layouts.iter().any(|layout| layout.id == stored.id) {
            self.layouts.push(stored.clone());
        }
        if self.count > 0 {
            self.json.push(b',');
        }
        self.count += 1;
        self.committed_from = self.committed_from.min(message.committed_at_micros);
        self.committed_to = self.committed_to.max(message.committed_at_micros);
        self.push_change(message, stored);
        self.push_circumstances(message);
        self.push_side_values();
        self.json.push(b'}');
        Ok(())
    }

    fn push_change(&mut self, message: &Message, stored: &StoredLayout) {
        let change = &message.change;
        let move_out = change.memory_bytes() > LARGE_MESSAGE_BYTES;
        self.json.extend_from_slice(b"{\"t\":\"");
        number::push_plain(&mut self.json, stored.id);
        self.json.push(b'"');
        self.json.extend_from_slice(&stored.opening);
        self.json.extend_from_slice(change.op.as_str().as_bytes());
        self.json.push(b'"');
        for (number, member, image) in [(0, b",\"b\":", &change.before), (1, b",\"a\":", &change.after)] {
            if let Some(row) = image {
                self.json.extend_from_slice(member);
                self.push_image(number, stored, row, move_out);
            }
        }
        if let Some(row) = change.before.as_ref().or(change.after.as_ref())
            && !stored.layout.row_key.is_empty()
        {
            self.json.extend_from_slice(b",\"k\":");
            push_row_key(&mut self.json, stored, row);
        }
    }

    fn push_image(&mut self, image: u8, stored: &StoredLayout, row: &Row, move_out: bool) {
        for (column, value) in row.iter().enumerate() {
            self.json.extend_from_slice(&stored.before_values[column]);
            if move_out && value.heap_bytes() > LARGE_VALUE_BYTES {
                let bytes = exact::to_bytes(value);
                push_entry(&mut self.moved, image, column);
                number::push_plain(&mut self.moved, self.large.len());
                self.moved.push(b',');
                number::push_plain(&mut self.moved, bytes.len());
                self.moved.push(b']');
                self.large.extend_from_slice(&bytes);
                self.json.extend_from_slice(LARGE_OBJECT);
                number::push_plain(&mut self.json, value.heap_bytes());
                self.json.push(b'}');
            } else if !push_value(&mut self.json, &stored.layout.kinds[column], value) {
                push_entry(&mut self.exact, image, column);
                push_base64(&mut self.exact, &exact::to_bytes(value));
                self.exact.push(b']');
            }
        }
        self.json.push(b'}');
    }

    fn push_circumstances(&mut self, message: &Message) {
        if message.origin != Origin::User {
            self.json.extend_from_slice(b",\"g\":\"");
            self.json.extend_from_slice(message.origin.as_str().as_bytes());
            self.json.push(b'"');
        }
        self.json.extend_from_slice(b",\"s\":");
        let seen = self.seen_index(&message.seen);
        number::push_plain(&mut self.json, seen);
        self.json.extend_from_slice(b",\"c\":\"");
        let moment = calendar::split_micros(message.committed_at_micros);
        let (date, time) = moment.unwrap_or_default();
        calendar::push_datetime(&mut self.json, date, time, 6);
        self.json.extend_from_slice(b"\",\"p\":");
        push_string(&mut self.json, &message.source_position);
        self.json.extend_from_slice(b",\"i\":");
        number::push_plain(&mut self.json, message.change.event_index);
        if let Some(clock) = message.effective {
            self.json.extend_from_slice(b",\"e\":");
            number::push_plain(&mut self.json, clock.0);
        }
        if moment.is_none() {
            self.json.extend_from_slice(b",\"m\":");
            number::push_plain(&mut self.json, message.committed_at_micros);
        }
    }

    fn push_side_values(&mut self) {
        for (member, entries) in [(b",\"x\":[", &mut self.exact), (b",\"l\":[", &mut self.moved)] {
            if !entries.is_empty() {
                self.json.extend_from_slice(member);
                self.json.append(entries);
                self.json.push(b']');
            }
        }
    }

    fn seen_index(&mut self, seen: &Arc<Seen>) -> usize {
        // Messages of one transaction share it, and so do those between two checkpoints.
        let known = self.seen.iter().rposition(|known| Arc::ptr_eq(known, seen) || known == seen);
        known.unwrap_or_else(|| {
            self.seen.push(seen.clone());
            self.seen.len() - 1
        })
    }

    fn close(mut self, last: &Message) -> Block {
        self.json.push(b']');
        self.hashes.sort_unstable();
        self.hashes.dedup();
        Block {
            first_seq: self.first_seq,
            last_seq: last.seq,
            committed_from: self.committed_from,
            committed_to: self.committed_to,
            source_position: last.source_position.clone(),
            // Names and numbers only, so there is nothing that could fail.
            seen: serde_json::to_string(&self.seen.iter().map(|seen| &**seen).collect::<Vec<_>>()).unwrap_or_default(),
            key_filter: self.hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect(),
            raw_bytes: self.json.len() as u32,
            payload: compress(&self.json),
            large: if self.large.is_empty() { Vec::new() } else { deflate(Vec::new(), &self.large) },
            layouts: self.layouts,
        }
    }
}

/// `[image,column,`, after a comma if it is not the first.
fn push_entry(out: &mut Vec<u8>, image: u8, column: usize) {
    if !out.is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(&[b'[', b'0' + image, b',']);
    number::push_plain(out, column);
    out.push(b',');
}

fn check(message: &Message, layout: &TableLayout) -> Result<(), String> {
    let columns = layout.columns.len();
    let images = [&message.change.before, &message.change.after];
    if images.iter().all(|image| image.is_none()) {
        return Err("it has no image".to_owned());
    }
    match images.into_iter().flatten().find(|row| row.len() != columns) {
        Some(row) => Err(format!("an image has {} values for {columns} columns of {}", row.len(), layout.name)),
        None if layout.kinds.len() != columns || columns == 0 || layout.row_key.iter().any(|key| *key >= columns) => {
            Err(format!("the layout of {} contradicts itself", layout.name))
        }
        None => Ok(()),
    }
}

/// Readers give each table map event a layout of its own, so equal ones are found by value.
fn stored_layout<'a>(known: &'a mut Vec<StoredLayout>, layout: &Arc<TableLayout>) -> &'a StoredLayout {
    let at = known
        .iter()
        .position(|stored| Arc::ptr_eq(&stored.layout, layout))
        .or_else(|| known.iter().position(|stored| stored.layout == *layout))
        .unwrap_or_else(|| {
            known.push(StoredLayout::new(layout));
            known.len() - 1
        });
    &known[at]
}

/// The format of MySQL's `COMPRESS()`: 4 bytes little-endian length, then zlib (MySQL manual, "Encryption and Compression
/// Functions").
fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / 4 + 64);
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    deflate(out, bytes)
}

fn deflate(out: Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(out, Compression::new(1));
    // Writing to memory does not fail.
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}
