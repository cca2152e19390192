//! The tables of the properties: everything that ties rows, in as few columns as possible.

use crossfade_model::{Column, ColumnKind, Direction, ForeignKey, ReferentialAction, TableName, TableShape, UniqueKey};
use crossfade_rules::{Policy, TableMapping, TableRule};

/// Columns of every table: an own key, a parent's key or NULL, a unique text or NULL, and contents.
pub const KEY: usize = 0;
pub const PARENT: usize = 1;
pub const TAG: usize = 2;

pub const PARENTS: usize = 0;
pub const CHILDREN: usize = 1;
pub const TREE: usize = 2;
pub const OPAQUE: usize = 3;
pub const KEYLESS: usize = 4;
/// Refers to its parent by the parent's tag.
pub const NICKNAMES: usize = 5;
pub const TABLES: usize = 6;

pub fn name(table: usize) -> TableName {
    TableName::new("app", ["parents", "children", "tree", "opaque", "keyless", "nicknames"][table])
}

/// The table and column that a table's `PARENT` column refers to.
pub fn parent_of(table: usize) -> Option<(usize, usize)> {
    match table {
        CHILDREN | KEYLESS => Some((PARENTS, KEY)),
        NICKNAMES => Some((PARENTS, TAG)),
        TREE => Some((TREE, KEY)),
        OPAQUE => Some((CHILDREN, KEY)),
        _ => None,
    }
}

pub fn shape(table: usize, on_delete: ReferentialAction, on_update: ReferentialAction) -> TableShape {
    let text = || ColumnKind::Text { charset: "utf8mb4".to_owned() };
    let columns = vec![
        column("id", text(), table == KEYLESS),
        column("parent", text(), true),
        column("tag", text(), true),
        column("n", ColumnKind::Integer { bytes: 8, unsigned: false }, true),
    ];
    let link = parent_of(table).map(|(parent, column)| ForeignKey {
        name: "link".to_owned(),
        columns: vec![PARENT],
        parent: name(parent),
        parent_columns: vec![["id", "parent", "tag"][column].to_owned()],
        on_delete,
        on_update,
    });
    let tag = UniqueKey { name: "tag".to_owned(), columns: vec![TAG], nullable: true, partial: table == OPAQUE };
    TableShape {
        name: name(table),
        columns,
        primary_key: if table == KEYLESS { vec![] } else { vec![KEY] },
        unique_keys: if table == KEYLESS { vec![] } else { vec![tag] },
        foreign_keys: link.into_iter().collect(),
        engine: "InnoDB".to_owned(),
    }
}

pub fn mappings(action: ReferentialAction) -> Vec<TableMapping> {
    mappings_with(action, action)
}

pub fn mappings_with(on_delete: ReferentialAction, on_update: ReferentialAction) -> Vec<TableMapping> {
    (0..TABLES)
        .map(|table| {
            let shape = shape(table, on_delete, on_update);
            let mut rule = TableRule::same(name(table), None, Policy::PreferNew);
            rule.one_way = table == KEYLESS;
            TableMapping::build(Direction::Forward, &rule, &shape, &shape).expect("the tables map")
        })
        .collect()
}

fn column(name: &str, kind: ColumnKind, nullable: bool) -> Column {
    Column { nullable, ..Column::plain(name, kind) }
}
