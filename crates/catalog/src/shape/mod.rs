//! Table definitions from `information_schema`.

mod column_type;
mod key;

use std::collections::BTreeMap;

use crossfade_config::TablePattern;
use crossfade_model::{Column, TableName, TableShape};
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Params, Value};

use crate::CatalogError;
use column_type::column_kind;

/// Columns as they arrive: table, column, nullable, first word of the type, whole type, character set, collation, extra,
/// whether there is a default.
type ColumnRow = (String, String, String, String, String, Option<String>, Option<String>, Option<String>, bool);

/// Reads the definitions of all base tables that some pattern takes, ordered by name. Views, sequences and tables with
/// system versioning are left out, and so is what the account may not see.
///
/// A primary key over a prefix of a column does not tell two values apart that differ behind the prefix; it is listed
/// among the unique keys, as partial, instead.
///
/// Both servers print ENUM and SET labels in the three-byte `utf8mb3`, so a character beyond it stands as `?` here; the
/// binlog's own row metadata (`binlog_row_metadata=FULL`) has it right.
///
/// # Errors
///
/// [`CatalogError::Query`].
pub async fn table_shapes(conn: &mut Conn, patterns: &[TablePattern]) -> Result<Vec<TableShape>, CatalogError> {
    let mut shapes = Vec::new();
    for (schema, wanted) in by_schema(patterns) {
        shapes.extend(schema_shapes(conn, schema, &wanted).await?);
    }
    shapes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(shapes)
}

/// One table's definition; `None` where it does not exist or is not a base table.
///
/// # Errors
///
/// As [`table_shapes`].
pub async fn table_shape(conn: &mut Conn, name: &TableName) -> Result<Option<TableShape>, CatalogError> {
    Ok(table_shapes(conn, &[TablePattern::exact(name)]).await?.pop())
}

fn by_schema(patterns: &[TablePattern]) -> BTreeMap<&str, Vec<&TablePattern>> {
    let mut schemas: BTreeMap<&str, Vec<&TablePattern>> = BTreeMap::new();
    for pattern in patterns {
        schemas.entry(&pattern.schema).or_default().push(pattern);
    }
    schemas
}

async fn schema_shapes(
    conn: &mut Conn,
    schema: &str,
    wanted: &[&TablePattern],
) -> Result<Vec<TableShape>, CatalogError> {
    let filter = NameFilter::new(schema, wanted);
    let tables: Vec<(String, Option<String>)> = filter
        .rows(
            conn,
            "the list of tables",
            "SELECT table_name, engine FROM information_schema.tables
              WHERE table_schema = ? AND table_type = 'BASE TABLE'",
            "",
        )
        .await?;
    let mut shapes: BTreeMap<String, TableShape> = BTreeMap::new();
    for (table, engine) in tables {
        let name = TableName::new(schema, table.as_str());
        if wanted.iter().any(|pattern| pattern.matches(&name)) {
            let engine = engine.unwrap_or_default();
            let shape = TableShape {
                name,
                columns: Vec::new(),
                primary_key: Vec::new(),
                unique_keys: Vec::new(),
                foreign_keys: Vec::new(),
                engine,
            };
            shapes.insert(table, shape);
        }
    }
    if !shapes.is_empty() {
        read_columns(conn, &filter, &mut shapes).await?;
        key::read_keys(conn, &filter, &mut shapes).await?;
        key::read_foreign_keys(conn, &filter, &mut shapes).await?;
    }
    Ok(shapes.into_values().collect())
}

async fn read_columns(
    conn: &mut Conn,
    filter: &NameFilter<'_>,
    shapes: &mut BTreeMap<String, TableShape>,
) -> Result<(), CatalogError> {
    let rows: Vec<ColumnRow> = filter
        .rows(
            conn,
            "the definitions of columns",
            // MariaDB prints the implied default of a nullable column as the text NULL.
            "SELECT table_name, column_name, is_nullable, data_type, column_type, character_set_name, collation_name,
                    extra, column_default IS NOT NULL AND NOT (is_nullable = 'YES' AND column_default = 'NULL')
               FROM information_schema.columns WHERE table_schema = ?",
            " ORDER BY table_name, ordinal_position",
        )
        .await?;
    for (table, name, nullable, data_type, declared, charset, collation, extra, has_default) in rows {
        let Some(shape) = shapes.get_mut(&table) else { continue };
        let extra = extra.unwrap_or_default().to_ascii_lowercase();
        shape.columns.push(Column {
            kind: column_kind(&data_type, &declared, charset.as_deref()),
            name,
            nullable: nullable.eq_ignore_ascii_case("YES"),
            // MySQL's `DEFAULT_GENERATED` says that the *default* is an expression.
            generated: extra.contains("virtual generated") || extra.contains("stored generated"),
            invisible: extra.contains("invisible"),
            auto_increment: extra.contains("auto_increment"),
            has_default,
            on_update_now: extra.contains("on update current_timestamp"),
            declared,
            charset,
            collation,
        });
    }
    Ok(())
}

/// Restricts a query to one schema and, where only few tables are wanted, to their names. What comes back is compared
/// again, since the server may compare names without case.
struct NameFilter<'p> {
    schema: &'p str,
    /// Empty for all tables of the schema.
    tables: Vec<&'p str>,
}

impl<'p> NameFilter<'p> {
    fn new(schema: &'p str, wanted: &[&'p TablePattern]) -> NameFilter<'p> {
        let any_pattern = wanted.iter().any(|pattern| pattern.is_pattern);
        let tables = if any_pattern { Vec::new() } else { wanted.iter().map(|one| one.table.as_str()).collect() };
        NameFilter { schema, tables }
    }

    /// Runs `select`, whose only parameter is the schema, and which has a column `table_name`.
    async fn rows<T: FromRow + Send + 'static>(
        &self,
        conn: &mut Conn,
        what: &'static str,
        select: &str,
        order: &str,
    ) -> Result<Vec<T>, CatalogError> {
        let mut parameters = vec![Value::from(self.schema)];
        parameters.extend(self.tables.iter().copied().map(Value::from));
        let names = if self.tables.is_empty() {
            String::new()
        } else {
            format!(" AND table_name IN ({})", vec!["?"; self.tables.len()].join(", "))
        };
        let statement = format!("{select}{names}{order}");
        let rows = conn.exec(statement, Params::Positional(parameters)).await;
        rows.map_err(|source| CatalogError::Query { what, source })
    }
}
