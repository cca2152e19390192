//! What a check finds.

use crossfade_model::Side;
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Syncing would fail or lose something: do not start.
    Error,
    /// Syncing works, but something that a person should know of may go wrong.
    Warning,
    Info,
}

/// One precondition that does not hold, or one fact worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// A short name that does not change, for scripts: `binlog-off`.
    pub code: &'static str,
    /// `None` where both sides, or the store, are meant.
    pub side: Option<Side>,
    /// What it is about: a table, an account, a setting.
    pub subject: String,
    pub message: String,
    /// What to do; for settings and privileges the exact SQL.
    pub remedy: String,
}

impl Finding {
    pub fn new(
        severity: Severity,
        code: &'static str,
        side: impl Into<Option<Side>>,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        let (subject, message, remedy) = (subject.into(), message.into(), remedy.into());
        Finding { severity, code, side: side.into(), subject, message, remedy }
    }
}

/// Everything that a check found, errors first, in an order that depends only on the findings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn new(mut findings: Vec<Finding>) -> Report {
        findings.sort();
        findings.dedup();
        Report { findings }
    }

    /// Whether something prevents syncing.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}
