//! Twelve tables of a shop, tied by foreign keys, with keys of several kinds: what is copied and compared at scale.

use anyhow::Result;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// Rows of one statement that loads.
const ROWS_AT_ONCE: u64 = 1_000;

/// A row's values are made of its number, so that both sides' users mean the same row by it.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    /// Its columns but `v` and `updated_at`, and its keys.
    definition: &'static str,
    /// How many of a thousand rows are its.
    pub share: u64,
    /// The columns of `values`.
    pub columns: &'static [&'static str],
    /// So many of these are the key.
    pub key_columns: usize,
    pub values: fn(u64, &Rows) -> Vec<String>,
    /// Characters of `v`.
    pub width: usize,
}

impl Table {
    /// Nobody refers to it.
    pub fn is_leaf(&self) -> bool {
        let refers = format!("REFERENCES {} ", self.name);
        !TABLES.iter().any(|other| other.definition.contains(&refers))
    }
}

/// How many rows each table has at the beginning.
#[derive(Debug, Clone, Copy)]
pub struct Rows(u64);

impl Rows {
    pub fn new(in_all: u64) -> Rows {
        Rows(in_all)
    }

    pub fn of(self, table: &str) -> u64 {
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

pub const TABLES: [Table; 12] = [
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

/// Fills the tables of the schema in use; gives the number of rows.
///
/// # Errors
///
/// The server's.
pub async fn load(connection: &mut Conn, rows: Rows) -> Result<u64> {
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

/// What `v` holds, of the table's width.
pub fn text(width: usize, side: &str, number: u64) -> String {
    format!("{side} {number} {}", "x".repeat(width))
}
