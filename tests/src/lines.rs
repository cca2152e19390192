//! What processes say of faults that tests make, for [`Migration::expect_lines`](crate::Migration::expect_lines): each is tried
//! again, so none is more than a WARN, but for what ends a process that was replaced.

/// A server, or the way to it, goes away for a while.
pub const AWAY: &[&str] = &[
    "binlog connection lost",
    "the source cannot be read; trying again",
    "the store is away",
    "applying failed; trying again",
    "applying failed; beginning again",
    "the target does not tell whether a transaction was committed; asking again",
    "messages cannot be read; trying again",
    "settling waits for the store",
    "the heartbeat on the target failed; trying again",
    "the store cannot be read; trying again",
    "the lease could not be renewed; trying again",
    "the stream has moved on meanwhile; reading again from there",
    "the store could not say which clocks still matter",
    "the store cannot be told which messages are not set aside any more; trying again",
    "the backlog could not be measured anew",
    "messages could not be given up; trying again",
    "the target cannot be read; trying again",
    "old tombstones could not be purged",
    "the checkpoints could not be taken over; trying again",
    "the stream could not be taken over; trying again",
    "the reason could not be kept in the store",
    "; waiting for it",
];

/// A process is killed: the next one waits until the servers have dropped its sessions, and their locks.
pub const KILLED: &[&str] =
    &["the checkpoints could not be taken over; trying again", "the stream could not be taken over; trying again"];

/// A process finds that another one has its lease. Where it was frozen, its sessions were dropped meanwhile.
pub const REPLACED: &[&str] = &[
    "error: another process has taken",
    "was taken over",
    "the stream has moved on meanwhile; reading again from there",
    "binlog connection lost",
    "the store is away",
    "the store cannot be read; trying again",
    "applying failed; trying again",
    "the target does not tell whether a transaction was committed; asking again",
    "the heartbeat on the target failed; trying again",
    "the lease could not be renewed; trying again",
    "messages cannot be read; trying again",
    "settling waits for the store",
    "some work did not end in time and is cut off",
    "the checkpoints could not be taken over; trying again",
    "the stream could not be taken over; trying again",
    "old tombstones could not be purged",
];

/// Another server takes a primary's place, or a replica falls behind.
pub const MOVED: &[&str] = &[
    "no server of the side takes writes; waiting for one",
    "another server of the side takes writes now",
    "a replica does not get what its primary has; it is not read from",
    "the binlog is read from another server now",
    "the replica has not got a heartbeat of its primary yet",
    "the source may soon purge what is not read yet",
];
