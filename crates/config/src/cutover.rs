//! `[cutover]`: how users are kept from writing while they change sides, and what must hold before that.

use std::time::Duration;

use crate::reader::Section;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutoverSettings {
    pub fence: Fence,
    /// With [`Fence::Account`]: whom the side keeps out, at least one.
    pub accounts: Vec<AccountName>,
    /// Users write nowhere for so long at most; then all is as before.
    pub timeout: Duration,
    /// Of the direction that is to be drained.
    pub max_lag: Duration,
    /// How long ago the last comparison of all rows may have begun.
    pub verified_within: Duration,
    /// Rows of each table that may be missing or different, as parts of a million.
    pub max_mismatch_ppm: u32,
    /// By flag alone nobody is kept from writing whom nobody knows.
    pub require_instances: bool,
    /// Sessions in which something is written that is not committed are ended so long after the fence; `None` for never.
    pub end_transactions_after: Option<Duration>,
}

/// What keeps users from writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Their applications, which follow the flag and say so.
    Flag,
    /// The side that they write to as well: `read_only`.
    ReadOnly,
    /// The side that they write to as well: it keeps their accounts out.
    Account,
}

/// An account of a server: who logs in, and from where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccountName {
    pub user: String,
    pub host: String,
}

impl AccountName {
    /// `user@host`; without a host, from everywhere.
    pub fn parse(text: &str) -> Option<AccountName> {
        let (user, host) = text.rsplit_once('@').unwrap_or((text, "%"));
        let is_name = !user.is_empty() && !host.is_empty();
        is_name.then(|| AccountName { user: user.to_owned(), host: host.to_owned() })
    }
}

impl std::fmt::Display for AccountName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

impl Fence {
    pub const ALL: [Fence; 3] = [Fence::Flag, Fence::ReadOnly, Fence::Account];

    pub fn as_str(self) -> &'static str {
        match self {
            Fence::Flag => "flag",
            Fence::ReadOnly => "read_only",
            Fence::Account => "account",
        }
    }
}

pub(crate) fn read(root: &mut Section) -> CutoverSettings {
    let mut section = root.section_or_empty("cutover", "[cutover]");
    let timeout = section.duration("timeout", Duration::from_secs(1), "10s");
    let ends = section.has("end_transactions_after");
    let after = section.duration("end_transactions_after", Duration::from_millis(100), "5s");
    if ends && after >= timeout {
        section.problem(
            section.line_of("end_transactions_after"),
            "`end_transactions_after` is not before the `timeout` of `[cutover]`, so it would end nothing",
            "name a shorter time, or raise `timeout`",
        );
    }
    let fence = section.one_of("fence", "a fence", &Fence::ALL.map(|fence| (fence.as_str(), fence)));
    let accounts = accounts(&mut section, fence);
    let cutover = CutoverSettings {
        fence,
        accounts,
        timeout,
        max_lag: section.duration("max_lag", Duration::from_millis(10), "2s"),
        verified_within: section.duration("verified_within", Duration::from_secs(1), "1h"),
        max_mismatch_ppm: section.share("max_mismatch", "0%"),
        require_instances: section.boolean("require_instances", true),
        end_transactions_after: ends.then_some(after),
    };
    section.finish();
    cutover
}

fn accounts(section: &mut Section, fence: Fence) -> Vec<AccountName> {
    const EXAMPLE: &str = "\"app@%\"";
    let is_there = section.has("account");
    let mut accounts = Vec::new();
    for (text, line) in section.one_or_more("account", EXAMPLE) {
        match AccountName::parse(&text) {
            Some(account) => accounts.push(account),
            None => section.problem(
                line,
                format!("`{text}` is no account"),
                format!("write it as the server lists it, such as `account = {EXAMPLE}`"),
            ),
        }
    }
    match (fence, is_there) {
        (Fence::Account, false) => section.missing("account", EXAMPLE),
        (Fence::Flag | Fence::ReadOnly, true) => section.problem(
            section.line_of("account"),
            "`account` is kept out by `fence = \"account\"` alone",
            "set that, or leave `account` out",
        ),
        _ => {}
    }
    accounts
}
