//! `check` looks at every server that is named.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_tests::account_url;

use crate::stage::{Named, Stage, builder, run};

const TABLE: &str = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, \
    updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";

/// The codes of the errors that `check` finds about the old side.
async fn errors(stage: &Stage) -> Result<Vec<String>> {
    let (_, output, _) = stage.migration.crossfade_any(&["check", "--json"]).await?;
    let report: serde_json::Value = serde_json::from_str(&output)?;
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    let of_old = findings.iter().filter(|finding| finding["severity"] == "error" && finding["side"] == "old");
    Ok(of_old.filter_map(|finding| finding["code"].as_str().map(str::to_owned)).collect())
}

async fn a_replica_must_be_fit(flavor: Flavor) -> Result<()> {
    let replica = builder(flavor).option("read_only", "ON");
    let stage = Stage::new("checked", builder(flavor), &[], replica, Named::PrimaryFirst, &[TABLE]).await?;
    ensure!(errors(&stage).await?.is_empty(), "{:?}", errors(&stage).await?);
    let (logs, gtids): (_, &[(&str, &str)]) = match flavor {
        Flavor::MySql => ("log_replica_updates", &[("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")]),
        Flavor::MariaDb => ("log_slave_updates", &[]),
    };
    let unfit = [&[(logs, "OFF"), ("binlog_row_image", "MINIMAL"), ("skip_slave_start", "ON")][..], gtids].concat();
    stage.replica.restart_with(&unfit).await?;
    let found = errors(&stage).await?;
    for code in ["replica-logs-nothing", "binlog-row-image"] {
        ensure!(found.iter().any(|found| found == code), "{code} is not among {found:?}");
    }
    let lacks_gtids = found.iter().any(|found| found == "fail-over-without-gtid");
    ensure!(lacks_gtids == (flavor == Flavor::MySql), "{found:?}");
    stage.replica.stop().await?;
    let found = errors(&stage).await?;
    ensure!(found == ["unreachable"], "{found:?}");
    stage.migration.forget();
    Ok(())
}

/// Crossfade's account must be allowed to log rows where the server logs statements.
async fn rows_may_be_logged(flavor: Flavor) -> Result<()> {
    let statements = [("binlog_format", "STATEMENT")];
    let stage =
        Stage::new("may_log", builder(flavor), &statements, builder(flavor), Named::BinlogUrl, &[TABLE]).await?;
    ensure!(errors(&stage).await?.is_empty(), "{:?}", errors(&stage).await?);
    run(
        stage.primary(),
        &[
            "CREATE USER limited@'%' IDENTIFIED BY 'sesame'",
            "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, TRIGGER ON *.* TO limited@'%'",
        ],
    )
    .await?;
    let configuration = std::fs::read_to_string(stage.migration.config())?;
    let (any, limited) = (account_url(stage.primary()), stage.primary().url("limited", "sesame"));
    std::fs::write(stage.migration.config(), configuration.replace(&any, &limited))?;
    let found = errors(&stage).await?;
    ensure!(found == ["privilege-missing"], "{found:?}");
    let privilege = if flavor == Flavor::MySql { "SESSION_VARIABLES_ADMIN" } else { "BINLOG ADMIN" };
    let (_, shown, _) = stage.migration.crossfade_any(&["check"]).await?;
    let grant = format!("GRANT {privilege} ON *.* TO `limited`@`%`;");
    ensure!(shown.contains(&grant), "{shown}");
    run(stage.primary(), &[&grant]).await?;
    ensure!(errors(&stage).await?.is_empty(), "{:?}", errors(&stage).await?);
    stage.migration.forget();
    Ok(())
}

#[tokio::test]
async fn p1_a_replica_must_be_fit_on_mysql() -> Result<()> {
    a_replica_must_be_fit(Flavor::MySql).await
}

#[tokio::test]
async fn p1_a_replica_must_be_fit_on_mariadb() -> Result<()> {
    a_replica_must_be_fit(Flavor::MariaDb).await
}

#[tokio::test]
async fn p3_rows_may_be_logged_on_mysql() -> Result<()> {
    rows_may_be_logged(Flavor::MySql).await
}

#[tokio::test]
async fn p3_rows_may_be_logged_on_mariadb() -> Result<()> {
    rows_may_be_logged(Flavor::MariaDb).await
}
