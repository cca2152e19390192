//! What an account may do beside its daily work.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::check::privileges::Account;
use crate::{CatalogError, Dialect, Flavor};

/// Of an account: what it may do about `read_only`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOnlyRights {
    /// As a GRANT names it.
    pub account: String,
    pub may_set: bool,
    /// It may write all the same.
    pub is_exempt: bool,
    flavor: Flavor,
}

/// Asks what the connection's account may do about `read_only`.
pub async fn read_only_rights(conn: &mut Conn, dialect: Dialect) -> Result<ReadOnlyRights, CatalogError> {
    let account = Account::read(conn, dialect).await?;
    let has = |privileges: &[&str]| privileges.iter().any(|privilege| account.grants().has_global(privilege));
    let flavor = dialect.flavor();
    let (may_set, is_exempt) = match flavor {
        Flavor::MySql => (has(&["SYSTEM_VARIABLES_ADMIN", "SUPER"]), has(&["CONNECTION_ADMIN", "SUPER"])),
        // One privilege gives both (MariaDB documentation, "read_only").
        Flavor::MariaDb => {
            let both = has(&["READ_ONLY ADMIN", "READ ONLY ADMIN"]);
            (both, both)
        }
    };
    Ok(ReadOnlyRights { account: account.name().to_owned(), may_set, is_exempt, flavor })
}

impl ReadOnlyRights {
    pub fn grant_to_set(&self) -> String {
        self.grant(if self.flavor == Flavor::MySql { "SYSTEM_VARIABLES_ADMIN" } else { "READ_ONLY ADMIN" })
    }

    pub fn grant_to_write(&self) -> String {
        self.grant(if self.flavor == Flavor::MySql { "CONNECTION_ADMIN" } else { "READ_ONLY ADMIN" })
    }

    fn grant(&self, privilege: &str) -> String {
        format!("GRANT {privilege} ON *.* TO {};", self.account)
    }
}

/// Of an account: what it may do about keeping others out, and who there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRights {
    /// As a GRANT names it.
    pub account: String,
    /// As it has logged in.
    pub user: String,
    /// It may lock accounts.
    pub may_lock: bool,
    /// It may end the sessions of others.
    pub may_end: bool,
    /// `None`: it may not list them.
    pub known: Option<Vec<KnownAccount>>,
    flavor: Flavor,
}

/// An account or a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAccount {
    pub user: String,
    pub host: String,
    pub is_locked: bool,
    pub is_role: bool,
}

/// Asks what the connection's account may do about keeping others out.
pub async fn lock_rights(conn: &mut Conn, dialect: Dialect) -> Result<LockRights, CatalogError> {
    let account = Account::read(conn, dialect).await?;
    let has = |privileges: &[&str]| privileges.iter().any(|privilege| account.grants().has_global(privilege));
    let query = |source| CatalogError::Query { what: "the connection's account", source };
    let user: Option<String> =
        conn.query_first("SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)").await.map_err(query)?;
    Ok(LockRights {
        account: account.name().to_owned(),
        user: user.unwrap_or_default(),
        may_lock: has(&["CREATE USER"]),
        may_end: has(&["CONNECTION_ADMIN", "CONNECTION ADMIN", "SUPER"]),
        known: known_accounts(conn, dialect).await?,
        flavor: dialect.flavor(),
    })
}

/// All but the server's own; `None` where the account may not list them.
pub async fn known_accounts(conn: &mut Conn, dialect: Dialect) -> Result<Option<Vec<KnownAccount>>, CatalogError> {
    type Listed = (String, String, Option<String>, String, Option<String>, String);
    match conn.query::<Listed, _>(dialect.accounts()).await {
        Ok(rows) => {
            let known = rows.into_iter().map(|(user, host, _, locked, _, role)| KnownAccount {
                user,
                host,
                is_locked: locked == "1",
                is_role: role == "1",
            });
            Ok(Some(known.collect()))
        }
        // What is denied.
        Err(mysql_async::Error::Server(_)) => Ok(None),
        Err(source) => Err(CatalogError::Query { what: "the server's accounts", source }),
    }
}

impl LockRights {
    pub fn grant_to_lock(&self) -> String {
        format!("GRANT CREATE USER ON *.* TO {};", self.account)
    }

    pub fn grant_to_end(&self) -> String {
        let privilege = if self.flavor == Flavor::MySql { "CONNECTION_ADMIN" } else { "CONNECTION ADMIN" };
        format!("GRANT {privilege} ON *.* TO {};", self.account)
    }

    pub fn grant_to_list(&self) -> String {
        format!("GRANT SELECT ON mysql.* TO {};", self.account)
    }
}
