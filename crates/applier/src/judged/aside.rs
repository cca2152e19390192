//! What is set aside of a lane, and with it all that depends on it.

use std::collections::{BTreeMap, BTreeSet};

use crossfade_model::RowOp;
use crossfade_rules::Planner;
use crossfade_rules::plan::{Dependence, Dependences};

use super::{JudgedLane, JudgedStep};
use crate::lane::Shared;
use crate::parking::{Aside, Cause};

impl JudgedLane<'_> {
    /// Sets aside the changes of these messages, and all that depends on what is set aside here or was `earlier`.
    pub fn hold_back(&mut self, planner: &Planner, earlier: &Dependences, messages: &BTreeMap<u64, Cause>) {
        let mut whole = messages.clone();
        loop {
            self.steps.iter_mut().for_each(|step| step.set_aside(&whole));
            let mut aside = earlier.clone();
            for step in &mut self.steps {
                step.hold_back(planner, &mut aside, false);
            }
            whole = self.half_aside();
            if whole.is_empty() {
                return;
            }
        }
    }

    /// Messages of which a part is set aside, and why, and another part is not: of a row that has left its key, for example.
    pub fn half_aside(&self) -> BTreeMap<u64, Cause> {
        let (mut aside, mut open) = (BTreeMap::new(), BTreeSet::new());
        if !self.steps.iter().any(JudgedStep::has_aside) {
            return aside;
        }
        let mut note = |seq: u64, cause: &Option<Cause>| match cause {
            Some(cause) => {
                let known = aside.entry(seq).or_insert_with(|| cause.clone());
                if *known < *cause {
                    *known = cause.clone();
                }
            }
            None => {
                open.insert(seq);
            }
        };
        for step in &self.steps {
            match step {
                JudgedStep::Net { rows, .. } => {
                    rows.iter().for_each(|row| row.net.seqs.iter().for_each(|seq| note(seq, &row.aside)));
                }
                JudgedStep::InOrder(changes) => {
                    changes.iter().for_each(|judged| note(judged.change.seq, &judged.aside));
                }
            }
        }
        aside.retain(|seq, _| open.contains(seq));
        aside
    }

    /// What is set aside, as the checkpoint and the store are to have it.
    pub fn asides(&self, shared: &Shared) -> Vec<Aside> {
        let mut asides = Vec::new();
        for step in &self.steps {
            match step {
                JudgedStep::Net { table, rows, .. } => asides.extend(rows.iter().filter_map(|row| {
                    let cause = row.aside.clone()?;
                    let dependence = row.dependence(&shared.planner, *table);
                    Some(aside(shared, *table, row.net.seqs.iter().collect(), row.net.op(), dependence, cause))
                })),
                JudgedStep::InOrder(changes) => asides.extend(changes.iter().filter_map(|judged| {
                    let (change, cause) = (judged.change, judged.aside.clone()?);
                    let dependence = judged.dependence(&shared.planner);
                    Some(aside(shared, change.table, vec![change.seq], change.op, dependence, cause))
                })),
            }
        }
        asides
    }
}

fn aside(shared: &Shared, table: usize, seqs: Vec<u64>, op: RowOp, dependence: Dependence, cause: Cause) -> Aside {
    Aside { seqs, table: shared.mappings[table].source.clone(), op, dependence, cause }
}

impl JudgedStep<'_> {
    fn has_aside(&self) -> bool {
        match self {
            JudgedStep::Net { rows, .. } => rows.iter().any(|row| row.aside.is_some()),
            JudgedStep::InOrder(changes) => changes.iter().any(|judged| judged.aside.is_some()),
        }
    }

    /// Sets aside the changes of these messages, for their reasons: they are tried again by those.
    fn set_aside(&mut self, messages: &BTreeMap<u64, Cause>) {
        if messages.is_empty() {
            return;
        }
        match self {
            JudgedStep::Net { rows, .. } => {
                for row in rows.iter_mut().filter(|row| row.aside.is_none()) {
                    row.aside = row.net.seqs.iter().filter_map(|seq| messages.get(&seq)).max().cloned();
                }
            }
            JudgedStep::InOrder(changes) => {
                for judged in changes.iter_mut().filter(|judged| judged.aside.is_none()) {
                    judged.aside = messages.get(&judged.change.seq).cloned();
                }
            }
        }
    }

    /// Sets aside those that depend on what is in `aside`, or of these `only_acting` ones, and adds all that are set aside
    /// to it.
    pub fn hold_back(&mut self, planner: &Planner, aside: &mut Dependences, only_acting: bool) {
        if aside.is_empty() && !self.has_aside() {
            return;
        }
        let mut look = |dependence: Dependence, cause: &mut Option<Cause>, may_wait: bool| {
            if cause.is_none() && may_wait && aside.holds_back(&dependence) {
                *cause = Some(Cause::Behind);
            }
            if cause.is_some() {
                aside.add(&dependence);
            }
        };
        match self {
            JudgedStep::Net { table, rows, .. } => {
                for row in rows {
                    let (dependence, may_wait) = (row.dependence(planner, *table), !only_acting || row.acts());
                    look(dependence, &mut row.aside, may_wait);
                }
            }
            JudgedStep::InOrder(changes) => {
                for judged in changes {
                    let (dependence, may_wait) = (judged.dependence(planner), !only_acting || judged.acts());
                    look(dependence, &mut judged.aside, may_wait);
                }
            }
        }
    }
}
