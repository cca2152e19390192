//! Writing a workload to a server.

use anyhow::Result;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::zipf::Zipf;
use super::{FINISH_TABLE, LARGE_TRANSACTIONS, Part, ROW_BYTES, SCHEMA, Workload};
use crate::{mixed, row};

/// Statements in one packet, or rows in one statement.
const AT_ONCE: u64 = 500;
const SEED: u64 = 2026;

/// Creates the tables and what is in them before the workload, without a trace in the binlog.
pub async fn load_base(conn: &mut Conn, workload: Workload) -> Result<()> {
    conn.query_drop("SET sql_log_bin = 0").await?;
    conn.query_drop(format!("CREATE DATABASE {SCHEMA}")).await?;
    for statement in workload.tables().iter().map(String::as_str).chain(FINISH_TABLE) {
        conn.query_drop(statement).await?;
    }
    insert_many(conn, 1..workload.base_rows() + 1, ROW_BYTES).await?;
    if matches!(workload, Workload::Mixed | Workload::Both) {
        for statement in mixed::base(&mut StdRng::seed_from_u64(SEED)) {
            conn.query_drop(statement).await?;
        }
    }
    // A table that lives has statistics; one that was filled a moment ago may not, and is then read from end to end.
    let tables: Vec<String> = conn.query(format!("SHOW TABLES FROM {SCHEMA}")).await?;
    for table in tables {
        conn.query_drop(format!("ANALYZE TABLE {SCHEMA}.{table}")).await?;
    }
    conn.query_drop("SET sql_log_bin = 1").await?;
    Ok(())
}

/// Writes the changes of a part, and the row that says that it is over.
pub async fn write(conn: &mut Conn, workload: Workload, part: Part, rows: u64) -> Result<()> {
    let changes = workload.changes(rows) / workload.parts().len() as u64;
    match workload {
        Workload::Inserts => insert_singly(conn, changes).await?,
        Workload::Updates => update_singly(conn, changes).await?,
        Workload::Mixed | Workload::Both => {
            let mut random = StdRng::seed_from_u64(SEED);
            write_singly(conn, changes / mixed::CHANGES, |_| mixed::transaction(&mut random, part.ids)).await?;
        }
        Workload::Large => insert_in_large_transactions(conn, changes, ROW_BYTES).await?,
    }
    conn.query_drop(part.finish()).await?;
    Ok(())
}

/// Ten transactions with `rows` rows of about `row_bytes` together.
pub async fn insert_in_large_transactions(conn: &mut Conn, rows: u64, row_bytes: usize) -> Result<()> {
    for number in 0..LARGE_TRANSACTIONS {
        let ids = number * rows / LARGE_TRANSACTIONS + 1..(number + 1) * rows / LARGE_TRANSACTIONS + 1;
        conn.query_drop("BEGIN").await?;
        insert_many(conn, ids, row_bytes).await?;
        conn.query_drop("COMMIT").await?;
    }
    Ok(())
}

async fn insert_singly(conn: &mut Conn, rows: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(SEED);
    write_singly(conn, rows, |id| format!("{}{}", row::INSERT, row::values(id, ROW_BYTES, &mut random))).await
}

async fn update_singly(conn: &mut Conn, rows: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(SEED);
    let zipf = Zipf::new(Workload::Updates.base_rows());
    write_singly(conn, rows, |_| {
        let id = zipf.choose(&mut random);
        format!("UPDATE bench.account SET balance = balance + 0.25, version = version + 1 WHERE id = {id}")
    })
    .await
}

/// Many transactions travel together; each is one of its own.
async fn write_singly(conn: &mut Conn, transactions: u64, mut transaction: impl FnMut(u64) -> String) -> Result<()> {
    for first in (1..=transactions).step_by(AT_ONCE as usize) {
        let together: Vec<String> = (first..=transactions.min(first + AT_ONCE - 1)).map(&mut transaction).collect();
        conn.query_drop(together.join(";")).await?;
    }
    Ok(())
}

async fn insert_many(conn: &mut Conn, ids: std::ops::Range<u64>, row_bytes: usize) -> Result<()> {
    let mut random = StdRng::seed_from_u64(SEED ^ ids.start);
    for first in ids.clone().step_by(AT_ONCE as usize) {
        let rows: Vec<String> =
            (first..ids.end.min(first + AT_ONCE)).map(|id| row::values(id, row_bytes, &mut random)).collect();
        conn.query_drop(format!("{}{}", row::INSERT, rows.join(","))).await?;
    }
    Ok(())
}
