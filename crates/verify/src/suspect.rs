//! Rows that differed when they were read: looked at until they agree, or are known to stay different.

use std::collections::HashSet;

use crossfade_catalog::chunk::KeyBound;
use crossfade_model::Side;
use mysql_async::Conn;

use crate::VerifyError;
use crate::passage::{Passage, Passed};
use crate::table::{ComparedTable, RowDigest};

/// A row that is changed again and again is looked at so often.
const MOST_LOOKS: usize = 12;

/// A row that may differ, by the key that one side has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub side: Side,
    pub key: KeyBound,
}

/// A row, as it was seen on both sides at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub old: Option<RowDigest>,
    pub new: Option<RowDigest>,
}

impl Seen {
    fn is_same(&self) -> bool {
        self.old.as_ref().map(|row| &row.digest) == self.new.as_ref().map(|row| &row.digest)
    }

    /// The key as a side tells it that has the row.
    pub fn suspect(&self) -> Option<Suspect> {
        let of = |side: Side, row: &Option<RowDigest>| row.as_ref().map(|row| Suspect { side, key: row.key.clone() });
        of(Side::Old, &self.old).or_else(|| of(Side::New, &self.new))
    }
}

/// What came of suspects.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// They stayed as they were, and different, while all that was under way before has arrived.
    pub different: Vec<Seen>,
    /// They differ, and nobody can tell yet whether something was under way.
    pub open: u64,
    /// Why, for people.
    pub open_reason: Option<String>,
}

/// Looks at rows until each is known to be equal or different.
///
/// A row is different if it was so before a mark and, once the streams have passed that, is exactly what it was on both
/// sides: then nothing that was committed before the first look was still under way at the second.
pub(crate) async fn judge(
    table: &ComparedTable,
    passage: &Passage,
    conns: &mut [Conn; 2],
    suspects: &[Suspect],
) -> Result<Judged, VerifyError> {
    let mut judged = Judged::default();
    let mut unlike = look(table, conns, suspects).await?;
    for number in 1.. {
        if unlike.is_empty() {
            break;
        }
        if let Passed::Not(why) = passage.pass().await? {
            judged.open += unlike.len() as u64;
            judged.open_reason = Some(why);
            break;
        }
        let again: Vec<Suspect> = unlike.iter().filter_map(Seen::suspect).collect();
        let mut moving = Vec::new();
        for seen in look(table, conns, &again).await? {
            if unlike.contains(&seen) { judged.different.push(seen) } else { moving.push(seen) }
        }
        if number == MOST_LOOKS && !moving.is_empty() {
            judged.open += moving.len() as u64;
            judged.open_reason = Some("rows were changed again and again while they were looked at".to_owned());
            break;
        }
        unlike = moving;
    }
    Ok(judged)
}

/// The rows of these that differ now, each once.
async fn look(table: &ComparedTable, conns: &mut [Conn; 2], suspects: &[Suspect]) -> Result<Vec<Seen>, VerifyError> {
    let keys: Vec<&KeyBound> = suspects.iter().map(|suspect| &suspect.key).collect();
    let [old_conn, new_conn] = conns;
    let (old, new) = tokio::try_join!(table.old.rows_of(old_conn, &keys), table.new.rows_of(new_conn, &keys))?;
    let mut known = HashSet::new();
    let mut unlike = Vec::new();
    for (old, new) in old.into_iter().zip(new) {
        let seen = Seen { old, new };
        let keys = [&seen.old, &seen.new].map(|row| row.as_ref().map(|row| row.key.clone()));
        if !seen.is_same() && known.insert(keys) {
            unlike.push(seen);
        }
    }
    Ok(unlike)
}
