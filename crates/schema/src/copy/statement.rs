//! The statement that creates an old table on the new side.

use crossfade_model::{ForeignKey, ReferentialAction, TableName, TableShape, quote_identifier};

use crate::SchemaError;
use crate::names::Names;
use crate::printed::{Item, ItemKind};
use crate::table::{TableDefinition, action_word, list, with_new_names};
use crate::token::{Token, TokenKind, printed};

/// As the old side prints it, with the new side's names of schema, table, columns and parents. The next AUTO_INCREMENT value comes
/// along, so that a row written on the new side takes no key that is yet to be copied.
pub(super) fn create_table(old: &TableDefinition, new: &TableName, names: &Names) -> Result<String, SchemaError> {
    let table = &old.shape.name;
    let statement = old.printed()?;
    let mut items: Vec<String> = Vec::new();
    for item in &statement.items {
        if item.kind != ItemKind::ForeignKey {
            items.push(renamed(item, names, table));
        }
    }
    items.extend(old.shape.foreign_keys.iter().map(|key| foreign_key(&old.shape, key, names)));
    Ok(format!(
        "CREATE TABLE {} (\n  {}\n){}{}",
        new.quoted(),
        items.join(",\n  "),
        printed(&statement.options),
        printed(&statement.partitions)
    ))
}

fn renamed(item: &Item<'_>, names: &Names, table: &TableName) -> String {
    let (own, rest) = item.tokens.split_at(item.own_name_end());
    let text = format!("{}{}", printed(own), with_new_names(rest, names, table, printed));
    text.trim().to_owned()
}

fn foreign_key(shape: &TableShape, key: &ForeignKey, names: &Names) -> String {
    let columns = key.columns.iter().map(|&column| names.column(&shape.name, &shape.columns[column].name));
    let parent_columns = key.parent_columns.iter().map(|column| names.column(&key.parent, column));
    // RESTRICT is what a key does that says nothing.
    let on = |event: &str, action: ReferentialAction| match action {
        ReferentialAction::Restrict => String::new(),
        _ => format!(" ON {event} {}", action_word(action)),
    };
    format!(
        "CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}){}{}",
        quote_identifier(&key.name),
        list(columns),
        names.table(&key.parent).quoted(),
        list(parent_columns),
        on("DELETE", key.on_delete),
        on("UPDATE", key.on_update)
    )
}

/// Why the statement would not make the same table; `None` where it does.
pub(super) fn unfit(old: &TableDefinition, names: &Names) -> Result<Option<String>, SchemaError> {
    let statement = old.printed()?;
    let table = &old.shape.name;
    // Their names may stand there without back-quotes, like words.
    if statement.partitions.iter().any(|token| names.renames(table, token)) {
        return Ok(Some("it is partitioned by a column that the new side calls otherwise".to_owned()));
    }
    let items = statement.items.iter().flat_map(|item| item.tokens.windows(2));
    let options = statement.partitions.windows(2);
    let has_mark = items.chain(options).any(|two| !two[0].is_word("COMMENT") && holds_mark(&two[1]));
    Ok(has_mark.then(|| {
        "a label or a default of it holds `?`, as which servers print characters beyond U+FFFF in definitions"
            .to_owned()
    }))
}

fn holds_mark(token: &Token<'_>) -> bool {
    token.kind == TokenKind::Text && token.text.contains('?')
}
