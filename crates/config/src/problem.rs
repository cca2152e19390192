//! What is wrong with a configuration.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that a person has to correct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    /// From 1; `None` where the file as a whole is meant.
    pub line: Option<usize>,
    /// What is wrong, as a fragment: ``unknown key `tabel` ``.
    pub message: String,
    /// What to do about it, as a fragment.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}\n  remedy: {}", self.message, self.remedy)
    }
}

/// Everything that is wrong with a configuration, in the order of its lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", list(.0))]
pub struct Problems(Vec<Problem>);

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

impl Problems {
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Gathers problems of one file while it is read.
pub(crate) struct Collector {
    file: PathBuf,
    /// Offsets at which lines start, so that a span becomes a line number.
    line_starts: Vec<usize>,
    problems: Vec<Problem>,
}

impl Collector {
    pub(crate) fn new(file: &Path, text: &str) -> Collector {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        Collector {
            file: file.to_owned(),
            line_starts: std::iter::once(0).chain(breaks).collect(),
            problems: Vec::new(),
        }
    }

    /// The line, from 1, that holds a byte.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    pub(crate) fn add(&mut self, line: usize, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Some(line), message.into(), remedy.into());
    }

    pub(crate) fn add_for_file(&mut self, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(None, message.into(), remedy.into());
    }

    fn push(&mut self, line: Option<usize>, message: String, remedy: String) {
        self.problems.push(Problem { file: self.file.clone(), line, message, remedy });
    }

    /// `value` if nothing was wrong. A `None` without a problem cannot happen: whoever leaves something out says why.
    pub(crate) fn finish<T>(mut self, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => {
                self.problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
                self.problems.dedup();
                Err(Problems(self.problems))
            }
        }
    }
}
