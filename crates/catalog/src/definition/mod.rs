//! What a schema holds, as the server prints it: for comparing two sides, and for making one like the other.

mod account;
mod object;

use crossfade_model::{TableName, quote_identifier};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

pub use account::{AccountDefinition, Grant, GrantScope, account_definitions};
pub use object::{ObjectDefinition, ObjectKind, objects};

use crate::check::grants::Grants;
use crate::check::privileges::Account;
use crate::{CatalogError, Dialect, Flavor};

/// The statement that creates a table, with names in back-quotes and without its schema.
///
/// # Errors
///
/// [`CatalogError::Query`], also where there is no such table.
pub async fn create_statement(conn: &mut Conn, name: &TableName) -> Result<String, CatalogError> {
    let what = "the definition of a table";
    let row: Option<Row> = conn
        .query_first(format!("SHOW CREATE TABLE {}", name.quoted()))
        .await
        .map_err(|source| CatalogError::Query { what, source })?;
    let statement = row.and_then(|mut row| row.take_opt::<String, _>(1)?.ok());
    statement.ok_or_else(|| CatalogError::Unexpected { what, found: name.to_string() })
}

/// What an account may see. Servers leave out without a word what it may not, so that nothing would look like none.
pub struct Sight {
    account: Account,
    flavor: Flavor,
}

impl Sight {
    /// # Errors
    ///
    /// [`CatalogError::Query`].
    pub async fn read(conn: &mut Conn, dialect: Dialect) -> Result<Sight, CatalogError> {
        Ok(Sight { account: Account::read(conn, dialect).await?, flavor: dialect.flavor() })
    }

    /// The GRANT without which not all objects of a kind can be seen in a schema.
    pub fn missing_for(&self, kind: ObjectKind, schema: &str) -> Option<String> {
        let grants = self.account.grants();
        let on_schema = |privileges: &[&str]| {
            let has_all = privileges.iter().all(|privilege| grants.has_on_schema(privilege, schema));
            (!has_all).then(|| self.grant(&privileges.join(", "), &format!("{}.*", quote_identifier(schema))))
        };
        match kind {
            ObjectKind::Schema => None,
            ObjectKind::View => on_schema(&["SELECT", "SHOW VIEW"]),
            ObjectKind::Trigger => on_schema(&["TRIGGER"]),
            ObjectKind::Event => on_schema(&["EVENT"]),
            ObjectKind::Procedure | ObjectKind::Function => self.missing_for_routines(grants, schema),
        }
    }

    fn missing_for_routines(&self, grants: &Grants, schema: &str) -> Option<String> {
        match self.flavor {
            Flavor::MySql => {
                let sees = ["SHOW_ROUTINE", "SELECT"].iter().any(|privilege| grants.has_global(privilege));
                (!sees).then(|| self.grant("SHOW_ROUTINE", "*.*"))
            }
            Flavor::MariaDb => {
                let sees = grants.has_on_table("SELECT", "mysql", "proc")
                    || grants.has_on_schema("SHOW CREATE ROUTINE", schema);
                (!sees).then(|| self.grant("SELECT", "`mysql`.`proc`"))
            }
        }
    }

    /// The GRANT without which accounts and their privileges cannot be seen.
    pub fn missing_for_accounts(&self) -> Option<String> {
        let sees = self.account.grants().has_on_schema("SELECT", "mysql");
        (!sees).then(|| self.grant("SELECT", "`mysql`.*"))
    }

    /// The account as a GRANT names it.
    pub fn account(&self) -> &str {
        self.account.name()
    }

    fn grant(&self, privileges: &str, object: &str) -> String {
        format!("GRANT {privileges} ON {object} TO {};", self.account.name())
    }
}
