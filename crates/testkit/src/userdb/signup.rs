//! Users who sign up while a demonstration runs, each by one transaction that the caller commits.

use std::collections::BTreeMap;

use anyhow::Result;
use mysql_async::prelude::Queryable;
use mysql_async::{Error, Pool};

use crate::sql;

/// E-mail addresses of nobody else begin so.
const START: &str = "signup-";

#[derive(Debug, Clone)]
pub struct Signups {
    users: String,
}

impl Signups {
    pub fn new(schema: &str) -> Signups {
        Signups { users: sql::full_name(schema, "users") }
    }

    /// The address of a writer's user.
    pub fn email(writer: usize, number: u64) -> String {
        format!("{START}{writer}-{number}@example.com")
    }

    pub async fn add(&self, conn: &mut impl Queryable, email: &str, name: &str) -> Result<(), Error> {
        let statement = format!("INSERT INTO {} (email, name, created_at) VALUES (?, ?, NOW(6))", self.users);
        conn.exec_drop(statement, (email, name)).await
    }

    pub async fn rename(&self, conn: &mut impl Queryable, email: &str, name: &str) -> Result<(), Error> {
        conn.exec_drop(format!("UPDATE {} SET name = ? WHERE email = ?", self.users), (name, email)).await
    }

    /// Whether a transaction was rolled back for a reason that passes.
    pub fn may_be_repeated(error: &Error) -> bool {
        // ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK, and MariaDB's ER_CHECKREAD.
        matches!(error, Error::Server(server) if matches!(server.code, 1205 | 1213 | 1020))
    }

    /// The names of all of them on a side, by address.
    pub async fn names(&self, pool: &Pool) -> Result<BTreeMap<String, String>> {
        let mut conn = pool.get_conn().await?;
        let question = format!("SELECT email, name FROM {} WHERE email LIKE '{START}%'", self.users);
        let rows: Vec<(String, String)> = conn.query(question).await?;
        Ok(rows.into_iter().collect())
    }
}
