//! Findings that need questions to the server whose binlog is read: filters, open XA transactions, growth.

use std::collections::BTreeSet;

use crossfade_config::Settings;
use crossfade_model::Side;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::privileges::{OWN_SCHEMA, denied};
use super::{Finding, Severity};
use crate::{CatalogError, Dialect, Flavor};

/// Compressed message blocks against the binlog that they were captured from. Messages of 530 image bytes took 83 bytes;
/// other data is less alike, so this is the cautious side.
const STORE_BYTES_PER_BINLOG_BYTE: f64 = 0.25;

/// Schemas that `binlog-do-db` leaves out or `binlog-ignore-db` names. In row format the schema of the table decides.
pub(super) async fn filter_findings(
    conn: &mut Conn,
    dialect: Dialect,
    side: Side,
    synced_schemas: &BTreeSet<&str>,
) -> Result<Vec<Finding>, CatalogError> {
    let status: Option<Row> = match conn.query_first(dialect.binlog_status()).await {
        // The missing privilege is reported for itself.
        Err(error) if denied(&error) => None,
        result => result.map_err(|source| CatalogError::Query { what: "the binlog's status", source })?,
    };
    let list = |index: usize| -> Vec<String> {
        let text = status.as_ref().and_then(|row| row.get_opt::<String, _>(index)?.ok()).unwrap_or_default();
        text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    };
    let (logged, ignored) = (list(2), list(3));
    let hidden = |schema: &str| {
        (!logged.is_empty() && !logged.iter().any(|name| name == schema)) || ignored.iter().any(|name| name == schema)
    };
    let own = std::iter::once(OWN_SCHEMA);
    let findings = own.chain(synced_schemas.iter().copied()).filter(|schema| hidden(schema)).map(|schema| {
        let why = if schema == OWN_SCHEMA {
            "without its checkpoint rows, crossfade would take its own writes for users'"
        } else {
            "its changes cannot be seen"
        };
        Finding::new(
            Severity::Error,
            "binlog-filter",
            side,
            schema,
            format!("the binlog leaves out schema `{schema}`: {why}"),
            format!("remove `{schema}` from `binlog-ignore-db`, or add it to `binlog-do-db`, and restart the server"),
        )
    });
    Ok(findings.collect())
}

/// XA transactions that somebody prepared and left.
pub(super) async fn prepared_findings(
    conn: &mut Conn,
    dialect: Dialect,
    side: Side,
    account: &str,
) -> Result<Vec<Finding>, CatalogError> {
    let rows: Vec<Row> = match conn.query(dialect.prepared_transactions()).await {
        Ok(rows) => rows,
        Err(error) if denied(&error) || is_resource_manager_error(&error) => {
            let privilege = if dialect.flavor() == Flavor::MySql { "XA_RECOVER_ADMIN" } else { "SUPER" };
            return Ok(vec![Finding::new(
                Severity::Info,
                "prepared-transactions-unseen",
                side,
                "XA",
                "the account may not list prepared XA transactions, so it is unknown whether there are any",
                format!("GRANT {privilege} ON *.* TO {account};"),
            )]);
        }
        Err(source) => return Err(CatalogError::Query { what: "prepared XA transactions", source }),
    };
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let (count, them) = (rows.len(), if rows.len() == 1 { "transaction is" } else { "transactions are" });
    Ok(vec![Finding::new(
        Severity::Warning,
        "prepared-transactions",
        side,
        "XA",
        format!("{count} XA {them} prepared and not decided: the rows stay locked, and the changes wait in the binlog"),
        format!("end each with XA COMMIT or XA ROLLBACK; list them with {}", dialect.prepared_transactions()),
    )])
}

/// How MySQL refuses XA RECOVER without the privilege (MySQL error reference: ER_XAER_RMERR).
fn is_resource_manager_error(error: &mysql_async::Error) -> bool {
    matches!(error, mysql_async::Error::Server(error) if error.code == 1401)
}

/// Bytes in all of a server's binlog files; `None` where the account may not ask or the binlog is off.
pub async fn binlog_bytes(conn: &mut Conn, dialect: Dialect) -> Option<u64> {
    let rows: Vec<Row> = conn.query(dialect.binlog_files()).await.ok()?;
    rows.iter().map(|row| row.get_opt::<u64, _>(1)?.ok()).sum()
}

/// What the store will need, from what both sides write now, in bytes a second.
pub(super) fn growth_finding(settings: &Settings, old: Option<u64>, new: Option<u64>) -> Option<Finding> {
    let written = old?.saturating_add(new?);
    let a_day = written as f64 * 86_400.0 * STORE_BYTES_PER_BINLOG_BYTE;
    let days = settings.store.retention.as_secs_f64() / 86_400.0;
    Some(Finding::new(
        Severity::Info,
        "store-growth",
        None,
        "store",
        format!(
            "old writes {} and new {} a second into the binlog just now, crossfade's own writes included; the store \
             would grow by about {} a day, to about {} over its retention",
            bytes_text(old? as f64),
            bytes_text(new? as f64),
            bytes_text(a_day),
            bytes_text(a_day * days),
        ),
        "have that much room where the store is; repeat `check` at the busiest hour",
    ))
}

fn bytes_text(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_fits() {
        let shown: Vec<String> = [0.0, 1023.0, 1536.0, 5.0 * 1024.0 * 1024.0, 1e18].map(bytes_text).to_vec();
        assert_eq!(shown, ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "909494.7 TiB"]);
    }
}
