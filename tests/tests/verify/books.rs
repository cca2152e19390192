//! The books balance: of each table every captured change is applied, has another outcome, or is set aside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;

const LIMIT: Duration = Duration::from_secs(60);

/// What users of both sides did, by stream and table.
const CHANGES: [(&str, &str, u64); 4] =
    [("forward/old", "a", 12), ("forward/old", "b", 28), ("reverse/new", "a", 11), ("reverse/new", "b", 7)];

/// What became of a stream's changes of a table, each counted where it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Book {
    captured: u64,
    applied: u64,
    outcomes: u64,
    failures: u64,
    held: u64,
}

async fn book(migration: &Migration, stream: &str, table: &str) -> Result<Book> {
    let mut store = migration.new.get_conn().await?;
    let mut count = async |what: &str| -> Result<u64> {
        let sql = format!("SELECT COUNT(*) FROM crossfade.{what} pair = ? AND stream = ? AND table_name = ?");
        store.exec_first(sql, (&migration.pair, stream, table)).await?.context("no count")
    };
    Ok(Book {
        captured: count("message WHERE").await?,
        applied: count("message WHERE status = 'applied' AND").await?,
        outcomes: count("outcome WHERE status NOT IN ('applied', 'held') AND").await?,
        failures: count("failure WHERE").await?,
        held: count("outcome WHERE status = 'held' AND").await?,
    })
}

impl Book {
    fn balances(self) -> bool {
        self.captured == self.applied + self.outcomes + self.failures + self.held
    }
}

/// Waits until all that users did is captured and has come to an end of some kind.
async fn until_settled(migration: &Migration) -> Result<()> {
    until("all is settled", LIMIT, || async {
        let status = migration.status().read().await?;
        let is_settled = CHANGES.iter().all(|(stream, ..)| {
            let of_stream: u64 =
                CHANGES.iter().filter(|(other, ..)| other == stream).map(|(.., changes)| changes).sum();
            let direction = stream.split('/').next().unwrap_or_default();
            let settled = status.number(direction, "settled_seq");
            status.number(direction, "last_seq") == of_stream && settled == of_stream
        });
        Ok(if is_settled { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

async fn books_balance(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "books")).await?;
    migration
        .on_both(&[
            "USE {schema}",
            "CREATE TABLE a (id INT PRIMARY KEY, u VARCHAR(9) UNIQUE, v INT, updated_at DATETIME(6) NOT NULL)",
            "CREATE TABLE b (id INT PRIMARY KEY, v INT, updated_at DATETIME(6) NOT NULL)",
            "INSERT INTO a SELECT id, NULL, 0, '2026-01-01' FROM (SELECT 1 AS id UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 \
             UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9 UNION SELECT 10) ids",
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    // Neither side sees what the other one does: conflicts, and one unique value on both.
    migration.rest(&Direction::BOTH).await?;
    let inserts = |ids: std::ops::RangeInclusive<u32>| {
        let rows = ids.map(|id| format!("({id}, 0, '2026-01-01')")).collect::<Vec<_>>().join(",");
        format!("INSERT INTO b VALUES {rows}")
    };
    let of_old = [
        "USE {schema}",
        "UPDATE a SET v = 1, updated_at = '2026-02-01'",
        "INSERT INTO a VALUES (50, 'x', 0, '2026-02-01')",
        "UPDATE a SET v = 2, updated_at = '2026-02-02' WHERE id = 50",
        &inserts(1..=20),
        "UPDATE b SET v = 1, updated_at = '2026-02-01' WHERE id <= 5",
        "DELETE FROM b WHERE id <= 3",
    ];
    let of_new = [
        "USE {schema}",
        "UPDATE a SET v = 3, updated_at = '2026-03-01'",
        "INSERT INTO a VALUES (51, 'x', 0, '2026-02-01')",
        &inserts(101..=107),
    ];
    migration.on(&migration.old, &of_old).await?;
    migration.on(&migration.new, &of_new).await?;
    migration.go_on(&Direction::BOTH).await?;
    until_settled(&migration).await?;
    let mut lost = 0;
    let mut aside = 0;
    for (stream, table, changes) in CHANGES {
        let book = book(&migration, stream, table).await?;
        println!("{flavor:?} {stream} {table}: {book:?}");
        ensure!(book.captured == changes, "{stream} {table}: users made {changes} changes: {book:?}");
        ensure!(book.balances(), "{stream} {table}: {book:?}");
        lost += book.outcomes;
        aside += book.failures + book.held;
    }
    // Something was there to be counted: ten conflicts, and at least one row that cannot be applied on either side.
    ensure!(lost >= 10 && aside >= 2, "{lost} lost, {aside} set aside");

    // What is given up is another outcome.
    migration
        .crossfade(&["discard", "--table", &format!("{}.a", migration.schema), "--yes", "--reason", "twice"])
        .await?;
    until("nothing is set aside", LIMIT, || async {
        let status = migration.status().read().await?;
        let open = status.total("open_failures");
        Ok(if open == 0 { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await?;
    for (stream, table, changes) in CHANGES {
        let book = book(&migration, stream, table).await?;
        ensure!(book.balances() && book.captured == changes && book.failures == 0, "{stream} {table}: {book:?}");
    }
    migration.stop_both().await
}

on_both_brands! {
    p1_books_balance => books_balance,
}
