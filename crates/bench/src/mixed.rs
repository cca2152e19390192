//! The four tables of the workload whose transactions have four statements, and those statements.

use std::fmt::Write;

use rand::Rng;
use rand::rngs::StdRng;

const TABLES: u32 = 4;
/// Rows in each table, before, meanwhile and after.
const ROWS: u32 = 25_000;
/// Row changes of a transaction.
pub const CHANGES: u64 = 4;

/// The rows that a side's users change. They keep out of each other's way where both sides are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    All,
    Odd,
    Even,
}

impl Ids {
    fn choose(self, random: &mut StdRng) -> u32 {
        match self {
            Ids::All => random.random_range(1..=ROWS),
            Ids::Odd => 2 * random.random_range(1..=ROWS / 2) - 1,
            Ids::Even => 2 * random.random_range(1..=ROWS / 2),
        }
    }

    fn condition(self) -> &'static str {
        match self {
            Ids::All => "TRUE",
            Ids::Odd => "id % 2 = 1",
            Ids::Even => "id % 2 = 0",
        }
    }
}

const INSERT: &str = "(id, k, c, pad, updated_at) VALUES ";

pub fn tables() -> Vec<String> {
    let table = |number| {
        format!(
            "CREATE TABLE bench.part{number} (
                id INT UNSIGNED NOT NULL PRIMARY KEY,
                k INT UNSIGNED NOT NULL,
                c CHAR(120) NOT NULL,
                pad CHAR(60) NOT NULL,
                updated_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
                KEY k (k)
             ) ENGINE=InnoDB"
        )
    };
    (1..=TABLES).map(table).collect()
}

/// What is in the tables before the workload.
pub fn base(random: &mut StdRng) -> Vec<String> {
    let mut statements = Vec::new();
    for table in 1..=TABLES {
        for first in (1..=ROWS).step_by(500) {
            let rows: Vec<String> = (first..=ROWS.min(first + 499)).map(|id| row(id, random)).collect();
            statements.push(format!("INSERT INTO bench.part{table} {INSERT}{}", rows.join(",")));
        }
    }
    statements
}

/// One transaction: an update of an indexed column, one of another column, a row that is deleted and inserted again.
pub fn transaction(random: &mut StdRng, ids: Ids) -> String {
    let mut place = || (random.random_range(1..=TABLES), ids.choose(random));
    let [(indexed, id), (plain, other), (replaced, third)] = [place(), place(), place()];
    let number: u32 = random.random();
    let mut text = format!("BEGIN;UPDATE bench.part{indexed} SET k = {} WHERE id = {id};", number >> 1);
    let words = digits(random, 110);
    let _ = write!(text, "UPDATE bench.part{plain} SET c = '{words}' WHERE id = {other};");
    let _ = write!(text, "DELETE FROM bench.part{replaced} WHERE id = {third};");
    let _ = write!(text, "INSERT INTO bench.part{replaced} {INSERT}{};COMMIT", row(third, random));
    text
}

/// As [`PROGRESS`](crate::row::PROGRESS), of some rows.
pub fn progress(ids: Ids) -> String {
    of_all(
        ids,
        "CAST(SUM(number) AS UNSIGNED), CAST(SUM(total) AS UNSIGNED)",
        "COUNT(*) AS number, SUM(k) + SUM(CRC32(c)) AS total",
    )
}

/// As [`CHECKSUM`](crate::row::CHECKSUM), of some rows.
pub fn checksum(ids: Ids) -> String {
    of_all(
        ids,
        "CONCAT(SUM(number), ' rows, sum ', SUM(total))",
        "COUNT(*) AS number, SUM(CRC32(CONCAT_WS('|', id, k, c, pad, updated_at))) AS total",
    )
}

fn of_all(ids: Ids, outer: &str, inner: &str) -> String {
    let condition = ids.condition();
    let parts: Vec<String> =
        (1..=TABLES).map(|table| format!("SELECT {inner} FROM bench.part{table} WHERE {condition}")).collect();
    format!("SELECT {outer} FROM ({}) parts", parts.join(" UNION ALL "))
}

/// `(…)` of one row of about 200 bytes.
fn row(id: u32, random: &mut StdRng) -> String {
    let number: u32 = random.random();
    format!("({id},{},'{}','{}','2026-01-01')", number >> 1, digits(random, 110), digits(random, 50))
}

fn digits(random: &mut StdRng, length: usize) -> String {
    (0..length).map(|place| if place % 11 == 10 { '-' } else { char::from(random.random_range(b'0'..=b'9')) }).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_transaction_has_its_four_changes_and_is_the_same_again() {
        let transaction = || transaction(&mut StdRng::seed_from_u64(3), Ids::Odd);
        assert_eq!(transaction(), transaction());
        let text = transaction();
        let changes = ["UPDATE ", "DELETE ", "INSERT "].map(|verb| text.matches(verb).count() as u64);
        assert_eq!(changes, [2, 1, 1], "{text}");
        assert_eq!(changes.iter().sum::<u64>(), CHANGES);
        assert_eq!(text.split(';').count(), 6, "{text}");
        let ids: Vec<u32> = (0..100).map(|seed| Ids::Even.choose(&mut StdRng::seed_from_u64(seed))).collect();
        assert!(ids.iter().all(|id| id % 2 == 0 && (1..=ROWS).contains(id)), "{ids:?}");
    }
}
