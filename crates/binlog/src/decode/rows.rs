//! Rows events: WRITE, UPDATE and DELETE in versions 1 and 2, partial updates, and MariaDB's compressed forms.

use std::borrow::Cow;
use std::sync::Arc;

use crossfade_model::{Row, RowChange, RowOp, TableLayout, TableName, Value};

use super::cell::Decoder;
use super::cursor::{Cursor, bit};
use super::table_map::{Fixed, TableMap};
use super::wire::{Width, code};
use super::{DecodeError, json, packed};

/// The flag of the last rows event of a statement.
const STATEMENT_END: u16 = 1;

/// A rows event whose head has been read. MariaDB's compressed events are unpacked here.
#[derive(Debug, Clone)]
pub struct RowsEvent<'a> {
    pub table_id: u64,
    pub op: RowOp,
    /// The table maps before this event count no longer for the events after it.
    pub ends_statement: bool,
    /// Number of the row event inside its transaction; goes into every change.
    pub event_index: u32,
    columns: usize,
    /// Bitmaps of the columns in the first and, for an update, the second image of a row.
    present: [&'a [u8]; 2],
    partial: bool,
    rows: Cow<'a, [u8]>,
}

/// What an event type code stands for.
struct Kind {
    op: RowOp,
    /// Version 2 has room for extra data after the flags.
    extra: bool,
    partial: bool,
    compressed: bool,
}

impl Kind {
    fn of(code: u8) -> Option<Kind> {
        let (op, extra, partial, compressed) = match code {
            23 => (RowOp::Insert, false, false, false),
            24 => (RowOp::Update, false, false, false),
            25 => (RowOp::Delete, false, false, false),
            30 => (RowOp::Insert, true, false, false),
            31 => (RowOp::Update, true, false, false),
            32 => (RowOp::Delete, true, false, false),
            39 => (RowOp::Update, true, true, false),
            166 => (RowOp::Insert, false, false, true),
            167 => (RowOp::Update, false, false, true),
            168 => (RowOp::Delete, false, false, true),
            _ => return None,
        };
        Some(Kind { op, extra, partial, compressed })
    }
}

impl<'a> RowsEvent<'a> {
    /// Whether an event of this type holds rows that [`RowsEvent::parse`] reads.
    pub fn is_rows(code: u8) -> bool {
        Kind::of(code).is_some()
    }

    /// The table id alone, without unpacking.
    pub fn peek_table_id(body: &[u8]) -> Result<u64, DecodeError> {
        Cursor::new(body).le(6, "a table id")
    }

    /// Reads an event's head: `code` and body, without the 19 bytes of header and without checksum.
    pub fn parse(code: u8, body: &'a [u8], event_index: u32) -> Result<RowsEvent<'a>, DecodeError> {
        let kind = Kind::of(code).ok_or(DecodeError::NotRows { code })?;
        let mut cursor = Cursor::new(body);
        let table_id = cursor.le(6, "a table id")?;
        let flags = cursor.le(2, "rows flags")? as u16;
        if kind.extra {
            let len = cursor.le(2, "extra row data")?;
            // The length counts its own two bytes.
            let len = len.checked_sub(2).ok_or(DecodeError::Malformed { what: "extra row data" })?;
            cursor.take(len as usize, "extra row data")?;
        }
        let columns = usize::try_from(cursor.packed("a column count")?).unwrap_or(usize::MAX);
        let first = cursor.take(columns.div_ceil(8), "present columns")?;
        let second = match kind.op {
            RowOp::Update => cursor.take(columns.div_ceil(8), "present columns")?,
            RowOp::Insert | RowOp::Delete => first,
        };
        let rows =
            if kind.compressed { Cow::Owned(packed::rows(cursor.rest())?) } else { Cow::Borrowed(cursor.rest()) };
        Ok(RowsEvent {
            table_id,
            op: kind.op,
            ends_statement: flags & STATEMENT_END != 0,
            event_index,
            columns,
            present: [first, second],
            partial: kind.partial,
            rows,
        })
    }

    /// How many rows the event has, from the body of its table map, without decoding a value.
    ///
    /// Needs no definition of the table, and accepts images that are not full. Only temporal columns of before 5.6 cannot be
    /// passed over so; for those there is [`TableMap::count`].
    pub fn count(&self, table_map_body: &[u8]) -> Result<u64, DecodeError> {
        let table = Fixed::parse(table_map_body)?;
        if table.table_id != self.table_id || table.columns.len() != self.columns {
            return Err(DecodeError::WrongTable {
                table: TableName::new(table.schema, table.table),
                map: table.table_id,
                event: self.table_id,
            });
        }
        let json_columns = table.columns.iter().filter(|column| column.code == code::JSON).count();
        self.count_rows(json_columns, |place| table.columns[place].width)
    }

    fn count_rows(&self, json_columns: usize, width: impl Fn(usize) -> Width) -> Result<u64, DecodeError> {
        let mut rows = Cursor::new(&self.rows);
        let mut count = 0;
        while !rows.is_empty() {
            let before = rows.rest().len();
            self.skip_image(&mut rows, self.present[0], &width)?;
            if self.op == RowOp::Update {
                if self.partial {
                    partial_columns(&mut rows, json_columns)?;
                }
                self.skip_image(&mut rows, self.present[1], &width)?;
            }
            ensure_progress(before, &rows)?;
            count += 1;
        }
        Ok(count)
    }

    fn skip_image(
        &self,
        rows: &mut Cursor<'_>,
        present: &[u8],
        width: &impl Fn(usize) -> Width,
    ) -> Result<(), DecodeError> {
        let mut places = (0..self.columns).filter(|place| bit(present, *place));
        let nulls = rows.take(places.clone().count().div_ceil(8), "null columns")?;
        places.by_ref().enumerate().filter(|(nth, _)| !bit(nulls, *nth)).try_for_each(|(_, place)| {
            width(place).take(rows)?;
            Ok(())
        })
    }
}

/// An event that claims rows without bytes would never end.
fn ensure_progress(before: usize, rows: &Cursor<'_>) -> Result<(), DecodeError> {
    if rows.rest().len() == before { Err(DecodeError::Malformed { what: "rows without columns" }) } else { Ok(()) }
}

/// The bitmap of JSON columns whose after image is a list of changes; empty when there are none.
fn partial_columns<'a>(rows: &mut Cursor<'a>, json_columns: usize) -> Result<&'a [u8], DecodeError> {
    match rows.packed("row options")? {
        0 => Ok(&[]),
        1 => rows.take(json_columns.div_ceil(8), "partial columns"),
        _ => Err(DecodeError::Malformed { what: "row options" }),
    }
}

impl TableMap {
    /// How many rows an event has, without decoding a value. Accepts images that are not full.
    pub fn count(&self, event: &RowsEvent<'_>) -> Result<u64, DecodeError> {
        if event.table_id != self.table_id || event.columns != self.columns.len() {
            return Err(self.wrong_table(event));
        }
        event.count_rows(self.json_columns, |place| self.columns[place].width)
    }

    fn wrong_table(&self, event: &RowsEvent<'_>) -> DecodeError {
        DecodeError::WrongTable { table: self.layout.name.clone(), map: self.table_id, event: event.table_id }
    }

    /// The changes of a rows event, in order. After an error there are no more.
    ///
    /// Images must be full: a column that is missing and not generated is [`DecodeError::PartialRowImage`]. Missing generated
    /// columns are left out of the changes' layout.
    pub fn changes<'m, 'e>(&'m self, event: RowsEvent<'e>) -> Changes<'m, 'e> {
        let mut changes =
            Changes { map: self, layout: self.layout.clone(), left_out: None, event, offset: 0, failed: None };
        changes.failed = changes.check().err();
        changes
    }
}

/// Iterator over the changes of a rows event.
#[derive(Debug)]
pub struct Changes<'m, 'e> {
    map: &'m TableMap,
    layout: Arc<TableLayout>,
    /// Columns that no change has, because an image lacks them.
    left_out: Option<Vec<bool>>,
    event: RowsEvent<'e>,
    offset: usize,
    failed: Option<DecodeError>,
}

impl Changes<'_, '_> {
    fn check(&mut self) -> Result<(), DecodeError> {
        if self.event.table_id != self.map.table_id || self.event.columns != self.map.columns.len() {
            return Err(self.map.wrong_table(&self.event));
        }
        let [first, second] = self.event.present;
        let missing = |place: usize| !bit(first, place) || !bit(second, place);
        if !(0..self.event.columns).any(missing) {
            return Ok(());
        }
        let spared = |place: usize| self.map.columns[place].generated && !self.layout.row_key.contains(&place);
        let lost = (0..self.event.columns).find(|place| missing(*place) && !spared(*place));
        if let Some(place) = lost {
            return Err(DecodeError::PartialRowImage {
                table: self.layout.name.clone(),
                column: self.layout.columns[place].to_string(),
            });
        }
        let left_out: Vec<bool> = (0..self.event.columns).map(missing).collect();
        self.layout = Arc::new(without(&self.layout, &left_out));
        self.left_out = Some(left_out);
        Ok(())
    }

    fn change(&mut self) -> Result<RowChange, DecodeError> {
        let mut rows = Cursor::new(&self.event.rows[self.offset..]);
        let before_len = rows.rest().len();
        let (before, after) = match self.event.op {
            RowOp::Insert => (None, Some(self.image(&mut rows, 0)?)),
            RowOp::Delete => (Some(self.image(&mut rows, 0)?), None),
            RowOp::Update if self.event.partial => {
                let mut start = rows;
                let before = self.image(&mut rows, 0)?;
                let after = self.partial_image(&mut start, &mut rows)?;
                (Some(before), Some(after))
            }
            RowOp::Update => {
                let before = self.image(&mut rows, 0)?;
                (Some(before), Some(self.image(&mut rows, 1)?))
            }
        };
        ensure_progress(before_len, &rows)?;
        self.offset += before_len - rows.rest().len();
        let (layout, op, event_index) = (self.layout.clone(), self.event.op, self.event.event_index);
        Ok(RowChange { layout, op, before, after, event_index })
    }

    /// One image, decoded. `which` is 0 for the first, 1 for an update's second.
    #[inline]
    fn image(&self, rows: &mut Cursor<'_>, which: usize) -> Result<Row, DecodeError> {
        if self.left_out.is_some() {
            let cells = self.cells(rows, which)?;
            return cells.iter().enumerate().filter_map(|(place, cell)| self.kept_value(place, *cell)).collect();
        }
        let columns = &self.map.columns;
        let nulls = rows.take(columns.len().div_ceil(8), "null columns")?;
        let mut row = Vec::with_capacity(columns.len());
        for (place, column) in columns.iter().enumerate() {
            if bit(nulls, place) {
                row.push(Value::Null);
                continue;
            }
            let cell = column.width.take(rows)?;
            row.push(column.decoder.value(cell).map_err(|what| self.bad_value(place, what))?);
        }
        Ok(row)
    }

    /// The cells of an image, not decoded: `None` where the column is missing, `Some(None)` for NULL.
    fn cells<'r>(&self, rows: &mut Cursor<'r>, which: usize) -> Result<Vec<Option<Option<&'r [u8]>>>, DecodeError> {
        let present = self.event.present[which];
        let count = (0..self.event.columns).filter(|place| bit(present, *place)).count();
        let nulls = rows.take(count.div_ceil(8), "null columns")?;
        let mut nth = 0;
        let mut cells = Vec::with_capacity(self.event.columns);
        for (place, column) in self.map.columns.iter().enumerate() {
            if !bit(present, place) {
                cells.push(None);
                continue;
            }
            let null = bit(nulls, nth);
            nth += 1;
            cells.push(Some(if null { None } else { Some(column.width.take(rows)?) }));
        }
        Ok(cells)
    }

    fn kept_value(&self, place: usize, cell: Option<Option<&[u8]>>) -> Option<Result<Value, DecodeError>> {
        if self.left_out.as_ref().is_some_and(|left_out| left_out[place]) {
            return None;
        }
        Some(match cell.flatten() {
            None => Ok(Value::Null),
            Some(cell) => self.map.columns[place].decoder.value(cell).map_err(|what| self.bad_value(place, what)),
        })
    }

    /// The after image of a partial update. `before` stands at the row's first image, whose documents the changes start from.
    fn partial_image(&self, before: &mut Cursor<'_>, rows: &mut Cursor<'_>) -> Result<Row, DecodeError> {
        let before = self.cells(before, 0)?;
        let partial = partial_columns(rows, self.map.json_columns)?;
        let after = self.cells(rows, 1)?;
        let mut json_place = 0;
        let mut row = Vec::with_capacity(after.len());
        for (place, cell) in after.iter().enumerate() {
            let mut changed = false;
            if self.map.columns[place].decoder == Decoder::Json {
                changed = bit(partial, json_place);
                json_place += 1;
            }
            match (changed, cell.flatten(), before[place].flatten()) {
                (true, Some(changes), Some(document)) => {
                    let document = json::changed(document, changes).map_err(|what| self.bad_value(place, what))?;
                    row.push(Value::Json(document));
                }
                (true, _, _) => return Err(self.bad_value(place, "JSON changes without a document before them")),
                (false, ..) => {
                    if let Some(value) = self.kept_value(place, *cell) {
                        row.push(value?);
                    }
                }
            }
        }
        Ok(row)
    }

    fn bad_value(&self, place: usize, what: &'static str) -> DecodeError {
        let layout = &self.map.layout;
        let column = layout.columns.get(place).map(|name| name.to_string()).unwrap_or_default();
        DecodeError::Value { table: layout.name.clone(), column, what }
    }
}

impl Iterator for Changes<'_, '_> {
    type Item = Result<RowChange, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.offset = self.event.rows.len();
            return Some(Err(error));
        }
        if self.offset >= self.event.rows.len() {
            return None;
        }
        let change = self.change();
        if change.is_err() {
            self.offset = self.event.rows.len();
        }
        Some(change)
    }
}

fn without(layout: &TableLayout, left_out: &[bool]) -> TableLayout {
    let kept = |place: &usize| !left_out[*place];
    let places: Vec<usize> = (0..layout.columns.len()).filter(kept).collect();
    TableLayout {
        name: layout.name.clone(),
        columns: places.iter().map(|place| layout.columns[*place].clone()).collect(),
        kinds: places.iter().map(|place| layout.kinds[*place].clone()).collect(),
        row_key: layout.row_key.iter().filter_map(|key| places.iter().position(|place| place == key)).collect(),
    }
}
