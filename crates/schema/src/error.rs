//! How comparing and copying definitions fails.

use crossfade_catalog::CatalogError;
use crossfade_model::TableName;

#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("the definition of {table} is not understood")]
    Unread { table: TableName },
    #[error("{what} cannot be created")]
    Create { what: String, source: mysql_async::Error },
    #[error("{table} was created and is not as it should be: {difference}")]
    Unlike { table: TableName, difference: String },
}

impl SchemaError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            SchemaError::Catalog(error) => error.hint(),
            SchemaError::Unread { .. } => Some("leave it out with `--table`, and create it by hand"),
            SchemaError::Create { source: mysql_async::Error::Server(error), .. } => match error.code {
                // Access denied, to a schema or a table.
                1044 | 1142 => {
                    Some("grant the account CREATE and REFERENCES on the new side's schemas, then run it again")
                }
                _ => Some(
                    "mend what the server says, or create it by hand; then run it again: what is there already stays",
                ),
            },
            SchemaError::Create { .. } => Some("run it again: what is there already stays"),
            SchemaError::Unlike { .. } => Some(
                "the servers' settings or versions differ: drop it, and create it by hand as the new side needs it",
            ),
        }
    }
}
