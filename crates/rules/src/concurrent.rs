//! What is concurrent with a change: an index over the tail of the opposite stream's messages, by row key.
//!
//! It knows every message that some change still to be judged may not have seen, and nothing older. The youngest of them it
//! holds; what its bound leaves no room for it asks for again, key by key, where a filter says that there may be something.

use std::collections::VecDeque;

use crossfade_model::{Clock, RowOp, StreamProgress, Value};
use rustc_hash::FxHashMap;

use crate::authority::Authority;
use crate::decide::LastConcurrent;
use crate::key_filter::KeyFilter;
use crate::merge::Effect;
use crate::plan::Plan;
use crate::seen::{SeenJudgement, judge_seen};

/// One key that one message of the opposite stream touches, as far as deciding needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OppositeChange {
    pub seq: u64,
    /// Tells rows apart whose keys merely fold alike.
    pub exact: u64,
    pub effective: Option<Clock>,
    pub op: RowOp,
    /// It only gives the row back: what came before it counts.
    pub returned: bool,
    /// What it does to the row, for tables whose columns are merged.
    pub effect: Option<Box<Effect>>,
    /// The key itself where the server's collation has the last word.
    pub text_key: Option<Box<[Value]>>,
}

impl OppositeChange {
    /// About what one takes in the index: itself, its place in a list, a map and the order, and what hangs on it.
    fn memory_bytes(&self) -> usize {
        const PLACES: usize = 96;
        const PIECE: usize = 48;
        let text = |value: &Value| size_of::<Value>() + value.heap_bytes() + PIECE;
        let key: usize = self.text_key.iter().flatten().map(text).sum();
        let effect = if self.effect.is_some() { 2 * PIECE } else { 0 };
        size_of::<OppositeChange>() + PLACES + key + effect
    }
}

/// The key of the change that is judged, and what its writer had before him.
#[derive(Debug, Clone, Copy)]
pub struct Judging<'a> {
    pub folded: u64,
    pub exact: u64,
    /// Of the opposite stream; `None` where nothing of it was seen.
    pub seen: Option<&'a StreamProgress>,
}

/// A batch of the opposite direction, by what it was planned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchId {
    pub first: u64,
    /// Inclusive.
    pub last: u64,
    pub lanes: u16,
}

/// What the index cannot know by itself.
pub trait Known {
    /// The opposite direction's plan of a batch.
    fn plan(&self, batch: BatchId) -> Option<&Plan>;
    /// Whether two keys that fold alike are one to the server, by their exact hashes.
    fn same_row(&self, exact: u64, other: u64) -> Option<bool>;
}

/// What must be found out before the last concurrent change can be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    Plan(BatchId),
    /// Whether the judged key and this one are one row.
    SameRow {
        exact: u64,
        key: Box<[Value]>,
    },
    /// The changes of keys that fold like this one, by the messages from `first` to `last`, both inclusive: give them to
    /// [`ConcurrentIndex::recall`].
    MovedOut {
        folded: u64,
        first: u64,
        last: u64,
    },
}

#[derive(Debug, Clone)]
pub struct ConcurrentIndex {
    bound_bytes: usize,
    bytes: usize,
    by_key: FxHashMap<u64, VecDeque<OppositeChange>>,
    /// Keys in the order of their messages, so that forgetting costs no search.
    order: VecDeque<(u64, u64)>,
    /// Messages up to this one, inclusive, are indexed or were forgotten.
    through: u64,
    /// Up to this one, inclusive, all changes of judged keys have been seen.
    floor: u64,
    /// Messages after the floor and up to this one, inclusive, are not held for want of room.
    moved_out_through: u64,
    moved_out: KeyFilter,
    /// What was moved out and asked for again, until the floor is looked at next.
    recalled: FxHashMap<u64, VecDeque<OppositeChange>>,
}

/// Of the bound, one part in so many is for the filter.
const FILTER_SHARE: usize = 8;

impl Default for ConcurrentIndex {
    /// Without a bound.
    fn default() -> ConcurrentIndex {
        ConcurrentIndex::with_bound(usize::MAX)
    }
}

impl ConcurrentIndex {
    /// Holds about so much in memory, and beside it what is recalled of the keys of one batch.
    pub fn with_bound(bytes: usize) -> ConcurrentIndex {
        ConcurrentIndex {
            bound_bytes: bytes,
            bytes: 0,
            by_key: FxHashMap::default(),
            order: VecDeque::new(),
            through: 0,
            floor: 0,
            moved_out_through: 0,
            moved_out: KeyFilter::default(),
            recalled: FxHashMap::default(),
        }
    }

    pub fn through(&self) -> u64 {
        self.through
    }

    /// Notes a message that touches no key of interest.
    pub fn pass(&mut self, seq: u64) {
        self.through = self.through.max(seq);
    }

    /// Messages come in order; one message may touch two keys.
    pub fn add(&mut self, folded: u64, change: OppositeChange) {
        self.through = self.through.max(change.seq);
        // Most keys come once; left alone, a list begins with room for four.
        let changes = self.by_key.entry(folded).or_insert_with(|| VecDeque::with_capacity(1));
        if changes.back().is_some_and(|last| last.seq == change.seq && last.exact == change.exact) {
            return;
        }
        self.order.push_back((change.seq, folded));
        self.bytes += change.memory_bytes();
        changes.push_back(change);
        while self.bytes > self.bound_bytes - self.bound_bytes / FILTER_SHARE {
            self.move_out();
        }
    }

    /// Makes room: the oldest is asked for again if it is needed.
    fn move_out(&mut self) {
        let Some((seq, folded)) = self.order.pop_front() else { return };
        let dropped = self.drop_held(folded, seq);
        if let Some(recalled) = self.recalled.get_mut(&folded) {
            recalled.extend(dropped);
        }
        self.moved_out.add(folded, self.bound_bytes / FILTER_SHARE);
        self.moved_out_through = seq;
    }

    /// Drops a key's change by this message, which is its oldest, if it is still held.
    fn drop_held(&mut self, folded: u64, seq: u64) -> Option<OppositeChange> {
        let changes = self.by_key.get_mut(&folded)?;
        let dropped = changes.pop_front_if(|change| change.seq <= seq)?;
        self.bytes -= dropped.memory_bytes();
        if changes.is_empty() {
            self.by_key.remove(&folded);
        }
        Some(dropped)
    }

    /// Of these folded keys those whose changes may have to be recalled before anything is said of them, and the first and
    /// last message that they may be in. `None` where everything is held.
    pub fn to_recall(&self, folded: impl Iterator<Item = u64>) -> Option<(Vec<u64>, u64, u64)> {
        if self.moved_out_through <= self.floor {
            return None;
        }
        let mut keys: Vec<u64> = folded.filter(|folded| self.is_moved_out(*folded)).collect();
        keys.sort_unstable();
        keys.dedup();
        (!keys.is_empty()).then_some((keys, self.floor + 1, self.moved_out_through))
    }

    fn is_moved_out(&self, folded: u64) -> bool {
        self.moved_out_through > self.floor && self.moved_out.may_hold(folded) && !self.recalled.contains_key(&folded)
    }

    /// Takes the changes of one key that were asked for, in the order of their messages; there may be none.
    pub fn recall(&mut self, folded: u64, changes: Vec<OppositeChange>) {
        let mut changes = VecDeque::from(changes);
        // Of one message, a part may have been moved out and another not.
        let held = self.by_key.get(&folded).into_iter().flatten();
        let held_from = held.clone().next().map_or(u64::MAX, |first| first.seq);
        let is_held = |change: &OppositeChange| {
            let mut of_message = held.clone().take_while(|held| held.seq == held_from);
            change.seq == held_from && of_message.any(|held| held.exact == change.exact)
        };
        changes.retain(|change| change.seq > self.floor && change.seq <= held_from && !is_held(change));
        self.recalled.insert(folded, changes);
    }

    /// Drops what every change still to be judged has seen, and goes on after it. Returns the last message dropped.
    ///
    /// `seen` is what the least knowing of those changes have seen: the first one of the next batch, and every one that is
    /// set aside.
    pub fn keep_unseen_by<'a>(&mut self, seen: impl IntoIterator<Item = Option<&'a StreamProgress>>) -> u64 {
        let through = seen.into_iter().map(|seen| seen.map_or(0, StreamProgress::in_effect_through)).min().unwrap_or(0);
        self.forget_through(through);
        self.through = self.through.max(through);
        through
    }

    fn forget_through(&mut self, seq: u64) {
        self.floor = self.floor.max(seq);
        self.recalled = FxHashMap::default();
        if self.moved_out_through <= self.floor {
            self.moved_out.clear();
        }
        while let Some((oldest, folded)) = self.order.front().copied()
            && oldest <= seq
        {
            self.order.pop_front();
            self.drop_held(folded, seq);
        }
    }

    /// Changes of rows whose key folds like this one, oldest first, as far as they are held or recalled.
    fn of_key(&self, folded: u64) -> impl DoubleEndedIterator<Item = &OppositeChange> {
        [&self.recalled, &self.by_key].into_iter().filter_map(move |by_key| by_key.get(&folded)).flatten()
    }

    /// Everything that the judged change may not have seen is at hand.
    fn needs(&self, judging: Judging<'_>) -> Result<(), Unknown> {
        let seen = judging.seen.map_or(0, StreamProgress::in_effect_through);
        if self.is_moved_out(judging.folded) && seen < self.moved_out_through {
            let (first, last) = (self.floor + 1, self.moved_out_through);
            return Err(Unknown::MovedOut { folded: judging.folded, first, last });
        }
        Ok(())
    }

    /// The last change of the row that the judged one has not seen. One that only gives the row back stands for those
    /// before it, and is named where there are none.
    ///
    /// # Errors
    /// What is not known and decides it. Asked again with the answer, this comes further.
    pub fn last_unseen(&self, judging: Judging<'_>, known: &impl Known) -> Result<Option<LastConcurrent>, Unknown> {
        self.needs(judging)?;
        let mut returned = None;
        for change in self.of_key(judging.folded).rev() {
            if was_seen(judging.seen, change.seq, known)? || !is_same_row(judging.exact, change, known)? {
                continue;
            }
            let OppositeChange { seq, effective, op, .. } = *change;
            let last = LastConcurrent { seq, effective, op, returned: change.returned, authority: Authority::Shared };
            if !last.returned {
                return Ok(Some(last));
            }
            returned.get_or_insert(last);
        }
        Ok(returned)
    }

    /// All changes of the row that the judged one has not seen, oldest first.
    ///
    /// # Errors
    /// As [`ConcurrentIndex::last_unseen`].
    pub fn unseen(&self, judging: Judging<'_>, known: &impl Known) -> Result<Vec<&OppositeChange>, Unknown> {
        self.needs(judging)?;
        let mut unseen = Vec::new();
        for change in self.of_key(judging.folded) {
            if is_same_row(judging.exact, change, known)? && !was_seen(judging.seen, change.seq, known)? {
                unseen.push(change);
            }
        }
        Ok(unseen)
    }
}

/// Whether a message of the opposite stream had taken effect where the judged change was written.
///
/// # Errors
/// The plan that is needed to tell.
pub fn was_seen(seen: Option<&StreamProgress>, seq: u64, known: &impl Known) -> Result<bool, Unknown> {
    match judge_seen(seen, seq) {
        SeenJudgement::Yes => Ok(true),
        SeenJudgement::No => Ok(false),
        SeenJudgement::InPartialBatch { batch_first: first, batch_last: last, lanes, done } => {
            let batch = BatchId { first, last, lanes };
            let plan = known.plan(batch).ok_or(Unknown::Plan(batch))?;
            Ok(plan.lane_of(seq).is_some_and(|lane| done.contains(&lane)))
        }
    }
}

fn is_same_row(exact: u64, change: &OppositeChange, known: &impl Known) -> Result<bool, Unknown> {
    match &change.text_key {
        _ if change.exact == exact => Ok(true),
        None => Ok(false),
        Some(key) => known
            .same_row(exact, change.exact)
            .ok_or_else(|| Unknown::SameRow { exact: change.exact, key: key.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfade_model::LaneProgress;

    fn change(seq: u64, exact: u64) -> OppositeChange {
        OppositeChange {
            seq,
            exact,
            effective: Some(Clock(seq as i64)),
            op: RowOp::Update,
            returned: false,
            effect: None,
            text_key: None,
        }
    }

    fn progress(seq: u64, parked: &[u64]) -> StreamProgress {
        let lane = LaneProgress { seq, batch_first: 1, batch_last: seq, lanes: 1 };
        StreamProgress { lanes: [(0, lane)].into(), parked: parked.iter().copied().collect() }
    }

    struct Answers(Option<Plan>, Option<bool>);

    impl Known for Answers {
        fn plan(&self, _: BatchId) -> Option<&Plan> {
            self.0.as_ref()
        }

        fn same_row(&self, _: u64, _: u64) -> Option<bool> {
            self.1
        }
    }

    const NOTHING_KNOWN: Answers = Answers(None, None);

    #[test]
    fn forgets_what_is_seen_and_keeps_the_rest() {
        let mut index = ConcurrentIndex::default();
        index.add(1, change(1, 10));
        index.add(1, change(1, 10));
        index.add(2, change(1, 20));
        index.add(1, change(2, 10));
        assert_eq!(index.of_key(1).count(), 2, "one message touches one key once");
        assert_eq!(index.keep_unseen_by([Some(&progress(1, &[]))]), 1);
        assert!(index.of_key(1).eq(&[change(2, 10)]));
        assert!(index.of_key(2).next().is_none());
        assert_eq!(index.through(), 2, "what is forgotten is not read again, and what is not read is not passed");
        assert_eq!(index.keep_unseen_by([Some(&progress(9, &[]))]), 9);
        assert!(index.of_key(1).next().is_none() && index.through() == 9);
    }

    #[test]
    fn keeps_what_anybody_has_not_seen() {
        let mut index = ConcurrentIndex::default();
        (1..=9).for_each(|seq| index.add(1, change(seq, 10)));
        assert_eq!(index.keep_unseen_by([Some(&progress(9, &[])), Some(&progress(3, &[]))]), 3);
        assert_eq!(index.keep_unseen_by([Some(&progress(9, &[6]))]), 5);
        assert_eq!(index.of_key(1).next(), Some(&change(6, 10)));
        assert_eq!(index.keep_unseen_by([Some(&progress(9, &[])), None]), 0);
        assert_eq!(index.keep_unseen_by([]), 0);
        assert_eq!(index.of_key(1).count(), 4);
    }

    #[test]
    fn the_last_unseen_change_of_the_row_counts() {
        let mut index = ConcurrentIndex::default();
        (1..=4).for_each(|seq| index.add(1, change(seq, if seq == 4 { 20 } else { 10 })));
        let last = |seen: Option<&StreamProgress>| {
            let judging = Judging { folded: 1, exact: 10, seen };
            index.last_unseen(judging, &NOTHING_KNOWN).expect("nothing is open").map(|last| last.seq)
        };
        assert_eq!(last(None), Some(3));
        assert_eq!(last(Some(&progress(2, &[]))), Some(3));
        assert_eq!(last(Some(&progress(3, &[]))), None);
        assert_eq!(last(Some(&progress(9, &[2]))), Some(2), "what was parked was not seen");
        let found = index.last_unseen(Judging { folded: 1, exact: 20, seen: None }, &NOTHING_KNOWN);
        assert_eq!(
            found,
            Ok(Some(LastConcurrent {
                seq: 4,
                effective: Some(Clock(4)),
                op: RowOp::Update,
                returned: false,
                authority: Authority::Shared
            }))
        );
        assert_eq!(index.last_unseen(Judging { folded: 2, exact: 10, seen: None }, &NOTHING_KNOWN), Ok(None));
        let parked = progress(9, &[2, 3]);
        let judging = Judging { folded: 1, exact: 10, seen: Some(&parked) };
        let unseen = index.unseen(judging, &NOTHING_KNOWN).expect("nothing is open");
        assert_eq!(
            unseen.iter().map(|change| change.seq).collect::<Vec<_>>(),
            [2, 3],
            "all of them, and no other row's"
        );
    }

    #[test]
    fn what_gives_a_row_back_stands_for_what_was_there() {
        let returned = |seq| OppositeChange { returned: true, ..change(seq, 10) };
        let mut index = ConcurrentIndex::default();
        [change(1, 10), returned(2), returned(3)].into_iter().for_each(|change| index.add(1, change));
        let last = |seen: u64| {
            let seen = progress(seen, &[]);
            let found = index.last_unseen(Judging { folded: 1, exact: 10, seen: Some(&seen) }, &NOTHING_KNOWN);
            found.expect("nothing is open").map(|last| (last.seq, last.returned))
        };
        assert_eq!(last(0), Some((1, false)), "it gives back what somebody wrote unseen");
        assert_eq!([last(1), last(2), last(3)], [Some((3, true)), Some((3, true)), None]);
    }

    #[test]
    fn asks_for_what_only_others_know() {
        let key: Box<[Value]> = Box::new([Value::Text("a".to_owned())]);
        let mut index = ConcurrentIndex::default();
        index.add(1, change(1, 10));
        index.add(1, OppositeChange { text_key: Some(key.clone()), ..change(2, 20) });
        let judging = Judging { folded: 1, exact: 10, seen: None };
        let ask = |judging, known: Answers| index.last_unseen(judging, &known).map(|last| last.map(|last| last.seq));
        assert_eq!(ask(judging, NOTHING_KNOWN), Err(Unknown::SameRow { exact: 20, key }));
        assert_eq!(ask(judging, Answers(None, Some(true))), Ok(Some(2)));
        assert_eq!(ask(judging, Answers(None, Some(false))), Ok(Some(1)));
        let lane = LaneProgress { seq: 2, batch_first: 1, batch_last: 2, lanes: 2 };
        let half = StreamProgress { lanes: [(1, lane)].into(), ..StreamProgress::default() };
        let judging = Judging { seen: Some(&half), ..judging };
        let batch = BatchId { first: 1, last: 2, lanes: 2 };
        assert_eq!(ask(judging, NOTHING_KNOWN), Err(Unknown::Plan(batch)));
        // A plan that has the message in no lane: nobody has applied it.
        assert_eq!(ask(judging, Answers(Some(Plan::default()), Some(true))), Ok(Some(2)));
    }

    /// So many changes like those of [`change`], a multiple of seven: an eighth of the bound is for the filter.
    fn with_room_for(changes: usize) -> ConcurrentIndex {
        ConcurrentIndex::with_bound(change(0, 0).memory_bytes() * changes / 7 * 8)
    }

    fn unseen_of(index: &ConcurrentIndex, folded: u64, seen: u64) -> Result<Vec<u64>, Unknown> {
        let seen = progress(seen, &[]);
        let unseen = index.unseen(Judging { folded, exact: 10, seen: Some(&seen) }, &NOTHING_KNOWN)?;
        Ok(unseen.iter().map(|change| change.seq).collect())
    }

    #[test]
    fn p8_a_change_takes_what_hangs_on_it() {
        let plain = change(1, 10).memory_bytes();
        assert_eq!(plain, size_of::<OppositeChange>() + 96);
        let merged = OppositeChange { effect: Some(Box::new(Effect::Delete)), ..change(1, 10) };
        assert_eq!(merged.memory_bytes(), plain + 96);
        let key: Box<[Value]> = Box::new([Value::Text("a".repeat(1_000)), Value::Int(1)]);
        let heap = key[0].heap_bytes();
        let keyed = OppositeChange { text_key: Some(key), ..change(1, 10) };
        assert_eq!(keyed.memory_bytes(), plain + heap + 2 * (size_of::<Value>() + 48));
        assert!(heap >= 1_000);
    }

    #[test]
    fn p8_what_finds_no_room_is_asked_for_again() {
        let mut index = with_room_for(7);
        (1..=7).for_each(|seq| index.add(seq, change(seq, 10)));
        assert_eq!(index.to_recall(1..=9), None, "there is room for seven");
        index.add(8, change(8, 10));
        assert_eq!(index.to_recall([9, 1, 2, 1].into_iter()), Some((vec![1], 1, 1)));
        assert_eq!(unseen_of(&index, 1, 0), Err(Unknown::MovedOut { folded: 1, first: 1, last: 1 }));
        assert_eq!(unseen_of(&index, 1, 1), Ok(vec![]), "who has seen it need not know more");
        assert_eq!([unseen_of(&index, 2, 0), unseen_of(&index, 9, 0)], [Ok(vec![2]), Ok(vec![])]);
        index.recall(1, vec![change(1, 10)]);
        assert_eq!((index.to_recall(1..=9), unseen_of(&index, 1, 0)), (None, Ok(vec![1])));
        index.add(1, change(9, 10));
        assert_eq!(index.to_recall(1..=9), Some((vec![2], 1, 2)));
        assert_eq!(unseen_of(&index, 1, 0), Ok(vec![1, 9]));
        // What was recalled is forgotten with the floor, and what is below it is not asked for.
        assert_eq!(index.keep_unseen_by([Some(&progress(1, &[]))]), 1);
        assert_eq!(index.to_recall([1, 2].into_iter()), Some((vec![1, 2], 2, 2)));
        assert_eq!(unseen_of(&index, 1, 1), Err(Unknown::MovedOut { folded: 1, first: 2, last: 2 }));
        index.recall(1, vec![change(1, 10)]);
        assert_eq!(unseen_of(&index, 1, 0), Ok(vec![9]));
        assert_eq!(index.keep_unseen_by([Some(&progress(2, &[]))]), 2);
        assert_eq!(index.to_recall(1..=9), None);
        index.add(10, change(10, 10));
        assert_eq!(index.to_recall(1..=9), Some((vec![3], 3, 3)), "nothing before counts any more");
    }

    #[test]
    fn p8_what_is_forgotten_leaves_its_room() {
        let mut index = with_room_for(7);
        for first in [1, 101, 201] {
            (first..first + 7).for_each(|seq| index.add(seq, change(seq, 10)));
            assert_eq!(index.to_recall(first..first + 9), None);
            index.add(first + 7, change(first + 7, 10));
            assert_eq!(index.to_recall(first..first + 9), Some((vec![first], index.floor + 1, first)));
            assert_eq!(index.keep_unseen_by([Some(&progress(first + 7, &[]))]), first + 7);
        }
    }

    #[test]
    fn a_message_of_which_a_part_is_held_counts_once() {
        let mut index = with_room_for(7);
        [10, 11].into_iter().for_each(|exact| index.add(1, change(1, exact)));
        (2..=7).for_each(|seq| index.add(seq, change(seq, 10)));
        assert_eq!(index.to_recall(1..=9), Some((vec![1], 1, 1)));
        // The first is moved out, and what came later is no news.
        index.recall(1, vec![change(1, 10), change(1, 11), change(8, 10)]);
        assert!(index.of_key(1).eq(&[change(1, 10), change(1, 11)]));
        // What is moved out after that was recalled is not lost.
        index.add(1, change(8, 10));
        assert!(index.of_key(1).eq(&[change(1, 10), change(1, 11), change(8, 10)]));
        assert_eq!(unseen_of(&index, 1, 0), Ok(vec![1, 8]));
        assert_eq!(unseen_of(&index, 1, 1), Ok(vec![8]));
    }

    #[test]
    fn p8_few_keys_are_asked_for_in_vain() {
        let mut index = with_room_for(700);
        let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (1..=1_000).for_each(|seq| index.add(key(seq), change(seq, 10)));
        let (asked, first, last) = index.to_recall((1..=11_000).map(key)).expect("three hundred are moved out");
        assert_eq!((first, last), (1, 300));
        assert!((300..400).contains(&asked.len()), "{} keys are asked for", asked.len());
        let filter = index.moved_out.bytes();
        assert!((index.bound_bytes / 16..=index.bound_bytes / 8).contains(&filter), "the filter takes {filter} bytes");
    }
}
