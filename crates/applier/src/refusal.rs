//! What a server said when it refused a statement, without the values of rows that it quotes.

use std::fmt;

/// A driver's error whose text can be logged.
#[derive(Debug)]
pub struct Refusal(mysql_async::Error);

impl Refusal {
    pub fn driver_error(&self) -> &mysql_async::Error {
        &self.0
    }
}

impl From<mysql_async::Error> for Refusal {
    fn from(error: mysql_async::Error) -> Refusal {
        Refusal(error)
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            mysql_async::Error::Server(server) => {
                write!(f, "error {} ({}): {}", server.code, server.state, without_values(&server.message))
            }
            other => other.fmt(f),
        }
    }
}

/// Words after which a quoted text is a name and no value.
const NAMES_FOLLOW: [&str; 2] = [" for key '", " for column '"];
const NAMES_BEGIN: [&str; 4] = ["Column '", "Unknown column '", "Table '", "Check constraint '"];

/// Servers quote values and names alike. What follows ` for key ` or ` for column ` at the end is a name; of the rest,
/// everything between the first and the last quote may be a value, which may itself hold quotes.
fn without_values(message: &str) -> String {
    if NAMES_BEGIN.iter().any(|begin| message.starts_with(begin)) {
        return message.to_owned();
    }
    let names_at = NAMES_FOLLOW.iter().filter_map(|words| message.rfind(words)).max().unwrap_or(message.len());
    let (said, names) = message.split_at(names_at);
    match (said.find('\''), said.rfind('\'')) {
        (Some(first), Some(last)) if first < last => format!("{}'…'{}{names}", &said[..first], &said[last + 1..]),
        (Some(first), _) => format!("{}'…{names}", &said[..first]),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_values;

    #[test]
    fn names_stay_and_values_go() {
        for (said, told) in [
            ("Duplicate entry 'o'neill' for key 'users.email'", "Duplicate entry '…' for key 'users.email'"),
            ("Data too long for column 'name' at row 3", "Data too long for column 'name' at row 3"),
            (
                "Incorrect string value: '\\xF0' for column 'name' at row 1",
                "Incorrect string value: '…' for column 'name' at row 1",
            ),
            ("Column 'name' cannot be null", "Column 'name' cannot be null"),
            ("Incorrect datetime value: 'secret", "Incorrect datetime value: '…"),
            ("Deadlock found when trying to get lock", "Deadlock found when trying to get lock"),
        ] {
            assert_eq!(without_values(said), told);
        }
    }
}
