//! The optional metadata of a table map event: what `binlog_row_metadata` adds.
//!
//! Lists run over the columns of a kind, not over all columns; which columns count as which kind is decided in
//! `table_map`, because MySQL and MariaDB differ there.

use super::DecodeError;
use super::cursor::Cursor;

/// Fields as they stand in the event. A field that is absent is `None`; fields of unknown type are passed over, as
/// servers pass them over (MySQL worklog 4618).
#[derive(Debug, Default)]
pub(super) struct OptionalMetadata<'a> {
    /// One bit per numeric column, most significant first, set for unsigned.
    pub signs: Option<&'a [u8]>,
    pub charsets: Option<Charsets>,
    pub label_charsets: Option<Charsets>,
    pub names: Option<Vec<&'a str>>,
    pub set_labels: Option<Vec<Vec<&'a [u8]>>>,
    pub enum_labels: Option<Vec<Vec<&'a [u8]>>>,
    /// Column indexes, in key order.
    pub primary_key: Option<Vec<usize>>,
}

/// Collation ids of the text columns, in their order among themselves.
#[derive(Debug)]
pub(super) enum Charsets {
    /// One for all, but for the columns listed by their place among the text columns.
    Default {
        collation: u64,
        others: Vec<(u64, u64)>,
    },
    Each(Vec<u64>),
}

impl Charsets {
    pub fn of(&self, text_column: usize) -> Option<u64> {
        match self {
            Charsets::Default { collation, others } => {
                let other = others.iter().find(|(column, _)| *column == text_column as u64);
                Some(other.map_or(*collation, |(_, collation)| *collation))
            }
            Charsets::Each(collations) => collations.get(text_column).copied(),
        }
    }
}

impl<'a> OptionalMetadata<'a> {
    pub fn parse(mut fields: Cursor<'a>) -> Result<OptionalMetadata<'a>, DecodeError> {
        let mut metadata = OptionalMetadata::default();
        while !fields.is_empty() {
            let kind = fields.u8("optional metadata")?;
            let mut field = Cursor::new(fields.packed_bytes("optional metadata")?);
            match kind {
                1 => metadata.signs = Some(field.rest()),
                2 => metadata.charsets = Some(default_charset(field)?),
                3 => metadata.charsets = Some(Charsets::Each(numbers(field)?)),
                4 => metadata.names = Some(names(field)?),
                5 => metadata.set_labels = Some(labels(field)?),
                6 => metadata.enum_labels = Some(labels(field)?),
                8 => metadata.primary_key = Some(numbers(field)?.into_iter().map(index).collect()),
                9 => {
                    let mut key = Vec::new();
                    while !field.is_empty() {
                        key.push(index(field.packed("primary key")?));
                        field.packed("primary key prefix")?;
                    }
                    metadata.primary_key = Some(key);
                }
                10 => metadata.label_charsets = Some(default_charset(field)?),
                11 => metadata.label_charsets = Some(Charsets::Each(numbers(field)?)),
                // 7 geometry type, 12 visibility, 13 vector dimension: nothing here depends on them.
                _ => {}
            }
        }
        Ok(metadata)
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn numbers(mut field: Cursor<'_>) -> Result<Vec<u64>, DecodeError> {
    let mut numbers = Vec::new();
    while !field.is_empty() {
        numbers.push(field.packed("a list of numbers")?);
    }
    Ok(numbers)
}

fn default_charset(mut field: Cursor<'_>) -> Result<Charsets, DecodeError> {
    let collation = field.packed("default character set")?;
    let mut others = Vec::new();
    while !field.is_empty() {
        others.push((field.packed("default character set")?, field.packed("default character set")?));
    }
    Ok(Charsets::Default { collation, others })
}

fn names<'a>(mut field: Cursor<'a>) -> Result<Vec<&'a str>, DecodeError> {
    let mut names = Vec::new();
    while !field.is_empty() {
        let name = field.packed_bytes("column names")?;
        names.push(std::str::from_utf8(name).map_err(|_| DecodeError::Malformed { what: "a column name" })?);
    }
    Ok(names)
}

fn labels<'a>(mut field: Cursor<'a>) -> Result<Vec<Vec<&'a [u8]>>, DecodeError> {
    let mut columns = Vec::new();
    while !field.is_empty() {
        let count = field.packed("labels")?;
        // A label takes at least its length byte, so a count beyond the rest is a lie.
        if count > field.rest().len() as u64 {
            return Err(DecodeError::Truncated { what: "labels" });
        }
        columns.push((0..count).map(|_| field.packed_bytes("labels")).collect::<Result<_, _>>()?);
    }
    Ok(columns)
}
