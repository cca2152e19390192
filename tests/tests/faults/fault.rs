//! The table of faults: what is injected, what must hold.

use crossfade_testkit::proxy::Lost;
use crossfade_testkit::workload::Side;
use crossfade_tests::lines::{AWAY, KILLED, REPLACED};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGSTOP for longer than the lease, then SIGCONT.
    Frozen,
    /// SIGKILL of a process whose standby, for all it knows, is on another machine.
    KilledElsewhere,
    /// Somebody ends the lease of a process that runs.
    TwoReaders,
    SideKilled(Side),
    StoreKilled,
    Cut,
    HalfOpen(Lost),
    Slow,
    Pieces,
    Commits,
    Locks,
}

impl Fault {
    pub const ALL: [Fault; 15] = [
        Fault::Frozen,
        Fault::KilledElsewhere,
        Fault::TwoReaders,
        Fault::SideKilled(Side::Old),
        Fault::SideKilled(Side::New),
        Fault::StoreKilled,
        Fault::Cut,
        Fault::HalfOpen(Lost::Both),
        Fault::HalfOpen(Lost::Requests),
        Fault::HalfOpen(Lost::Answers),
        Fault::Slow,
        Fault::Pieces,
        Fault::Commits,
        Fault::Locks,
        // Once more at the end: nothing of before has left a trace.
        Fault::Cut,
    ];

    /// Whether it is part of the short form, which leaves out what is much like another one.
    pub fn is_quick(self) -> bool {
        !matches!(
            self,
            Fault::HalfOpen(Lost::Requests | Lost::Both)
                | Fault::KilledElsewhere
                | Fault::SideKilled(Side::Old)
                | Fault::Slow
        )
    }

    pub fn injected(self) -> &'static str {
        match self {
            Fault::Frozen => "the forward process is frozen (SIGSTOP) for longer than its lease, then goes on",
            Fault::KilledElsewhere => "kill -9 of the reverse process; its standby is on another machine",
            Fault::TwoReaders => "somebody ends a living process's lease: two processes at one binlog",
            Fault::SideKilled(Side::Old) => "kill -9 of old's server under load, and restart",
            Fault::SideKilled(Side::New) => "kill -9 of new's server under load, and restart",
            Fault::StoreKilled => "kill -9 of the store's server under load, and restart",
            Fault::Cut => "all connections cut, again and again",
            Fault::HalfOpen(Lost::Both) => "all connections half-open: both ways swallowed",
            Fault::HalfOpen(Lost::Requests) => "all connections half-open: requests swallowed",
            Fault::HalfOpen(Lost::Answers) => "all connections half-open: answers swallowed",
            Fault::Slow => "all connections slow (100 kB/s each)",
            Fault::Pieces => "all connections in pieces that overtake each other",
            Fault::Commits => "cut at COMMIT: answer lost, never sent, sent late; on old, new and store",
            Fault::Locks => "users lock rows in opposite orders, and one set for 8 s",
        }
    }

    pub fn must_hold(self) -> &'static str {
        match self {
            Fault::Frozen => "standby at work within 10 s, epoch rises; the old holder writes nothing and ends",
            Fault::KilledElsewhere => "standby at work within 10 s, epoch rises",
            Fault::TwoReaders => "each change captured once; the one without lease ends",
            Fault::SideKilled(_) | Fault::StoreKilled => "both processes live on and go on by themselves",
            Fault::HalfOpen(_) => "noticed, and new connections made, by themselves",
            Fault::Cut | Fault::Slow | Fault::Pieces | Fault::Commits => "both processes go on by themselves",
            Fault::Locks => "nothing is parked; both go on",
        }
    }

    /// Parts of WARN and ERROR lines that it is a reason for.
    pub fn lines(self) -> &'static [&'static str] {
        match self {
            Fault::Frozen | Fault::TwoReaders => REPLACED,
            Fault::KilledElsewhere => KILLED,
            Fault::Locks => &[],
            _ => AWAY,
        }
    }
}
