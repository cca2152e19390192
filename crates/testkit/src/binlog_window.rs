//! Row events on user tables in a stretch of a server's binlog, as the server itself lists them.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Pool, Row};

/// A place in a server's binlog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub offset: u64,
}

/// The server's end of binlog.
pub async fn now(pool: &Pool) -> Result<Place> {
    let mut connection = pool.get_conn().await?;
    end(&mut connection).await
}

async fn end(connection: &mut Conn) -> Result<Place> {
    // MySQL 8.4 took the old statement away; MariaDB 10.5 and MySQL 8.0 know it still.
    let row: Option<Row> = match connection.query_first("SHOW BINARY LOG STATUS").await {
        Ok(row) => row,
        Err(_) => connection.query_first("SHOW MASTER STATUS").await?,
    };
    let row = row.context("the server writes no binlog")?;
    let file = row.get(0).context("no binlog file in the server's answer")?;
    let offset = row.get(1).context("no binlog offset in the server's answer")?;
    Ok(Place { file, offset })
}

/// Row events per table (`schema.table`) from `since` to now, without those on `ignored_schemas`.
///
/// Compressed transactions hide their row events from the server's listing: the tests' servers do not compress.
pub async fn row_events(pool: &Pool, since: &Place, ignored_schemas: &[&str]) -> Result<BTreeMap<String, u64>> {
    let mut connection = pool.get_conn().await?;
    let files: Vec<Row> = connection.query("SHOW BINARY LOGS").await?;
    let mut files: Vec<String> = files.iter().filter_map(|row| row.get(0)).collect();
    files.retain(|file| *file >= since.file);
    let mut counts = BTreeMap::new();
    for file in files {
        let from = if file == since.file { since.offset } else { 4 };
        let sql = format!("SHOW BINLOG EVENTS IN '{file}' FROM {from}");
        let events: Vec<Row> =
            connection.query(sql).await.with_context(|| format!("cannot list the events of {file}"))?;
        count(&events, ignored_schemas, &mut counts);
    }
    Ok(counts)
}

fn count(events: &[Row], ignored_schemas: &[&str], counts: &mut BTreeMap<String, u64>) {
    let mut tables: HashMap<String, String> = HashMap::new();
    for event in events {
        let kind: String = event.get(2).unwrap_or_default();
        // MariaDB shows statements beside their rows, with whatever bytes they hold.
        let info: Vec<u8> = event.get(5).unwrap_or_default();
        let info = String::from_utf8_lossy(&info);
        if kind.eq_ignore_ascii_case("table_map") {
            if let Some((id, name)) = table_map(&info) {
                tables.insert(id, name);
            }
        } else if is_row_event(&kind) {
            let name = table_id(&info).and_then(|id| tables.get(id)).cloned().unwrap_or_else(|| "unknown".to_owned());
            if !ignored_schemas.iter().any(|schema| name.split('.').next() == Some(*schema)) {
                *counts.entry(name).or_default() += 1;
            }
        }
    }
}

fn is_row_event(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    ["write_rows", "update_rows", "delete_rows", "transaction_payload"].iter().any(|start| kind.starts_with(start))
}

/// `table_id: 92 (app.users)`
fn table_map(info: &str) -> Option<(String, String)> {
    let name = info.split_once('(')?.1.split(')').next()?;
    Some((table_id(info)?.to_owned(), name.to_owned()))
}

fn table_id(info: &str) -> Option<&str> {
    info.strip_prefix("table_id: ")?.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listing_is_understood() {
        assert_eq!(table_map("table_id: 92 (app.users)"), Some(("92".into(), "app.users".into())));
        assert_eq!(table_id("table_id: 92 flags: STMT_END_F"), Some("92"));
        assert!(is_row_event("Update_rows_v1") && is_row_event("Write_rows") && !is_row_event("Write_format"));
    }
}
