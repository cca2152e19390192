//! Plans one transaction after the other.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{Settings, Table};
use crate::sql;
use crate::workload::Side;

/// Values that are written again and again, so that a row can become what it was before.
const FEW_VALUES: [&str; 3] = ["a", "b", "c"];

/// A transaction: its steps, and whether it is to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub steps: Vec<Step>,
    pub commits: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A statement that may change rows.
    Write(String),
    /// A query for the numbers of rows that the next statement deletes and updates beside those it names.
    Beside(String),
    /// A statement that changes no row.
    Prepare(String),
    Savepoint,
    BackToSavepoint,
}

/// A row that both sides, or this one, may write.
#[derive(Debug, Clone, Copy)]
struct Place {
    id: u64,
    own: bool,
}

#[derive(Debug)]
pub struct Planner {
    rng: StdRng,
    schema: String,
    side: Side,
    families: bool,
    logs_cascades: bool,
    /// Part of values that nobody else writes.
    tag: String,
    counter: u64,
}

impl Planner {
    pub fn new(settings: &Settings, number: u64, logs_cascades: bool) -> Planner {
        let seed = settings.seed.wrapping_mul(1_000_003) ^ (settings.side.number() << 32) ^ number;
        Planner {
            rng: StdRng::seed_from_u64(seed),
            schema: settings.schema.clone(),
            side: settings.side,
            families: settings.families,
            logs_cascades,
            tag: format!("{}{number}", settings.side.letter()),
            counter: 0,
        }
    }

    pub fn next(&mut self) -> Transaction {
        self.counter += 1;
        let mut steps = match self.rng.random_range(0..100) {
            0..8 => self.swap(),
            8..12 => self.hand_on(),
            12..18 => self.many_rows(),
            18..24 => self.gone_and_back(),
            24..74 => self.change(),
            _ => (0..self.rng.random_range(2..6)).flat_map(|_| self.change()).collect(),
        };
        if self.rng.random_ratio(8, 100) {
            steps.push(Step::Savepoint);
            steps.extend(self.change());
            steps.push(Step::BackToSavepoint);
            steps.extend(self.change());
        }
        Transaction { steps, commits: !self.rng.random_ratio(5, 100) }
    }

    /// Inserts, updates, deletes or moves one row.
    fn change(&mut self) -> Vec<Step> {
        let table = *Table::ALL.choose(&mut self.rng).unwrap_or(&Table::Labels);
        let ticket = self.rng.random_range(0..10);
        let row = self.row(table, ticket >= 4);
        match ticket {
            0..4 => vec![self.update(table, row)],
            4..7 => vec![self.insert(table, row)],
            7..9 => self.delete(table, row),
            _ => vec![self.renumber(table, row)],
        }
    }

    /// A row to write. Parents that `comes_or_goes` are this side's own while families are kept apart.
    fn row(&mut self, table: Table, comes_or_goes: bool) -> Place {
        let own = table.own(self.side, self.families);
        let must_own = comes_or_goes && table == Table::Places && !self.families;
        if !own.is_empty() && (must_own || self.rng.random_ratio(1, 6)) {
            return Place { id: self.rng.random_range(own), own: true };
        }
        Place { id: self.rng.random_range(1..=table.shared(self.families)), own: false }
    }

    /// Another row of the same owner.
    fn other(&mut self, table: Table, row: Place) -> u64 {
        if row.own {
            let own = table.own(self.side, self.families);
            return self.rng.random_range(own);
        }
        self.rng.random_range(1..=table.shared(self.families))
    }

    fn table(&self, table: Table) -> String {
        sql::full_name(&self.schema, table.name())
    }

    fn value(&mut self, table: Table) -> String {
        match table {
            Table::Places if self.rng.random_bool(0.7) => format!("{}-{}", self.tag, self.counter),
            Table::Guests | Table::Labels | Table::Places => {
                (*FEW_VALUES.choose(&mut self.rng).unwrap_or(&"a")).to_owned()
            }
            Table::Notes | Table::Seats => format!("{}-{}", self.tag, self.counter),
        }
    }

    /// A unique value: mostly a new one, at times one that somebody else may take too.
    fn unique(&mut self) -> String {
        if self.rng.random_ratio(1, 12) {
            format!("'c{}'", self.rng.random_range(1..=super::ROWS_PER_TABLE))
        } else {
            format!("'{}-{}-{}'", self.tag, self.counter, self.rng.random_range(0..1_000))
        }
    }

    /// A parent for a child: one that both sides may refer to, one's own for an own child, or none.
    fn parent(&mut self, child: Place) -> String {
        if self.rng.random_ratio(1, 4) {
            return "NULL".to_owned();
        }
        let own = Table::Places.own(self.side, self.families);
        if child.own && !own.is_empty() && self.rng.random_ratio(2, 3) {
            return self.rng.random_range(own).to_string();
        }
        self.rng.random_range(1..=Table::Places.shared(self.families)).to_string()
    }

    /// What an update sets the row's clock to, where the server does not.
    fn clock(&mut self, table: Table) -> Option<String> {
        match table {
            Table::Places if self.rng.random_ratio(1, 8) => Some("changed_at = changed_at".to_owned()),
            Table::Places | Table::Notes | Table::Labels => None,
            Table::Guests if self.rng.random_ratio(1, 20) => Some("version = version + 10".to_owned()),
            Table::Guests => Some("version = version + 1".to_owned()),
            Table::Seats if self.rng.random_ratio(1, 10) => None,
            Table::Seats => Some(format!("changed_at = {}", self.skewed())),
        }
    }

    /// Now, by the clock of a side that is two seconds wrong; at times wrong the other way, or no time at all.
    fn skewed(&mut self) -> String {
        let early = match self.rng.random_range(0..20) {
            0 => return "NULL".to_owned(),
            1..4 => self.side == Side::New,
            _ => self.side == Side::Old,
        };
        format!("NOW(6) {} INTERVAL 2 SECOND", if early { "-" } else { "+" })
    }

    fn update(&mut self, table: Table, row: Place) -> Step {
        let mut set = vec![format!("v = '{}'", self.value(table))];
        if table.has_parent() && self.rng.random_ratio(1, 3) {
            set.push(format!("place = {}", self.parent(row)));
        }
        if let Some(unique) = table.unique().filter(|_| self.rng.random_ratio(1, 6)) {
            set.push(format!("{unique} = {}", self.unique()));
        }
        set.extend(self.clock(table));
        Step::Write(format!("UPDATE {} SET {} WHERE id = {}", self.table(table), set.join(", "), row.id))
    }

    fn insert(&mut self, table: Table, row: Place) -> Step {
        let unique = self.unique();
        self.insert_with(table, row, &unique)
    }

    fn insert_with(&mut self, table: Table, row: Place, unique: &str) -> Step {
        let (columns, values) = match table {
            Table::Places => ("code", unique.to_owned()),
            Table::Guests => ("place, version", format!("{}, 1", self.parent(row))),
            Table::Notes => ("place", self.parent(row)),
            Table::Seats => ("place, changed_at", format!("{}, {}", self.parent(row), self.skewed())),
            Table::Labels => ("label", unique.to_owned()),
        };
        let (id, value, table) = (row.id, self.value(table), self.table(table));
        Step::Write(format!("INSERT INTO {table} (id, v, {columns}) VALUES ({id}, '{value}', {values})"))
    }

    fn delete(&mut self, table: Table, row: Place) -> Vec<Step> {
        let mut steps = Vec::new();
        if table == Table::Places && self.logs_cascades {
            let count = |child: Table| {
                format!("(SELECT COUNT(*) FROM {} WHERE place = {} FOR UPDATE)", self.table(child), row.id)
            };
            let (notes, seats) = (count(Table::Notes), count(Table::Seats));
            steps.push(Step::Beside(format!("SELECT {notes}, {seats}")));
        }
        steps.push(Step::Write(format!("DELETE FROM {} WHERE id = {}", self.table(table), row.id)));
        steps
    }

    /// The row's key changes. Refused where the other row is there.
    fn renumber(&mut self, table: Table, row: Place) -> Step {
        let to = self.other(table, row);
        let clock = self.clock(table).map(|clock| format!(", {clock}")).unwrap_or_default();
        Step::Write(format!("UPDATE {} SET id = {to}{clock} WHERE id = {}", self.table(table), row.id))
    }

    /// Gone and back inside one transaction.
    fn gone_and_back(&mut self) -> Vec<Step> {
        let table = *Table::ALL.choose(&mut self.rng).unwrap_or(&Table::Labels);
        let row = self.row(table, true);
        let mut steps = self.delete(table, row);
        steps.push(self.insert(table, row));
        steps
    }

    fn many_rows(&mut self) -> Vec<Step> {
        let table = *Table::ALL.choose(&mut self.rng).unwrap_or(&Table::Labels);
        let from = self.rng.random_range(1..=table.shared(self.families));
        let to = (from + self.rng.random_range(1..4)).min(table.shared(self.families));
        let mut set = vec![format!("v = '{}'", self.value(table))];
        set.extend(self.clock(table));
        let table = self.table(table);
        vec![Step::Write(format!("UPDATE {table} SET {} WHERE id BETWEEN {from} AND {to}", set.join(", ")))]
    }

    /// Two rows swap their unique values; nothing happens where one of them is missing.
    fn swap(&mut self) -> Vec<Step> {
        let table = if self.rng.random_bool(0.5) { Table::Places } else { Table::Labels };
        let Some(unique) = table.unique() else { return Vec::new() };
        let one = self.row(table, false);
        let two = self.other(table, one);
        let (name, passing) = (self.table(table), self.unique());
        let read = |into: &str, id: u64| {
            Step::Prepare(format!("SET {into} = (SELECT {unique} FROM {name} WHERE id = {id} AND {id} <> {})", {
                if id == two { one.id } else { two }
            }))
        };
        let give = |value: &str, id: u64| {
            let both = "@one IS NOT NULL AND @two IS NOT NULL";
            Step::Write(format!("UPDATE {name} SET {unique} = {value} WHERE id = {id} AND {both}"))
        };
        vec![read("@one", one.id), read("@two", two), give(&passing, one.id), give("@one", two), give("@two", one.id)]
    }

    /// A row goes and another one takes its unique value, in one transaction.
    fn hand_on(&mut self) -> Vec<Step> {
        let table = Table::Labels;
        let row = self.row(table, true);
        let heir = Place { id: self.other(table, row), own: row.own };
        let name = self.table(table);
        let mut steps = vec![Step::Prepare(format!(
            "SET @heritage = COALESCE((SELECT label FROM {name} WHERE id = {}), '{}-{}-h')",
            row.id, self.tag, self.counter
        ))];
        steps.extend(self.delete(table, row));
        steps.push(self.insert_with(table, heir, "@heritage"));
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(seed: u64, side: Side, families: bool) -> Vec<Transaction> {
        let settings = Settings { schema: "hot".to_owned(), side, seed, writers: 1, rate: 1.0, families };
        let mut planner = Planner::new(&settings, 0, true);
        (0..2_000).map(|_| planner.next()).collect()
    }

    fn writes(all: &[Transaction]) -> Vec<&str> {
        let steps = all.iter().flat_map(|transaction| &transaction.steps);
        steps
            .filter_map(|step| match step {
                Step::Write(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn the_seed_and_the_side_decide() {
        assert_eq!(planned(1, Side::Old, false), planned(1, Side::Old, false));
        assert_ne!(planned(1, Side::Old, false), planned(2, Side::Old, false));
        assert_ne!(planned(1, Side::Old, false), planned(1, Side::New, false));
    }

    #[test]
    fn every_kind_of_transaction_is_planned() {
        let all = planned(3, Side::Old, false);
        assert!(all.iter().any(|t| !t.commits) && all.iter().any(|t| t.steps.contains(&Step::BackToSavepoint)));
        let writes = writes(&all);
        for part in [
            "SET id = ",
            "@one",
            "@heritage",
            "changed_at = NULL",
            "BETWEEN",
            "place = NULL",
            "+ 10",
            "changed_at = changed_at",
        ] {
            assert!(writes.iter().any(|text| text.contains(part)), "{part}");
        }
        for table in Table::ALL {
            for verb in ["UPDATE", "INSERT INTO", "DELETE FROM"] {
                let start = format!("{verb} `hot`.`{}`", table.name());
                assert!(writes.iter().any(|text| text.starts_with(&start)), "{start}");
            }
        }
    }

    #[test]
    fn families_that_are_kept_apart_share_no_parent_that_goes() {
        let old = planned(4, Side::Old, false);
        let gone = |text: &&&str| text.starts_with("DELETE FROM `hot`.`places`");
        for text in writes(&old).iter().filter(gone) {
            assert!(text.ends_with("id = 7") || text.ends_with("id = 8"), "{text}");
        }
        let together = planned(4, Side::Old, true);
        assert!(writes(&together).iter().filter(gone).any(|text| text.ends_with("id = 1")));
    }
}
