//! The stream of transactions, on real servers.

mod accounts;
mod bench;
mod compressed;
mod forms;
mod origin;
mod outages;
mod relay;
mod retention;
mod stops;
mod transactions;
