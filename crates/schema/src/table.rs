//! A table as a list of things that can be compared: itself, its columns, keys, foreign keys and checks.

use std::collections::BTreeMap;

use crossfade_model::{Column, ForeignKey, ReferentialAction, TableName, TableShape, quote_identifier};

use crate::SchemaError;
use crate::difference::Thing;
use crate::names::Names;
use crate::printed::{Item, ItemKind, PrintedTable};
use crate::token::{Token, plain};

/// A table's shape, and the statement that its server prints.
#[derive(Debug)]
pub(crate) struct TableDefinition {
    pub shape: TableShape,
    pub statement: String,
}

impl TableDefinition {
    pub fn printed(&self) -> Result<PrintedTable<'_>, SchemaError> {
        let unread = || SchemaError::Unread { table: self.shape.name.clone() };
        PrintedTable::parse(&self.statement).ok_or_else(unread)
    }

    /// All that there is to be said of the table, in the words of the new side. `names` translates an old table, and is `None`
    /// for one of the new side.
    pub fn things(&self, names: Option<&Names>) -> Result<Vec<Thing>, SchemaError> {
        let printed = self.printed()?;
        let translator = Translator { table: &self.shape.name, names };
        let mut things = vec![translator.thing("table", None, table_attributes(&self.shape, &printed, &translator))];
        for column in &self.shape.columns {
            let attributes = column_attributes(column, printed.column(&column.name), &translator);
            things.push(translator.thing("column", Some(&column.name), attributes));
        }
        for item in &printed.items {
            let kind = match item.kind {
                ItemKind::Key => "key",
                ItemKind::Check => "check",
                ItemKind::Other => "period",
                ItemKind::Column | ItemKind::ForeignKey => continue,
            };
            let attributes = BTreeMap::from([("definition".to_owned(), translator.item(item))]);
            things.push(translator.thing(kind, Some(&item.name), attributes));
        }
        for key in &self.shape.foreign_keys {
            things.push(translator.thing("foreign key", Some(&key.name), translator.foreign_key(&self.shape, key)));
        }
        Ok(things)
    }
}

/// Renders pieces of a statement about an old table with the new names of its columns.
pub(crate) fn with_new_names(
    tokens: &[Token<'_>],
    names: &Names,
    table: &TableName,
    render: fn(&[Token<'_>]) -> String,
) -> String {
    let translated: Vec<Option<String>> = tokens.iter().map(|token| names.translated(table, token)).collect();
    let tokens: Vec<Token> = tokens
        .iter()
        .zip(&translated)
        .map(|(token, text)| Token { text: text.as_deref().unwrap_or(token.text), ..*token })
        .collect();
    render(&tokens)
}

/// Says of a table of either side what the new side would.
struct Translator<'n> {
    table: &'n TableName,
    names: Option<&'n Names>,
}

impl Translator<'_> {
    fn thing(&self, kind: &'static str, part: Option<&str>, attributes: BTreeMap<String, String>) -> Thing {
        let table = self.names.map_or_else(|| self.table.clone(), |names| names.table(self.table));
        let (name, key) = match part {
            None => (self.table.to_string(), table.to_string()),
            Some(part) => {
                let there = if kind == "column" { self.column(part).to_lowercase() } else { part.to_owned() };
                (format!("{}.{part}", self.table), format!("{table}.{there}"))
            }
        };
        Thing { kind, name, key, attributes }
    }

    fn column<'c>(&'c self, name: &'c str) -> &'c str {
        self.names.map_or(name, |names| names.column(self.table, name))
    }

    fn plain(&self, tokens: &[Token<'_>]) -> String {
        match self.names {
            None => plain(tokens),
            Some(names) => with_new_names(tokens, names, self.table, plain),
        }
    }

    /// A key or a check. Its own name is no column's, however it is spelled.
    fn item(&self, item: &Item<'_>) -> String {
        let (own, rest) = item.tokens.split_at(item.own_name_end());
        format!("{} {}", plain(own), self.plain(rest))
    }

    fn foreign_key(&self, shape: &TableShape, key: &ForeignKey) -> BTreeMap<String, String> {
        let columns = key.columns.iter().map(|&column| self.column(&shape.columns[column].name));
        let (parent, parent_columns) = match self.names {
            None => (key.parent.clone(), key.parent_columns.clone()),
            Some(names) => {
                let columns = key.parent_columns.iter().map(|column| names.column(&key.parent, column).to_owned());
                (names.table(&key.parent), columns.collect())
            }
        };
        [
            ("columns", list(columns)),
            ("parent", format!("{parent} ({})", list(parent_columns.iter().map(String::as_str)))),
            ("on delete", action_word(key.on_delete).to_owned()),
            ("on update", action_word(key.on_update).to_owned()),
        ]
        .map(|(what, value)| (what.to_owned(), value))
        .into()
    }
}

/// Names as a key lists them.
pub(crate) fn list<'c>(columns: impl Iterator<Item = &'c str>) -> String {
    columns.map(quote_identifier).collect::<Vec<_>>().join(", ")
}

/// As SQL writes it.
pub(crate) fn action_word(action: ReferentialAction) -> &'static str {
    match action {
        ReferentialAction::Restrict => "RESTRICT",
        ReferentialAction::Cascade => "CASCADE",
        ReferentialAction::SetNull => "SET NULL",
    }
}

/// The next AUTO_INCREMENT value is no part of a definition.
fn table_attributes(
    shape: &TableShape,
    printed: &PrintedTable<'_>,
    translator: &Translator,
) -> BTreeMap<String, String> {
    let mut attributes: BTreeMap<String, String> = BTreeMap::new();
    for (option, value) in printed.option_values() {
        let what = match option.as_str() {
            "auto_increment" => continue,
            "default charset" => "character set",
            "collate" => "collation",
            other => other,
        };
        attributes.insert(what.to_owned(), value);
    }
    attributes.insert("engine".to_owned(), shape.engine.clone());
    if !printed.partitions.is_empty() {
        attributes.insert("partitions".to_owned(), translator.plain(&printed.partitions));
    }
    let columns = shape.columns.iter().map(|column| translator.column(&column.name));
    attributes.insert(COLUMN_ORDER.to_owned(), list(columns));
    attributes
}

/// Told only where both sides have the same columns; see [`without_needless_order`].
const COLUMN_ORDER: &str = "column order";

/// Where a side has another column, that is told, and the order differs anyway.
pub(crate) fn without_needless_order(old: &mut [Thing], new: &mut [Thing]) {
    let columns = |things: &[Thing]| {
        let mut keys: Vec<String> =
            things.iter().filter(|thing| thing.kind == "column").map(|thing| thing.key.clone()).collect();
        keys.sort();
        keys
    };
    let orders_alike = |a: &Thing, b: &Thing| {
        let order = |thing: &Thing| thing.attributes.get(COLUMN_ORDER).map(|order| order.to_lowercase());
        order(a) == order(b)
    };
    let (Some(first_old), Some(first_new)) = (old.first(), new.first()) else { return };
    if columns(old) == columns(new) && !orders_alike(first_old, first_new) {
        return;
    }
    for table in [old.first_mut(), new.first_mut()].into_iter().flatten() {
        table.attributes.remove(COLUMN_ORDER);
    }
}

fn column_attributes(column: &Column, item: Option<&Item<'_>>, translator: &Translator) -> BTreeMap<String, String> {
    let mut attributes: BTreeMap<String, String> = BTreeMap::new();
    let mut say = |what: &str, value: String| drop(attributes.insert(what.to_owned(), value));
    say("type", without_width(&column.declared));
    say("nullable", if column.nullable { "yes" } else { "no" }.to_owned());
    if let Some(charset) = &column.charset {
        say("character set", charset.clone());
    }
    if let Some(collation) = &column.collation {
        say("collation", collation.clone());
    }
    for (clause, tokens) in item.map(Item::clauses).unwrap_or_default() {
        match (clause, translator.plain(&tokens)) {
            // MySQL prints what is meant anyway.
            ("default", value) if value.eq_ignore_ascii_case("NULL") => {}
            (clause, value) if value.is_empty() => say(clause, "yes".to_owned()),
            (clause, value) => say(clause, value),
        }
    }
    attributes
}

/// The width at which a client shows an integer changes nothing of what it holds; MySQL 8.0.19 prints none any more.
fn without_width(declared: &str) -> String {
    let is_integer =
        ["tinyint(", "smallint(", "mediumint(", "int(", "bigint("].iter().any(|word| declared.starts_with(word));
    if !is_integer || declared.contains("zerofill") {
        return declared.to_owned();
    }
    match (declared.split_once('('), declared.split_once(')')) {
        (Some((word, _)), Some((_, rest))) => format!("{word}{rest}"),
        _ => declared.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_of_integers_are_no_difference() {
        let cases = [
            ("int(11)", "int"),
            ("bigint(20) unsigned", "bigint unsigned"),
            ("tinyint(1)", "tinyint"),
            ("int(5) unsigned zerofill", "int(5) unsigned zerofill"),
            ("varchar(5)", "varchar(5)"),
            ("int", "int"),
        ];
        for (declared, told) in cases {
            assert_eq!(without_width(declared), told);
        }
    }
}
