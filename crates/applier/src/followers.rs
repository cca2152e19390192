//! Rows that refer to one that was moved, and followed it to its new key: ON UPDATE CASCADE, or SET NULL. Where a server does
//! that without a word in its binlog, what becomes of the move must be done to them as well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crossfade_model::{ColumnKind, ReferentialAction, Row, Seen, Value};
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::family::{self, GivenBack};
use crate::lane::Shared;
use crate::session;

/// A row that refers to one that was moved, and followed it where that was done.
pub(crate) struct Follower {
    pub table: usize,
    pub row: Row,
    /// As it has become there.
    pub there: Row,
}

impl Follower {
    /// Its own key is part of the reference.
    pub fn has_left_its_key(&self, shared: &Shared) -> bool {
        let target = &shared.tables[self.table];
        target.key_of(&self.row) != target.key_of(&self.there)
    }
}

/// What has followed a row, which is here as the first image, to what the second one has instead; each after those whom it
/// followed.
pub(crate) async fn of_row(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    (row, there): (Row, Row),
) -> Result<Vec<Follower>, ApplyError> {
    let (mut found, mut known): (Vec<Follower>, _) = (Vec::new(), BTreeSet::new());
    let mut open = vec![(table, row, there)];
    while let Some((table, row, there)) = open.pop() {
        for link in &shared.children[table] {
            let stays = link.referred.iter().all(|column| row[*column] == there[*column]);
            if stays || link.on_update == ReferentialAction::Restrict {
                continue;
            }
            for child in family::children_by(shared, conn, link, &[&row]).await? {
                if !known.insert((link.child, shared.exact_key(link.child, &child))) {
                    continue;
                }
                let mut followed = child.clone();
                for (column, referred) in link.columns.iter().zip(&link.referred) {
                    followed[*column] = match link.on_update {
                        ReferentialAction::SetNull => Value::Null,
                        _ => there[*referred].clone(),
                    };
                }
                found.push(Follower { table: link.child, row: child.clone(), there: followed.clone() });
                open.push((link.child, child, followed));
            }
        }
    }
    Ok(found)
}

/// A row that wins over one whose key was spelled otherwise leaves alone what refers to it here. Where it comes from, its key
/// was not respelled, so nothing has followed; and nobody tells there of what would follow now.
pub(crate) async fn respell_alone(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    row: &Row,
) -> Result<(), mysql_async::Error> {
    let target = &shared.tables[table];
    let is_text = |column: &usize| matches!(target.columns()[*column].kind, ColumnKind::Text { .. });
    if shared.children[table].is_empty() || !target.key().iter().any(is_text) {
        return Ok(());
    }
    for found in target.lock_where(conn, target.key(), &[target.key_of(row)]).await? {
        let columns = target.key().iter().filter(|column| found[**column] != row[**column]);
        let values: BTreeMap<usize, Value> = columns.map(|column| (*column, row[*column].clone())).collect();
        if !values.is_empty() {
            session::unchecked(conn, async |conn| target.change(conn, &target.key_of(&found), &values).await).await?;
        }
    }
    Ok(())
}

/// Sends followers of a moved row back, and with them what may have cascaded from them. `false`: the opposite reader did not
/// get there in time.
pub(crate) async fn give_back(
    shared: &Shared,
    conn: &mut Conn,
    followers: Vec<Follower>,
    known_as: (&Seen, Option<Duration>),
) -> Result<bool, ApplyError> {
    let key = |table: usize, row: &Row| (table, shared.exact_key(table, row));
    let mut known: BTreeSet<(usize, u64)> = followers.iter().map(|row| key(row.table, &row.row)).collect();
    let (mut back, mut more) = (Vec::new(), Vec::new());
    for follower in followers {
        more.extend(family::cascading(shared, conn, follower.table, std::slice::from_ref(&follower.row)).await?);
        let has_left = follower.has_left_its_key(shared);
        let Follower { table, row, there } = follower;
        back.push(GivenBack { table, row, there: Some(there).filter(|_| !has_left) });
    }
    more.retain(|(table, row)| known.insert(key(*table, row)));
    back.extend(more.into_iter().map(GivenBack::whole));
    Ok(back.is_empty() || family::give_back(shared, conn, back, known_as).await?)
}

/// Of those the ones whose own key is part of the reference, by the keys that they have here: as they have become there.
pub(crate) async fn that_left_their_keys(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    (row, there): (&Row, &Row),
) -> Result<BTreeMap<(usize, u64), Row>, ApplyError> {
    let all = of_row(shared, conn, table, (row.clone(), there.clone())).await?;
    let left = all.into_iter().filter(|follower| follower.has_left_its_key(shared));
    Ok(left.map(|Follower { table, row, there }| ((table, shared.exact_key(table, &row)), there)).collect())
}
