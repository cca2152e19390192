//! What is wrong with a mapping.

use crossfade_model::TableName;

/// Whether a problem prevents mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Warning,
    Error,
}

/// One finding about a table's mapping in one direction. `table` is the source's name unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingProblem {
    #[error("{table} has no column `{column}`, which the rule renames")]
    RenamedColumnMissing { table: TableName, column: String },
    #[error("column `{column}` of {table} has type {declared}, which crossfade cannot read")]
    UnsupportedType { table: TableName, column: String, declared: String },
    #[error("{} does not fit {}: {}", .0.source_column(), .0.target_column(), .0.reason)]
    Incompatible(Misfit),
    #[error("{} does not fit {}: {}", .0.source_column(), .0.target_column(), .0.reason)]
    Narrow(Misfit),
    #[error("{} fits {} only partly: {}", .0.source_column(), .0.target_column(), .0.reason)]
    Partly(Misfit),
    #[error("column `{column}` of {table} may be NULL, and {target_table}.{target_column} refuses NULL")]
    NullRefused { table: TableName, column: String, target_table: TableName, target_column: String },
    #[error("column `{column}` of {table} is computed there, and {target_table}.{target_column} is not")]
    GeneratedAtSource { table: TableName, column: String, target_table: TableName, target_column: String },
    #[error("{target_table} has a column `{column}` that {table} lacks, and it has neither a default nor allows NULL")]
    TargetColumnUnfilled { table: TableName, target_table: TableName, column: String },
    #[error("column `{column}` of {table} is not carried: {target_table} has no such column")]
    Dropped { table: TableName, column: String, target_table: TableName },
    #[error("no column of {table} can be carried to {target_table}")]
    NothingMapped { table: TableName, target_table: TableName },
    #[error("policy `{policy}` of {table} needs a clock column")]
    ClockNotNamed { table: TableName, policy: &'static str },
    #[error("{table} and {target_table} do not both have the clock column `{column}`, or it cannot be carried")]
    ClockMissing { table: TableName, target_table: TableName, column: String },
    #[error("the clock column `{column}` of {table} is {declared}, which policy `{policy}` cannot compare")]
    ClockKind { table: TableName, column: String, declared: String, policy: &'static str },
    #[error("the clock column `{column}` of {table} counts in whole units of 10^-{fraction_digits} s only")]
    ClockCoarse { table: TableName, column: String, fraction_digits: u8 },
    #[error("the clock column `{column}` of {table} is not updated by the server on every update")]
    ClockNotUpdated { table: TableName, column: String },
    #[error("{table} and {target_table} have keys, but none that identifies a row on both")]
    NoCommonKey { table: TableName, target_table: TableName },
    #[error("{table} has no key on both sides, so it can only be carried one way")]
    Keyless { table: TableName },
    #[error("`{rule}` cannot merge column `{column}` of {table}, which is {declared}")]
    MergeKind { table: TableName, column: String, declared: String, rule: &'static str },
    #[error("`{rule}` cannot merge column `{column}` of {table}, which may be NULL")]
    MergeNullable { table: TableName, column: String, rule: &'static str },
    #[error("`merge_rules` of {table} names the column `{column}`, which is not carried between the sides")]
    MergeColumnMissing { table: TableName, column: String },
    #[error("`{rule}` cannot merge column `{column}` of {table}, since {reason}")]
    MergeColumnFixed { table: TableName, column: String, rule: &'static str, reason: &'static str },
    #[error("columns of {table} cannot be merged: it is carried one way only")]
    MergeOneWay { table: TableName },
    #[error(
        "the unique key `{key}` of {table} cannot be told from the carried columns, so changes of the table are applied one by one"
    )]
    UniqueKeyOpaque { table: TableName, key: String },
}

/// A column and the one that it is carried to, which does not take all that the first can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    pub table: TableName,
    pub column: String,
    pub source_type: String,
    pub target_table: TableName,
    pub target_column: String,
    pub target_type: String,
    pub reason: String,
}

impl Misfit {
    fn source_column(&self) -> String {
        format!("column `{}` of {} ({})", self.column, self.table, self.source_type)
    }

    fn target_column(&self) -> String {
        format!("{}.{} ({})", self.target_table, self.target_column, self.target_type)
    }
}

impl MappingProblem {
    pub fn severity(&self) -> Severity {
        match self {
            MappingProblem::Partly(_)
            | MappingProblem::NullRefused { .. }
            | MappingProblem::Dropped { .. }
            | MappingProblem::ClockCoarse { .. }
            | MappingProblem::ClockNotUpdated { .. }
            | MappingProblem::UniqueKeyOpaque { .. } => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// A short name that does not change, for `check` and for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            MappingProblem::RenamedColumnMissing { .. } => "renamed-column-missing",
            MappingProblem::UnsupportedType { .. } => "column-type-unsupported",
            MappingProblem::Incompatible(_) | MappingProblem::Narrow(_) => "column-incompatible",
            MappingProblem::Partly(_) => "column-partly-compatible",
            MappingProblem::NullRefused { .. } => "column-null-refused",
            MappingProblem::GeneratedAtSource { .. } => "column-generated-at-source",
            MappingProblem::TargetColumnUnfilled { .. } => "column-unfilled",
            MappingProblem::Dropped { .. } => "column-dropped",
            MappingProblem::NothingMapped { .. } => "nothing-mapped",
            MappingProblem::ClockNotNamed { .. } => "clock-not-named",
            MappingProblem::ClockMissing { .. } => "clock-missing",
            MappingProblem::ClockKind { .. } => "clock-type",
            MappingProblem::ClockCoarse { .. } => "clock-coarse",
            MappingProblem::ClockNotUpdated { .. } => "clock-not-updated",
            MappingProblem::NoCommonKey { .. } => "no-common-key",
            MappingProblem::Keyless { .. } => "keyless",
            MappingProblem::UniqueKeyOpaque { .. } => "unique-key-opaque",
            MappingProblem::MergeKind { .. } => "merge-type",
            MappingProblem::MergeNullable { .. } => "merge-null",
            MappingProblem::MergeColumnMissing { .. } => "merge-column-missing",
            MappingProblem::MergeColumnFixed { .. } => "merge-column-fixed",
            MappingProblem::MergeOneWay { .. } => "merge-one-way",
        }
    }

    /// The remedy.
    pub fn hint(&self) -> &'static str {
        match self {
            MappingProblem::RenamedColumnMissing { .. } => "correct the name under `columns` of the table's rule",
            MappingProblem::UnsupportedType { .. } => {
                "leave the table out (`skip = true`), or change the column's type"
            }
            MappingProblem::Incompatible(_) | MappingProblem::Narrow(_) => {
                "widen the narrower column, or mark the table `one_way = true` if only the way back is narrower"
            }
            MappingProblem::Partly(_) => "a row that does not fit will be parked; widen the column to avoid that",
            MappingProblem::NullRefused { .. } => {
                "a row with NULL will be parked; allow NULL on both sides to avoid that"
            }
            MappingProblem::GeneratedAtSource { .. } => "compute the column on both sides, or on none",
            MappingProblem::TargetColumnUnfilled { .. } => "give the column a default, or allow NULL",
            MappingProblem::Dropped { .. } => "add the column to the other side if its contents matter there",
            MappingProblem::NothingMapped { .. } => "check the two table names of the rule",
            MappingProblem::ClockNotNamed { .. } => {
                "name a clock column, or use policy `prefer-old` or `prefer-new`, which need none"
            }
            MappingProblem::ClockMissing { .. } => {
                "add the column to both sides, correct `clock`, or give the table a `[[table]]` of its own without `clock`"
            }
            MappingProblem::ClockKind { .. } => {
                "`newest` needs a DATETIME or TIMESTAMP on both sides, `version` an integer"
            }
            MappingProblem::ClockCoarse { .. } => {
                "use a precision of 6 digits, for example DATETIME(6), so that changes can be told apart"
            }
            MappingProblem::ClockNotUpdated { .. } => {
                "declare it ON UPDATE CURRENT_TIMESTAMP(6), or make sure that every update sets it"
            }
            MappingProblem::NoCommonKey { .. } => {
                "give both sides a primary key or NOT NULL unique key on the same columns"
            }
            MappingProblem::Keyless { .. } => "add a primary key on both sides, or mark the table `one_way = true`",
            MappingProblem::MergeKind { .. } => {
                "`sum-delta` needs an integer or DECIMAL; `max` and `min` a number, date or time; every column can be `newer`"
            }
            MappingProblem::MergeNullable { .. } => "declare the column NOT NULL on both sides, or choose another rule",
            MappingProblem::MergeColumnMissing { .. } => {
                "name the column as the old side calls it, or give the table a `[[table]]` of its own without it"
            }
            MappingProblem::MergeColumnFixed { .. } => "remove the column from `merge_rules`",
            MappingProblem::MergeOneWay { .. } => "remove `merge`, or give the table a key and let it go both ways",
            MappingProblem::UniqueKeyOpaque { .. } => {
                "nothing needs to be done; a unique key on whole, stored columns would be applied faster"
            }
        }
    }
}
