//! Creating on the new side what it lacks.

mod order;
mod statement;

use std::collections::BTreeMap;

use crossfade_catalog::definition::{ObjectKind, objects};
use crossfade_catalog::{CatalogError, table_shape};
use crossfade_config::{SelectedTable, Settings};
use crossfade_model::{TableName, TableShape, quote_identifier};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::Serialize;

use crate::SchemaError;
use crate::compare::{is_wanted, table_differences};
use crate::index::has_rows;
use crate::names::Names;
use crate::selection::{Selection, SideSchema};
use crate::table::TableDefinition;

/// How many differences of a table are told before the rest is counted.
const TOLD_DIFFERENCES: usize = 3;

/// Zero dates, and others that were let in once, may be defaults; nothing is shortened or replaced silently.
const SESSION: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION'";

/// What is to be created, in this order, and what stands in the way.
#[derive(Debug, Default, Serialize)]
pub struct CopyPlan {
    pub schemas: Vec<SchemaPlan>,
    /// Parents before children, as far as they do not refer to each other in a circle.
    pub tables: Vec<TablePlan>,
    /// Tables that are there already, empty and alike.
    pub present: Vec<String>,
    pub refused: Vec<Refusal>,
    #[serde(skip)]
    names: Names,
}

#[derive(Debug, Clone, Serialize)]
pub struct SchemaPlan {
    pub schema: String,
    pub statement: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct TablePlan {
    #[serde(serialize_with = "crate::copy::as_text")]
    pub old: TableName,
    #[serde(serialize_with = "crate::copy::as_text")]
    pub new: TableName,
    pub statement: String,
    /// A parent comes after it, so the server must not look for it yet (`foreign_key_checks = 0`).
    pub before_its_parents: bool,
}

/// A table that cannot be created, or is there and must not be touched.
#[derive(Debug, Clone, Serialize)]
pub struct Refusal {
    pub table: String,
    pub reason: String,
    pub remedy: String,
}

fn as_text<S: serde::Serializer>(name: &TableName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

impl CopyPlan {
    /// Looks at both sides and writes nothing. With `only`, these tables alone, by their names on either side.
    ///
    /// # Errors
    ///
    /// [`SchemaError`], where a server cannot be asked.
    pub async fn read(
        settings: &Settings,
        old: &mut SideSchema,
        new: &mut SideSchema,
        only: &[TableName],
    ) -> Result<CopyPlan, SchemaError> {
        let selection = Selection::read(settings, old, new).await?;
        let mut plan = CopyPlan::default();
        let mut missing: Vec<(TableDefinition, TableName)> = Vec::new();
        for table in selection.selected.iter().filter(|table| is_wanted(table, only)) {
            let Some(shape) = selection.old.get(&table.old).cloned() else {
                plan.refuse(&table.old, "it does not exist on the old side, or the account may not see it", SKIP);
                continue;
            };
            let definition = old.definition(shape).await?;
            match selection.new.get(&table.new).cloned() {
                Some(shape) => plan.look_at(&selection.names, table, &definition, shape, new).await?,
                None if plan.is_fit(&selection.names, table, &definition, new).await? => {
                    missing.push((definition, table.new.clone()));
                }
                None => {}
            }
        }
        plan.refuse_without_parents(&selection.names, &missing, new).await?;
        missing.retain(|(definition, _)| !plan.is_refused(&definition.shape.name));
        plan.names = selection.names;
        plan.order(&missing)?;
        plan.add_schemas(old, new).await?;
        Ok(plan)
    }

    fn refuse(&mut self, table: &TableName, reason: impl Into<String>, remedy: &str) {
        self.refused.push(Refusal { table: table.to_string(), reason: reason.into(), remedy: remedy.to_owned() });
    }

    fn is_refused(&self, table: &TableName) -> bool {
        let table = table.to_string();
        self.refused.iter().any(|refusal| refusal.table == table)
    }

    /// A table that is there: nothing is to be done where it is empty and alike.
    async fn look_at(
        &mut self,
        names: &Names,
        table: &SelectedTable<'_>,
        old: &TableDefinition,
        shape: TableShape,
        new: &mut SideSchema,
    ) -> Result<(), SchemaError> {
        let definition = new.definition(shape).await?;
        let differences = table_differences(names, old, Some(&definition))?;
        if !differences.is_empty() {
            let told: Vec<String> = differences.iter().take(TOLD_DIFFERENCES).map(ToString::to_string).collect();
            let more = differences.len().saturating_sub(TOLD_DIFFERENCES);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            let reason = format!("{} exists on the new side and differs: {}{more}", table.new, told.join("; "));
            self.refuse(
                &table.old,
                reason,
                "make it like the old one, or drop it if it is empty; or name others with `--table`",
            );
        } else if has_rows(new, &table.new).await? {
            let reason = format!("{} exists on the new side and has rows", table.new);
            self.refuse(
                &table.old,
                reason,
                "nothing needs to be done for it: name those that are missing with `--table`",
            );
        } else {
            self.present.push(table.new.to_string());
        }
        Ok(())
    }

    /// Whether a table that is not there can be created as the old side prints it.
    async fn is_fit(
        &mut self,
        names: &Names,
        table: &SelectedTable<'_>,
        old: &TableDefinition,
        new: &mut SideSchema,
    ) -> Result<bool, SchemaError> {
        let other = kind_of(&mut new.conn, &table.new).await?;
        if let Some(kind) = other {
            let reason = format!("{} exists on the new side and is a {}", table.new, kind.to_lowercase());
            self.refuse(&table.old, reason, "give it another name, or the table one with `old` and `new`");
        } else if !old.shape.engine.eq_ignore_ascii_case("InnoDB") {
            let reason = format!("it uses engine {}, which cannot take part in a transaction", old.shape.engine);
            self.refuse(&table.old, reason, "ALTER it to InnoDB on the old side, or create it by hand on the new one");
        } else if let Some(reason) = statement::unfit(old, names)? {
            self.refuse(&table.old, reason, "create this table by hand on the new side");
        } else {
            return Ok(true);
        }
        Ok(false)
    }

    /// A foreign key must lead to something that is there, or will be.
    async fn refuse_without_parents(
        &mut self,
        names: &Names,
        missing: &[(TableDefinition, TableName)],
        new: &mut SideSchema,
    ) -> Result<(), SchemaError> {
        loop {
            let refused_before = self.refused.len();
            for (definition, _) in missing {
                let child = &definition.shape.name;
                for key in &definition.shape.foreign_keys {
                    let comes = missing.iter().any(|(other, _)| other.shape.name == key.parent)
                        && !self.is_refused(&key.parent);
                    let parent = names.table(&key.parent);
                    if comes || self.is_refused(child) || kind_of(&mut new.conn, &parent).await?.is_some() {
                        continue;
                    }
                    let reason =
                        format!("its foreign key `{}` leads to {parent}, which is not on the new side", key.name);
                    self.refuse(
                        child,
                        reason,
                        "create or sync the parent first; or create this table by hand, without the key",
                    );
                }
            }
            // A child of what is refused is refused too, and so on.
            if self.refused.len() == refused_before {
                return Ok(());
            }
        }
    }

    fn order(&mut self, missing: &[(TableDefinition, TableName)]) -> Result<(), SchemaError> {
        let shapes: Vec<&TableShape> = missing.iter().map(|(definition, _)| &definition.shape).collect();
        for placed in order::parents_first(&shapes) {
            let (definition, new) = &missing[placed.table];
            self.tables.push(TablePlan {
                old: definition.shape.name.clone(),
                new: new.clone(),
                statement: statement::create_table(definition, new, &self.names)?,
                before_its_parents: placed.before_its_parents,
            });
        }
        Ok(())
    }

    /// Schemas that are missing get the character set and collation that they have on the old side.
    async fn add_schemas(&mut self, old: &mut SideSchema, new: &mut SideSchema) -> Result<(), SchemaError> {
        let wanted: BTreeMap<&str, &str> =
            self.tables.iter().map(|table| (&*table.new.schema, &*table.old.schema)).collect();
        let mut plans = Vec::new();
        for (schema, like) in wanted {
            if !objects(&mut new.conn, ObjectKind::Schema, schema).await?.is_empty() {
                continue;
            }
            let mut statement = format!("CREATE SCHEMA IF NOT EXISTS {}", quote_identifier(schema));
            if let Some(like) = objects(&mut old.conn, ObjectKind::Schema, like).await?.first() {
                for (attribute, clause) in [("character set", " CHARACTER SET "), ("collation", " COLLATE ")] {
                    if let Some(value) = like.attributes.get(attribute) {
                        statement.push_str(&format!("{clause}{value}"));
                    }
                }
            }
            plans.push(SchemaPlan { schema: schema.to_owned(), statement });
        }
        self.schemas = plans;
        Ok(())
    }

    /// All statements as a person could run them.
    pub fn script(&self) -> String {
        let mut script = String::new();
        for schema in &self.schemas {
            script.push_str(&format!("{};\n\n", schema.statement));
        }
        for table in &self.tables {
            let (before, after) = match table.before_its_parents {
                true => (format!("{};\n", checks(false)), format!("{};\n", checks(true))),
                false => (String::new(), String::new()),
            };
            script.push_str(&format!("{before}{};\n{after}\n", table.statement));
        }
        script
    }

    /// Creates everything, and compares what came of it. Tells each name when it is there. Whatever stops it, what was
    /// created is whole and stays.
    ///
    /// These are ordinary statements in the new side's binlog, so that its replicas have the tables too. They need no tag: the
    /// reverse reader carries no definitions, and they bring no rows.
    ///
    /// # Errors
    ///
    /// [`SchemaError::Create`], [`SchemaError::Unlike`].
    pub async fn run(
        &self,
        old: &mut SideSchema,
        new: &mut SideSchema,
        mut tell: impl FnMut(&TablePlan),
    ) -> Result<(), SchemaError> {
        create(&mut new.conn, "the session", SESSION).await?;
        for schema in &self.schemas {
            create(&mut new.conn, &format!("schema {}", schema.schema), &schema.statement).await?;
        }
        for table in &self.tables {
            let name = table.new.to_string();
            create(&mut new.conn, &name, checks(!table.before_its_parents)).await?;
            create(&mut new.conn, &name, &table.statement).await?;
            tell(table);
        }
        for table in &self.tables {
            self.confirm(table, old, new).await?;
        }
        Ok(())
    }

    async fn confirm(&self, table: &TablePlan, old: &mut SideSchema, new: &mut SideSchema) -> Result<(), SchemaError> {
        let unlike = |difference| SchemaError::Unlike { table: table.new.clone(), difference };
        let Some(shape) = table_shape(&mut old.conn, &table.old).await? else { return Ok(()) };
        let wanted = old.definition(shape).await?;
        let shape = table_shape(&mut new.conn, &table.new).await?;
        let found = new.definition(shape.ok_or_else(|| unlike("it is not there by this name".to_owned()))?).await?;
        match table_differences(&self.names, &wanted, Some(&found))?.first() {
            Some(difference) => Err(unlike(difference.to_string())),
            None => Ok(()),
        }
    }
}

const SKIP: &str = "correct its name, grant the account SELECT on it, or leave it out with `skip = true`";

fn checks(on: bool) -> &'static str {
    if on { "SET SESSION foreign_key_checks = 1" } else { "SET SESSION foreign_key_checks = 0" }
}

async fn create(conn: &mut Conn, what: &str, statement: &str) -> Result<(), SchemaError> {
    let created = conn.query_drop(statement).await;
    created.map_err(|source| SchemaError::Create { what: what.to_owned(), source })
}

/// `BASE TABLE`, `VIEW`, `SYSTEM VERSIONED`, …; `None` where there is nothing of that name.
async fn kind_of(conn: &mut Conn, name: &TableName) -> Result<Option<String>, SchemaError> {
    let statement =
        "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = ? AND table_name = ?";
    let rows: Vec<(String, String)> = conn
        .exec(statement, (&*name.schema, &*name.table))
        .await
        .map_err(|source| CatalogError::Query { what: "the list of tables", source })?;
    Ok(rows.into_iter().find(|(table, _)| **table == *name.table).map(|(_, kind)| kind))
}
