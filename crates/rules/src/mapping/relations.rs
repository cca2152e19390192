//! Which synced tables refer to which.

use crossfade_model::{ReferentialAction, TableName};

use super::TableMapping;

/// A foreign key, as its parent sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildLink {
    /// Index of the child's mapping.
    pub child: usize,
    /// Of the child's columns.
    pub columns: Vec<usize>,
    /// Of the parent's columns, in the order of `columns`.
    pub referred: Vec<usize>,
    pub on_delete: ReferentialAction,
    pub on_update: ReferentialAction,
}

/// Per mapping the synced tables that refer to it at the target.
pub fn child_links(mappings: &[TableMapping]) -> Vec<Vec<ChildLink>> {
    let mut links = vec![Vec::new(); mappings.len()];
    for (child, mapping) in mappings.iter().enumerate() {
        for link in &mapping.parents {
            let Some(parent) = find_target(mappings, &link.parent) else { continue };
            let referred: Option<Vec<usize>> =
                link.parent_columns.iter().map(|name| mappings[parent].target_column(name)).collect();
            if let Some(referred) = referred.filter(|referred| referred.len() == link.columns.len()) {
                let (columns, on_delete, on_update) = (link.columns.clone(), link.on_delete, link.on_update);
                links[parent].push(ChildLink { child, columns, referred, on_delete, on_update });
            }
        }
    }
    links
}

/// The mapping onto a table of the target. Servers may spell a parent's name in another case than its own definition.
pub(crate) fn find_target(mappings: &[TableMapping], name: &TableName) -> Option<usize> {
    let alike = |mapping: &TableMapping| {
        mapping.target.schema.eq_ignore_ascii_case(&name.schema)
            && mapping.target.table.eq_ignore_ascii_case(&name.table)
    };
    mappings.iter().position(|mapping| mapping.target == *name).or_else(|| mappings.iter().position(alike))
}
