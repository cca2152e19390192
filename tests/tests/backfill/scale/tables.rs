//! Twelve tables tied by foreign keys: what they hold, and what users do to them.

use anyhow::Result;
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use rand::Rng;
use rand::rngs::StdRng;

use crate::writers::{Statement, Users, seed_of};

/// Rows of one statement that loads.
const ROWS_AT_ONCE: u64 = 1_000;

/// A row's values are made of its number, so that both sides' users mean the same row by it.
struct Table {
    name: &'static str,
    /// Its columns but `v` and `updated_at`, and its keys.
    definition: &'static str,
    /// How many of a thousand rows are its.
    share: u64,
    /// The columns of `values`.
    columns: &'static [&'static str],
    /// So many of these are the key.
    key_columns: usize,
    values: fn(u64, &Rows) -> Vec<String>,
    /// Characters of `v`.
    width: usize,
}

impl Table {
    fn is_leaf(&self) -> bool {
        let refers = format!("REFERENCES {} ", self.name);
        !TABLES.iter().any(|other| other.definition.contains(&refers))
    }
}

/// How many rows each table has at the beginning.
#[derive(Clone, Copy)]
pub struct Rows(u64);

impl Rows {
    pub fn new(in_all: u64) -> Rows {
        Rows(in_all)
    }

    fn of(self, table: &str) -> u64 {
        TABLES.iter().find(|known| known.name == table).map_or(1, |known| (self.0 * known.share / 1_000).max(1))
    }

    /// The number of a parent's row for a child's.
    fn parent(self, table: &str, child: u64) -> u64 {
        child.wrapping_mul(7_919) % self.of(table) + 1
    }
}

fn id(id: u64) -> String {
    id.to_string()
}

/// Keys that only the server takes for one with those of other spellings.
fn code(id: u64) -> String {
    format!("'Präparat {id}'")
}

const TABLES: [Table; 12] = [
    Table {
        name: "region",
        definition: "id BIGINT NOT NULL PRIMARY KEY",
        share: 5,
        columns: &["id"],
        key_columns: 1,
        values: |row, _| vec![id(row)],
        width: 12,
    },
    Table {
        name: "account",
        definition: "id BIGINT NOT NULL PRIMARY KEY, region_id BIGINT NOT NULL, \
                     FOREIGN KEY (region_id) REFERENCES region (id)",
        share: 100,
        columns: &["id", "region_id"],
        key_columns: 1,
        values: |row, rows| vec![id(row), id(rows.parent("region", row))],
        width: 40,
    },
    Table {
        name: "address",
        definition: "id BIGINT NOT NULL PRIMARY KEY, account_id BIGINT NOT NULL, \
                     FOREIGN KEY (account_id) REFERENCES account (id)",
        share: 120,
        columns: &["id", "account_id"],
        key_columns: 1,
        values: |row, rows| vec![id(row), id(rows.parent("account", row))],
        width: 80,
    },
    Table {
        name: "profile",
        definition: "account_id BIGINT NOT NULL PRIMARY KEY, FOREIGN KEY (account_id) REFERENCES account (id)",
        share: 80,
        columns: &["account_id"],
        key_columns: 1,
        values: |row, _| vec![id(row)],
        width: 200,
    },
    Table {
        name: "product",
        definition: "code VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL PRIMARY KEY",
        share: 50,
        columns: &["code"],
        key_columns: 1,
        values: |row, _| vec![code(row)],
        width: 60,
    },
    Table {
        name: "price",
        definition: "code VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL, number INT NOT NULL, \
                     PRIMARY KEY (code, number), FOREIGN KEY (code) REFERENCES product (code)",
        share: 65,
        columns: &["code", "number"],
        key_columns: 2,
        values: |row, rows| vec![code(row % rows.of("product") + 1), id(row / rows.of("product"))],
        width: 8,
    },
    Table {
        name: "orders",
        definition: "id BIGINT NOT NULL PRIMARY KEY, account_id BIGINT NOT NULL, \
                     FOREIGN KEY (account_id) REFERENCES account (id)",
        share: 130,
        columns: &["id", "account_id"],
        key_columns: 1,
        values: |row, rows| vec![id(row), id(rows.parent("account", row))],
        width: 30,
    },
    Table {
        name: "order_line",
        definition: "order_id BIGINT NOT NULL, line INT NOT NULL, \
                     code VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL, \
                     PRIMARY KEY (order_id, line), FOREIGN KEY (order_id) REFERENCES orders (id), \
                     FOREIGN KEY (code) REFERENCES product (code)",
        share: 200,
        columns: &["order_id", "line", "code"],
        key_columns: 2,
        values: |row, rows| {
            let orders = rows.of("orders");
            vec![id(row % orders + 1), id(row / orders), code(rows.parent("product", row))]
        },
        width: 20,
    },
    Table {
        name: "payment",
        definition: "id BIGINT NOT NULL PRIMARY KEY, order_id BIGINT NOT NULL, \
                     FOREIGN KEY (order_id) REFERENCES orders (id)",
        share: 90,
        columns: &["id", "order_id"],
        key_columns: 1,
        values: |row, rows| vec![id(row), id(rows.parent("orders", row))],
        width: 30,
    },
    Table {
        name: "shipment",
        definition: "id BIGINT NOT NULL PRIMARY KEY, order_id BIGINT NOT NULL, address_id BIGINT NOT NULL, \
                     FOREIGN KEY (order_id) REFERENCES orders (id), FOREIGN KEY (address_id) REFERENCES address (id)",
        share: 60,
        columns: &["id", "order_id", "address_id"],
        key_columns: 1,
        values: |row, rows| vec![id(row), id(rows.parent("orders", row)), id(rows.parent("address", row))],
        width: 30,
    },
    Table {
        name: "review",
        definition: "id BIGINT NOT NULL PRIMARY KEY, account_id BIGINT NOT NULL, \
                     code VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL, \
                     FOREIGN KEY (account_id) REFERENCES account (id), FOREIGN KEY (code) REFERENCES product (code)",
        share: 60,
        columns: &["id", "account_id", "code"],
        key_columns: 1,
        values: |row, rows| vec![id(row), id(rows.parent("account", row)), code(rows.parent("product", row))],
        width: 600,
    },
    Table {
        name: "note",
        definition: "id BIGINT NOT NULL PRIMARY KEY, account_id BIGINT NULL, \
                     FOREIGN KEY (account_id) REFERENCES account (id)",
        share: 40,
        columns: &["id", "account_id"],
        key_columns: 1,
        values: |row, rows| {
            vec![id(row), if row.is_multiple_of(5) { "NULL".to_owned() } else { id(rows.parent("account", row)) }]
        },
        width: 120,
    },
];

/// The statements that create the tables in the schema in use.
pub fn definitions() -> Vec<String> {
    let create = |table: &Table| {
        format!(
            "CREATE TABLE {} ({}, v VARCHAR(700), \
             updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))",
            table.name, table.definition
        )
    };
    TABLES.iter().map(create).collect()
}

/// Fills the tables of a side; gives the number of rows.
pub async fn load(pool: &Pool, schema: &str, rows: Rows) -> Result<u64> {
    let mut connection = pool.get_conn().await?;
    connection.query_drop(format!("USE `{schema}`")).await?;
    let mut loaded = 0;
    for table in &TABLES {
        let of_table = rows.of(table.name);
        for first in (1..=of_table).step_by(usize::try_from(ROWS_AT_ONCE)?) {
            let last = (first + ROWS_AT_ONCE - 1).min(of_table);
            let values: Vec<String> = (first..=last)
                .map(|row| format!("({}, '{}')", (table.values)(row, &rows).join(", "), text(table.width, "old", row)))
                .collect();
            let columns = table.columns.join(", ");
            connection
                .query_drop(format!("INSERT INTO {} ({columns}, v) VALUES {}", table.name, values.join(",")))
                .await?;
            loaded += last - first + 1;
        }
    }
    Ok(loaded)
}

fn text(width: usize, side: &str, number: u64) -> String {
    format!("{side} {number} {}", "x".repeat(width))
}

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
        let (name, key) = (table.name, key.join(" AND "));
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
