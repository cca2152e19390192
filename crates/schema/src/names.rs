//! What the new side calls what the old side has.

use std::collections::{BTreeMap, BTreeSet};

use crossfade_config::SelectedTable;
use crossfade_model::{TableName, quote_identifier};

use crate::token::{Token, TokenKind};

/// The pair's mapping of names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    tables: BTreeMap<TableName, TableName>,
    /// Per old table: its renamed columns, the old name in lower case, since names of columns ignore case.
    columns: BTreeMap<TableName, BTreeMap<String, String>>,
    /// Per old schema: those of the new side that its tables go to.
    schemas: BTreeMap<String, BTreeSet<String>>,
}

impl Names {
    pub fn of(selected: &[SelectedTable<'_>]) -> Names {
        let mut names = Names::default();
        for table in selected {
            names.tables.insert(table.old.clone(), table.new.clone());
            let renamed = table.settings.columns.iter().map(|(old, new)| (old.to_lowercase(), new.clone()));
            names.columns.insert(table.old.clone(), renamed.collect());
            names.schemas.entry(table.old.schema.to_string()).or_default().insert(table.new.schema.to_string());
        }
        names
    }

    /// The pairs of schemas that belong together, old and new.
    pub fn schemas(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.schemas
    }

    pub fn new_schemas(&self) -> BTreeSet<&str> {
        self.schemas.values().flatten().map(String::as_str).collect()
    }

    /// A schema's name on the new side; where its tables go to several, the first.
    pub fn schema<'n>(&'n self, old: &'n str) -> &'n str {
        self.schemas.get(old).and_then(|schemas| schemas.first()).map_or(old, String::as_str)
    }

    /// A table that is not synced keeps its name, in the schema that the others go to.
    pub fn table(&self, old: &TableName) -> TableName {
        self.tables.get(old).cloned().unwrap_or_else(|| TableName::new(self.schema(&old.schema), old.table.clone()))
    }

    pub fn column<'n>(&'n self, table: &TableName, old: &'n str) -> &'n str {
        self.columns.get(table).and_then(|columns| columns.get(&old.to_lowercase())).map_or(old, String::as_str)
    }

    /// Whether a piece of a statement about `table` names one of its renamed columns, with or without back-quotes.
    pub fn renames(&self, table: &TableName, token: &Token<'_>) -> bool {
        let name = match token.kind {
            TokenKind::Name => token.name().unwrap_or_default(),
            TokenKind::Word => token.text.to_owned(),
            _ => return false,
        };
        self.column(table, &name) != name
    }

    /// A piece of a statement about `table`, as the new side would write it; `None` where that is the same.
    pub fn translated(&self, table: &TableName, token: &Token<'_>) -> Option<String> {
        let old = token.name()?;
        let new = self.column(table, &old);
        (new != old).then(|| quote_identifier(new))
    }
}

/// Replaces `schema`.`table` in a view's statement by what the new side calls it.
pub(crate) fn translate_tables(names: &Names, tokens: &[Token<'_>]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let dotted = tokens.get(at + 1).is_some_and(|dot| dot.is_sign(".") && dot.space.is_empty());
        let both = token.name().zip(tokens.get(at + 2).filter(|_| dotted).and_then(Token::name));
        text.push_str(token.space);
        match both {
            Some((schema, table)) if names.schemas.contains_key(&schema) => {
                text.push_str(&names.table(&TableName::new(schema, table)).quoted());
                at += 3;
            }
            _ => {
                text.push_str(token.text);
                at += 1;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tokens;

    #[test]
    fn views_are_told_with_the_new_names() {
        let mut names = Names::default();
        names.tables.insert(TableName::new("app", "users"), TableName::new("shop", "people"));
        names.schemas.insert("app".to_owned(), ["shop".to_owned()].into());
        let statement =
            "select `app`.`users`.`id` AS `app`,'`app`.`users`' from (`app`.`users` join `app`.`x` join `b`.`users`)";
        let told = translate_tables(&names, &tokens(statement));
        assert_eq!(
            told,
            "select `shop`.`people`.`id` AS `app`,'`app`.`users`' from (`shop`.`people` join `shop`.`x` join `b`.`users`)"
        );
    }
}
