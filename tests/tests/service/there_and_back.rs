//! The service changes sides, goes back, and changes again.

use anyhow::{Result, ensure};
use crossfade_tests::{Flavor, on_both_brands, rounds};

use crate::instance::USUAL;
use crate::stage::Stage;

async fn no_acknowledged_write_is_lost(flavor: Flavor) -> Result<()> {
    let stage = Stage::begin(flavor, "service", USUAL).await?;
    for _ in 0..rounds(1, 10) {
        for command in ["cutover", "rollback", "cutover"] {
            let report = stage.change_quickly(command).await?;
            let instances = report["instances"].as_array().map_or(0, Vec::len);
            ensure!(instances == 3, "{command} has waited for {instances} instances: {report:#}");
            stage.judge().await?;
            stage.writes_for_a_while(200).await?;
        }
        stage.change_quickly("rollback").await?;
        stage.judge().await?;
    }
    stage.end().await
}

on_both_brands! {
    p9_no_acknowledged_write_is_lost_there_and_back => no_acknowledged_write_is_lost,
}
