//! What was read before something that nobody can carry over is captured, and crosses, however closely it came before.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_tests::{Direction, Setup, on_both_brands};
use mysql_async::prelude::Queryable;

use crate::{LIMIT, PLAIN, insert, reason, started, state};

on_both_brands! {
    what_came_before_is_captured: p1_what_came_before_the_end_is_captured_on_mysql,
        p1_what_came_before_the_end_is_captured_on_mariadb;
}

const ROWS: u64 = 40;

async fn what_came_before_is_captured(flavor: Flavor) -> Result<()> {
    let mut migration = started(&Setup::new(flavor, "last_words"), &[PLAIN]).await?;
    migration.expect_lines(&["statement"]);
    let mut user = migration.old.get_conn().await?;
    for id in 1..=ROWS as u32 {
        user.query_drop(insert([(id, 1)]).replace("{schema}", &migration.schema)).await?;
    }
    user.query_drop("SET SESSION binlog_format = 'STATEMENT'").await?;
    user.query_drop(format!("UPDATE `{}`.t SET n = 2 WHERE id = 1", migration.schema)).await?;
    migration.process(Direction::Forward)?.wait(LIMIT).await?;
    let stopped = migration.status().read().await?;
    ensure!(state(&stopped) == "stopped" && reason(&stopped).contains("statement"), "{}", stopped.0);
    ensure!(stopped.number("forward", "last_seq") == ROWS, "{}", stopped.0);
    migration.stop(Direction::Reverse).await
}
