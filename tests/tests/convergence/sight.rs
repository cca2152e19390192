//! A row that looks untouched and is not: a user changed it and changed it back, and left its clock alone each time.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::Direction;
use crossfade_tests::lines::KILLED;
use mysql_async::prelude::Queryable;

use crate::of_one_table;

const LIMIT: Duration = Duration::from_secs(60);

async fn changed_and_changed_back(flavor: Flavor) -> Result<()> {
    let mut migration = of_one_table(flavor, "changed_back").await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (1, 'a'), (2, 'a')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.expect_lines(KILLED);
    migration.process(Direction::Reverse)?.kill9().await?;
    // Nobody reads this for now.
    for value in ["b", "a"] {
        let update = format!("UPDATE {{schema}}.t SET v = '{value}', updated_at = updated_at WHERE id = 1");
        migration.on(&migration.new, &[&update]).await?;
    }
    // The change of row 2 only shows that the direction applies.
    let updates = [
        "UPDATE {schema}.t SET v = 'of old', updated_at = updated_at WHERE id = 1",
        "UPDATE {schema}.t SET v = 'of old' WHERE id = 2",
    ];
    migration.on(&migration.old, &updates).await?;
    let query = format!("SELECT v FROM `{}`.t WHERE id = 2", migration.schema);
    until("what needs no waiting", LIMIT, || async {
        let found: Option<String> = migration.new.get_conn().await?.query_first(&query).await?;
        Ok(if found.as_deref() == Some("of old") {
            Progress::Reached(())
        } else {
            Progress::NotYet(format!("{found:?}"))
        })
    })
    .await?;
    migration.start(Direction::Reverse, &[])?;
    let (_, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() == 2, "rows are missing: {comparison}");
    migration.stop_both().await
}

#[tokio::test]
async fn p4_changed_and_changed_back_on_mysql() -> Result<()> {
    changed_and_changed_back(Flavor::MySql).await
}

#[tokio::test]
async fn p4_changed_and_changed_back_on_mariadb() -> Result<()> {
    changed_and_changed_back(Flavor::MariaDb).await
}
