//! Changes of rows, and of what refers to them, while a backfill has yet to copy their table.
//!
//! A change may bring a child whose parent is not copied yet; it is then written before its parent. And a parent that is not
//! there yet may go, or change what children refer to: then no server does to the children what the source's server did,
//! perhaps without a word in its binlog, and it is done here.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use crossfade_model::{ColumnKind, ReferentialAction, Row, Value};
use crossfade_rules::mapping::ChildLink;
use mysql_async::Conn;
use rustc_hash::FxHashSet;

use crate::error::ApplyError;
use crate::family::{self, Ending, children_by};
use crate::lane::Shared;
use crate::session;
use crate::table::TargetTable;
use crate::writing::put_one;

/// The tables that are to be copied and are not copied yet, by their places among the mappings. Until then a row that
/// refers to one of theirs may come before it. Cheap to clone; clones know the same.
#[derive(Debug, Clone, Default)]
pub struct Uncopied(Arc<RwLock<BTreeSet<usize>>>);

impl Uncopied {
    pub fn set(&self, tables: BTreeSet<usize>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tables;
    }

    pub fn has(&self, table: usize) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&table)
    }
}

/// A backfill has yet to copy rows that those of this table may refer to.
pub(crate) fn parents_come_later(shared: &Shared, table: usize) -> bool {
    shared.planner.foreign_keys(table).any(|key| shared.uncopied.has(key.parent))
}

/// Rows of this table can be put into their places, together, before their parents: no other row follows what they change, and
/// [`lacking_parents`] knows all parents that they may have.
pub(crate) fn may_come_together(shared: &Shared, table: usize) -> bool {
    let (target, children) = (&shared.tables[table], &shared.children[table]);
    let is_text = |column: &usize| matches!(target.columns()[*column].kind, ColumnKind::Text { .. });
    let stays = |link: &ChildLink| link.referred.iter().all(|column| target.key().contains(column));
    let nobody_follows = children.is_empty() || (!target.key().iter().any(is_text) && children.iter().all(stays));
    let all_are_synced = shared.planner.foreign_keys(table).count() == shared.mappings[table].parents.len();
    parents_come_later(shared, table) && nobody_follows && all_are_synced
}

/// Which of these rows lack a parent that is yet to be copied, and no other one. Their other parents stay until the commit, as
/// the server would have it.
pub(crate) async fn lacking_parents(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    rows: &[&Row],
) -> Result<Vec<bool>, mysql_async::Error> {
    let (mut lacks_later, mut lacks_other) = (vec![false; rows.len()], vec![false; rows.len()]);
    for key in shared.planner.foreign_keys(table) {
        let comes_later = shared.uncopied.has(key.parent);
        let wanted: Vec<Option<u64>> = rows.iter().map(|row| key.wanted(row)).collect();
        let mut once = FxHashSet::default();
        let values = rows.iter().zip(&wanted).filter(|(_, wanted)| wanted.is_some_and(|wanted| once.insert(wanted)));
        let values: Vec<Vec<&Value>> =
            values.map(|(row, _)| key.columns.iter().map(|column| &row[*column]).collect()).collect();
        let found = shared.tables[key.parent].values_where(conn, key.referred, &values, !comes_later).await?;
        let there: FxHashSet<u64> = found.iter().filter_map(|values| key.offered(values)).collect();
        let lacks = if comes_later { &mut lacks_later } else { &mut lacks_other };
        for (lacks, wanted) in lacks.iter_mut().zip(wanted) {
            *lacks |= wanted.is_some_and(|wanted| !there.contains(&wanted));
        }
    }
    Ok(lacks_later.into_iter().zip(lacks_other).map(|(later, other)| later && !other).collect())
}

/// Of rows that are to be deleted, some may not be copied yet: then nothing cascades from them to what refers to them.
pub(crate) async fn end_children(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    endings: &[Ending<'_>],
) -> Result<(), ApplyError> {
    if shared.uncopied.has(table) && !shared.children[table].is_empty() {
        for ending in endings {
            family::end_children(shared, conn, table, ending).await?;
        }
    }
    Ok(())
}

/// Rows are to be changed, each from the first image to the second. Some may not be copied yet: then nothing that refers to
/// them follows, and nothing that refers to that.
pub(crate) async fn let_children_follow(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    changes: &[(&Row, &Row)],
) -> Result<(), ApplyError> {
    if !shared.uncopied.has(table) || shared.children[table].is_empty() {
        return Ok(());
    }
    let mut open: Vec<(usize, Row, Row)> =
        changes.iter().map(|(before, after)| (table, (*before).clone(), (*after).clone())).collect();
    session::unchecked(conn, async |conn| {
        while let Some((parent, before, after)) = open.pop() {
            for link in &shared.children[parent] {
                let stays = link.referred.iter().all(|column| before[*column] == after[*column]);
                if stays || link.on_update == ReferentialAction::Restrict {
                    continue;
                }
                for child in children_by(shared, conn, link, &[&before]).await? {
                    let value = |referred: usize| match link.on_update {
                        ReferentialAction::SetNull => Value::Null,
                        _ => after[referred].clone(),
                    };
                    let columns = link.columns.iter().zip(&link.referred);
                    let values = columns.map(|(column, referred)| (*column, value(*referred))).collect();
                    let target = &shared.tables[link.child];
                    // From now on it refers to something else, so it is not found again.
                    target.change(conn, &target.key_of(&child), &values).await?;
                    let mut changed = child.clone();
                    values.into_iter().for_each(|(column, value)| changed[column] = value);
                    open.push((link.child, child, changed));
                }
            }
        }
        Ok(())
    })
    .await
}

/// Writes a row whose parent is yet to be copied.
pub(crate) async fn put_before_parent(
    target: &TargetTable,
    conn: &mut Conn,
    row: &Row,
) -> Result<(), mysql_async::Error> {
    session::unchecked(conn, async |conn| put_one(target, conn, row).await.map(drop)).await
}
