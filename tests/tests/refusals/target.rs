//! Targets that can take nothing for a while: the direction stops or waits, no row is blamed, and nothing is lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Migration, Setup};
use crossfade_tests::{lines::AWAY, on_both_brands};
use mysql_async::prelude::Queryable;

use crate::{
    LIMIT, PLAIN, account, forward, forward_alone, insert, is_green, never_green, number, own_servers, prepare, reason,
    started, state, until_all_is_well, until_number, until_status, with_plain_account,
};

on_both_brands! {
    a_dropped_table_stops_the_direction: p7_table_dropped_on_mysql, p7_table_dropped_on_mariadb;
    a_table_is_made_anew: p7_table_made_anew_on_mysql, p7_table_made_anew_on_mariadb;
    a_revoked_privilege_stops_the_direction: p7_privilege_revoked_on_mysql, p7_privilege_revoked_on_mariadb;
    a_read_only_target_is_waited_for: p7_target_read_only_on_mysql, p7_target_read_only_on_mariadb;
    a_row_larger_than_a_packet_waits: p7_packet_too_small_on_mysql, p7_packet_too_small_on_mariadb;
    locks_are_waited_for: p7_lock_waits_and_deadlocks_on_mysql, p7_lock_waits_and_deadlocks_on_mariadb;
}

async fn stopped(migration: &Migration, word: &str) -> Result<()> {
    let status = until_status(migration, "forward has stopped", |status| state(status) == "stopped").await?;
    ensure!(reason(&status).contains(word), "{}", reason(&status));
    ensure!(status.number("forward", "open_failures") == 0, "rows were blamed: {}", status.0);
    ensure!(forward(&status)["holder"].is_string(), "its process has ended: {}", status.0);
    Ok(())
}

async fn a_dropped_table_stops_the_direction(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "dropped")).await?;
    let other = "CREATE TABLE {schema}.other (id INT PRIMARY KEY, v VARCHAR(20), {clock})";
    prepare(&migration, &[PLAIN, other]).await?;
    forward_alone(&mut migration).await?;
    migration.on(&migration.old, &[&insert([(1, 1)])]).await?;
    until_number(&migration.new, &format!("SELECT COUNT(*) FROM `{}`.t", migration.schema), 1).await?;
    migration.expect_lines(&["the target refused a change"]);
    migration.on(&migration.new, &["RENAME TABLE {schema}.t TO {schema}.gone"]).await?;
    migration.on(&migration.old, &[&insert([(2, 1)]), "UPDATE {schema}.t SET n = 7 WHERE id = 1"]).await?;
    stopped(&migration, "1146").await?;
    // Capture goes on, and who waits is told at once why that is in vain.
    migration.on(&migration.old, &[&insert([(3, 1)])]).await?;
    until_status(&migration, "the change captured", |status| status.number("forward", "last_seq") == 4).await?;
    let (code, _, said) = migration.crossfade_any(&["status", "--wait", "60s"]).await?;
    ensure!(code == Some(1) && said.contains("1146") && said.contains("by itself"), "{code:?} {said}");
    never_green(&migration, Duration::from_secs(4)).await?;
    migration.on(&migration.new, &["RENAME TABLE {schema}.gone TO {schema}.t"]).await?;
    let status = until_status(&migration, "forward goes on by itself", is_green).await?;
    ensure!(status.number("forward", "open_failures") == 0, "{}", status.0);
    until_number(&migration.new, &format!("SELECT COUNT(*) FROM `{}`.t WHERE n IN (1, 7)", migration.schema), 3)
        .await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop(Direction::Forward).await?;
    migration.forget();
    Ok(())
}

/// Somebody drops the table and creates it again, with its columns in another order and one more; and once more, with one
/// less. Columns go by their names, what is missing is waited for, and what stood in the table is no business of those who wait.
async fn a_table_is_made_anew(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "anew")).await?;
    prepare(&migration, &[PLAIN]).await?;
    forward_alone(&mut migration).await?;
    migration.on(&migration.old, &[&insert([(1, 1), (2, 2)])]).await?;
    let (schema, update) = (migration.schema.clone(), "UPDATE {schema}.t SET n = n + 10");
    until_number(&migration.new, &format!("SELECT COUNT(*) FROM `{schema}`.t"), 2).await?;
    migration.expect_lines(&["the target refused a change"]);
    let create = |columns: &str| format!("CREATE TABLE {{schema}}.t ({columns}, {})", crate::CLOCK);
    let turned = create("extra INT DEFAULT 7, n INT NOT NULL, v VARCHAR(20), id INT PRIMARY KEY");
    migration.on(&migration.new, &["DROP TABLE {schema}.t", &turned]).await?;
    migration.on(&migration.old, &[update, &insert([(3, 3)])]).await?;
    let told = |sum: u64| format!("SELECT COUNT(*) = 3 AND SUM(n) = {sum} AND MIN(v) = 'row 1' FROM `{schema}`.t");
    until_number(&migration.new, &told(26), 1).await?;

    let without = create("id INT PRIMARY KEY, n INT NOT NULL");
    migration.on(&migration.new, &["DROP TABLE {schema}.t", &without]).await?;
    migration.on(&migration.old, &[update]).await?;
    stopped(&migration, "1054").await?;
    never_green(&migration, Duration::from_secs(2)).await?;
    migration.on(&migration.new, &["ALTER TABLE {schema}.t ADD COLUMN v VARCHAR(20)"]).await?;
    until_number(&migration.new, &told(56), 1).await?;
    let status = until_status(&migration, "forward goes on by itself", is_green).await?;
    ensure!(status.number("forward", "open_failures") == 0, "{}", status.0);
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop(Direction::Forward).await?;
    migration.forget();
    Ok(())
}

async fn a_revoked_privilege_stops_the_direction(flavor: Flavor) -> Result<()> {
    let (servers, _turn) = own_servers(flavor).await?;
    let mut migration = with_plain_account(servers, "revoked").await?;
    prepare(&migration, &[PLAIN]).await?;
    migration.start_both().await?;
    migration.expect_lines(&["the target refused a change"]);
    let who = format!("'{}'@'%'", account(&migration));
    migration.on(&migration.new, &[&format!("REVOKE INSERT ON {{schema}}.* FROM {who}")]).await?;
    migration.on(&migration.old, &[&insert((1..=50).map(|id| (id, 1)))]).await?;
    stopped(&migration, "1142").await?;
    // The other way nothing is the matter.
    migration.on(&migration.new, &[&insert([(900, 1)])]).await?;
    until_number(&migration.old, &format!("SELECT COUNT(*) FROM `{}`.t WHERE id = 900", migration.schema), 1).await?;
    migration.on(&migration.new, &[&format!("GRANT INSERT ON {{schema}}.* TO {who}")]).await?;
    until_status(&migration, "forward goes on by itself", is_green).await?;
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("forward", "last_seq") == 50 && status.number("reverse", "last_seq") == 1, "{}", status.0);
    migration.stop_both().await
}

/// For 20 s in the long form, for 6 s in the short one; users write on the other side all the time.
async fn a_read_only_target_is_waited_for(flavor: Flavor) -> Result<()> {
    let lasting = Duration::from_secs(if std::env::var_os("CROSSFADE_SOAK").is_some() { 20 } else { 6 });
    let (servers, _turn) = own_servers(flavor).await?;
    let mut migration = with_plain_account(servers, "read_only").await?;
    prepare(&migration, &[PLAIN]).await?;
    migration.start_both().await?;
    migration.expect_lines(AWAY);
    migration.on(&migration.new, &["SET GLOBAL read_only = ON"]).await?;
    migration.on(&migration.old, &[&insert((1..=50).map(|id| (id, 1)))]).await?;
    let first = until_status(&migration, "forward retries", |status| state(status) == "retrying").await?;
    ensure!(reason(&first).contains("1290"), "{}", reason(&first));
    never_green(&migration, lasting).await?;
    migration.on(&migration.old, &["UPDATE {schema}.t SET n = 2 WHERE id <= 25"]).await?;
    let later = migration.status().read().await?;
    ensure!(forward(&later)["since"] == forward(&first)["since"], "retried since the first failure: {}", later.0);
    migration.on(&migration.new, &["SET GLOBAL read_only = OFF"]).await?;
    let status = until_all_is_well(&migration).await?;
    ensure!(status.number("forward", "last_seq") == 75 && status.number("reverse", "last_seq") == 0, "{}", status.0);
    migration.stop_both().await
}

/// `max_allowed_packet` of the target is too small for one row, and for many at once.
async fn a_row_larger_than_a_packet_waits(flavor: Flavor) -> Result<()> {
    let (servers, _turn) = own_servers(flavor).await?;
    let mut migration = with_plain_account(servers, "packet").await?;
    prepare(
        &migration,
        &["CREATE TABLE {schema}.t (id INT PRIMARY KEY, v LONGTEXT, n INT NOT NULL DEFAULT 1, {clock})"],
    )
    .await?;
    migration.on(&migration.new, &["SET GLOBAL max_allowed_packet = 1048576"]).await?;
    migration.start_both().await?;
    migration
        .on(
            &migration.old,
            &[
                "INSERT INTO {schema}.t (id, v) VALUES (1, REPEAT('x', 300000)), (2, REPEAT('x', 300000)), (3, REPEAT('x', 300000)), \
                 (4, REPEAT('x', 300000)), (5, REPEAT('y', 2000000)), (6, 'z')",
                "INSERT INTO {schema}.t (id, v) VALUES (7, 'later')",
            ],
        )
        .await?;
    let refused =
        until_status(&migration, "one row refused", |status| status.number("forward", "open_failures") == 1).await;
    let there = until_number(&migration.new, &format!("SELECT COUNT(*) FROM `{}`.t", migration.schema), 6).await;
    let failed = migration.crossfade(&["messages", "list", "--status", "failed"]).await;
    migration.on(&migration.new, &["SET GLOBAL max_allowed_packet = 67108864"]).await?;
    there?;
    refused?;
    ensure!(failed?.contains("forward/old:5"), "another row waits");
    until_all_is_well(&migration).await?;
    migration.stop_both().await
}

/// A user holds locks for longer than a lane waits for one, and then wants what the lane has locked.
async fn locks_are_waited_for(flavor: Flavor) -> Result<()> {
    let mut migration = started(&Setup::new(flavor, "locks"), &[PLAIN]).await?;
    migration.on(&migration.old, &[&insert((1..=20).map(|id| (id, 1)))]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let table = format!("`{}`.t", migration.schema);
    let mut user = migration.new.get_conn().await?;
    user.query_drop("BEGIN").await?;
    user.query_drop(format!("SELECT * FROM {table} WHERE id = 20 FOR UPDATE")).await?;
    migration.on(&migration.old, &["UPDATE {schema}.t SET n = 2 WHERE id IN (10, 20)"]).await?;
    // A lane gives up a wait after 5 s, and tells when that has happened again and again.
    until_status(&migration, "forward retries", |status| state(status) == "retrying").await?;
    never_green(&migration, Duration::from_secs(2)).await?;
    // Whoever is the victim of the deadlock begins anew.
    let write = async |user: &mut mysql_async::Conn| -> Result<(), mysql_async::Error> {
        user.query_drop(format!("UPDATE {table} SET v = 'user' WHERE id = 10")).await?;
        user.query_drop("COMMIT").await
    };
    if write(&mut user).await.is_err() {
        user.query_drop("ROLLBACK").await?;
        until("the user's turn", LIMIT, || async {
            let mut again = migration.new.get_conn().await?;
            Ok(match write(&mut again).await {
                Ok(()) => Progress::Reached(()),
                Err(error) => Progress::NotYet(error.to_string()),
            })
        })
        .await?;
    }
    let status = until_all_is_well(&migration).await?;
    ensure!(status.total("open_failures") == 0, "{}", status.0);
    ensure!(
        number(&migration.old, &format!("SELECT COUNT(*) FROM {table} WHERE n = 2")).await? >= 1,
        "the lane's change is lost"
    );
    migration.stop_both().await
}
