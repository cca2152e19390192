//! What the flag says.

use std::fmt;

/// One of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Old,
    New,
}

impl Side {
    /// `old` or `new`.
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

/// Where the migration stands. Its number is the flag's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// 0: read old, write old.
    OldOnly,
    /// 1: read old, write old; pilots may write new.
    WriteBoth,
    /// 2: read new, write new; old is kept ready.
    ReadNew,
    /// 3: only new is left.
    NewOnly,
}

impl Phase {
    /// In their order.
    pub const ALL: [Phase; 4] = [Phase::OldOnly, Phase::WriteBoth, Phase::ReadNew, Phase::NewOnly];

    /// 0 to 3.
    pub fn flag(self) -> u8 {
        match self {
            Phase::OldOnly => 0,
            Phase::WriteBoth => 1,
            Phase::ReadNew => 2,
            Phase::NewOnly => 3,
        }
    }

    /// `None` for what is no value of the flag.
    pub fn from_flag(flag: u8) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| phase.flag() == flag)
    }

    /// `old_only`, `write_both`, `read_new` or `new_only`.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::OldOnly => "old_only",
            Phase::WriteBoth => "write_both",
            Phase::ReadNew => "read_new",
            Phase::NewOnly => "new_only",
        }
    }

    /// Whether to read the new side; else the old one.
    pub fn is_read_new(self) -> bool {
        matches!(self, Phase::ReadNew | Phase::NewOnly)
    }

    /// Of an application that writes both sides itself; one that writes one side asks [`Phase::writes_to`].
    pub fn is_write_old(self) -> bool {
        self != Phase::NewOnly
    }

    /// As [`Phase::is_write_old`].
    pub fn is_write_new(self) -> bool {
        self != Phase::OldOnly
    }

    /// The side that an application writes that leaves the other one to crossfade.
    pub fn writes_to(self) -> Side {
        if self.is_read_new() { Side::New } else { Side::Old }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The flag as it was at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flag {
    /// One more with each change.
    pub version: u64,
    pub phase: Phase,
    /// Nobody writes anywhere for a moment: the flag is about to change.
    pub fenced: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/flag.md.
    #[test]
    fn the_truth_table_of_the_flag() {
        let told = Phase::ALL.map(|phase| {
            (phase.flag(), phase.is_read_new(), phase.is_write_old(), phase.is_write_new(), phase.writes_to())
        });
        let expected = [
            (0, false, true, false, Side::Old),
            (1, false, true, true, Side::Old),
            (2, true, true, true, Side::New),
            (3, true, false, true, Side::New),
        ];
        assert_eq!(told, expected);
        assert_eq!(Phase::ALL.map(|phase| Phase::from_flag(phase.flag())), Phase::ALL.map(Some));
        assert_eq!(Phase::from_flag(4), None);
    }
}
