//! Where a migration stands, and the read-write flag that tells applications so.

use serde::{Deserialize, Serialize};

use crate::Side;

/// Where a migration stands. Its number is the flag's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Users read and write old. Set by `init`.
    OldOnly,
    /// Users read old and write old; pilots may write new. Set by `flag set write_both` and by `rollback`.
    WriteBoth,
    /// Users read and write new; old is kept ready. Set by `cutover`.
    ReadNew,
    /// Only new is left. Set by `finish`; nothing leads back.
    NewOnly,
}

impl Phase {
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

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::OldOnly => "old_only",
            Phase::WriteBoth => "write_both",
            Phase::ReadNew => "read_new",
            Phase::NewOnly => "new_only",
        }
    }

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

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Phase {
    type Err = String;

    /// A name or a number.
    fn from_str(text: &str) -> Result<Phase, String> {
        let is_meant = |phase: &Phase| phase.as_str() == text || phase.flag().to_string() == text;
        let known = || Phase::ALL.map(|phase| format!("{} ({})", phase, phase.flag())).join(", ");
        Phase::ALL.into_iter().find(is_meant).ok_or_else(|| format!("no such phase; there are {}", known()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/cutover.md.
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
    }

    #[test]
    fn a_phase_is_parsed_by_name_and_by_number() {
        for phase in Phase::ALL {
            assert_eq!(phase.as_str().parse(), Ok(phase));
            assert_eq!(phase.flag().to_string().parse(), Ok(phase));
            assert_eq!(Phase::from_flag(phase.flag()), Some(phase));
        }
        assert!("read_old".parse::<Phase>().is_err_and(|error| error.contains("write_both (1)")));
        assert_eq!(Phase::from_flag(4), None);
    }
}
