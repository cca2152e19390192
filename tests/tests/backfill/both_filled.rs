//! A new side that has rows of its own when the migration begins: they are found and shown, and brought over to old.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;
use serde_json::Value;

use crate::progress::Copies;

const LIMIT: Duration = Duration::from_secs(120);

/// Of `item`, new has 3 rows alone, 4 that are newer, 5 that are older, and 20 that are the same; of `part`, which refers to
/// it, 2 alone that hang on those.
async fn half_filled(flavor: Flavor) -> Result<Migration> {
    let migration = Migration::new(&Setup::new(flavor, "both_filled")).await?;
    migration
        .on_both(&[
            "USE {schema}",
            "CREATE TABLE item (id INT PRIMARY KEY, v VARCHAR(20), updated_at DATETIME(6) NOT NULL)",
            "CREATE TABLE part (id INT PRIMARY KEY, item_id INT NOT NULL, updated_at DATETIME(6) NOT NULL, \
             FOREIGN KEY (item_id) REFERENCES item (id))",
        ])
        .await?;
    let rows = |ids: std::ops::RangeInclusive<u32>, v: &str, day: u32| {
        let values = ids.map(|id| format!("({id}, '{v}', '2026-01-{day:02}')")).collect::<Vec<_>>().join(",");
        format!("INSERT INTO item VALUES {values}")
    };
    let of_old = ["USE {schema}", &rows(1..=100, "old", 10), "INSERT INTO part VALUES (1, 1, '2026-01-10')"];
    migration.on(&migration.old, &of_old).await?;
    let of_new = [
        "USE {schema}",
        &rows(201..=203, "new", 10),
        &rows(1..=4, "newer", 20),
        &rows(5..=9, "older", 5),
        &rows(10..=29, "old", 10),
        "INSERT INTO part VALUES (7, 201, '2026-01-10'), (8, 202, '2026-01-10')",
    ];
    migration.on(&migration.new, &of_new).await?;
    migration.init().await?;
    Ok(migration)
}

/// Waits until all rows were compared once after the last table was copied.
async fn until_compared(migration: &Migration) -> Result<Copies> {
    until("the comparison after the copying", LIMIT, || async {
        let copies = Copies::read(migration).await?;
        let done = copies.tables().iter().all(|table| table["only_on_new"].is_u64());
        Ok(if done { Progress::Reached(copies) } else { Progress::NotYet(copies.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

async fn rows_of_both_sides_come_together(flavor: Flavor) -> Result<()> {
    let mut migration = half_filled(flavor).await?;
    migration.expect_lines(&["rows differ between the sides"]);
    migration.start(Direction::Forward, &[])?;
    migration.crossfade(&["backfill", "start"]).await?;
    Copies::until_copied(&migration, LIMIT).await?;
    let copies = until_compared(&migration).await?;
    let of_item = |field| copies.of(".item", field);
    ensure!(
        (of_item("replaced"), of_item("same"), of_item("kept"), of_item("filled")) == (5, 20, 4, 71),
        "{}",
        copies.0
    );
    ensure!((of_item("only_on_new"), of_item("differ")) == (3, 4), "{}", copies.0);
    ensure!(copies.of(".part", "only_on_new") == 2 && copies.of(".part", "differ") == 0, "{}", copies.0);
    let (code, printed, _) = migration.crossfade_any(&["backfill", "status"]).await?;
    ensure!(code == Some(1) && printed.contains("verify --repair newest"), "{code:?}: {printed}");
    let shown: Value =
        serde_json::from_str(&migration.crossfade(&["verify", "show", "--continuous", "--json"]).await?)?;
    let of_kind = |kind: &str| {
        let rows = shown["differences"].as_array().into_iter().flatten();
        rows.filter(|row| row["kind"] == kind).count()
    };
    ensure!((of_kind("missing_on_old"), of_kind("different")) == (5, 4), "{shown}");

    // As the documentation says: both directions run, look first, then mend, and look again.
    migration.start(Direction::Reverse, &[])?;
    migration.status().until_running(LIMIT).await?;
    let (code, dry, _) = migration.crossfade_any(&["verify", "--repair", "newest", "--dry-run", "--json"]).await?;
    let dry: Value = serde_json::from_str(&dry)?;
    let would = &dry["repair"];
    ensure!(code == Some(1) && would["inserted_on_old"] == 5 && would["changed_on_old"] == 4, "{dry}");
    ensure!(!migration.compare().await?.is_equal(), "a dry run has written");
    let mended: Value = serde_json::from_str(&migration.crossfade(&["verify", "--repair", "newest", "--json"]).await?)?;
    let repair = &mended["repair"];
    ensure!(repair["inserted_on_old"] == 5 && repair["changed_on_old"] == 4, "{mended}");
    ensure!(repair["deleted_on_new"] == 0 && repair["changed_on_new"] == 0, "{mended}");
    migration.crossfade(&["verify"]).await?;
    // The newer ones are there on both sides, and nothing of it was taken for changes of users.
    let (status, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() == 106 && status.total("last_seq") == 0, "{comparison}\n{}", status.0);
    let asked = format!("SELECT v, COUNT(*) FROM `{}`.item GROUP BY v ORDER BY v", migration.schema);
    let counts: Vec<(String, u64)> = migration.old.get_conn().await?.query(asked).await?;
    let expected = [("new", 3), ("newer", 4), ("old", 96)];
    ensure!(counts.iter().map(|(v, count)| (v.as_str(), *count)).eq(expected), "{counts:?}");
    let (code, printed, _) = migration.crossfade_any(&["backfill", "status"]).await?;
    ensure!(code == Some(0) && !printed.contains("--repair"), "{code:?}: {printed}");
    migration.stop_both().await
}

on_both_brands! {
    p6_rows_of_both_sides_come_together => rows_of_both_sides_come_together,
}
