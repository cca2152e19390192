//! What others need who read tables of a side as the applier does: values bound and read without loss.

use std::borrow::Cow;

use crossfade_model::{Column, ColumnKind, Value};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

/// The placeholder for a value in a statement that compares it with, or stores it in, a column.
pub fn placeholder(value: &Value, column: &Column) -> Cow<'static, str> {
    crate::bind::placeholder(value, column)
}

/// Appends the parameters that [`placeholder`] asks for, in its order.
pub fn push_params(value: &Value, column: &Column, params: &mut Vec<mysql_async::Value>) {
    crate::bind::push_params(value, column, params);
}

/// One column of a row that came over the binary protocol. What does not fit its column's kind comes as [`Value::Bytes`].
pub fn cell(raw: mysql_async::Value, kind: &ColumnKind) -> Value {
    crate::read::cell(raw, kind)
}

/// Prepares a session in which values are read as they are stored: times are UTC, text is Unicode.
pub async fn read_session(conn: &mut Conn) -> Result<(), Error> {
    crate::session::prepare(conn).await?;
    // Whoever reads may be silent for longer than one who holds locks.
    conn.query_drop("SET SESSION wait_timeout = 600").await
}
