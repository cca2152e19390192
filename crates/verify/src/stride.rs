//! Where chunks of a table end whose keys are whole numbers, without asking a server for it.

use crossfade_catalog::chunk::{KeyBound, KeyRange};

/// Where keys are further apart than this, the server is asked. Since no two rows have one number, no chunk has more than
/// so many times the rows that it was to have, however dense the keys become.
const MOST_NUMBERS_PER_ROW: i128 = 4;

/// How far apart the keys are where the last chunk was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stride {
    /// No chunk is said to end here or later: the server tells where the table does.
    last: Option<i128>,
    /// Numbers and rows of the last chunk.
    seen: Option<(i128, i128)>,
}

impl Stride {
    /// Of a table whose last key is this. The default is for tables of which nothing can be said.
    pub fn up_to(last: &KeyBound) -> Stride {
        Stride { last: number(last), seen: None }
    }

    /// What a chunk held, on the side that had more.
    pub fn note(&mut self, chunk: &KeyRange, rows: u64) {
        let ends = chunk.after.as_ref().and_then(number).zip(chunk.through.as_ref().and_then(number));
        let seen = ends.map(|(after, through)| (through - after, i128::from(rows)));
        self.seen = seen.filter(|(numbers, rows)| *rows > 0 && *numbers <= rows * MOST_NUMBERS_PER_ROW);
    }

    /// The end of the next chunk, of about `rows` rows. `None` where that is not known, as after a chunk of which nothing
    /// was noted.
    pub fn end(&mut self, after: &KeyBound, rows: u64) -> Option<i128> {
        let (numbers, of_rows) = self.seen.take()?;
        let end = number(after)? + (i128::from(rows) * numbers / of_rows).max(1);
        (end < self.last?).then_some(end)
    }
}

/// Of a key that is one whole number: unlike other keys, it has one order and one form on every server.
fn number(bound: &KeyBound) -> Option<i128> {
    let [part] = &bound.0[..] else { return None };
    part.value.parse().ok()
}

#[cfg(test)]
mod tests {
    use crossfade_catalog::chunk::KeyPart;

    use super::*;

    fn bound(number: i128) -> KeyBound {
        KeyBound(vec![KeyPart { value: number.to_string(), charset: None }])
    }

    /// Walks through sorted keys in chunks of `rows` rows: the chunks' rows, and how often the server was asked.
    fn walk(keys: &[i128], rows: u64) -> (Vec<usize>, usize) {
        let mut stride = keys.last().map(|last| Stride::up_to(&bound(*last))).unwrap_or_default();
        let (mut chunks, mut asked, mut after, mut done) = (Vec::new(), 0, None::<i128>, 0);
        loop {
            let guessed = after.and_then(|after| stride.end(&bound(after), rows));
            let through = guessed.or_else(|| {
                asked += 1;
                keys.get(done + usize::try_from(rows).unwrap() - 1).copied()
            });
            let of_chunk = keys[done..].iter().take_while(|key| through.is_none_or(|through| **key <= through)).count();
            chunks.push(of_chunk);
            done += of_chunk;
            let Some(through) = through else { break };
            assert!(after.is_none_or(|after| after < through), "chunks go on");
            stride.note(&KeyRange { after: after.map(bound), through: Some(bound(through)) }, of_chunk as u64);
            after = Some(through);
        }
        assert_eq!(done, keys.len(), "every row is in a chunk");
        (chunks, asked)
    }

    #[test]
    fn p4_chunks_of_dense_keys_end_where_they_should_without_asking() {
        for (first, gap) in [(1, 1), (-40_000, 2), (i128::from(u64::MAX) - 40_000, 4)] {
            let keys: Vec<i128> = (0..10_000).map(|row| first + row * gap).collect();
            let (chunks, asked) = walk(&keys, 100);
            assert!(asked <= 4, "{asked}");
            assert!(chunks.iter().all(|rows| *rows <= 100), "{chunks:?}");
        }
    }

    #[test]
    fn p8_no_chunk_is_much_larger_than_it_should_be_whatever_the_keys_are() {
        let far_apart: Vec<i128> = (0..1_000).map(|row| row * 50).collect();
        assert_eq!(walk(&far_apart, 100).1, 11);
        let uneven = (0..5_000).map(|row| row * 4).chain(20_001..30_000).chain(5_000_000..5_010_000);
        let uneven: Vec<i128> = uneven.chain([9_000_000, 9_900_000, 9_900_001]).collect();
        for rows in [1, 7, 100, 3_000] {
            let (chunks, _) = walk(&uneven, rows);
            let most = u64::try_from(*chunks.iter().max().unwrap()).unwrap();
            assert!(most <= rows * MOST_NUMBERS_PER_ROW as u64, "{most} for {rows}");
            assert!(chunks.len() as u64 <= 20 + 2 * uneven.len() as u64 / rows, "{} chunks of {rows}", chunks.len());
        }
        assert_eq!(walk(&[], 100), (vec![0], 1));
        assert_eq!(walk(&[7], 1), (vec![1, 0], 2));
    }

    #[test]
    fn p4_nothing_is_said_of_chunks_that_nobody_counted_or_of_other_keys() {
        let mut stride = Stride::up_to(&bound(1_000));
        let chunk = KeyRange { after: Some(bound(0)), through: Some(bound(10)) };
        stride.note(&chunk, 10);
        assert_eq!(stride.end(&bound(10), 30), Some(40));
        assert_eq!(stride.end(&bound(40), 30), None);
        stride.note(&chunk, 10);
        assert_eq!(stride.end(&bound(970), 30), None);
        let mut other = Stride::default();
        other.note(&chunk, 10);
        assert_eq!(other.end(&bound(10), 30), None);
    }
}
