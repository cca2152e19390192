//! A small database in memory that checks keys after every statement, and changes that its users make.

pub mod database;
pub mod schema;
