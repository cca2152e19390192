//! In which order tables can be created.

use crossfade_model::TableShape;

/// A table's place among the given ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub table: usize,
    /// It refers to one that comes later.
    pub before_its_parents: bool,
}

/// Parents before children. Where tables refer to each other in a circle, the first table of it begins.
pub(super) fn parents_first(shapes: &[&TableShape]) -> Vec<Placed> {
    let parents: Vec<Vec<usize>> = shapes
        .iter()
        .enumerate()
        .map(|(own, shape)| {
            let places = shape.foreign_keys.iter().map(|key| shapes.iter().position(|other| other.name == key.parent));
            places.flatten().filter(|parent| *parent != own).collect()
        })
        .collect();
    let mut order: Vec<Placed> = Vec::new();
    let mut left: Vec<usize> = (0..shapes.len()).collect();
    while !left.is_empty() {
        let waits = |table: &usize| parents[*table].iter().any(|parent| left.contains(parent));
        let free = left.iter().position(|table| !waits(table));
        let in_circle = || left.iter().position(|table| leads_to_itself(*table, &parents, &left));
        let next = free.or_else(in_circle).unwrap_or(0);
        let table = left[next];
        order.push(Placed { table, before_its_parents: waits(&table) });
        left.remove(next);
    }
    order
}

fn leads_to_itself(table: usize, parents: &[Vec<usize>], left: &[usize]) -> bool {
    let mut reached: Vec<usize> = Vec::new();
    let mut from = vec![table];
    while let Some(at) = from.pop() {
        for parent in parents[at].iter().filter(|parent| left.contains(parent)) {
            if *parent == table {
                return true;
            }
            if !reached.contains(parent) {
                reached.push(*parent);
                from.push(*parent);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use crossfade_model::{ForeignKey, ReferentialAction, TableName};

    use super::*;

    fn shape(name: &str, parents: &[&str]) -> TableShape {
        let key = |parent: &&str| ForeignKey {
            name: format!("to_{parent}"),
            columns: Vec::new(),
            parent: TableName::new("app", *parent),
            parent_columns: Vec::new(),
            on_delete: ReferentialAction::Restrict,
            on_update: ReferentialAction::Restrict,
        };
        TableShape {
            name: TableName::new("app", name),
            columns: Vec::new(),
            primary_key: Vec::new(),
            unique_keys: Vec::new(),
            foreign_keys: parents.iter().map(key).collect(),
            engine: "InnoDB".to_owned(),
        }
    }

    fn ordered(shapes: &[TableShape]) -> Vec<(&str, bool)> {
        let shapes: Vec<&TableShape> = shapes.iter().collect();
        let placed = parents_first(&shapes);
        placed.iter().map(|placed| (&*shapes[placed.table].name.table, placed.before_its_parents)).collect()
    }

    #[test]
    fn parents_come_before_children() {
        let shapes = [shape("a", &["c", "a", "elsewhere"]), shape("b", &["a"]), shape("c", &[])];
        assert_eq!(ordered(&shapes), [("c", false), ("a", false), ("b", false)]);
    }

    #[test]
    fn a_circle_begins_somewhere() {
        let shapes = [shape("child", &["a"]), shape("a", &["b"]), shape("b", &["a", "e"]), shape("e", &[])];
        assert_eq!(ordered(&shapes), [("e", false), ("a", true), ("child", false), ("b", false)]);
    }
}
