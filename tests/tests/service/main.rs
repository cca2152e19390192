//! P9: a service in three instances, under load of its clients, changes sides and goes back while processes are killed; every
//! write that was acknowledged to a client is on the side in charge.

mod classic;
mod client;
mod faults;
mod finish;
mod instance;
mod ledger;
mod object_mapper;
mod operations;
mod stage;
mod there_and_back;
