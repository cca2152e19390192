//! Rows that refer to one that was moved, and followed it to its new key: ON UPDATE CASCADE, or SET NULL. Where a server does
//! that without a word in its binlog, what becomes of the move must be done to them as well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crossfade_model::{ColumnKind, ReferentialAction, Row, Seen, Value};
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::family::{self, GivenBack};
use crate::lane::Shared;
use crate::lookup::key_hashes;
use crate::session;

/// A row that refers to one that was moved, and followed it where that was done.
pub(crate) struct Follower {
    pub table: usize,
    pub row: Row,
    /// As it has become there.
    pub there: Row,
    /// Its own key is part of the reference, and more than spelled otherwise.
    pub has_left_its_key: bool,
    /// The place in the list of the one that it followed, where that is a follower itself.
    followed: Option<usize>,
}

/// The row leaves its key, which is merely spelled otherwise where the server takes both for one.
pub(crate) async fn leaves_its_key(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    (before, after): (&Row, &Row),
) -> Result<bool, ApplyError> {
    let (mapping, target) = (&shared.mappings[table], &shared.tables[table]);
    let keys = [target.key_of(before), target.key_of(after)];
    let [left, reached] = keys.each_ref().map(|key| key_hashes(mapping, key));
    if keys[0] == keys[1] || left.folded != reached.folded {
        return Ok(keys[0] != keys[1]);
    }
    Ok(!target.is_same_key(conn, &keys[0], &keys[1]).await?)
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
    let mut open = vec![(table, row, there, None)];
    while let Some((table, row, there, place)) = open.pop() {
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
                let has_left_its_key = leaves_its_key(shared, conn, link.child, (&child, &followed)).await?;
                let (row, there) = (child.clone(), followed.clone());
                found.push(Follower { table: link.child, row, there, has_left_its_key, followed: place });
                open.push((link.child, child, followed, Some(found.len() - 1)));
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

/// What would follow rows whose keys are spelled otherwise by changes, and which the one who spelled them so has not seen, with all
/// that would follow it: at its source it comes as it is here. `None`: the opposite reader did not get there in time.
pub(crate) async fn unaware(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    respelled: &[(&Row, &Seen)],
    hold_limit: Duration,
) -> Result<Option<Vec<Follower>>, ApplyError> {
    let target = &shared.tables[table];
    let mut unaware = Vec::new();
    for (after, seen) in respelled {
        let found = target.lock_where(conn, target.key(), &[target.key_of(after)]).await?.pop();
        let Some(found) = found else { continue };
        let mut there = found.clone();
        target.key().iter().for_each(|column| there[*column] = after[*column].clone());
        let followers = of_row(shared, conn, table, (found, there)).await?;
        if followers.is_empty() {
            continue;
        }
        if !shared.hold.captured_under_locks(conn, hold_limit).await?.is_enough() {
            return Ok(None);
        }
        let mut lookup = session::while_alive(conn, shared.lookup.lock()).await?;
        lookup.refresh().await?;
        let mut is_unaware: Vec<bool> = Vec::with_capacity(followers.len());
        for follower in &followers {
            let row = (follower.table, &follower.row);
            let follows_such = follower.followed.is_some_and(|place| is_unaware[place]);
            is_unaware.push(follows_such || family::given(shared, &mut lookup, conn, row, seen).await?.is_some());
        }
        unaware.extend(followers.into_iter().zip(is_unaware).filter(|(_, is)| *is).map(|(follower, _)| follower));
    }
    Ok(Some(unaware))
}

/// Spells what has followed as it was spelled before.
pub(crate) async fn spell_as_before(
    shared: &Shared,
    conn: &mut Conn,
    followers: &[Follower],
) -> Result<(), mysql_async::Error> {
    if followers.is_empty() {
        return Ok(());
    }
    session::unchecked(conn, async |conn| {
        for Follower { table, row, there, .. } in followers {
            let target = &shared.tables[*table];
            let differs = row.iter().zip(there).enumerate().filter(|(_, (before, after))| before != after);
            let values: BTreeMap<usize, Value> =
                differs.map(|(column, (before, _))| (column, before.clone())).collect();
            target.change(conn, &target.key_of(row), &values).await?;
        }
        Ok(())
    })
    .await
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
        let Follower { table, row, there, has_left_its_key, .. } = follower;
        back.push(GivenBack { table, row, there: Some(there).filter(|_| !has_left_its_key) });
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
    let left = all.into_iter().filter(|follower| follower.has_left_its_key);
    Ok(left.map(|Follower { table, row, there, .. }| ((table, shared.exact_key(table, &row)), there)).collect())
}
