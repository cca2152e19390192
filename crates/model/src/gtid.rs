//! GTID sets of MySQL (with tags) and GTID positions of MariaDB.
//!
//! A MySQL set has holes; a MariaDB position is the last transaction of each domain.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Transaction numbers from `first` to `last`, both inclusive, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interval {
    pub first: u64,
    pub last: u64,
}

/// The source of transaction numbers: a server's uuid and, from MySQL 8.3, a tag (lower case; empty for none).
pub type Source = (String, String);

/// A MySQL GTID set. Intervals are sorted, disjoint and never adjacent, so equal sets are equal values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct GtidSet {
    sources: BTreeMap<Source, Vec<Interval>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseGtidError {
    #[error("`{0}` is not a MySQL GTID set; it reads like `3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7`")]
    MySql(String),
    #[error("`{0}` is not a MariaDB GTID position; it reads like `0-1-100,1-1-7`")]
    MariaDb(String),
}

impl GtidSet {
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Every (uuid, tag) with its intervals, in order.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &str, &[Interval])> {
        self.sources.iter().map(|((uuid, tag), intervals)| (uuid.as_str(), tag.as_str(), intervals.as_slice()))
    }

    /// Adds one transaction. The usual case, the next number of a known source, costs a comparison.
    pub fn insert(&mut self, uuid: &str, tag: &str, number: u64) {
        self.insert_interval(uuid, tag, Interval { first: number, last: number });
    }

    pub fn insert_interval(&mut self, uuid: &str, tag: &str, new: Interval) {
        let intervals = self.sources.entry((uuid.to_ascii_lowercase(), tag.to_ascii_lowercase())).or_default();
        if let Some(end) = intervals.last_mut()
            && new.first > end.first
        {
            if new.first <= end.last.saturating_add(1) {
                end.last = end.last.max(new.last);
            } else {
                intervals.push(new);
            }
            return;
        }
        intervals.push(new);
        normalize(intervals);
    }

    pub fn contains(&self, uuid: &str, tag: &str, number: u64) -> bool {
        self.sources
            .get(&(uuid.to_ascii_lowercase(), tag.to_ascii_lowercase()))
            .is_some_and(|intervals| intervals.iter().any(|i| i.first <= number && number <= i.last))
    }

    pub fn union(&self, other: &GtidSet) -> GtidSet {
        let mut sum = self.clone();
        for (source, intervals) in &other.sources {
            let mine = sum.sources.entry(source.clone()).or_default();
            mine.extend_from_slice(intervals);
            normalize(mine);
        }
        sum
    }

    /// What is in `self` and not in `other`.
    pub fn subtract(&self, other: &GtidSet) -> GtidSet {
        let mut rest = GtidSet::default();
        for (source, intervals) in &self.sources {
            let holes = other.sources.get(source).map_or(&[][..], Vec::as_slice);
            let left: Vec<Interval> = intervals.iter().flat_map(|interval| cut(*interval, holes)).collect();
            if !left.is_empty() {
                rest.sources.insert(source.clone(), left);
            }
        }
        rest
    }

    pub fn is_subset_of(&self, other: &GtidSet) -> bool {
        self.subtract(other).is_empty()
    }
}

fn cut(whole: Interval, holes: &[Interval]) -> Vec<Interval> {
    let mut left = Vec::new();
    let mut next = whole.first;
    for hole in holes.iter().filter(|hole| hole.last >= whole.first && hole.first <= whole.last) {
        if hole.first > next {
            left.push(Interval { first: next, last: hole.first - 1 });
        }
        next = next.max(hole.last.saturating_add(1));
    }
    if next <= whole.last {
        left.push(Interval { first: next, last: whole.last });
    }
    left
}

fn normalize(intervals: &mut Vec<Interval>) {
    intervals.sort_by_key(|interval| interval.first);
    let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
    for interval in intervals.drain(..) {
        match merged.last_mut() {
            Some(end) if interval.first <= end.last.saturating_add(1) => end.last = end.last.max(interval.last),
            _ => merged.push(interval),
        }
    }
    *intervals = merged;
}

impl FromStr for GtidSet {
    type Err = ParseGtidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseGtidError::MySql(text.to_owned());
        let mut set = GtidSet::default();
        for source in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut parts = source.split(':').map(str::trim);
            let uuid = parts.next().filter(|uuid| is_uuid(uuid)).ok_or_else(bad)?;
            let (mut tag, mut intervals) = ("", 0);
            for part in parts {
                if part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    tag = part;
                } else {
                    set.insert_interval(uuid, tag, parse_interval(part).ok_or_else(bad)?);
                    intervals += 1;
                }
            }
            if intervals == 0 {
                return Err(bad());
            }
        }
        Ok(set)
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

fn parse_interval(text: &str) -> Option<Interval> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let interval = Interval { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
    (1 <= interval.first && interval.first <= interval.last).then_some(interval)
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last_uuid: Option<&str> = None;
        for ((uuid, tag), intervals) in &self.sources {
            if last_uuid != Some(uuid) {
                write!(f, "{}{uuid}", if last_uuid.is_some() { "," } else { "" })?;
            }
            last_uuid = Some(uuid);
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            for interval in intervals {
                if interval.first == interval.last {
                    write!(f, ":{}", interval.first)?;
                } else {
                    write!(f, ":{}-{}", interval.first, interval.last)?;
                }
            }
        }
        Ok(())
    }
}

/// The last GTID of each replication domain, as `gtid_slave_pos` and `gtid_binlog_pos` have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct MariaDbGtidPosition {
    /// Domain to (server id, sequence number).
    pub domains: BTreeMap<u32, (u32, u64)>,
}

impl MariaDbGtidPosition {
    pub fn advance(&mut self, domain: u32, server_id: u32, sequence: u64) {
        self.domains.insert(domain, (server_id, sequence));
    }

    /// Every domain of `self` is in `other` with at least the same sequence number.
    pub fn is_at_or_before(&self, other: &MariaDbGtidPosition) -> bool {
        self.domains
            .iter()
            .all(|(domain, (_, sequence))| other.domains.get(domain).is_some_and(|(_, reached)| reached >= sequence))
    }
}

impl FromStr for MariaDbGtidPosition {
    type Err = ParseGtidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseGtidError::MariaDb(text.to_owned());
        let mut position = MariaDbGtidPosition::default();
        for gtid in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut numbers = gtid.split('-');
            let (Some(domain), Some(server), Some(sequence), None) =
                (numbers.next(), numbers.next(), numbers.next(), numbers.next())
            else {
                return Err(bad());
            };
            position.advance(
                domain.parse().map_err(|_| bad())?,
                server.parse().map_err(|_| bad())?,
                sequence.parse().map_err(|_| bad())?,
            );
        }
        Ok(position)
    }
}

impl fmt::Display for MariaDbGtidPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (domain, (server, sequence))) in self.domains.iter().enumerate() {
            write!(f, "{}{domain}-{server}-{sequence}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
serde_as_text!(GtidSet);
serde_as_text!(MariaDbGtidPosition);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn sets_with_tags_survive_their_text() {
        let text = format!("{A}:1-5:7:blue:1-3:9");
        assert_eq!(text.parse::<GtidSet>().unwrap().to_string(), text);
        assert!(text.parse::<GtidSet>().unwrap().contains(A, "blue", 9));
        assert!(!text.parse::<GtidSet>().unwrap().contains(A, "", 9));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["x", A, &format!("{A}:0"), &format!("{A}:5-3"), &format!("{A}:x:")] {
            assert!(text.parse::<GtidSet>().is_err(), "{text}");
        }
        for text in ["1-2", "a-1-1", "1-1-1-1"] {
            assert!(text.parse::<MariaDbGtidPosition>().is_err(), "{text}");
        }
    }

    fn numbers(set: &GtidSet) -> BTreeSet<u64> {
        set.sources().flat_map(|(_, _, intervals)| intervals.iter().flat_map(|i| i.first..=i.last)).collect()
    }

    fn set_of(numbers: &BTreeSet<u64>) -> GtidSet {
        let mut set = GtidSet::default();
        numbers.iter().rev().for_each(|n| set.insert(A, "", *n));
        set
    }

    proptest! {
        #[test]
        fn algebra_agrees_with_plain_sets(
            a in prop::collection::btree_set(1_u64..60, 0..40),
            b in prop::collection::btree_set(1_u64..60, 0..40),
        ) {
            let (x, y) = (set_of(&a), set_of(&b));
            prop_assert_eq!(&numbers(&x), &a);
            prop_assert_eq!(numbers(&x.union(&y)), &a | &b);
            prop_assert_eq!(numbers(&x.subtract(&y)), &a - &b);
            prop_assert_eq!(x.is_subset_of(&y), a.is_subset(&b));
            prop_assert_eq!(x.to_string().parse::<GtidSet>().unwrap(), x);
        }
    }
}
