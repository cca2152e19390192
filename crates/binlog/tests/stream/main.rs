//! The stream of transactions, on real servers.

mod accounts;
mod bench;
mod compressed;
mod forms;
mod origin;
mod outages;
mod relay;
mod stops;
mod transactions;
