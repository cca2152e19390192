//! What an account may do beside its daily work.

use mysql_async::Conn;

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
