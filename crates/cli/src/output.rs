//! Standard output, for what people and programs read.

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
    unless_closed(writeln!(stdout, "{text}"));
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
