//! Standard output, for what people and programs read.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind, Write};

/// As `println!`. Whoever reads may have had enough, as `head` has: then the command ends there, and well.
macro_rules! out {
    ($($text:tt)*) => {
        $crate::output::line(format_args!($($text)*))
    };
}
pub(crate) use out;

pub fn line(text: fmt::Arguments<'_>) {
    let mut stdout = io::stdout().lock();
    unless_closed(writeln!(stdout, "{}", visible(&text.to_string())));
}

/// Names, values and what triggers say come from anybody: nothing of it shall move a terminal's cursor, colour what follows, or
/// turn it round. Lines stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if steers(c) { ' ' } else { c }).collect())
}

/// As [`visible`], and in one line: nothing shall look like several lines of a table.
pub fn one_line(text: &str) -> String {
    visible(text).replace('\n', " ")
}

/// Control characters, and those of Unicode that turn the direction of text (UAX #9, "Directional Formatting Characters").
fn steers(c: char) -> bool {
    c != '\n' && c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As `print!` with a flush.
pub fn part(text: &str) {
    let mut stdout = io::stdout().lock();
    unless_closed(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
}

fn unless_closed(written: io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("error: standard output cannot be written: {error}");
            std::process::exit(3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_taken_out() {
        assert_eq!(visible("a\x1b[2Jb\u{202e}c\r\nd\u{9b}"), "a [2Jb c \nd ");
        assert_eq!(one_line("reason\nforward/old:9 applied"), "reason forward/old:9 applied");
        assert!(matches!(visible("таблица 表 ñ 🦀"), Cow::Borrowed(_)));
    }
}
