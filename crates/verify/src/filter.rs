//! Which rows are compared.

use crossfade_model::quote_identifier;
use mysql_async::Value;

/// Without anything set it takes all rows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// A condition in SQL, as whoever asks has written it. The columns must bear these names on both sides.
    pub condition: Option<String>,
    /// Rows whose clock is at or after this time, UTC, `2026-01-31 12:00:00.000000`, on either side.
    pub since: Option<String>,
}

impl Filter {
    /// The condition for a side whose clock column is this, and its parameters; empty for all rows.
    pub(crate) fn sql(&self, clock: Option<&str>) -> (String, Vec<Value>) {
        let (mut conditions, mut params) = (Vec::new(), Vec::new());
        if let Some(condition) = &self.condition {
            // A comment at its end must not hide the bracket.
            conditions.push(format!("({condition}\n)"));
        }
        if let (Some(since), Some(clock)) = (&self.since, clock) {
            conditions.push(format!("{} >= CAST(CAST(? AS CHAR) AS DATETIME(6))", quote_identifier(clock)));
            params.push(Value::from(since.as_str()));
        }
        (conditions.join(" AND "), params)
    }
}
