//! What users of both sides do to the tables of the shop.

use crossfade_testkit::shop::{Rows, TABLES, text};
use rand::Rng;
use rand::rngs::StdRng;

use crate::writers::{Statement, Users, seed_of};

/// A side's users, who change, delete and write any row of any table, those that are about to be copied among them. Those of the
/// new side delete no parents: whose children are yet to be copied, they could not know that there are any.
#[derive(Clone, Copy)]
pub struct Shoppers {
    pub rows: Rows,
    pub side: &'static str,
}

impl Users for Shoppers {
    fn seed(&self) -> u64 {
        seed_of(self.side)
    }

    fn statement(&self, random: &mut StdRng) -> Statement {
        let mut place = random.random_range(0..1_000);
        let mut table = &TABLES[0];
        for candidate in &TABLES {
            table = candidate;
            if place < candidate.share {
                break;
            }
            place -= candidate.share;
        }
        let of_table = self.rows.of(table.name);
        let values = (table.values)(random.random_range(1..=of_table + of_table / 10), &self.rows);
        let key: Vec<String> = table
            .columns
            .iter()
            .zip(&values)
            .take(table.key_columns)
            .map(|(column, value)| format!("{column} = {value}"))
            .collect();
        // Of new, most rows are not there yet: its users choose the next one that is.
        let key = match self.side {
            "old" => key.join(" AND "),
            _ => format!("{} >= {} ORDER BY {} LIMIT 1", table.columns[0], values[0], table.columns[0]),
        };
        let name = table.name;
        let text = text(table.width, self.side, random.random_range(0..1_000_000));
        match random.random_range(0..10) {
            0..5 => Statement { sql: format!("UPDATE {name} SET v = '{text}' WHERE {key}"), is_delete: false },
            5..7 if self.side == "old" || table.is_leaf() => {
                Statement { sql: format!("DELETE FROM {name} WHERE {key}"), is_delete: true }
            }
            _ => Statement {
                sql: format!(
                    "INSERT INTO {name} ({}, v) VALUES ({}, '{text}') ON DUPLICATE KEY UPDATE v = '{text}'",
                    table.columns.join(", "),
                    values.join(", ")
                ),
                is_delete: false,
            },
        }
    }
}
