//! P1, P2 and P3 where the server that is read is not the one that is written to, or not the one that it was: a primary that
//! dies and whose replica is promoted, servers that went apart, a primary whose binlog cannot be read, binlogs that are purged.

mod checked;
mod fail_over;
mod ledger;
mod lost;
mod purged;
mod stage;
mod unread_primary;
