//! GTID sets are sets: their algebra, over several servers and tags, and their text.

use crossfade_model::{GtidSet, Interval, MariaDbGtidPosition};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const UUIDS: [&str; 2] = ["3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"];
const TAGS: [&str; 3] = ["", "blue", "green"];
const NUMBERS: std::ops::Range<u64> = 1..40;

/// Sets put together from overlapping, touching and separate intervals, in any order.
fn sets() -> impl Strategy<Value = GtidSet> {
    let interval = (0..UUIDS.len(), 0..TAGS.len(), NUMBERS, 0..8_u64);
    vec(interval, 0..12).prop_map(|intervals| {
        let mut set = GtidSet::default();
        for (uuid, tag, first, more) in intervals {
            set.insert_interval(UUIDS[uuid], TAGS[tag], Interval { first, last: first + more });
        }
        set
    })
}

/// Whether the set holds exactly the numbers that the rule names.
fn agrees(set: &GtidSet, rule: impl Fn(&str, &str, u64) -> bool) -> bool {
    let mut places = UUIDS.iter().flat_map(|uuid| TAGS.iter().map(move |tag| (*uuid, *tag)));
    places.all(|(uuid, tag)| (0..60).all(|number| set.contains(uuid, tag, number) == rule(uuid, tag, number)))
}

/// `PROPTEST_RNG_SEED` repeats a run, `PROPTEST_CASES` makes it longer.
fn seeded() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
    };
    println!("the seed is PROPTEST_RNG_SEED={seed}");
    ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..config }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn union_and_difference_hold_what_sets_hold(a in sets(), b in sets()) {
        let both = a.union(&b);
        prop_assert!(agrees(&both, |u, t, n| a.contains(u, t, n) || b.contains(u, t, n)));
        let rest = a.subtract(&b);
        prop_assert!(agrees(&rest, |u, t, n| a.contains(u, t, n) && !b.contains(u, t, n)));
        prop_assert_eq!(rest.union(&b), both);
    }

    #[test]
    fn equal_sets_are_equal_values(a in sets(), b in sets(), c in sets()) {
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(&a.union(&a), &a);
        prop_assert!(a.subtract(&a).is_empty());
        prop_assert_eq!(a.subtract(&b).subtract(&c), a.subtract(&b.union(&c)));
        prop_assert_eq!(a.subtract(&GtidSet::default()), a);
    }

    #[test]
    fn subsets_are_ordered(a in sets(), b in sets()) {
        let is_subset = agrees(&a.subtract(&b), |_, _, _| false);
        prop_assert_eq!(a.is_subset_of(&b), is_subset);
        prop_assert!(a.is_subset_of(&a.union(&b)) && a.subtract(&b).is_subset_of(&a));
        prop_assert_eq!(a.is_subset_of(&b) && b.is_subset_of(&a), a == b);
    }

    /// Transactions that come one by one and in any order give the set that intervals give.
    #[test]
    fn transactions_add_up(a in sets(), order in 0..64_u64) {
        let mut numbers: Vec<(String, String, u64)> = Vec::new();
        for (uuid, tag, intervals) in a.sources() {
            prop_assert!(intervals.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
            let all = intervals.iter().flat_map(|interval| interval.first..=interval.last);
            numbers.extend(all.map(|number| (uuid.to_owned(), tag.to_owned(), number)));
        }
        numbers.sort_by_key(|(uuid, tag, number)| (number ^ order, tag.len(), uuid.clone()));
        let mut built = GtidSet::default();
        for (uuid, tag, number) in &numbers {
            prop_assert!(!built.contains(uuid, tag, *number));
            built.insert(&uuid.to_uppercase(), &tag.to_uppercase(), *number);
        }
        prop_assert_eq!(built, a);
    }

    #[test]
    fn a_set_survives_its_text(a in sets()) {
        let text = a.to_string();
        prop_assert_eq!(&text.parse::<GtidSet>().expect("a set reads its own text"), &a);
        let spread = text.to_uppercase().replace(',', " ,\n ");
        prop_assert_eq!(&spread.parse::<GtidSet>().expect("servers break lines"), &a);
        let stored = serde_json::to_string(&a).expect("a set can be kept");
        prop_assert_eq!(serde_json::from_str::<GtidSet>(&stored).expect("and read back"), a);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[0-9a-f:,\\- ]{0,60}") {
        if let Ok(set) = text.parse::<GtidSet>() {
            prop_assert_eq!(&set.to_string().parse::<GtidSet>().expect("what was read can be written"), &set);
        }
    }

    #[test]
    fn a_position_of_mariadb_survives_its_text(
        domains in btree_map(0..4_u32, (1..4_u32, 1..50_u64), 0..4), later in btree_map(0..4_u32, 1..50_u64, 0..4),
    ) {
        let mut position = MariaDbGtidPosition::default();
        domains.iter().for_each(|(domain, (server, sequence))| position.advance(*domain, *server, *sequence));
        let read = position.to_string().parse::<MariaDbGtidPosition>().expect("it reads its own text");
        prop_assert_eq!(&read, &position);
        let mut further = position.clone();
        later.iter().for_each(|(domain, sequence)| further.advance(*domain, 9, *sequence));
        let is_before = later.iter().all(|(domain, to)| domains.get(domain).is_none_or(|(_, from)| from <= to));
        prop_assert_eq!(position.is_at_or_before(&further), is_before);
        prop_assert!(position.is_at_or_before(&position));
    }
}
