//! Findings about what is there beside definitions: why a table is missing, and which triggers fire.

use crossfade_model::{Side, TableName, TableShape};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::privileges::Account;
use super::{Finding, Severity};
use crate::CatalogError;

/// A synced table that is not there, or not a table.
pub(super) async fn missing_finding(conn: &mut Conn, side: Side, name: &TableName) -> Result<Finding, CatalogError> {
    let similar: Vec<(String, String, String)> = conn
        .exec(
            "SELECT table_schema, table_name, table_type FROM information_schema.tables
              WHERE LOWER(table_schema) = LOWER(?) AND LOWER(table_name) = LOWER(?) ORDER BY 1, 2",
            (&*name.schema, &*name.table),
        )
        .await
        .map_err(|source| CatalogError::Query { what: "the list of tables", source })?;
    let exact = similar.iter().find(|(schema, table, _)| **schema == *name.schema && **table == *name.table);
    let finding = |code, message: String, remedy: &str| {
        Finding::new(Severity::Error, code, side, name.to_string(), message, remedy)
    };
    Ok(match (exact, similar.first()) {
        (Some((_, _, kind)), _) => finding(
            "not-a-table",
            format!("{name} is not a plain table but a {}", kind.to_ascii_lowercase()),
            "name the tables below the view; system versioning must be dropped before a table can be synced",
        ),
        (None, Some((schema, table, _))) => finding(
            "table-missing",
            format!("{name} does not exist, but {schema}.{table} does"),
            "write the name as the server spells it, with `old` and `new` where the sides differ",
        ),
        (None, None) => {
            let create = if side == Side::New { "create it (`crossfade schema copy`)" } else { "create it" };
            let remedy = format!(
                "{create}, correct its name, grant the account SELECT on it, or leave it out with `skip = true` in a \
                 `[[table]]` of its own"
            );
            finding("table-missing", format!("{name} does not exist, or the account may not see it"), &remedy)
        }
    })
}

/// Triggers fire on crossfade's writes as on users'. One that runs before a write can change what is written.
pub(super) async fn trigger_findings(
    conn: &mut Conn,
    side: Side,
    account: &Account,
    shapes: &[&TableShape],
) -> Result<Vec<Finding>, CatalogError> {
    let mut findings = Vec::new();
    for shape in shapes {
        let name = &shape.name;
        let triggers: Vec<(String, String, String)> = conn
            .exec(
                "SELECT trigger_name, action_timing, event_manipulation FROM information_schema.triggers
                  WHERE event_object_schema = ? AND event_object_table = ? ORDER BY trigger_name",
                (&*name.schema, &*name.table),
            )
            .await
            .map_err(|source| CatalogError::Query { what: "triggers", source })?;
        for (trigger, timing, event) in triggers {
            let changes_rows = timing == "BEFORE" && event != "DELETE";
            let (severity, effect) = if changes_rows {
                (Severity::Error, "it can change the rows that crossfade writes")
            } else {
                (Severity::Warning, "it fires on crossfade's writes too, after it has fired on the other side")
            };
            findings.push(Finding::new(
                severity,
                "trigger",
                side,
                name.to_string(),
                format!("trigger `{trigger}` runs {timing} {event} on {name}: {effect}"),
                "drop it, or move its work into the application; what it writes on the other side is carried over anyway",
            ));
        }
    }
    if let Some(shape) = shapes.iter().find(|shape| !account.sees_triggers(&shape.name)) {
        findings.push(Finding::new(
            Severity::Warning,
            "triggers-unseen",
            side,
            shape.name.to_string(),
            "the account may not see triggers of all synced tables, so it is unknown whether there are any",
            account.trigger_grant(&shape.name),
        ));
    }
    Ok(findings)
}
