//! How one column of a key is read and compared, so that its value comes back exactly and an index can be used.

use crossfade_model::{Column, ColumnKind, quote_identifier};

use super::KeyPart;

/// One column of a key.
#[derive(Debug, Clone)]
pub(super) struct KeyColumn {
    /// Quoted.
    pub name: String,
    form: Form,
    charset: Option<String>,
    collation: Option<String>,
    /// Of an ENUM.
    labels: Option<u64>,
}

/// How a value is printed and read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Integers, and what has a number: ENUM and SET are ordered by theirs.
    Number,
    Real,
    Decimal,
    /// Printed as it is, read by this type.
    Typed(&'static str),
    Text,
    Bytes,
}

impl KeyColumn {
    /// `None` for a type that no key can have.
    pub fn new(column: &Column) -> Option<KeyColumn> {
        let form = match &column.kind {
            ColumnKind::Integer { .. }
            | ColumnKind::Year
            | ColumnKind::Bit { .. }
            | ColumnKind::Enum { .. }
            | ColumnKind::Set { .. } => Form::Number,
            ColumnKind::Float | ColumnKind::Double => Form::Real,
            ColumnKind::Decimal { .. } => Form::Decimal,
            ColumnKind::Date => Form::Typed("DATE"),
            ColumnKind::Time { .. } => Form::Typed("TIME(6)"),
            ColumnKind::Datetime { .. } | ColumnKind::Timestamp { .. } => Form::Typed("DATETIME(6)"),
            ColumnKind::Inet4 => Form::Typed("INET4"),
            ColumnKind::Inet6 => Form::Typed("INET6"),
            ColumnKind::Uuid => Form::Typed("UUID"),
            ColumnKind::Text { .. } => Form::Text,
            ColumnKind::Bytes { .. } => Form::Bytes,
            ColumnKind::Json | ColumnKind::Geometry | ColumnKind::Vector | ColumnKind::Other { .. } => return None,
        };
        Some(KeyColumn {
            name: quote_identifier(&column.name),
            form,
            charset: column.charset.clone(),
            collation: column.collation.clone(),
            labels: if let ColumnKind::Enum { labels } = &column.kind { Some(labels.len() as u64) } else { None },
        })
    }

    /// The value as text that is exact.
    pub fn shown(&self) -> String {
        let name = &self.name;
        match self.form {
            // Without the zeros that ZEROFILL puts before it.
            Form::Number => format!("CAST({name} + 0 AS CHAR)"),
            // A FLOAT is printed with six digits; a DOUBLE with as many as it takes.
            Form::Real => format!("CAST({name} * 1e0 AS CHAR)"),
            Form::Decimal | Form::Typed(_) => format!("CAST({name} AS CHAR)"),
            Form::Text | Form::Bytes => format!("HEX({name})"),
        }
    }

    /// Whether what is shown cannot be read back: compared with that, no row would be in any range.
    pub fn is_unreadable(&self) -> String {
        let part = KeyPart { value: String::new(), charset: self.text_charset() };
        format!("{} IS NULL", self.reading(&part, &self.shown()))
    }

    /// A value that was shown.
    pub fn part(&self, value: String) -> KeyPart {
        KeyPart { value, charset: self.text_charset() }
    }

    /// The expression by which a bound `?` is compared with the column. Of a constant type, so that an index can be used.
    ///
    /// The parameter is text in so many words: MySQL takes the one in `CAST(? AS TIME)` for a point in time, and reads
    /// `00:01:20` as a day in January.
    pub fn placeholder(&self, part: &KeyPart) -> String {
        self.reading(part, "CAST(? AS CHAR)")
    }

    /// The condition that an ENUM compares so with a bound. Neither server takes a range of an index over one, but both find
    /// the numbers of a list there.
    pub fn label_condition(&self, part: &KeyPart, operator: &str) -> Option<String> {
        let (labels, bound) = (self.labels?, part.value.parse::<u64>().ok()?);
        let numbers = match operator {
            ">" => bound + 1..labels + 1,
            ">=" => bound..labels + 1,
            "<" => 0..bound.min(labels + 1),
            "<=" => 0..(bound + 1).min(labels + 1),
            _ => return None,
        };
        let list: Vec<String> = numbers.map(|number| number.to_string()).collect();
        Some(if list.is_empty() { "1 = 0".to_owned() } else { format!("{} IN ({})", self.name, list.join(", ")) })
    }

    fn text_charset(&self) -> Option<String> {
        self.charset.clone().filter(|_| self.form == Form::Text)
    }

    fn reading(&self, part: &KeyPart, shown: &str) -> String {
        match self.form {
            Form::Number | Form::Decimal => number(&part.value, shown),
            Form::Real => format!("({shown} + 0e0)"),
            Form::Typed(sql_type) => format!("CAST({shown} AS {sql_type})"),
            Form::Bytes => format!("UNHEX({shown})"),
            Form::Text => {
                let from = part.charset.as_deref().or(self.charset.as_deref()).unwrap_or("utf8mb4");
                let to = self.charset.as_deref().unwrap_or(from);
                // A binary string converted "using" a character set is taken for text of it (MySQL manual, "CONVERT()").
                let mut text = format!("CONVERT(UNHEX({shown}) USING {from})");
                if to != from {
                    text = format!("CONVERT({text} USING {to})");
                }
                match &self.collation {
                    Some(collation) => format!("{text} COLLATE {collation}"),
                    None => text,
                }
            }
        }
    }
}

/// Text that is compared with a number would make both of them floats.
fn number(value: &str, shown: &str) -> String {
    match value.split_once('.') {
        Some((_, fraction)) => format!("CAST({shown} AS DECIMAL(65,{}))", fraction.len().min(30)),
        None if value.len() > 18 => format!("CAST({shown} AS DECIMAL(65,0))"),
        None => format!("CAST({shown} AS SIGNED)"),
    }
}
