//! Findings about what accounts may do.

use std::collections::BTreeMap;

use crossfade_model::{Side, TableName, TableShape, quote_identifier};
use crossfade_rules::Class;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::grants::Grants;
use super::{Finding, Severity};
use crate::{CatalogError, Dialect, Flavor, class_of};

const ROW_PRIVILEGES: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];
/// Where tables are to be created with their foreign keys.
const CREATE_PRIVILEGES: [&str; 2] = ["CREATE", "REFERENCES"];
/// On crossfade's own schema of a side.
const NODE_PRIVILEGES: [&str; 8] = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "INDEX"];
/// And what the store's view needs.
const VIEW_PRIVILEGES: [&str; 2] = ["CREATE VIEW", "SHOW VIEW"];

pub(super) const OWN_SCHEMA: &str = "crossfade";

/// One connection's account, asked once.
pub(crate) struct Account {
    /// As a GRANT names it: `` `sync`@`%` ``.
    name: String,
    grants: Grants,
}

impl Account {
    pub(crate) async fn read(conn: &mut Conn, dialect: Dialect) -> Result<Account, CatalogError> {
        let query = |source| CatalogError::Query { what: "the account's privileges", source };
        let (user, role): (String, Option<String>) =
            conn.query_first("SELECT CURRENT_USER(), CURRENT_ROLE()").await.map_err(query)?.unwrap_or_default();
        let role = role.filter(|role| role != "NONE");
        let mut lines = Vec::new();
        match (dialect.flavor(), &role) {
            (Flavor::MySql, Some(roles)) => {
                lines.extend(grant_lines(conn, &format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}")).await?);
            }
            (Flavor::MariaDb, Some(_)) => {
                lines.extend(grant_lines(conn, "SHOW GRANTS").await?);
                lines.extend(grant_lines(conn, "SHOW GRANTS FOR CURRENT_ROLE").await?);
            }
            (_, None) => lines.extend(grant_lines(conn, "SHOW GRANTS").await?),
        }
        let (user, host) = user.rsplit_once('@').unwrap_or((&user, "%"));
        Ok(Account {
            name: format!("{}@{}", quote_identifier(user), quote_identifier(host)),
            grants: Grants::parse(lines.iter().map(String::as_str)),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn grants(&self) -> &Grants {
        &self.grants
    }

    /// What reading the binlog needs.
    pub(super) fn binlog_findings(&self, side: Side, dialect: Dialect) -> Option<Finding> {
        let needed = ["REPLICATION SLAVE", dialect.binlog_status_privilege()];
        let missing: Vec<&str> = needed.into_iter().filter(|privilege| !self.grants.has_global(privilege)).collect();
        self.missing(Some(side), &missing, "*.*", "read the binlog")
    }

    /// What crossfade's own schema needs.
    pub(super) fn own_schema_findings(&self, side: Option<Side>, is_store: bool) -> Option<Finding> {
        let views = VIEW_PRIVILEGES.iter().filter(|_| is_store);
        let missing: Vec<&str> = NODE_PRIVILEGES
            .iter()
            .chain(views)
            .copied()
            .filter(|privilege| !self.grants.has_on_schema(privilege, OWN_SCHEMA))
            .collect();
        let what = if is_store { "keep the message table" } else { "keep checkpoints" };
        self.missing(side, &missing, &format!("{}.*", quote_identifier(OWN_SCHEMA)), what)
    }

    /// What synced tables need. What `SHOW GRANTS` does not show is tried out before it is reported missing.
    pub(super) async fn table_findings(&self, conn: &mut Conn, side: Side, shapes: &[&TableShape]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for shape in shapes {
            let TableName { schema, table } = &shape.name;
            let mut missing = Vec::new();
            for privilege in ROW_PRIVILEGES {
                if !self.grants.has_on_table(privilege, schema, table) && !may(conn, privilege, shape).await {
                    missing.push(privilege);
                }
            }
            findings.extend(self.missing(Some(side), &missing, &shape.name.quoted(), "sync the table"));
        }
        findings
    }

    /// What is needed on tables that cannot be seen, one finding per schema; and what creating them on the new side needs,
    /// which somebody else may do.
    pub(super) fn unseen_findings(&self, side: Side, unseen: &[&TableName]) -> Vec<Finding> {
        let finding = |privileges: &[&'static str], purpose| {
            let missing = self.missing_by_schema(privileges, unseen).into_iter();
            let found = missing.filter_map(|(schema, missing)| {
                self.missing(Some(side), &missing, &format!("{}.*", quote_identifier(schema)), purpose)
            });
            found.collect::<Vec<Finding>>()
        };
        let mut findings = finding(&ROW_PRIVILEGES, "sync its tables");
        if side == Side::New {
            let creating = finding(&CREATE_PRIVILEGES, "create its tables (`crossfade schema copy`)");
            findings.extend(creating.into_iter().map(|finding| Finding { severity: Severity::Warning, ..finding }));
        }
        findings
    }

    fn missing_by_schema<'t>(
        &self,
        privileges: &[&'static str],
        tables: &[&'t TableName],
    ) -> BTreeMap<&'t str, Vec<&'static str>> {
        let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for name in tables {
            let lacks = |privilege: &&&str| !self.grants.has_on_table(privilege, &name.schema, &name.table);
            let of_schema = missing.entry(&*name.schema).or_default();
            for privilege in privileges.iter().filter(lacks) {
                if !of_schema.contains(privilege) {
                    of_schema.push(privilege);
                }
            }
        }
        missing
    }

    /// Without TRIGGER, `information_schema.triggers` looks empty.
    pub(super) fn sees_triggers(&self, name: &TableName) -> bool {
        self.grants.has_on_table("TRIGGER", &name.schema, &name.table)
    }

    pub(super) fn trigger_grant(&self, name: &TableName) -> String {
        format!("GRANT TRIGGER ON {}.* TO {};", quote_identifier(&name.schema), self.name)
    }

    fn missing(&self, side: Option<Side>, missing: &[&str], object: &str, purpose: &str) -> Option<Finding> {
        if missing.is_empty() {
            return None;
        }
        let list = missing.join(", ");
        Some(Finding::new(
            Severity::Error,
            "privilege-missing",
            side,
            object,
            format!("{} may not {purpose}: {list} missing on {object}", self.name),
            format!("GRANT {list} ON {object} TO {};", self.name),
        ))
    }
}

async fn grant_lines(conn: &mut Conn, statement: &str) -> Result<Vec<String>, CatalogError> {
    let what = "the account's privileges";
    conn.query(statement).await.map_err(|source| CatalogError::Query { what, source })
}

/// Lets the server judge, by a statement that changes nothing.
async fn may(conn: &mut Conn, privilege: &str, shape: &TableShape) -> bool {
    let table = shape.name.quoted();
    let column = shape.columns.iter().find(|column| !column.generated).map_or("", |column| column.name.as_str());
    let column = quote_identifier(column);
    let statement = match privilege {
        "SELECT" => format!("SELECT 1 FROM {table} LIMIT 0"),
        "INSERT" => format!("EXPLAIN INSERT INTO {table} ({column}) VALUES (DEFAULT({column}))"),
        "UPDATE" => format!("EXPLAIN UPDATE {table} SET {column} = NULL WHERE FALSE"),
        _ => format!("EXPLAIN DELETE FROM {table} WHERE FALSE"),
    };
    conn.query::<Row, _>(statement).await.is_ok()
}

/// Whether a query failed because the account may not ask.
pub(super) fn denied(error: &mysql_async::Error) -> bool {
    matches!(class_of(error), Class::Denied | Class::Login)
}
