//! A row that cannot be copied holds up its own entity, and nothing else.

use anyhow::{Result, ensure};
use crossfade_tests::{Flavor, on_both_brands};

use crate::stage::{LIMIT, counts, entity, number, on_new, setup, staged};

/// New refuses a value. The others of its batch move; it moves when the value is mended.
async fn one_that_cannot_be_copied_fails_alone(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "refused", "attempts = 2"), 12).await?;
    migration.on(&migration.new, &["ALTER TABLE {schema}.orders ADD CONSTRAINT no_bad CHECK (what <> 'bad')"]).await?;
    migration
        .on(&migration.old, &["INSERT INTO {schema}.orders (id, user_id, what) VALUES (77, 7, 'bad'), (88, 8, 'good')"])
        .await?;
    let report = entity(&migration, &["move", "--where", "id <= 10"], 1).await?;
    println!("{flavor:?}: {report:#}");
    ensure!(number(&report, "moved")? == 9 && number(&report, "failed")? == 1, "{report:#}");
    ensure!(number(&report, "undone")? == 2, "{report:#}");
    let reason = report["reasons"][0]["reason"].as_str().unwrap_or_default();
    ensure!(report["reasons"][0]["entity"] == "7" && reason.contains(".orders"), "{report:#}");
    ensure!(on_new(&migration).await? == [1, 2, 3, 4, 5, 6, 8, 9, 10]);
    let shown = entity(&migration, &["show", "7"], 0).await?;
    ensure!(shown["state"] == "failed" && shown["side"] == "old" && shown["attempts"] == 2, "{shown:#}");
    // Named again while the reason stands, it fails again; when that is gone, it moves.
    entity(&migration, &["move", "7"], 1).await?;
    migration.on(&migration.old, &["UPDATE {schema}.orders SET what = 'mended' WHERE id = 77"]).await?;
    entity(&migration, &["move", "--state", "failed"], 0).await?;
    let all = counts(&migration).await?;
    ensure!(all["moved"] == 10 && !all.contains_key("failed"), "{all:?}");
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// What only old has, and what differs, is made equal before an entity moves; others are left as they are.
async fn rows_that_differ_are_copied(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "differ", ""), 4).await?;
    // Behind the back of both directions.
    let silently = |statement: &str| {
        let pool = migration.new.clone();
        let statement = statement.replace("{schema}", &format!("`{}`", migration.schema));
        async move {
            use mysql_async::prelude::Queryable;
            let mut conn = pool.get_conn().await?;
            conn.query_drop("SET SESSION sql_log_bin = 0").await?;
            conn.query_drop(statement).await?;
            conn.query_drop("SET SESSION sql_log_bin = 1").await
        }
    };
    for id in [1, 2] {
        silently(&format!("DELETE FROM {{schema}}.items WHERE order_id = {}", id * 1_000)).await?;
        silently(&format!("DELETE FROM {{schema}}.orders WHERE user_id = {id}")).await?;
        silently(&format!("UPDATE {{schema}}.users SET n = 9 WHERE id = {id}")).await?;
    }
    let shown = entity(&migration, &["add", "1", "2"], 0).await?;
    ensure!(shown["found"] == 2, "{shown:#}");
    let before = entity(&migration, &["show", "1"], 0).await?;
    let different = |shown: &serde_json::Value| -> Vec<u64> {
        let tables = shown["tables"].as_array().into_iter().flatten();
        tables.filter_map(|table| table["different"].as_u64()).collect()
    };
    ensure!(different(&before) == [1, 1, 2], "{before:#}");
    let report = entity(&migration, &["move", "1"], 0).await?;
    ensure!(number(&report, "rows")? == 4, "{report:#}");
    let after = entity(&migration, &["show", "1"], 0).await?;
    ensure!(different(&after) == [0, 0, 0] && after["side"] == "new", "{after:#}");
    let other = entity(&migration, &["show", "2"], 0).await?;
    ensure!(different(&other) == [1, 1, 2] && other["side"] == "old", "{other:#}");
    entity(&migration, &["move", "2"], 0).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

on_both_brands! {
    p7_one_that_cannot_be_copied_fails_alone => one_that_cannot_be_copied_fails_alone,
    p9_rows_that_differ_are_copied => rows_that_differ_are_copied,
}
