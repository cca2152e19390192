//! Every shape that a change of rows can have, written on either side, ends equal on both.

mod by_index;
mod keys;
mod mapping;
mod relations;
mod scenario;
mod texts;
mod volume;

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_tests::{Direction, Migration, Setup};
use scenario::{QUIET_LIMIT, Scenario};

/// The clock that a table has unless it is about clocks.
const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

async fn scenarios_end_equal(flavor: Flavor) -> Result<()> {
    let scenarios = all_scenarios(flavor);
    let setup = Setup { tables: scenario::TABLES.to_owned(), ..Setup::new(flavor, "shapes") };
    let mut migration = Migration::new(&setup).await?;
    scenario::create(&migration, &scenarios).await?;
    migration.init().await?;
    migration.start_both().await?;

    let mut forward = scenario::run(&migration, &scenarios, Direction::Forward, 1).await?;
    let (status, _) = migration.until_quiet_and_equal(QUIET_LIMIT).await?;
    if let Err(error) = scenario::crossed(&status, forward, 0) {
        return Err(error.context(scenario::counted(&migration, Direction::Forward).await?));
    }

    let mut reverse = scenario::run(&migration, &scenarios, Direction::Reverse, 2).await?;
    let (status, _) = migration.until_quiet_and_equal(QUIET_LIMIT).await?;
    scenario::crossed(&status, forward, reverse)?;

    // Row 0 of the AUTO_INCREMENT table would be one row for both.
    let apart: Vec<Scenario> = scenarios.into_iter().filter(|scenario| !scenario.name.contains("AUTO_INC")).collect();
    let (more_forward, more_reverse) = tokio::try_join!(
        scenario::run(&migration, &apart, Direction::Forward, 3),
        scenario::run(&migration, &apart, Direction::Reverse, 4)
    )?;
    forward += more_forward;
    reverse += more_reverse;
    let (status, comparison) = migration.until_quiet_and_equal(QUIET_LIMIT).await?;
    scenario::crossed(&status, forward, reverse)?;
    scenario::echoed(&status)?;

    let rows = comparison.rows_compared();
    println!("{flavor:?}: {forward} changes forward, {reverse} in reverse, {rows} rows equal");
    ensure!(rows as usize > 4 * comparison.tables.len(), "too few rows to compare: {comparison}");
    migration.stop_both().await
}

fn all_scenarios(flavor: Flavor) -> Vec<Scenario> {
    [keys::scenarios(), texts::scenarios(flavor), relations::scenarios()].into_iter().flatten().collect()
}

#[tokio::test]
async fn p4_p5_keys_names_and_relations_on_mysql() -> Result<()> {
    scenarios_end_equal(Flavor::MySql).await
}

#[tokio::test]
async fn p4_p5_keys_names_and_relations_on_mariadb() -> Result<()> {
    scenarios_end_equal(Flavor::MariaDb).await
}
