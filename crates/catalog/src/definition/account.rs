//! Accounts and what they may do. What an account proves itself with is never kept: MariaDB prints it among the grants.

use std::collections::{BTreeMap, BTreeSet};

use crossfade_model::{TableName, quote_identifier};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::check::grants::{like, split_list, split_outside_quotes, unquote};
use crate::{CatalogError, Dialect};

/// User, host, plugin, locked, TLS, role: as [`Dialect::accounts`] selects them.
type AccountRow = (String, String, Option<String>, String, Option<String>, String);

/// ER_NONEXISTING_GRANT.
const NO_SUCH_GRANT: u16 = 1141;

/// An account or a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountDefinition {
    /// `app@%`; a role of MariaDB without a host.
    pub name: String,
    /// How it proves itself, whether it is locked.
    pub attributes: BTreeMap<String, String>,
    pub grants: Vec<Grant>,
}

/// What is granted on one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub scope: GrantScope,
    /// In upper case; of a privilege on columns, with the columns. `GRANT OPTION` is one of them.
    pub privileges: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum GrantScope {
    Everything,
    /// The name may hold the wildcards `%` and `_`, escaped by a backslash.
    Schema(String),
    Table(TableName),
    /// `PROCEDURE` or `FUNCTION`, and which.
    Routine(String, TableName),
    /// What is granted are roles.
    Roles,
    /// What MySQL takes out of a privilege on everything.
    Revoked(String),
}

impl GrantScope {
    /// Whether it has to do with a schema by itself, not only as one of all.
    pub fn is_on_schema(&self, schema: &str) -> bool {
        match self {
            GrantScope::Everything | GrantScope::Roles => false,
            GrantScope::Schema(pattern) | GrantScope::Revoked(pattern) => pattern == schema || like(pattern, schema),
            GrantScope::Table(name) | GrantScope::Routine(_, name) => *name.schema == *schema,
        }
    }
}

/// All accounts but the server's own.
///
/// # Errors
///
/// [`CatalogError::Query`], where the account may not read the schema `mysql`.
pub async fn account_definitions(conn: &mut Conn, dialect: Dialect) -> Result<Vec<AccountDefinition>, CatalogError> {
    let query = |source| CatalogError::Query { what: "accounts", source };
    let rows: Vec<AccountRow> = conn.query(dialect.accounts()).await.map_err(query)?;
    let mut accounts = Vec::new();
    for (user, host, plugin, locked, tls, is_role) in rows {
        let is_role = is_role == "1";
        let user_name = if user.is_empty() { "''".to_owned() } else { quote_identifier(&user) };
        let quoted = if is_role { user_name } else { format!("{user_name}@{}", quote_identifier(&host)) };
        let lines: Vec<String> = match conn.query(format!("SHOW GRANTS FOR {quoted}")).await {
            // In the table, and of no effect: a host by its name on a server that resolves none (`skip_name_resolve`).
            Err(mysql_async::Error::Server(error)) if error.code == NO_SUCH_GRANT => continue,
            lines => lines.map_err(query)?,
        };
        let told = [
            ("proves itself by", plugin.filter(|_| !is_role)),
            ("locked", Some(if locked == "1" { "yes" } else { "no" }.to_owned())),
            ("TLS", tls),
        ];
        let told = told.into_iter().filter_map(|(what, value)| Some((what, value.filter(|value| !value.is_empty())?)));
        accounts.push(AccountDefinition {
            name: if is_role { user } else { format!("{user}@{host}") },
            attributes: told.map(|(what, value)| (what.to_owned(), value)).collect(),
            grants: grants(lines.iter().map(String::as_str)),
        });
    }
    Ok(accounts)
}

/// One entry per object.
fn grants<'l>(lines: impl IntoIterator<Item = &'l str>) -> Vec<Grant> {
    let mut by_scope: BTreeMap<GrantScope, BTreeSet<String>> = BTreeMap::new();
    for (scope, privileges) in lines.into_iter().filter_map(grant) {
        by_scope.entry(scope).or_default().extend(privileges);
    }
    let granted = by_scope.into_iter().filter(|(_, privileges)| !privileges.is_empty());
    granted.map(|(scope, privileges)| Grant { scope, privileges }).collect()
}

/// ``GRANT SELECT, INSERT (`a`) ON `app`.* TO `sync`@`%` IDENTIFIED BY PASSWORD '…' WITH GRANT OPTION``: of what follows TO only
/// the option is kept.
fn grant(line: &str) -> Option<(GrantScope, BTreeSet<String>)> {
    let (is_revoked, rest) = match line.strip_prefix("GRANT ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("REVOKE ")?),
    };
    let (given, to) = split_outside_quotes(rest, if is_revoked { " FROM " } else { " TO " })?;
    let mut privileges = BTreeSet::new();
    let scope = match split_outside_quotes(given, " ON ") {
        Some((list, object)) => {
            privileges.extend(split_list(list).into_iter().map(privilege).filter(|privilege| privilege != "USAGE"));
            scope(object, is_revoked)?
        }
        None => {
            privileges.extend(split_list(given).into_iter().map(|role| role.trim().replace('`', "")));
            GrantScope::Roles
        }
    };
    for option in ["GRANT OPTION", "ADMIN OPTION"] {
        if split_outside_quotes(to, &format!(" WITH {option}")).is_some() {
            privileges.insert(option.to_owned());
        }
    }
    Some((scope, privileges))
}

/// Names of columns stay as they are.
fn privilege(text: &str) -> String {
    match text.trim().split_once('(') {
        Some((word, columns)) => format!("{} ({columns}", word.trim().to_ascii_uppercase()),
        None => text.trim().to_ascii_uppercase(),
    }
}

fn scope(object: &str, is_revoked: bool) -> Option<GrantScope> {
    let (kind, object) = match object.split_once(' ').filter(|(kind, _)| kind.chars().all(|c| c.is_ascii_uppercase())) {
        Some((kind, object)) => (Some(kind), object),
        None => (None, object),
    };
    let (schema, name) = split_outside_quotes(object, ".")?;
    match (unquote(schema), unquote(name)) {
        (None, None) if schema == "*" && name == "*" => Some(GrantScope::Everything),
        (Some(schema), None) if name == "*" && is_revoked => Some(GrantScope::Revoked(schema)),
        (Some(schema), None) if name == "*" => Some(GrantScope::Schema(schema)),
        (Some(schema), Some(name)) => {
            let name = TableName::new(schema, name);
            Some(match kind {
                Some("TABLE") | None => GrantScope::Table(name),
                Some(kind) => GrantScope::Routine(kind.to_owned(), name),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_kept_and_secrets_are_not() {
        let found = grants([
            "GRANT USAGE ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*94BDCEBE19083CE2A1F959FD02F964C7AF4CFC29' REQUIRE SSL",
            "GRANT INSERT, SELECT (`a`, `b TO c`) ON `app`.* TO `a`@`%` WITH GRANT OPTION",
            "GRANT DELETE ON `app`.`users` TO `a`@`%`",
            "GRANT EXECUTE ON PROCEDURE `app`.`p` TO `a`@`%`",
            "GRANT `reader`@`%`,`writer`@`%` TO `a`@`%`",
            "SET DEFAULT ROLE `reader` FOR `a`@`%`",
            "REVOKE SELECT ON `app`.* FROM `a`@`%`",
            "GRANT PROXY ON ''@'%' TO 'root'@'localhost' WITH GRANT OPTION",
        ]);
        let told = format!("{found:?}");
        assert!(!told.contains("94BDCEBE"), "{told}");
        let of = |scope: GrantScope| -> Vec<String> {
            let grant = found.iter().find(|grant| grant.scope == scope).expect("the scope is there");
            grant.privileges.iter().cloned().collect()
        };
        assert_eq!(of(GrantScope::Schema("app".into())), ["GRANT OPTION", "INSERT", "SELECT (`a`, `b TO c`)"]);
        assert_eq!(of(GrantScope::Table(TableName::new("app", "users"))), ["DELETE"]);
        assert_eq!(of(GrantScope::Routine("PROCEDURE".into(), TableName::new("app", "p"))), ["EXECUTE"]);
        assert_eq!(of(GrantScope::Roles), ["reader@%", "writer@%"]);
        assert_eq!(of(GrantScope::Revoked("app".into())), ["SELECT"]);
        assert_eq!(found.len(), 5, "{told}");
        assert!(GrantScope::Schema("ap%".into()).is_on_schema("app") && !GrantScope::Everything.is_on_schema("app"));
    }
}
