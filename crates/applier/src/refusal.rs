//! What a server said when it refused a statement, without the values of rows that it quotes.

use std::fmt;

use crossfade_catalog::class_of;
use crossfade_rules::trouble::Class;

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

impl Refusal {
    /// As a failure keeps it, beside the row's images: what a trigger says by itself is told in full, for it may be the only
    /// reason that a person gets. It may quote the row, and so belongs in no log.
    pub fn kept(&self) -> String {
        match &self.0 {
            mysql_async::Error::Server(server) if is_signalled(server) => {
                format!("error {} ({}): {}", server.code, server.state, server.message)
            }
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mysql_async::Error::Server(server) = &self.0 else { return self.0.fmt(f) };
        write!(f, "error {} ({}): ", server.code, server.state)?;
        if is_signalled(server) {
            return f.write_str("a trigger or routine of the target refused it, in words that may quote the row");
        }
        match class_of(&self.0) {
            // Of these texts, none has to do with a row's contents.
            Class::Collision | Class::Outage | Class::Login | Class::Denied | Class::Missing | Class::Full => {
                f.write_str(&server.message)
            }
            _ if SAYS_NUMBERS.contains(&server.code) => f.write_str(&without_numbers(&server.message)),
            _ => f.write_str(&without_values(&server.message)),
        }
    }
}

/// What `SIGNAL` says is anybody's text. 45000 is the state for it (MySQL manual, "SIGNAL Statement"), 1644 its number where
/// none is set.
fn is_signalled(error: &mysql_async::ServerError) -> bool {
    error.code == 1644 || error.state.starts_with("45")
}

/// Texts with numbers of the row and without quotes: no partition for a value, longitudes and latitudes out of range.
const SAYS_NUMBERS: [u16; 5] = [1526, 3616, 3617, 3731, 3732];

/// Words after which a quoted text is a name and no value.
const NAMES_FOLLOW: [&str; 2] = [" for key '", " for column '"];
const NAMES_BEGIN: [&str; 4] = ["Column '", "Field '", "Check constraint '", "Data truncated for column '"];

/// Servers end longer texts here, wherever that is (`MYSQL_ERRMSG_SIZE` is 512 bytes).
const LONGEST_TEXT: usize = 500;

/// Servers quote values and names alike. What follows ` for key ` or ` for column ` at the end is a name, unless the server has
/// cut the text off within a value; of the rest, everything between the first and the last quote may be a value, which may itself
/// hold quotes.
fn without_values(message: &str) -> String {
    if NAMES_BEGIN.iter().any(|begin| message.starts_with(begin)) {
        return message.to_owned();
    }
    let is_name = |at: &usize| is_name_at_end(&message[*at..]);
    let names_at = NAMES_FOLLOW.iter().filter_map(|words| message.rfind(words)).max().filter(is_name);
    let (said, names) = message.split_at(names_at.unwrap_or(message.len()));
    let is_cut = names.is_empty() && message.len() >= LONGEST_TEXT;
    match (said.find('\''), said.rfind('\'')) {
        (Some(first), Some(last)) if first < last && !is_cut => {
            format!("{}'…'{}{names}", &said[..first], &said[last + 1..])
        }
        (Some(first), _) => format!("{}'…{names}", &said[..first]),
        _ => message.to_owned(),
    }
}

/// ` for key 'a'`, ` for column 'b' at row 1`, ` for column 'c'.`
fn is_name_at_end(text: &str) -> bool {
    let mut parts = text.split('\'').skip(2);
    let (Some(after), None) = (parts.next(), parts.next()) else { return false };
    let row = after.strip_prefix(" at row ").unwrap_or(after);
    row.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn without_numbers(message: &str) -> String {
    let is_number = |word: &str| word.trim_start_matches(['-', '[', '(']).starts_with(|c: char| c.is_ascii_digit());
    message.split(' ').map(|word| if is_number(word) { "…" } else { word }).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, state: &str, message: &str) -> Refusal {
        let (state, message) = (state.to_owned(), message.to_owned());
        Refusal(mysql_async::Error::Server(mysql_async::ServerError { code, state, message }))
    }

    #[test]
    fn names_stay_and_values_go() {
        for (code, said, told) in [
            (1062, "Duplicate entry 'o'neill' for key 'users.email'", "Duplicate entry '…' for key 'users.email'"),
            (1062, "Duplicate entry 'x' for key 'secret' and more' for key 'k'", "Duplicate entry '…' for key 'k'"),
            (1406, "Data too long for column 'name' at row 3", "Data too long for column 'name' at row 3"),
            (1265, "Data truncated for column 'name' at row 3", "Data truncated for column 'name' at row 3"),
            (
                1366,
                "Incorrect string value: '\\xF0' for column 'name' at row 1",
                "Incorrect string value: '…' for column 'name' at row 1",
            ),
            (
                1366,
                "Incorrect integer value: 'secret' for column `a`.`t`.`n` at row 1",
                "Incorrect integer value: '…' for column `a`.`t`.`n` at row 1",
            ),
            (
                3140,
                "Invalid JSON text: \"Invalid value.\" at position 0 in value for column 't.j'.",
                "Invalid JSON text: \"Invalid value.\" at position 0 in value for column 't.j'.",
            ),
            (1048, "Column 'name' cannot be null", "Column 'name' cannot be null"),
            (1364, "Field 'name' doesn't have a default value", "Field 'name' doesn't have a default value"),
            (1292, "Incorrect datetime value: 'secret", "Incorrect datetime value: '…"),
            (1526, "Table has no partition for value 4711", "Table has no partition for value …"),
            (
                1526,
                "Table has no partition for value from column_list",
                "Table has no partition for value from column_list",
            ),
            (
                3617,
                "Latitude 91.500000 is out of range in function st_geomfromtext. It must be within [-90.000000, 90.000000].",
                "Latitude … is out of range in function st_geomfromtext. It must be within … …",
            ),
            (1213, "Deadlock found when trying to get lock", "Deadlock found when trying to get lock"),
            (
                1142,
                "INSERT command denied to user 'sync'@'localhost' for table 't'",
                "INSERT command denied to user 'sync'@'localhost' for table 't'",
            ),
        ] {
            let refusal = refusal(code, "HY000", said);
            assert_eq!(refusal.to_string(), format!("error {code} (HY000): {told}"));
            assert_eq!(refusal.kept(), refusal.to_string());
        }
    }

    /// Within a value that looks like one of the server's texts.
    #[test]
    fn nothing_is_told_of_a_text_that_is_cut_off() {
        let said = format!("Incorrect string value: '{}' for key 'secret", "x".repeat(LONGEST_TEXT));
        assert_eq!(refusal(1366, "HY000", &said).to_string(), "error 1366 (HY000): Incorrect string value: '…");
    }

    #[test]
    fn what_a_trigger_says_is_for_people_only() {
        for (code, state) in [(1644, "45000"), (1644, "02000"), (5_001, "45000"), (1142, "45001")] {
            let refusal = refusal(code, state, "ada@example.com is not welcome");
            assert!(!refusal.to_string().contains("ada"), "{refusal}");
            assert_eq!(refusal.kept(), format!("error {code} ({state}): ada@example.com is not welcome"));
        }
    }
}
