//! Changes of rows, and of what refers to them, while a backfill has yet to copy their table.
//!
//! A change may bring a child whose parent is not copied yet; it is then written before its parent. And a parent that is not
//! there yet may go, or change what children refer to: then no server does to the children what the source's server did,
//! perhaps without a word in its binlog, and it is done here.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use crossfade_model::{ReferentialAction, Row, Value};
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
    links_of(shared, table).any(|(parent, _)| shared.uncopied.has(parent))
}

/// The foreign keys of a table, each with the table that it refers to.
fn links_of(shared: &Shared, table: usize) -> impl Iterator<Item = (usize, &ChildLink)> {
    let all = shared.children.iter().enumerate();
    all.flat_map(|(parent, links)| links.iter().map(move |link| (parent, link)))
        .filter(move |(_, link)| link.child == table)
}

/// Which of these rows come before a parent that is yet to be copied, and lack no other one. Those others stay as they are until
/// the commit, as the server would have it.
pub(crate) async fn before_parents(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    rows: &[&Row],
) -> Result<Vec<bool>, mysql_async::Error> {
    if rows.is_empty() || !parents_come_later(shared, table) {
        return Ok(vec![false; rows.len()]);
    }
    let mut there: FxHashSet<u64> = FxHashSet::default();
    for (parent, link) in links_of(shared, table) {
        let values = rows.iter().map(|row| link.columns.iter().map(|column| &row[*column]).collect());
        let wanted: Vec<Vec<&Value>> =
            values.filter(|values: &Vec<&Value>| values.iter().all(|value| !value.is_null())).collect();
        let target = &shared.tables[parent];
        let found = match shared.uncopied.has(parent) {
            true => target.look_where(conn, &link.referred, &wanted).await?,
            false => target.share_where(conn, &link.referred, &wanted).await?,
        };
        for row in &found {
            there.extend(shared.planner.dependence(parent, None, Some(row)).brought());
        }
    }
    let comes_before = |row: &&Row| {
        let parents = shared.planner.parents_of(table, row);
        let mut missing = parents.iter().filter(|(_, token)| !there.contains(token)).peekable();
        missing.peek().is_some() && missing.all(|(parent, _)| shared.uncopied.has(*parent))
    };
    Ok(rows.iter().map(comes_before).collect())
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
