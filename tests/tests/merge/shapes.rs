//! Merged columns of other names and kinds: renamed, generated, invisible, at the ends of what they hold.

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

use crate::Side::{self, New, Old};
use crate::{LIMIT, in_turn};

const CLOCK: &str = "TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

const STOCK: [&str; 2] = [
    "CREATE TABLE {schema}.stock (id INT PRIMARY KEY, pieces INT UNSIGNED NOT NULL, price DECIMAL(12,2) NOT NULL, \
     worth DECIMAL(30,2) AS (pieces * price) STORED, label VARCHAR(40) AS (CONCAT('no ', id)) VIRTUAL, \
     high DOUBLE NULL, note VARCHAR(20) NULL, hidden INT NOT NULL DEFAULT 3 INVISIBLE, changed_at {clock})",
    "CREATE TABLE {schema}.goods (id INT PRIMARY KEY, remark VARCHAR(20) NULL, quantity INT UNSIGNED NOT NULL, \
     amount DECIMAL(12,2) NOT NULL, worth DECIMAL(30,2) AS (quantity * amount) STORED, \
     label VARCHAR(40) AS (CONCAT('no ', id)) VIRTUAL, top DOUBLE NULL, touched {clock}, \
     hidden INT NOT NULL DEFAULT 3 INVISIBLE)",
];

const TABLES: &str = "[[table]]\nold = \"{schema}.stock\"\nnew = \"{schema}.goods\"\nclock = \"changed_at\"\n\
     columns = { pieces = \"quantity\", price = \"amount\", high = \"top\", note = \"remark\", changed_at = \"touched\" }\n\
     merge = \"columns\"\nmerge_rules = { pieces = \"sum-delta\", price = \"sum-delta\", high = \"max\" }\n";

/// What both sides have before: `id, pieces, price, high, note`.
const BEFORE: &str = "INSERT INTO {schema}.stock (id, pieces, price, high, note) VALUES (1, 10, 1.00, 5, NULL), \
     (2, 10, 1.00, NULL, 'a'), (3, 10, 1.00, 5, 'a'), (5, 4294967290, 9999999990.00, 1e300, 'a'), \
     (6, 10, 1.00, 5, 'a'), (7, 10, 1.00, 5, 'a')";

/// One after the other, while neither side hears of the other.
const CHANGES: &[(Side, &str)] = &[
    // Sums, a maximum, and a column that was NULL.
    (Old, "UPDATE {schema}.stock SET pieces = pieces + 3, price = price - 1.25, high = 7 WHERE id = 1"),
    (New, "UPDATE {schema}.goods SET quantity = quantity - 2, amount = amount + 1.50, top = 9.5 WHERE id = 1"),
    (New, "UPDATE {schema}.goods SET remark = 'new' WHERE id = 1"),
    (Old, "UPDATE {schema}.stock SET high = 8, hidden = 4 WHERE id = 1"),
    // NULL is no maximum; set to NULL and back.
    (Old, "UPDATE {schema}.stock SET high = -1, note = NULL WHERE id = 2"),
    (New, "UPDATE {schema}.goods SET quantity = 0, hidden = 5 WHERE id = 2"),
    // A row that changes its key and comes back, with what the other side added to it.
    (New, "UPDATE {schema}.goods SET quantity = quantity + 7, remark = 'overtaken' WHERE id = 3"),
    (Old, "UPDATE {schema}.stock SET id = 4, pieces = pieces + 1 WHERE id = 3"),
    (Old, "UPDATE {schema}.stock SET id = 3, pieces = pieces + 1 WHERE id = 4"),
    // Up to the last number that fits.
    (Old, "UPDATE {schema}.stock SET pieces = pieces + 2, price = price + 9.00 WHERE id = 5"),
    (New, "UPDATE {schema}.goods SET quantity = quantity + 3, amount = amount + 0.99 WHERE id = 5"),
    // Deleted and inserted again on one side, twice.
    (New, "UPDATE {schema}.goods SET quantity = quantity + 2 WHERE id = 6"),
    (Old, "DELETE FROM {schema}.stock WHERE id = 6"),
    (Old, "INSERT INTO {schema}.stock (id, pieces, price, hidden) VALUES (6, 100, 2.00, 9)"),
    (New, "UPDATE {schema}.goods SET quantity = quantity + 30 WHERE id = 6"),
    (Old, "DELETE FROM {schema}.stock WHERE id = 6"),
    (Old, "INSERT INTO {schema}.stock (id, pieces, price) VALUES (6, 1000, 3.00)"),
    // The other side's delete lies between two updates.
    (Old, "UPDATE {schema}.stock SET pieces = pieces + 1 WHERE id = 7"),
    (New, "DELETE FROM {schema}.goods WHERE id = 7"),
    (Old, "DO SLEEP(1.1)"),
    (Old, "UPDATE {schema}.stock SET pieces = pieces + 2, note = 'later' WHERE id = 7"),
    // Inserted on both.
    (Old, "INSERT INTO {schema}.stock (id, pieces, price, high) VALUES (8, 5, 1.00, 4)"),
    (New, "INSERT INTO {schema}.goods (id, quantity, amount, top, remark) VALUES (8, 7, 2.00, 3, 'n')"),
    (Old, "UPDATE {schema}.stock SET pieces = pieces + 1 WHERE id = 8"),
];

/// `id pieces price worth high note hidden`.
const EXPECTED: [&str; 7] = [
    "1 11 1.25 13.75 9.5 new 4",
    "2 0 1.00 0.00 -1 - 5",
    "3 19 1.00 19.00 5 a 3",
    "5 4294967295 9999999999.99 42949672949957050327.05 1e300 a 3",
    "6 1032 3.00 3096.00 - - 3",
    "7 13 1.00 13.00 5 later 3",
    "8 8 2.00 16.00 4 n 3",
];

pub async fn columns_of_other_names_and_kinds(flavor: Flavor) -> Result<()> {
    let setup = Setup { tables: TABLES.to_owned(), ..Setup::new(flavor, "merge_shapes") };
    let mut migration = Migration::new(&setup).await?;
    for (pool, create) in [&migration.old, &migration.new].into_iter().zip(STOCK) {
        migration.on(pool, &[&create.replace("{clock}", CLOCK)]).await?;
    }
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &[BEFORE]).await?;
    migration.status().until_quiet(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    in_turn(&migration, CHANGES).await?;
    migration.go_on(&Direction::BOTH).await?;
    let status = migration.status().until_quiet(LIMIT).await?;
    ensure!(status.total("open_failures") + status.total("held") == 0, "{}", status.0);
    let old = rows(&migration, &migration.old, "id, pieces, price, worth, high, note, hidden", "stock").await?;
    let new = rows(&migration, &migration.new, "id, quantity, amount, worth, top, remark, hidden", "goods").await?;
    ensure!(old == new, "old {old:#?}, new {new:#?}");
    ensure!(old == EXPECTED, "{old:#?}");
    ensure!(
        clocks(&migration, &migration.old, "changed_at", "stock").await?
            == clocks(&migration, &migration.new, "touched", "goods").await?,
        "the clocks differ"
    );
    migration.stop_both().await
}

const FAMILY: [&str; 2] = [
    "CREATE TABLE {schema}.parents (id INT PRIMARY KEY, balance BIGINT NOT NULL, updated_at {clock})",
    "CREATE TABLE {schema}.children (id INT PRIMARY KEY, parent INT NOT NULL, updated_at {clock}, \
     FOREIGN KEY (parent) REFERENCES {schema}.parents (id))",
];

/// A parent leaves its key, to which the other side gives a child, for one under which the other side has a row, too. It stays
/// where it was, and nothing of it is merged into that other row.
pub async fn a_parent_that_stays(flavor: Flavor) -> Result<()> {
    let tables = "[[table]]\nname = \"{schema}.parents\"\nclock = \"updated_at\"\nmerge = \"columns\"\n\
         merge_rules = { balance = \"sum-delta\" }\n[[table]]\nname = \"{schema}.children\"\nclock = \"updated_at\"\n";
    let setup = Setup { tables: tables.to_owned(), ..Setup::new(flavor, "merge_family") };
    let mut migration = Migration::new(&setup).await?;
    migration.on_both(&FAMILY.map(|table| table.replace("{clock}", CLOCK)).each_ref().map(String::as_str)).await?;
    migration.init().await?;
    migration.start_both().await?;
    let before = ["INSERT INTO {schema}.parents (id, balance) VALUES (1, 10), (2, 10)"];
    migration.on(&migration.old, &before).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let written = [
        (New, "INSERT INTO {schema}.parents (id, balance) VALUES (8, 100)"),
        (New, "UPDATE {schema}.parents SET balance = balance + 1 WHERE id = 8"),
        (New, "INSERT INTO {schema}.children (id, parent) VALUES (1, 2)"),
        (Old, "UPDATE {schema}.parents SET id = 8, balance = balance + 5 WHERE id = 2"),
    ];
    in_turn(&migration, &written).await?;
    migration.go_on(&Direction::BOTH).await?;
    until_settled(&migration).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let found = rows(&migration, &migration.old, "id, balance", "parents").await?;
    ensure!(found == ["1 10", "2 10", "8 101"], "{found:?}");
    let found = rows(&migration, &migration.old, "id, parent", "children").await?;
    ensure!(found == ["1 2"], "{found:?}");
    migration.stop_both().await
}

/// Everything is captured and applied, also what one direction has sent back.
async fn until_settled(migration: &Migration) -> Result<()> {
    until("nothing set aside", LIMIT, || async {
        let status = migration.status().read().await?;
        let settled = status.streams().iter().all(|stream| stream["last_seq"] == stream["settled_seq"]);
        let is_reached = settled && status.is_caught_up() && status.total("open_failures") + status.total("held") == 0;
        Ok(if is_reached { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

async fn rows(migration: &Migration, pool: &Pool, columns: &str, table: &str) -> Result<Vec<String>> {
    let columns: Vec<String> = columns.split(", ").map(|column| format!("COALESCE({column}, '-')")).collect();
    let query = format!(
        "SELECT CONCAT_WS(' ', {}) FROM {}.{table} ORDER BY id",
        columns.join(", "),
        sql::name(&migration.schema)
    );
    Ok(pool.get_conn().await?.query(query).await?)
}

async fn clocks(migration: &Migration, pool: &Pool, clock: &str, table: &str) -> Result<Vec<String>> {
    let query = format!("SELECT CAST({clock} AS CHAR) FROM {}.{table} ORDER BY id", sql::name(&migration.schema));
    Ok(pool.get_conn().await?.query(query).await?)
}
