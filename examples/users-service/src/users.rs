//! Users in both databases.

use anyhow::Context;
use axum::http::StatusCode;
use crossfade_flag::{FlagClient, Side, WriteGuard};
use mysql_async::prelude::Queryable;
use mysql_async::{Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, Transaction, TxOpts};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

#[derive(Debug, Clone, Deserialize)]
pub struct User {
    pub email: String,
    pub name: String,
}

pub enum Change {
    Add(User),
    Replace(u64, User),
}

/// A write that is committed: whoever checks afterwards knows where it was, and by which flag.
#[derive(Debug, Serialize)]
pub struct Written {
    pub id: u64,
    pub side: &'static str,
    pub flag_version: u64,
}

#[derive(Debug, Serialize)]
pub struct Read {
    pub id: u64,
    pub email: String,
    pub name: String,
    pub side: &'static str,
    pub flag_version: u64,
}

#[derive(Clone)]
pub struct Users {
    flag: FlagClient,
    old: Pool,
    new: Pool,
}

impl Users {
    /// Connects on first use.
    pub fn new(flag: FlagClient, old: &str, new: &str, connections: usize) -> anyhow::Result<Users> {
        let old = pool(old, connections).context("the address of the old database cannot be read")?;
        let new = pool(new, connections).context("the address of the new database cannot be read")?;
        Ok(Users { flag, old, new })
    }

    pub fn flag(&self) -> &FlagClient {
        &self.flag
    }

    fn pool(&self, side: Side) -> &Pool {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    /// `None`: there is no such user.
    pub async fn read(&self, id: u64) -> Result<Option<Read>, Failure> {
        // One look at the flag, so that side and version belong together.
        let flag = self.flag.flag()?;
        let side = if flag.phase.is_read_new() { Side::New } else { Side::Old };
        let reading = async {
            let mut connection = self.pool(side).get_conn().await?;
            connection.exec_first("SELECT id, email, name FROM users WHERE id = ?", (id,)).await
        };
        let found: Option<(u64, String, String)> = reading.await.map_err(|error| Failure::of(&error))?;
        let (side, flag_version) = (side.as_str(), flag.version);
        Ok(found.map(|(id, email, name)| Read { id, email, name, side, flag_version }))
    }

    /// Writes one side; crossfade carries it to the other one. What was begun goes on when its caller has gone, since a COMMIT
    /// that is under way must be waited for with the guard held.
    pub async fn write(&self, change: Change) -> Result<Written, Failure> {
        let users = self.clone();
        let writing = tokio::spawn(async move {
            let guard = users.flag.begin_write().await?;
            users.write_under(&guard, &change).await
        });
        writing.await.unwrap_or_else(|_| Err(Failure::Unknown("the write has failed in the service".to_owned())))
    }

    async fn write_under(&self, guard: &WriteGuard, change: &Change) -> Result<Written, Failure> {
        let late = || Failure::NotNow("the flag's server was not heard while this was written".to_owned());
        // Given up without COMMIT, it is rolled back.
        let (transaction, id) = tokio::select! {
            prepared = prepare(self.pool(guard.side()), change) => prepared?,
            () = guard.expired() => return Err(late()),
        };
        if !guard.is_still_valid() {
            let _ = transaction.rollback().await;
            return Err(late());
        }
        match transaction.commit().await {
            Ok(()) => Ok(Written { id, side: guard.side().as_str(), flag_version: guard.version() }),
            Err(error) => {
                let failure = Failure::of_commit(&error);
                if let Failure::Unknown(reason) = &failure {
                    eprintln!("whether a user was written to {} is not known: {reason}", guard.side());
                }
                Err(failure)
            }
        }
    }
}

/// Everything but COMMIT, and the user's id.
async fn prepare(pool: &Pool, change: &Change) -> Result<(Transaction<'static>, u64), Failure> {
    let failure = |error: mysql_async::Error| Failure::of(&error);
    let mut transaction = pool.start_transaction(TxOpts::new()).await.map_err(failure)?;
    match change {
        Change::Add(User { email, name }) => {
            let statement = "INSERT INTO users (email, name) VALUES (?, ?)";
            transaction.exec_drop(statement, (email, name)).await.map_err(failure)?;
            let missing =
                || Failure::Refused(StatusCode::INTERNAL_SERVER_ERROR, "`users.id` is not generated".to_owned());
            let id = transaction.last_insert_id().ok_or_else(missing)?;
            Ok((transaction, id))
        }
        Change::Replace(id, User { email, name }) => {
            let statement = "UPDATE users SET email = ?, name = ? WHERE id = ?";
            transaction.exec_drop(statement, (email, name, id)).await.map_err(failure)?;
            if transaction.affected_rows() == 0 {
                return Err(Failure::Refused(StatusCode::NOT_FOUND, "there is no such user".to_owned()));
            }
            Ok((transaction, *id))
        }
    }
}

fn pool(url: &str, connections: usize) -> anyhow::Result<Pool> {
    let constraints = PoolConstraints::new(0, connections).context("no connections")?;
    let options = OptsBuilder::from_opts(Opts::from_url(url)?)
        // A row that was the same already was found, too.
        .client_found_rows(true)
        .pool_opts(PoolOpts::new().with_constraints(constraints));
    Ok(Pool::new(options))
}
