//! What differs, and in what.

use std::collections::BTreeMap;

use crossfade_model::Side;
use serde::Serialize;

/// Something that has a name and of which there is something to be said: a column, a view, an account.
#[derive(Debug, Clone)]
pub(crate) struct Thing {
    pub kind: &'static str,
    /// What it is called on its side.
    pub name: String,
    /// What it is called on the new side: things with one key belong together.
    pub key: String,
    pub attributes: BTreeMap<String, String>,
}

/// Something that only one side has, or that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `table`, `column`, `key`, `foreign key`, `check`, `schema`, `view`, `procedure`, `function`, `trigger`, `event`, `account`.
    pub kind: &'static str,
    /// What the old side calls it, or the new one where only that has it.
    pub name: String,
    pub only_on: Option<Side>,
    /// In what it differs; what there is to be said of it where only one side has it.
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub what: String,
    /// `null` where that side says nothing of it.
    pub old: Option<String>,
    pub new: Option<String>,
}

/// Something that an account may not see, or that cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotCompared {
    /// `views`, `accounts`, …
    pub what: String,
    pub side: Side,
    pub reason: String,
    pub remedy: String,
}

/// How the two sides differ.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// How many of each kind were compared.
    pub compared: BTreeMap<&'static str, usize>,
    pub differences: Vec<Difference>,
    pub not_compared: Vec<NotCompared>,
}

impl Report {
    /// Nothing differs, and everything that was asked for could be seen.
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty() && self.not_compared.is_empty()
    }

    pub(crate) fn add(&mut self, old: Vec<Thing>, new: Vec<Thing>) {
        for thing in &old {
            *self.compared.entry(thing.kind).or_default() += 1;
        }
        self.differences.extend(differences(old, new));
    }
}

/// Those of the old side in their order, then what only the new side has.
pub(crate) fn differences(old: Vec<Thing>, new: Vec<Thing>) -> Vec<Difference> {
    let mut left: BTreeMap<(&'static str, String), Thing> = BTreeMap::new();
    let mut order = Vec::new();
    for thing in new {
        let id = (thing.kind, thing.key.clone());
        order.push(id.clone());
        left.insert(id, thing);
    }
    let mut found = Vec::new();
    for thing in old {
        match left.remove(&(thing.kind, thing.key.clone())) {
            None => found.push(only(Side::Old, thing)),
            Some(other) => found.extend(changed(thing, &other)),
        }
    }
    found.extend(order.into_iter().filter_map(|id| left.remove(&id)).map(|thing| only(Side::New, thing)));
    found
}

fn only(side: Side, thing: Thing) -> Difference {
    let change = |(what, value): (String, String)| match side {
        Side::Old => Change { what, old: Some(value), new: None },
        Side::New => Change { what, old: None, new: Some(value) },
    };
    let changes = thing.attributes.into_iter().map(change).collect();
    Difference { kind: thing.kind, name: thing.name, only_on: Some(side), changes }
}

fn changed(old: Thing, new: &Thing) -> Option<Difference> {
    let mut whats: Vec<&String> = old.attributes.keys().chain(new.attributes.keys()).collect();
    whats.sort();
    whats.dedup();
    let change = |what: &&String| {
        let (old, new) = (old.attributes.get(*what).cloned(), new.attributes.get(*what).cloned());
        (old != new).then(|| Change { what: (*what).clone(), old, new })
    };
    let changes: Vec<Change> = whats.iter().filter_map(change).collect();
    (!changes.is_empty()).then_some(Difference { kind: old.kind, name: old.name, only_on: None, changes })
}

impl std::fmt::Display for Difference {
    /// One line: `column app.users.name: type is varchar(100) on old, varchar(190) on new`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        if let Some(side) = self.only_on {
            return write!(f, ": only on {side}");
        }
        for (at, change) in self.changes.iter().enumerate() {
            let told = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
            let (old, new) = (told(&change.old), told(&change.new));
            write!(f, "{} {} is {old} on old, {new} on new", if at == 0 { ":" } else { ";" }, change.what)?;
        }
        Ok(())
    }
}
