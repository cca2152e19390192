//! TABLE_MAP_EVENT: a table's columns as the rows events after it have them.

use std::sync::Arc;

use crossfade_model::{ColumnKind, TableLayout, TableName, TableShape};

use super::charset::label;
use super::collation::charset_of;
use super::column::{self, ColumnPlan, Known, Unplanned};
use super::cursor::Cursor;
use super::metadata::OptionalMetadata;
use super::wire::{WireColumn, code};
use super::{DecodeError, Flavor};

/// A table map with everything that its rows need, worked out once.
#[derive(Debug, Clone)]
pub struct TableMap {
    pub table_id: u64,
    pub layout: Arc<TableLayout>,
    pub(super) columns: Vec<ColumnPlan>,
    /// JSON columns of the table; a partial update has a bit for each.
    pub(super) json_columns: usize,
}

/// The part of a table map event that is always there.
pub(super) struct Fixed<'a> {
    pub table_id: u64,
    pub schema: &'a str,
    pub table: &'a str,
    pub columns: Vec<WireColumn>,
    rest: Cursor<'a>,
}

impl TableMap {
    /// The server computes the column from others, as far as the tracked definition says.
    pub fn is_computed(&self, place: usize) -> bool {
        self.columns[place].generated
    }

    /// Whose rows follow, without looking at columns: table id, schema, table.
    pub fn peek(body: &[u8]) -> Result<(u64, &str, &str), DecodeError> {
        head(&mut Cursor::new(body))
    }

    /// Reads a table map event: its body without the 19 bytes of header and without checksum.
    ///
    /// What the event does not say (names and labels under `binlog_row_metadata=MINIMAL`, everything on MySQL 5.7) comes from
    /// `tracked`, which must then fit in number and types of columns. Where the event has names, columns are matched by
    /// name, and `tracked` adds only what no event says: which column is generated, or of MariaDB's INET4, INET6 or UUID
    /// type (without `tracked` those arrive as BINARY). The layout's row key is that of `tracked`, else the event's primary key.
    pub fn parse(body: &[u8], flavor: Flavor, tracked: Option<&TableShape>) -> Result<TableMap, DecodeError> {
        let fixed = Fixed::parse(body)?;
        let metadata = OptionalMetadata::parse(fixed.rest)?;
        let name = TableName::new(fixed.schema, fixed.table);
        if let (None, Some(tracked)) = (&metadata.names, tracked)
            && tracked.columns.len() != fixed.columns.len()
        {
            let (event, tracked) = (fixed.columns.len(), tracked.columns.len());
            return Err(DecodeError::ColumnCount { table: name, event, tracked });
        }
        let names = column_names(&name, &fixed, &metadata, tracked)?;

        let mut planner = Planner { flavor, metadata: &metadata, tracked, table: &name, seen: Places::default() };
        let mut columns = Vec::with_capacity(fixed.columns.len());
        let mut kinds = Vec::with_capacity(fixed.columns.len());
        for (place, wire) in fixed.columns.iter().enumerate() {
            let (plan, kind) = planner.plan(place, *wire, &names[place])?;
            columns.push(plan);
            kinds.push(kind);
        }
        let json_columns = fixed.columns.iter().filter(|column| column.code == code::JSON).count();
        let row_key = row_key(&names, &metadata, tracked);
        let layout = Arc::new(TableLayout { name, columns: names, kinds, row_key });
        Ok(TableMap { table_id: fixed.table_id, layout, columns, json_columns })
    }
}

fn head<'a>(cursor: &mut Cursor<'a>) -> Result<(u64, &'a str, &'a str), DecodeError> {
    let table_id = cursor.le(6, "a table id")?;
    cursor.take(2, "table map flags")?;
    let schema = name(cursor, "a schema name")?;
    let table = name(cursor, "a table name")?;
    Ok((table_id, schema, table))
}

/// A length, the name, and a zero byte.
fn name<'a>(cursor: &mut Cursor<'a>, what: &'static str) -> Result<&'a str, DecodeError> {
    let bytes = cursor.packed_bytes(what)?;
    cursor.take(1, what)?;
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed { what })
}

impl<'a> Fixed<'a> {
    pub fn parse(body: &'a [u8]) -> Result<Fixed<'a>, DecodeError> {
        let mut cursor = Cursor::new(body);
        let (table_id, schema, table) = head(&mut cursor)?;
        let codes = cursor.packed_bytes("column types")?;
        let mut metadata = Cursor::new(cursor.packed_bytes("column metadata")?);
        let columns =
            codes.iter().map(|code| WireColumn::parse(*code, &mut metadata)).collect::<Result<Vec<_>, _>>()?;
        cursor.take(codes.len().div_ceil(8), "nullable columns")?;
        Ok(Fixed { table_id, schema, table, columns, rest: cursor })
    }
}

fn column_names(
    table: &TableName,
    fixed: &Fixed<'_>,
    metadata: &OptionalMetadata<'_>,
    tracked: Option<&TableShape>,
) -> Result<Vec<Arc<str>>, DecodeError> {
    match (&metadata.names, tracked) {
        (Some(names), _) if names.len() == fixed.columns.len() => {
            Ok(names.iter().map(|name| Arc::from(*name)).collect())
        }
        (Some(_), _) => Err(DecodeError::Malformed { what: "as many column names as columns" }),
        (None, Some(tracked)) => Ok(tracked.columns.iter().map(|column| column.name.as_str().into()).collect()),
        (None, None) => Err(DecodeError::NoDefinition { table: table.clone(), what: "its column names" }),
    }
}

fn row_key(names: &[Arc<str>], metadata: &OptionalMetadata<'_>, tracked: Option<&TableShape>) -> Vec<usize> {
    let place = |name: &str| names.iter().position(|column| column.eq_ignore_ascii_case(name));
    let of_tracked = tracked.and_then(|shape| {
        shape.row_key()?.iter().map(|column| place(&shape.columns.get(*column)?.name)).collect::<Option<Vec<usize>>>()
    });
    let of_event = || metadata.primary_key.clone().filter(|key| key.iter().all(|column| *column < names.len()));
    of_tracked.or_else(of_event).unwrap_or_default()
}

/// How many columns of each kind came before; the metadata's lists run over columns of a kind.
#[derive(Default)]
struct Places {
    numeric: usize,
    text: usize,
    labelled: usize,
    enums: usize,
    sets: usize,
}

fn next(place: &mut usize) -> usize {
    *place += 1;
    *place - 1
}

struct Planner<'a> {
    flavor: Flavor,
    metadata: &'a OptionalMetadata<'a>,
    tracked: Option<&'a TableShape>,
    table: &'a TableName,
    seen: Places,
}

impl Planner<'_> {
    fn plan(&mut self, place: usize, wire: WireColumn, name: &str) -> Result<(ColumnPlan, ColumnKind), DecodeError> {
        let unsigned = self.unsigned(wire.code);
        let charset = self.charset(wire.code, name)?;
        let labels = self.labels(wire.code, name)?;
        let by_name = self.metadata.names.is_some();
        let tracked = self.tracked.and_then(|shape| {
            let place = if by_name { shape.column(name)? } else { place };
            shape.columns.get(place)
        });
        let mut known = Known { unsigned, charset, labels: labels.clone(), tracked };
        let mut planned = column::plan(wire, &mut known);
        if by_name && planned == Err(Unplanned::Mismatch) {
            // The definition is newer or older than the event, which speaks for itself.
            planned = column::plan(wire, &mut Known { unsigned, charset, labels, tracked: None });
        }
        planned.map_err(|reason| match reason {
            Unplanned::Missing(what) => DecodeError::NoDefinition { table: self.table.clone(), what },
            Unplanned::Mismatch => DecodeError::ColumnType {
                table: self.table.clone(),
                column: name.to_owned(),
                declared: tracked.map(|column| column.declared.clone()).unwrap_or_default(),
                code: wire.code,
            },
            Unplanned::UnknownType => {
                DecodeError::UnknownType { table: self.table.clone(), column: name.to_owned(), code: wire.code }
            }
        })
    }

    /// YEAR has a bit too, on both servers.
    fn unsigned(&mut self, wire: u8) -> Option<bool> {
        match wire {
            code::TINY
            | code::SHORT
            | code::INT24
            | code::LONG
            | code::LONGLONG
            | code::FLOAT
            | code::DOUBLE
            | code::NEWDECIMAL
            | code::YEAR => {
                let place = next(&mut self.seen.numeric);
                let signs = self.metadata.signs?;
                signs.get(place / 8).map(|byte| byte << (place % 8) & 0x80 != 0)
            }
            _ => None,
        }
    }

    /// MariaDB counts GEOMETRY among the columns with a character set, MySQL counts VECTOR (both always `binary`).
    fn charset(&mut self, wire: u8, name: &str) -> Result<Option<&'static str>, DecodeError> {
        let counts = match wire {
            code::STRING | code::VAR_STRING | code::VARCHAR | code::VARCHAR_COMPRESSED => true,
            code::TINY_BLOB | code::MEDIUM_BLOB | code::LONG_BLOB | code::BLOB | code::BLOB_COMPRESSED => true,
            code::GEOMETRY => self.flavor == Flavor::MariaDb,
            code::VECTOR => self.flavor == Flavor::MySql,
            _ => false,
        };
        if !counts {
            return Ok(None);
        }
        let place = next(&mut self.seen.text);
        let collation = self.metadata.charsets.as_ref().and_then(|charsets| charsets.of(place));
        collation.map(|collation| self.known_charset(collation, name)).transpose()
    }

    fn known_charset(&self, collation: u64, name: &str) -> Result<&'static str, DecodeError> {
        charset_of(collation).ok_or_else(|| DecodeError::UnknownCollation {
            table: self.table.clone(),
            column: name.to_owned(),
            collation,
        })
    }

    fn labels(&mut self, wire: u8, name: &str) -> Result<Option<Vec<String>>, DecodeError> {
        let stored = match wire {
            code::ENUM => {
                let place = next(&mut self.seen.enums);
                self.metadata.enum_labels.as_ref().and_then(|columns| columns.get(place))
            }
            code::SET => {
                let place = next(&mut self.seen.sets);
                self.metadata.set_labels.as_ref().and_then(|columns| columns.get(place))
            }
            _ => return Ok(None),
        };
        let place = next(&mut self.seen.labelled);
        let collation = self.metadata.label_charsets.as_ref().and_then(|charsets| charsets.of(place));
        let (Some(stored), Some(collation)) = (stored, collation) else { return Ok(None) };
        let charset = self.known_charset(collation, name)?;
        let decoded: Option<Vec<String>> = stored.iter().map(|bytes| label(charset, bytes)).collect();
        match decoded {
            Some(labels) => Ok(Some(labels)),
            // The tracked definition has the labels as the server itself turned them into Unicode.
            None => self.tracked_labels(name, stored.len()).map(Some).ok_or_else(|| DecodeError::Label {
                table: self.table.clone(),
                column: name.to_owned(),
                charset,
            }),
        }
    }

    fn tracked_labels(&self, name: &str, count: usize) -> Option<Vec<String>> {
        let shape = self.tracked?;
        match &shape.columns.get(shape.column(name)?)?.kind {
            ColumnKind::Enum { labels } | ColumnKind::Set { labels } if labels.len() == count => Some(labels.clone()),
            _ => None,
        }
    }
}
