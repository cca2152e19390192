//! Names: which side, which direction, which stream, which table.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One of the two databases of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Old,
    New,
}

impl Side {
    pub fn opposite(self) -> Side {
        match self {
            Side::Old => Side::New,
            Side::New => Side::Old,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Side::Old => "old",
            Side::New => "new",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `forward` carries old to new, `reverse` carries new to old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Forward,
    Reverse,
}

impl Direction {
    pub fn source(self) -> Side {
        match self {
            Direction::Forward => Side::Old,
            Direction::Reverse => Side::New,
        }
    }

    pub fn target(self) -> Side {
        self.source().opposite()
    }

    pub fn opposite(self) -> Direction {
        match self {
            Direction::Forward => Direction::Reverse,
            Direction::Reverse => Direction::Forward,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::Reverse => "reverse",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Direction {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "forward" => Ok(Direction::Forward),
            "reverse" => Ok(Direction::Reverse),
            _ => Err(ParseNameError::Direction(text.to_owned())),
        }
    }
}

/// What one direction reads from one source node: `forward/old`, `reverse/new`, `reverse/new-1`.
///
/// Cheap to clone. The text is the stream's name in every table and log line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    direction: Direction,
    name: Arc<str>,
}

impl StreamId {
    /// `node` is the node's name, for example `old`, `new`, `new-1`.
    pub fn new(direction: Direction, node: &str) -> StreamId {
        StreamId { direction, name: format!("{direction}/{node}").into() }
    }

    pub fn direction(&self) -> Direction {
        self.direction
    }

    pub fn node(&self) -> &str {
        self.name.split_once('/').map_or("", |(_, node)| node)
    }

    pub fn as_str(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for StreamId {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (direction, node) = text.split_once('/').ok_or_else(|| ParseNameError::Stream(text.to_owned()))?;
        if node.is_empty() || node.contains('/') {
            return Err(ParseNameError::Stream(text.to_owned()));
        }
        Ok(StreamId::new(direction.parse()?, node))
    }
}

/// `<stream>:<seq>`, for example `forward/old:17`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    pub stream: StreamId,
    pub seq: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.stream, self.seq)
    }
}

impl FromStr for MessageId {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseNameError::Message(text.to_owned());
        let (stream, seq) = text.rsplit_once(':').ok_or_else(bad)?;
        Ok(MessageId { stream: stream.parse()?, seq: seq.parse().map_err(|_| bad())? })
    }
}

/// A table with its schema, exactly as the server spells both. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    pub schema: Arc<str>,
    pub table: Arc<str>,
}

impl TableName {
    pub fn new(schema: impl Into<Arc<str>>, table: impl Into<Arc<str>>) -> TableName {
        TableName { schema: schema.into(), table: table.into() }
    }

    /// The name as SQL: `` `schema`.`table` `` with back-quotes doubled.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.table))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl FromStr for TableName {
    type Err = ParseNameError;

    /// Reads `schema.table`. A schema that holds a dot, and a name that begins with a back-quote, stand in back-quotes, as in a
    /// configuration and in SQL.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseNameError::Table(text.to_owned());
        let (schema, rest) = name_part(text).ok_or_else(bad)?;
        let table = match rest.strip_prefix('.').ok_or_else(bad)? {
            "" => return Err(bad()),
            quoted if quoted.starts_with('`') => {
                name_part(quoted).filter(|(_, rest)| rest.is_empty()).ok_or_else(bad)?.0
            }
            plain => plain.to_owned(),
        };
        Ok(TableName::new(schema, table))
    }
}

/// A name, and what stands behind it. Without back-quotes it goes to the next dot.
fn name_part(text: &str) -> Option<(String, &str)> {
    let Some(mut quoted) = text.strip_prefix('`') else {
        let end = text.find('.').unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    loop {
        let (before, after) = quoted.split_once('`')?;
        name.push_str(before);
        match after.strip_prefix('`') {
            Some(rest) => {
                name.push('`');
                quoted = rest;
            }
            None if name.is_empty() => return None,
            None => return Some((name, after)),
        }
    }
}

/// An identifier as SQL, with back-quotes doubled (MySQL manual, "Schema Object Names").
pub fn quote_identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseNameError {
    #[error("`{0}` is not a direction; it is `forward` or `reverse`")]
    Direction(String),
    #[error("`{0}` is not a stream; it reads like `forward/old`")]
    Stream(String),
    #[error("`{0}` is not a table; it reads like `app.users`, and names with dots stand in back-quotes")]
    Table(String),
    #[error("`{0}` is not a message id; it reads like `forward/old:17`")]
    Message(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_is_quoted() {
        let names = [("app", "users"), ("my.app", "odd*name"), ("a`b", "`"), ("s p", "x.y.z"), ("`", "``.``")];
        for (schema, table) in names {
            let name = TableName::new(schema, table);
            assert_eq!(name.quoted().parse(), Ok(name));
        }
        assert_eq!("app.users".parse(), Ok(TableName::new("app", "users")));
        for dotted in ["app.`a.b`", "app.a.b"] {
            assert_eq!(dotted.parse(), Ok(TableName::new("app", "a.b")));
        }
        for wrong in ["", "users", ".users", "app.", "`app.users", "`app`users", "``.users", "`a`.`b`c"] {
            assert_eq!(wrong.parse::<TableName>(), Err(ParseNameError::Table(wrong.to_owned())));
        }
    }
}
