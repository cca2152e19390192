//! Sets of a mapping's columns.

use crossfade_model::Value;

const WORD_BITS: usize = u64::BITS as usize;

/// Columns by their index; as small as its greatest member allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnSet(Box<[u64]>);

impl ColumnSet {
    /// The first `columns` columns.
    pub fn all(columns: usize) -> ColumnSet {
        (0..columns).collect()
    }

    /// The columns in which two rows differ.
    pub fn of_differences<'v>(
        before: impl Iterator<Item = &'v Value>,
        after: impl Iterator<Item = &'v Value>,
    ) -> ColumnSet {
        before.zip(after).enumerate().filter(|(_, (before, after))| before != after).map(|(column, _)| column).collect()
    }

    pub fn contains(&self, column: usize) -> bool {
        self.0.get(column / WORD_BITS).is_some_and(|word| word >> (column % WORD_BITS) & 1 == 1)
    }

    pub fn insert(&mut self, column: usize) {
        let word = column / WORD_BITS;
        if word >= self.0.len() {
            let mut words = std::mem::take(&mut self.0).into_vec();
            words.resize(word + 1, 0);
            self.0 = words.into_boxed_slice();
        }
        self.0[word] |= 1 << (column % WORD_BITS);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.0.len() * WORD_BITS).filter(|column| self.contains(*column))
    }
}

impl FromIterator<usize> for ColumnSet {
    fn from_iter<I: IntoIterator<Item = usize>>(columns: I) -> ColumnSet {
        let mut set = ColumnSet::default();
        columns.into_iter().for_each(|column| set.insert(column));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in_and_nothing_else() {
        let columns = [0, 1, 63, 64, 200];
        let set: ColumnSet = columns.into_iter().rev().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), columns);
        assert!(!set.contains(2) && !set.contains(65) && !set.contains(100_000) && !set.is_empty());
        assert!(ColumnSet::default().is_empty() && ColumnSet::all(0).is_empty());
        assert_eq!(ColumnSet::all(65).iter().count(), 65);
    }

    #[test]
    fn knows_where_two_rows_differ() {
        let before = [Value::Int(1), Value::Null, Value::Text("a".to_owned())];
        let after = [Value::UInt(1), Value::Int(0), Value::Text("a ".to_owned())];
        let set = ColumnSet::of_differences(before.iter(), after.iter());
        assert_eq!(set.iter().collect::<Vec<_>>(), [1, 2], "a number is the same however it is kept");
        assert!(ColumnSet::of_differences(before.iter(), before.iter()).is_empty());
    }
}
