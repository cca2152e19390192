//! Somebody who watches a server closely.

use std::time::Duration;

use anyhow::Result;
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use tokio::task::JoinHandle;

/// Reads the list of transactions all the time, so that the server shows nobody anything new.
#[derive(Debug)]
pub struct Monitor(JoinHandle<Result<()>>);

impl Monitor {
    /// It has read the list when this returns.
    pub async fn start(pool: &Pool) -> Result<Monitor> {
        const READS: &str = "SELECT COUNT(*) FROM information_schema.innodb_trx";
        let mut conn = pool.get_conn().await?;
        conn.query_drop(READS).await?;
        Ok(Monitor(tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                conn.query_drop(READS).await?;
            }
        })))
    }

    /// Fails where it has not read all the time.
    pub async fn end(self) -> Result<()> {
        self.0.abort();
        match self.0.await {
            Err(aborted) if aborted.is_cancelled() => Ok(()),
            ended => ended?,
        }
    }
}
