//! The stream of transactions, on real servers.

mod bench;
mod compressed;
mod forms;
mod origin;
mod outages;
mod stops;
mod transactions;
