//! How one table of a side becomes the table of the other side.

mod build;
mod kinds;
mod merging;
mod problem;
mod projection;
mod relations;
mod unique;

use std::collections::BTreeMap;

use crossfade_model::{
    Clock, ColumnKind, Direction, FamilyPolicy, MergeRule, ReferentialAction, Side, TableName, Value,
};

pub use problem::{MappingProblem, Misfit, Severity};
pub use projection::Projection;
pub(crate) use relations::find_target;
pub use relations::{ChildLink, child_links};

use crate::clock::clock_of;
use crate::digest::Digest;
use crate::plan::LANE_RULE;

/// How a table's conflicts are decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The clock is a modification time.
    Newest,
    /// The clock is an integer that every update raises.
    Version,
    PreferOld,
    PreferNew,
}

impl Policy {
    /// Else it names the side that wins.
    pub fn compares_clocks(self) -> bool {
        matches!(self, Policy::Newest | Policy::Version)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Newest => "newest",
            Policy::Version => "version",
            Policy::PreferOld => "prefer-old",
            Policy::PreferNew => "prefer-new",
        }
    }
}

/// What the configuration says of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRule {
    pub old: TableName,
    pub new: TableName,
    /// The clock column by its name on the old side.
    pub clock: Option<String>,
    pub policy: Policy,
    /// Columns that are called differently on the new side: old name to new name.
    pub renamed: BTreeMap<String, String>,
    /// Only carried from old to new; nothing must be able to come back.
    pub one_way: bool,
    /// Concurrent changes of one row are merged column by column: rules by the column's name on the old side; the others
    /// follow the newer change.
    pub merge: Option<BTreeMap<String, MergeRule>>,
}

impl TableRule {
    /// A table that has the same name and columns on both sides.
    pub fn same(name: TableName, clock: Option<&str>, policy: Policy) -> TableRule {
        TableRule {
            old: name.clone(),
            new: name,
            clock: clock.map(str::to_owned),
            policy,
            renamed: BTreeMap::new(),
            one_way: false,
            merge: None,
        }
    }

    /// The name on a side.
    pub fn name(&self, side: Side) -> &TableName {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }
}

/// One table in one direction, checked and ready to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMapping {
    pub direction: Direction,
    pub source: TableName,
    pub target: TableName,
    /// The name that both directions hash keys of this table under: the old side's.
    pub identity: TableName,
    pub policy: Policy,
    /// The columns that are carried, in the target's ordinal order. Rows given to the planner and the applier are in
    /// this order.
    pub columns: Vec<MappedColumn>,
    pub clock: Option<ClockColumn>,
    /// Every write gives the clock a new value; see [`TableMapping::shows_untouched`].
    pub strict_clock: bool,
    /// Indexes into `columns` of the key that identifies a row on both sides, in the old side's key order. Empty for a
    /// keyless table.
    pub row_key: Vec<usize>,
    /// The target's other unique keys, as indexes into `columns`. A key with a NULL part binds nothing.
    pub unique_keys: Vec<Vec<usize>>,
    /// The target has a unique key whose value cannot be told from the carried columns (a prefix, an expression, a
    /// generated column), so changes of the table are never folded or reordered.
    pub in_order: bool,
    /// The target's foreign keys all of whose columns are carried. Whether the parent is synced is the planner's to find.
    pub parents: Vec<ParentLink>,
    /// Where concurrent changes of one row are merged column by column: the rule of each of `columns`.
    pub merge: Option<Vec<MergeRule>>,
    /// No key identifies a row: carried one way only, matched by the whole row.
    pub keyless: bool,
    /// What `build` found that does not prevent mapping.
    pub warnings: Vec<MappingProblem>,
}

/// A column that is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedColumn {
    /// Name at the source, as the source spells it.
    pub source: String,
    /// Name at the target, as the target spells it.
    pub target: String,
    pub source_kind: ColumnKind,
    pub target_kind: ColumnKind,
    /// The target refuses NULL.
    pub not_null: bool,
    /// The source's server sets it with every update that does not.
    pub on_update_now: bool,
}

/// The column that orders versions of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockColumn {
    pub source: String,
    pub target: String,
    /// Index into the mapping's columns.
    pub index: usize,
    pub kind: ClockKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockKind {
    /// A DATETIME or TIMESTAMP, compared and bound at the coarser precision of both sides.
    Time {
        fraction_digits: u8,
    },
    Version,
}

/// A foreign key of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentLink {
    pub name: String,
    /// Indexes into the mapping's columns.
    pub columns: Vec<usize>,
    /// The parent at the target.
    pub parent: TableName,
    /// The parent's column names at the target, in the order of `columns`.
    pub parent_columns: Vec<String>,
    pub on_delete: ReferentialAction,
    pub on_update: ReferentialAction,
}

impl TableMapping {
    /// A row that is found to equal this one, in the order of `columns`, has not been touched since: its clock has a value
    /// that no other version of the row has. Users must not insert again, clock included, what they have deleted.
    ///
    /// Where columns are merged, what the other side wrote may be beneath the clock of a later change. That one has then won
    /// every column that both changed, and a sum that is the same is the same; but a greater or smaller value may still be
    /// to come out of a change that left the row as it was.
    pub fn shows_untouched(&self, row: &[Value]) -> bool {
        if self.merge.iter().flatten().any(|rule| matches!(rule, MergeRule::Max | MergeRule::Min)) {
            return false;
        }
        let clock = self.clock.as_ref().filter(|_| self.strict_clock);
        clock.is_some_and(|clock| row.get(clock.index).and_then(|value| clock_of(clock, value)).is_some())
    }

    /// The change is later than the row that it was made on, and than all that came before it on its side.
    ///
    /// Then it wins on the other side, too, should a user of the target have changed the row and changed it back without
    /// moving its clock (`SET changed_at = changed_at`): a row that looks untouched may have such a past.
    pub fn moves_clock(&self, before: &[Value], after: Option<&[Value]>, effective: Option<Clock>) -> bool {
        let Some(clock) = &self.clock else { return false };
        let read = |row: &[Value]| row.get(clock.index).and_then(|value| clock_of(clock, value));
        effective > read(before) && after.is_none_or(|after| read(after) == effective)
    }

    /// The column changes with every update, whatever the user wanted: the clock, and what the server sets.
    pub fn is_incidental(&self, column: usize) -> bool {
        let is_clock = self.clock.as_ref().is_some_and(|clock| clock.index == column);
        is_clock || self.columns.get(column).is_some_and(|column| column.on_update_now)
    }

    /// The mapped column of a name at the target.
    pub fn target_column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.target.eq_ignore_ascii_case(name))
    }
}

/// A hash of all rules that decide what both processes do. The order of the rules does not count. Stable across
/// processes, and across versions that fill lanes alike: two that do not, must not work on one pair.
pub fn rules_hash(rules: &[TableRule], prefer: Side, family: FamilyPolicy) -> u64 {
    let mut sorted: Vec<&TableRule> = rules.iter().collect();
    sorted.sort_by(|a, b| (&a.old, &a.new).cmp(&(&b.old, &b.new)));
    let mut digest = Digest::default();
    digest
        .text("crossfade rules 2")
        .number(LANE_RULE)
        .text(prefer.as_str())
        .text(family.as_str())
        .number(sorted.len() as u64);
    for rule in sorted {
        for name in [&rule.old, &rule.new] {
            digest.text(&name.schema).text(&name.table);
        }
        digest.number(u64::from(rule.clock.is_some())).text(rule.clock.as_deref().unwrap_or_default());
        digest.text(rule.policy.as_str()).number(u64::from(rule.one_way)).number(rule.renamed.len() as u64);
        for (old, new) in &rule.renamed {
            digest.text(old).text(new);
        }
        if let Some(merge) = &rule.merge {
            digest.text("merge columns").number(merge.len() as u64);
            for (column, rule) in merge {
                digest.text(column).text(rule.as_str());
            }
        }
    }
    digest.finish()
}

/// A hash of what a plan depends on in the mappings. Stable across processes, and across versions that fill lanes alike.
///
/// Three things that a plan depends on as well are left out on purpose: the kinds of the columns (what is plain), whether a
/// link that is not restricted cascades or sets to NULL (what follows), and how columns are merged. With one of
/// them more the hash would be another one, and a batch that was half done when the program was replaced would count as planned otherwise.
pub fn plan_hash(tables: &[TableMapping]) -> u64 {
    let mut digest = Digest::default();
    digest.text("crossfade plan").number(LANE_RULE).number(tables.len() as u64);
    for table in tables {
        digest.text(&table.target.schema).text(&table.target.table).number(table.columns.len() as u64);
        for column in &table.columns {
            digest.text(&column.source).text(&column.target);
        }
        digest.number(u64::from(table.in_order)).number(u64::from(table.keyless));
        digest.number(table.unique_keys.len() as u64);
        for key in std::iter::once(&table.row_key).chain(&table.unique_keys) {
            hash_indexes(&mut digest, key);
        }
        digest.number(table.parents.len() as u64);
        for link in &table.parents {
            digest.text(&link.parent.schema).text(&link.parent.table);
            digest.number(u64::from(link.on_delete == ReferentialAction::Restrict));
            digest.number(u64::from(link.on_update == ReferentialAction::Restrict));
            hash_indexes(&mut digest, &link.columns);
            link.parent_columns.iter().for_each(|name| {
                digest.text(name);
            });
        }
    }
    digest.finish()
}

fn hash_indexes(digest: &mut Digest, indexes: &[usize]) {
    digest.number(indexes.len() as u64);
    indexes.iter().for_each(|index| {
        digest.number(*index as u64);
    });
}
