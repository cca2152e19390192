//! What to do about what a server, or the way to it, says. The one place where such errors are sorted, for both brands and
//! for every part: who holds a driver's error puts it into a [`Trouble`] and asks here.
//!
//! What nobody listed goes to a person: an error that is retried without being understood hides itself.

mod codes;

pub use codes::{Brand, KNOWN, KnownError};

/// What went wrong, in words that belong to no driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The server answered with this error number.
    Server(u16),
    /// A trigger or routine refused the row in words of its own, and under any number that it likes.
    Signalled,
    /// The connection broke, or was not to be had. Whether what was sent has arrived is not known.
    Connection,
    /// A value larger than what travels between client and server; it was not sent.
    TooLarge,
    /// Anything else: what a driver says of itself, or what it could not read.
    Other,
}

/// What a trouble is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Two transactions met: deadlock, lock wait. The transaction, or the statement alone, is undone.
    Collision,
    /// The server does not serve at the moment: busy, going down, read-only; or it has ended this session.
    Outage,
    /// The connection is gone; what became of the last word on it is open.
    Lost,
    /// What is in the row does not fit: its column, a check, a partition, a trigger's own rule.
    Value,
    /// Other rows are in the way: a unique value is taken, a parent is not there, or children are. Passes when they change.
    OtherRows,
    /// The account may not come in: unknown, locked, a wrong password, not from here or not without TLS.
    Login,
    /// The account may not do this.
    Denied,
    /// A table, column, schema, or what they need, is not there.
    Missing,
    /// No room: disk, table, or a cache that bounds a transaction.
    Full,
    /// Nobody listed it.
    Unknown,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Passes by itself within moments.
    RetryAtOnce,
    /// Passes by itself, in its own time.
    RetryLater,
    /// The transaction's end is unknown: read the checkpoint, then decide.
    OutcomeUnknown,
    /// Set the row aside; all others go on.
    Park,
    /// More than a row is wrong: the lane stops and a person must act.
    Stop,
}

impl Class {
    pub fn remedy(self) -> Remedy {
        match self {
            Class::Collision => Remedy::RetryAtOnce,
            Class::Outage => Remedy::RetryLater,
            Class::Lost => Remedy::OutcomeUnknown,
            Class::Value | Class::OtherRows => Remedy::Park,
            Class::Login | Class::Denied | Class::Missing | Class::Full | Class::Unknown => Remedy::Stop,
        }
    }
}

impl Remedy {
    /// Whether the same can succeed later without anybody doing something.
    pub fn passes(self) -> bool {
        matches!(self, Remedy::RetryAtOnce | Remedy::RetryLater | Remedy::OutcomeUnknown)
    }
}

/// What the trouble is about. Numbers that mean different things on the two brands are listed only where the other
/// brand's meaning cannot come up in what crossfade asks of a server.
pub fn sort(trouble: Trouble) -> Class {
    match trouble {
        Trouble::Server(code) => known(code).map_or(Class::Unknown, |known| known.class),
        Trouble::Connection => Class::Lost,
        Trouble::Signalled | Trouble::TooLarge => Class::Value,
        Trouble::Other => Class::Unknown,
    }
}

/// What a server answered: its error number and its SQLSTATE. States of class 45 are what `SIGNAL` alone sets, for conditions that
/// the server knows nothing of (MySQL manual, "SIGNAL Statement"); with them, the number is the trigger's choice and means nothing.
pub fn answered(code: u16, state: &str) -> Trouble {
    if state.starts_with("45") { Trouble::Signalled } else { Trouble::Server(code) }
}

/// A server's error number with its name, if it is listed.
pub fn known(code: u16) -> Option<&'static KnownError> {
    KNOWN.binary_search_by_key(&code, |known| known.code).ok().map(|place| &KNOWN[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_names_each_number_once() {
        assert!(KNOWN.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn what_is_not_listed_goes_to_a_person() {
        assert_eq!(sort(Trouble::Server(64_000)), Class::Unknown);
        assert_eq!(sort(Trouble::Other).remedy(), Remedy::Stop);
        assert!(KNOWN.iter().all(|known| known.class != Class::Unknown && known.class != Class::Lost));
    }

    #[test]
    fn what_a_trigger_signals_is_of_its_row_whatever_number_it_gives() {
        for code in [1001, 1146, 1205, 30_001] {
            assert_eq!(sort(answered(code, "45000")), Class::Value, "{code}");
            assert_eq!(answered(code, "HY000"), Trouble::Server(code));
        }
    }

    #[test]
    fn a_bad_world_never_fails_rows() {
        // Disk full, table missing, access denied.
        for code in [1021, 1114, 1142, 1143, 1146, 1044, 1049, 1054] {
            assert_eq!(sort(Trouble::Server(code)).remedy(), Remedy::Stop, "{code}");
        }
    }
}
