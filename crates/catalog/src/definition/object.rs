//! What a schema holds beside tables.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::CatalogError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// The schema itself: its character set and collation.
    Schema,
    View,
    Procedure,
    Function,
    Trigger,
    Event,
}

impl ObjectKind {
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectKind::Schema => "schema",
            ObjectKind::View => "view",
            ObjectKind::Procedure => "procedure",
            ObjectKind::Function => "function",
            ObjectKind::Trigger => "trigger",
            ObjectKind::Event => "event",
        }
    }

    /// A name and what else there is to be said, each under the name that people are told; all as text. The schema is the only
    /// parameter.
    fn select(self) -> &'static str {
        match self {
            ObjectKind::Schema => {
                "SELECT schema_name AS `name`, default_character_set_name AS `character set`,
                        default_collation_name AS `collation`
                   FROM information_schema.schemata WHERE schema_name = ?"
            }
            ObjectKind::View => {
                "SELECT table_name AS `name`, view_definition AS `statement`, definer AS `definer`,
                        security_type AS `security`, check_option AS `check option`
                   FROM information_schema.views WHERE table_schema = ?"
            }
            ObjectKind::Procedure => {
                "SELECT routine_name AS `name`, routine_definition AS `body`, definer AS `definer`, security_type AS `security`,
                        is_deterministic AS `deterministic`, sql_data_access AS `data access`, sql_mode AS `sql_mode`
                   FROM information_schema.routines WHERE routine_schema = ? AND routine_type = 'PROCEDURE'"
            }
            ObjectKind::Function => {
                "SELECT routine_name AS `name`, dtd_identifier AS `returns`, routine_definition AS `body`, definer AS `definer`,
                        security_type AS `security`, is_deterministic AS `deterministic`,
                        sql_data_access AS `data access`, sql_mode AS `sql_mode`
                   FROM information_schema.routines WHERE routine_schema = ? AND routine_type = 'FUNCTION'"
            }
            ObjectKind::Trigger => {
                "SELECT trigger_name AS `name`, event_object_table AS `table`,
                        CONCAT(action_timing, ' ', event_manipulation) AS `event`, CAST(action_order AS CHAR) AS `order`,
                        action_statement AS `body`, definer AS `definer`, sql_mode AS `sql_mode`
                   FROM information_schema.triggers WHERE trigger_schema = ?"
            }
            ObjectKind::Event => {
                "SELECT event_name AS `name`, event_definition AS `body`, status AS `status`,
                        CONCAT_WS(' ', event_type, CAST(execute_at AS CHAR), interval_value, interval_field) AS `schedule`,
                        CAST(starts AS CHAR) AS `starts`, CAST(ends AS CHAR) AS `ends`, on_completion AS `on completion`,
                        definer AS `definer`, time_zone AS `time zone`, sql_mode AS `sql_mode`
                   FROM information_schema.events WHERE event_schema = ?"
            }
        }
    }
}

/// A view, a routine, a trigger, an event, or a schema itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectDefinition {
    pub schema: String,
    pub name: String,
    /// What there is to be said of it, without what is NULL.
    pub attributes: BTreeMap<String, String>,
}

/// All of a kind that a schema holds and the account may see ([`Sight`](super::Sight) tells what it may).
///
/// # Errors
///
/// [`CatalogError::Query`].
pub async fn objects(conn: &mut Conn, kind: ObjectKind, schema: &str) -> Result<Vec<ObjectDefinition>, CatalogError> {
    let rows: Vec<Row> = conn.exec(kind.select(), (schema,)).await.map_err(|source| query(kind, source))?;
    let mut found: Vec<ObjectDefinition> = rows.iter().map(|row| definition(schema, row)).collect();
    if matches!(kind, ObjectKind::Procedure | ObjectKind::Function) {
        add_parameters(conn, kind, schema, &mut found).await?;
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn query(kind: ObjectKind, source: mysql_async::Error) -> CatalogError {
    CatalogError::Query { what: kind.as_str(), source }
}

fn definition(schema: &str, row: &Row) -> ObjectDefinition {
    let mut name = String::new();
    let mut attributes = BTreeMap::new();
    for (index, column) in row.columns_ref().iter().enumerate() {
        let value: Option<String> = row.get_opt(index).and_then(Result::ok);
        match (&*column.name_str(), value) {
            ("name", Some(value)) => name = value,
            (attribute, Some(value)) => drop(attributes.insert(attribute.to_owned(), value)),
            (_, None) => {}
        }
    }
    ObjectDefinition { schema: schema.to_owned(), name, attributes }
}

/// The value that a function returns stands among its parameters, at place 0.
async fn add_parameters(
    conn: &mut Conn,
    kind: ObjectKind,
    schema: &str,
    found: &mut [ObjectDefinition],
) -> Result<(), CatalogError> {
    let rows: Vec<(String, Option<String>, Option<String>, String)> = conn
        .exec(
            "SELECT specific_name, parameter_mode, parameter_name, dtd_identifier FROM information_schema.parameters
              WHERE specific_schema = ? AND routine_type = ? AND ordinal_position > 0
              ORDER BY specific_name, ordinal_position",
            (schema, kind.as_str().to_ascii_uppercase()),
        )
        .await
        .map_err(|source| query(kind, source))?;
    for (routine, mode, name, declared) in rows {
        let Some(object) = found.iter_mut().find(|object| object.name == routine) else { continue };
        let words = [mode.as_deref(), name.as_deref(), Some(declared.as_str())];
        let parameter = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let all = object.attributes.entry("parameters".to_owned()).or_default();
        if !all.is_empty() {
            all.push_str(", ");
        }
        all.push_str(&parameter);
    }
    Ok(())
}
