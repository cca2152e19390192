//! What a server has committed, as it can be compared between servers.

use std::collections::BTreeMap;

use crate::{GtidSet, MariaDbGtidPosition, Position};

/// Everything that a server has committed or replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Executed {
    MySql(GtidSet),
    MariaDb(MariaDbState),
    /// A MySQL server without GTIDs, whose transactions nobody can name.
    Unknown,
}

/// The last sequence number of each MariaDB domain *and* server. Two servers that went apart have the same numbers in one
/// domain, written by different servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MariaDbState(BTreeMap<(u32, u32), u64>);

impl MariaDbState {
    /// Adds a list of GTIDs, as `gtid_binlog_state` and `gtid_slave_pos` have them. `None` if it cannot be read.
    pub fn add(&mut self, list: &str) -> Option<()> {
        for gtid in list.split(',').map(str::trim).filter(|gtid| !gtid.is_empty()) {
            let one: MariaDbGtidPosition = gtid.parse().ok()?;
            for (domain, (server, sequence)) in one.domains {
                let last = self.0.entry((domain, server)).or_default();
                *last = sequence.max(*last);
            }
        }
        Some(())
    }

    fn has(&self, domain: u32, server: u32, sequence: u64) -> bool {
        self.0.get(&(domain, server)).is_some_and(|last| *last >= sequence)
    }

    /// The last sequence number of a domain, whoever wrote it.
    fn last_of(&self, domain: u32) -> u64 {
        self.0.iter().filter(|((of, _), _)| *of == domain).map(|(_, last)| *last).max().unwrap_or(0)
    }
}

impl Executed {
    /// What of a position this server lacks, for people; `None` where it has all of it, and where nobody can tell.
    pub fn lacks(&self, position: &Position) -> Option<String> {
        let missing: Vec<String> = match (self, position) {
            (Executed::MySql(has), Position::MySql { executed }) => {
                let missing = executed.subtract(has);
                (!missing.is_empty()).then(|| missing.to_string()).into_iter().collect()
            }
            (Executed::MariaDb(has), Position::MariaDb { gtid }) => gtid
                .domains
                .iter()
                .filter(|(domain, (server, sequence))| !has.has(**domain, *server, *sequence))
                .map(|(domain, (server, sequence))| {
                    let of_server = has.0.get(&(*domain, *server)).copied();
                    gap(*domain, *server, of_server.unwrap_or_else(|| has.last_of(*domain)), *sequence)
                })
                .collect(),
            _ => Vec::new(),
        };
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    /// What of another server this one lacks, as [`Executed::lacks`]; also where nobody can tell.
    pub fn lacks_of(&self, other: &Executed) -> Option<String> {
        match (self, other) {
            (Executed::MySql(_), Executed::MySql(theirs)) => self.lacks(&Position::MySql { executed: theirs.clone() }),
            (Executed::MariaDb(has), Executed::MariaDb(theirs)) => {
                let missing: Vec<String> = theirs
                    .0
                    .iter()
                    .filter(|((domain, server), sequence)| !has.has(*domain, *server, **sequence))
                    .map(|((domain, server), sequence)| {
                        gap(*domain, *server, has.0.get(&(*domain, *server)).copied().unwrap_or(0), *sequence)
                    })
                    .collect();
                (!missing.is_empty()).then(|| missing.join(", "))
            }
            _ => Some("transactions without GTIDs".to_owned()),
        }
    }
}

/// Transactions of a server after one sequence number, to another; others of the domain may lie between them.
fn gap(domain: u32, server: u32, after: u64, to: u64) -> String {
    match after.saturating_add(1) {
        first if first >= to => format!("{domain}-{server}-{to}"),
        first => format!("{domain}-{server}-{first} to {to}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maria(lists: &[&str]) -> Executed {
        let mut state = MariaDbState::default();
        lists.iter().for_each(|list| state.add(list).unwrap());
        Executed::MariaDb(state)
    }

    fn at(gtid: &str) -> Position {
        Position::MariaDb { gtid: gtid.parse().unwrap() }
    }

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn mysql(intervals: &str) -> Executed {
        Executed::MySql(format!("{A}:{intervals}").parse().unwrap())
    }

    #[test]
    fn what_is_missing_is_named() {
        let position = Position::MySql { executed: format!("{A}:1-7").parse().unwrap() };
        assert_eq!(mysql("1-5").lacks(&position).unwrap(), format!("{A}:6-7"));
        assert_eq!(mysql("1-9").lacks(&position), None);
        assert_eq!(maria(&["0-1-100"]).lacks(&at("0-1-103")).unwrap(), "0-1-101 to 103");
        assert_eq!(maria(&["0-1-100"]).lacks(&at("0-1-101")).unwrap(), "0-1-101");
        assert_eq!(maria(&["0-1-100,0-2-110", "1-1-5"]).lacks(&at("0-1-100,1-1-4")), None);
    }

    #[test]
    fn the_same_number_by_another_server_is_another_transaction() {
        let promoted = maria(&["0-1-100,0-2-110"]);
        assert_eq!(promoted.lacks(&at("0-1-103")).unwrap(), "0-1-101 to 103");
        let former = maria(&["0-1-103"]);
        assert_eq!(promoted.lacks_of(&former).unwrap(), "0-1-101 to 103");
        assert_eq!(former.lacks_of(&promoted).unwrap(), "0-2-1 to 110");
        assert_eq!(promoted.lacks_of(&maria(&["0-1-99"])), None);
    }

    #[test]
    fn servers_without_gtids_cannot_be_compared() {
        assert!(Executed::Unknown.lacks_of(&Executed::Unknown).is_some());
        assert_eq!(Executed::Unknown.lacks(&at("0-1-1")), None);
        let mut state = MariaDbState::default();
        assert_eq!(state.add("0-1"), None);
    }
}
