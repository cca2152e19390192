//! From chunk to chunk through a table.

use mysql_async::Conn;

use super::{KeyBound, KeyRange, KeySpace};
use crate::CatalogError;

/// Walks a range from its beginning to its end. Where it stands can be kept and gone on from.
#[derive(Debug, Clone)]
pub struct ChunkWalk {
    rest: Option<KeyRange>,
}

impl ChunkWalk {
    /// All rows up to the one that is the last now, so that rows which are added meanwhile do not make it endless. `after` is
    /// where an earlier walk had come to.
    ///
    /// # Errors
    ///
    /// As [`KeySpace::nth`].
    pub async fn to_the_last_row(
        conn: &mut Conn,
        space: &KeySpace,
        after: Option<KeyBound>,
    ) -> Result<ChunkWalk, CatalogError> {
        let mut rest = KeyRange::after(after);
        rest.through = space.last(conn, &rest).await?;
        Ok(ChunkWalk { rest: rest.through.is_some().then_some(rest) })
    }

    /// All rows of a range. Without an end the last chunk has none.
    pub fn through(range: KeyRange) -> ChunkWalk {
        ChunkWalk { rest: Some(range) }
    }

    /// What is still to be walked through; `None` at the end.
    pub fn rest(&self) -> Option<&KeyRange> {
        self.rest.as_ref()
    }

    /// The next chunk, of at most `rows` rows as the table is now; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`KeySpace::nth`]; the walk stays where it was.
    pub async fn next(
        &mut self,
        conn: &mut Conn,
        space: &KeySpace,
        rows: u64,
    ) -> Result<Option<KeyRange>, CatalogError> {
        let Some(rest) = &self.rest else { return Ok(None) };
        let end = space.nth(conn, rest, rows.max(1)).await?;
        let chunk = KeyRange { after: rest.after.clone(), through: end.clone().or_else(|| rest.through.clone()) };
        self.rest = match end {
            Some(end) if rest.through.as_ref() != Some(&end) => {
                Some(KeyRange { after: Some(end), through: rest.through.clone() })
            }
            _ => None,
        };
        Ok(Some(chunk))
    }
}
