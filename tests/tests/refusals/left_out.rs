//! A table that stops the stream is left out of the configuration, as the error says; what was captured of it before stands in
//! nobody's way.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_tests::{Direction, Setup, on_both_brands};

use crate::{LIMIT, PLAIN, insert, is_green, number, reason, started, state, until_number, until_status};

on_both_brands! {
    a_table_is_left_out: p7_a_table_is_left_out_on_mysql, p7_a_table_is_left_out_on_mariadb;
}

async fn a_table_is_left_out(flavor: Flavor) -> Result<()> {
    let other = "CREATE TABLE {schema}.u (id INT PRIMARY KEY, v VARCHAR(20), n INT NOT NULL, {clock})";
    let mut migration = started(&Setup::new(flavor, "left_out"), &[PLAIN, other]).await?;
    migration.on(&migration.new, &["ALTER TABLE {schema}.t ADD CONSTRAINT below CHECK (n < 1000)"]).await?;
    migration.on(&migration.old, &[&insert([(1, 5000)])]).await?;
    until_status(&migration, "a row refused", |status| status.number("forward", "open_failures") == 1).await?;
    migration.rest(&[Direction::Forward]).await?;
    migration.expect_lines(&["was emptied without row changes"]);
    let into_u = |id| insert([(id, 1)]).replace("{schema}.t", "{schema}.u");
    migration.on(&migration.old, &[&insert([(2, 1)]), &into_u(1), "TRUNCATE TABLE {schema}.t", &into_u(2)]).await?;
    migration.process(Direction::Forward)?.wait(LIMIT).await?;
    let stopped = migration.status().read().await?;
    ensure!(state(&stopped) == "stopped" && reason(&stopped).contains("was emptied"), "{}", stopped.0);

    // As the hint says.
    migration.stop(Direction::Reverse).await?;
    let text = std::fs::read_to_string(migration.config())?;
    let skip = format!("[[table]]\nname = \"{}.t\"\nskip = true\n\n[[table]]", migration.schema);
    std::fs::write(migration.config(), text.replacen("[[table]]", &skip, 1))?;
    migration.crossfade(&["start", "forward"]).await?;
    migration.expect_lines(&["was left out of the configuration"]);
    migration.start_both().await?;
    until_number(&migration.new, &format!("SELECT COUNT(*) FROM `{}`.u", migration.schema), 2).await?;
    let status = until_status(&migration, "nothing waits", |status| {
        is_green(status)
            && status.number("forward", "open_failures") == 0
            && status.number("forward", "settled_seq") == 4
    })
    .await?;
    ensure!(status.number("forward", "last_seq") == 4, "{}", status.0);
    ensure!(number(&migration.new, &format!("SELECT COUNT(*) FROM `{}`.t", migration.schema)).await? == 0);
    let told = migration.crossfade(&["messages", "list", "--status", "discarded"]).await?;
    ensure!(told.contains("forward/old:1 ") && told.contains("forward/old:2 "), "{told}");
    migration.stop_both().await
}
