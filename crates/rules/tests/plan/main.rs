//! Plans, against a small database in memory that checks keys after every statement.

mod cascades;
mod database;
mod dependence;
mod properties;
mod schema;
mod shapes;
