//! The demonstration's data: a users database with what makes syncing hard: foreign keys, unique e-mails, JSON, enums,
//! money, binary values, a composite key.
//!
//! The same seed gives the same rows on every server, so both sides of a pair can be loaded alike.

mod rows;
mod schema;
mod signup;

use anyhow::{Context, Result};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

use crate::sql;
pub use signup::Signups;

/// Users whose rows are written as one transaction while loading.
const USERS_IN_A_BATCH: u64 = 500;
/// Orders of user `u` are numbered from `u * ORDERS_APART`, and so are addresses.
const ORDERS_APART: u64 = 4;

/// The tables, parents first.
pub const TABLES: [&str; 5] = ["users", "profiles", "addresses", "orders", "order_items"];
/// The column of every table that tells when a row was last changed.
pub const CLOCK: &str = "updated_at";

/// What to create and load.
#[derive(Debug, Clone)]
pub struct UserDb {
    pub schema: String,
    /// Users are numbered from 1 to this, inclusive.
    pub users: u64,
    pub seed: u64,
}

impl UserDb {
    /// Creates the schema and its empty tables. An existing schema of that name is dropped first.
    pub async fn create(&self, pool: &Pool) -> Result<()> {
        let mut connection = pool.get_conn().await.context("cannot connect to create the users database")?;
        let schema = sql::name(&self.schema);
        connection.query_drop(format!("DROP DATABASE IF EXISTS {schema}")).await?;
        connection.query_drop(format!("CREATE DATABASE {schema} CHARACTER SET utf8mb4")).await?;
        for statement in schema::statements(&self.schema) {
            connection.query_drop(&statement).await.with_context(|| format!("cannot run: {statement}"))?;
        }
        Ok(())
    }

    /// Loads every user with all rows that hang on it, and returns the number of rows. `progress` is told how many users are
    /// done. Loading twice fails on the keys.
    pub async fn load(&self, pool: &Pool, progress: impl Fn(u64)) -> Result<u64> {
        let mut connection = pool.get_conn().await.context("cannot connect to load the users database")?;
        // The generated rows hold; checking each one of them doubles the time.
        connection.query_drop("SET SESSION foreign_key_checks = 0, unique_checks = 0, time_zone = '+00:00'").await?;
        let mut loaded = 0;
        let mut first = 1;
        while first <= self.users {
            let last = (first + USERS_IN_A_BATCH - 1).min(self.users);
            let batch = rows::Batch::generate(self.seed, first..=last);
            connection.query_drop("BEGIN").await?;
            for statement in batch.statements(&self.schema) {
                connection.query_drop(statement).await.context("cannot load the users database")?;
            }
            connection.query_drop("COMMIT").await?;
            loaded += batch.rows();
            progress(last);
            first = last + 1;
        }
        connection.query_drop("SET SESSION foreign_key_checks = 1, unique_checks = 1").await?;
        Ok(loaded)
    }

    /// The ids of the orders that loading gives to `user`.
    pub fn order_ids(user: u64) -> std::ops::Range<u64> {
        let first = user * ORDERS_APART;
        first..first + rows::orders_of(user)
    }

    /// The e-mail address that loading gives to `user`.
    pub fn email(user: u64) -> String {
        format!("user{user}@example.com")
    }
}
