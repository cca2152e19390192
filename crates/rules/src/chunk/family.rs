//! Rows of a chunk that a server may have changed without a word in its binlog.
//!
//! What ON DELETE and ON UPDATE do to children is in the binlog of few servers. Where a parent's value went between a chunk's
//! marks, or came again, a child that was read with that value may have gone or changed since. Most often its parent is then
//! gone on the target as well, which refuses the child; not so where somebody has given the value to a row again, or where
//! rows are written before their parents. Such rows are doubtful: they are to be read again, while nobody can change them.

use crossfade_model::{ReferentialAction, Row, TableName, Value};
use rustc_hash::FxHashSet;

use super::{CopyOrder, Window, reachable};
use crate::key::{exact_hash, folded_hash};
use crate::mapping::{TableMapping, child_links};

/// Foreign keys by which the end of a parent changes its children.
#[derive(Debug, Clone)]
pub struct Families {
    links: Vec<Link>,
    /// Per table all tables whose rows' ends may change it, directly or not.
    hangs_on: Vec<FxHashSet<usize>>,
    /// Per table, where its rows may be written before their parents: what stands for the end of any of these.
    circles: Vec<Option<u64>>,
}

#[derive(Debug, Clone)]
struct Link {
    /// Tells apart the values of one foreign key from those of others.
    name: TableName,
    child: usize,
    columns: Vec<usize>,
    parent: usize,
    referred: Vec<usize>,
}

impl Families {
    pub fn of(mappings: &[TableMapping]) -> Families {
        let mut links = Vec::new();
        for (parent, of_parent) in child_links(mappings).into_iter().enumerate() {
            for link in of_parent {
                if link.on_delete == ReferentialAction::Restrict && link.on_update == ReferentialAction::Restrict {
                    continue;
                }
                let identity = &mappings[link.child].identity;
                let name = TableName::new(&*identity.schema, format!("{}/{}", identity.table, links.len()));
                let (columns, referred) = (link.columns, link.referred);
                links.push(Link { name, child: link.child, columns, parent, referred });
            }
        }
        let parents_of =
            |table: usize| links.iter().filter(|link| link.child == table).map(|link| link.parent).collect();
        let refers: Vec<Vec<usize>> = (0..mappings.len()).map(parents_of).collect();
        let hangs_on = (0..mappings.len()).map(|table| reachable(&refers, table)).collect();
        let in_circle = CopyOrder::of(mappings).in_circle;
        let circle = |(table, in_circle): (usize, bool)| in_circle.then(|| exact_hash(&mappings[table].identity, &[]));
        Families { links, hangs_on, circles: in_circle.into_iter().enumerate().map(circle).collect() }
    }

    /// A foreign key may change rows of this table, of which no binlog need tell.
    pub fn may_change_silently(&self, table: usize) -> bool {
        self.links.iter().any(|link| link.child == table)
    }

    /// Appends what tells children of a changed row that they are doubtful: their table, and what [`Window`] is to note.
    /// `value` gives the value of a mapped column in an image.
    pub(super) fn ended<'v>(
        &self,
        table: usize,
        images: [Option<&'v Row>; 2],
        value: impl Fn(&'v Row, usize) -> Option<&'v Value>,
        found: &mut Vec<(usize, u64)>,
    ) {
        let mut has_ended = false;
        for link in self.links.iter().filter(|link| link.parent == table) {
            let [before, after] = images.map(|image| link.bound(&link.referred, |column| value(image?, column)));
            if before != after {
                has_ended |= before.is_some();
                found.extend([before, after].into_iter().flatten().map(|values| (link.child, link.token(&values))));
            }
        }
        if has_ended {
            let circles = self.circles.iter().enumerate().filter(|(child, _)| self.hangs_on[*child].contains(&table));
            found.extend(circles.filter_map(|(child, circle)| Some((child, (*circle)?))));
        }
    }
}

impl Link {
    /// Nothing refers to NULL, and NULL refers to nothing.
    fn bound<'v>(&self, columns: &[usize], value: impl Fn(usize) -> Option<&'v Value>) -> Option<Vec<&'v Value>> {
        let values: Option<Vec<&Value>> = columns.iter().map(|column| value(*column)).collect();
        values.filter(|values| values.iter().all(|value| !value.is_null()))
    }

    /// A server compares a child's value with its parent's by a collation.
    fn token(&self, values: &[&Value]) -> u64 {
        folded_hash(&self.name, values)
    }
}

impl Window {
    /// Takes the doubtful rows out of a chunk's.
    pub fn take_doubtful(&self, families: &Families, table: usize, rows: &mut Vec<Row>) -> Vec<Row> {
        let links: Vec<&Link> = families.links.iter().filter(|link| link.child == table).collect();
        if self.is_empty() || links.is_empty() {
            return Vec::new();
        }
        let all = families.circles[table].is_some_and(|circle| self.touched.contains(&circle));
        let is_doubtful = |row: &Row| {
            links.iter().any(|link| {
                let values = link.bound(&link.columns, |column| row.get(column));
                values.is_some_and(|values| all || self.touched.contains(&link.token(&values)))
            })
        };
        let (doubtful, sure) = std::mem::take(rows).into_iter().partition(is_doubtful);
        *rows = sure;
        doubtful
    }
}
