//! Rows, made what they are to be.

use crossfade_model::{Row, Value};
use crossfade_rules::TableMapping;
use mysql_async::Conn;

use crate::error::{ApplyError, is_duplicate_key};
use crate::table::TargetTable;

use super::ALL_THERE;

pub(super) fn row_error(
    mapping: &TableMapping,
    seqs: impl Iterator<Item = u64>,
    source: mysql_async::Error,
) -> ApplyError {
    let (first, last) = seqs.fold((u64::MAX, 0), |(first, last), seq| (first.min(seq), last.max(seq)));
    ApplyError::Row { table: mapping.target.clone(), first, last, source: source.into() }
}

/// Makes a row what it is to be, whether it exists or not. Tells whether it was there.
pub(crate) async fn put_one(target: &TargetTable, conn: &mut Conn, row: &Row) -> Result<bool, mysql_async::Error> {
    let is_there = target.lock_and_tell(conn, &[target.key_of(row)]).await?[0];
    match is_there {
        true => target.overwrite(conn, &[row]).await?,
        false => insert_absent(target, conn, vec![row]).await?,
    }
    Ok(is_there)
}

/// Inserts rows that were not there a moment ago. A row that a user has inserted since is locked and overwritten; each
/// round locks at least one more row, so this ends. A duplicate of another key's value is an error.
pub(super) async fn insert_absent(
    target: &TargetTable,
    conn: &mut Conn,
    mut absent: Vec<&Row>,
) -> Result<(), mysql_async::Error> {
    loop {
        let duplicate = match target.insert(conn, &absent).await {
            Err(error) if is_duplicate_key(&error) => error,
            done => return done,
        };
        let keys: Vec<Vec<&Value>> = absent.iter().map(|row| target.key_of(row)).collect();
        let found = target.lock_and_tell(conn, &keys).await?;
        let (mut present, mut missing) = (Vec::new(), Vec::new());
        for (row, is_there) in absent.iter().zip(found) {
            if is_there { present.push(*row) } else { missing.push(*row) }
        }
        if present.is_empty() {
            return Err(duplicate);
        }
        target.overwrite(conn, &present).await?;
        absent = missing;
    }
}

/// How a row was put where it is to be.
pub(super) struct Put {
    pub all_there: bool,
    /// It was not here, as its source knew it.
    pub came_back: bool,
}

impl From<bool> for Put {
    fn from(all_there: bool) -> Put {
        Put { all_there, came_back: false }
    }
}

/// Moves a row to its new key: one UPDATE where the old key is there and the new one free, else by parts.
pub(super) async fn move_row(
    target: &TargetTable,
    conn: &mut Conn,
    before: &Row,
    after: &Row,
    leave: bool,
    arrive: bool,
) -> Result<Put, mysql_async::Error> {
    let (old_key, new_key) = (target.key_of(before), target.key_of(after));
    let found = target.lock_and_tell(conn, &[old_key.clone(), new_key.clone()]).await?;
    let (old_there, new_there) = (found[0], found[1]);
    match (leave, arrive) {
        (true, true) if old_there && !new_there => target.rekey(conn, &old_key, after).await.map(|()| ALL_THERE.into()),
        // Keys that only the server takes for one: the row is found under both.
        (true, true) if old_there && target.is_same_key(conn, &old_key, &new_key).await? => {
            target.rekey(conn, &old_key, after).await.map(|()| ALL_THERE.into())
        }
        _ => {
            let all_there = !leave || target.delete(conn, std::slice::from_ref(&old_key)).await?;
            match (arrive, new_there) {
                (true, true) => target.overwrite(conn, &[after]).await?,
                (true, false) => insert_absent(target, conn, vec![after]).await?,
                (false, _) => {}
            }
            // Where it has a row under the new key, it has followed whom the target's own row follows.
            Ok(Put { all_there, came_back: leave && arrive && !old_there && !new_there })
        }
    }
}
