//! Schedules that nobody wishes for: answers that are lost, statements that meet, names that mislead.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_testkit::late::LateWay;
use crossfade_testkit::proxy::{CommitFate, Proxy};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Migration, Setup, SideUrls, account_url};
use crossfade_tests::{lines::AWAY, on_both_brands};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

const LIMIT: Duration = Duration::from_secs(60);
/// A change that needs nobody's help is there by then, also on a busy machine.
const SOON: Duration = Duration::from_secs(15);

/// A table without clock, whose conflicts old always wins.
const PREFER_OLD: &str = "[[table]]\nname = \"{schema}.t\"\npolicy = \"prefer-old\"\n";
const CREATE_T: &str = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(40) NOT NULL)";

fn create_with_clock(table: &str, columns: &str) -> String {
    format!(
        "CREATE TABLE {{schema}}.{table} ({columns}, updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) \
         ON UPDATE CURRENT_TIMESTAMP(6)) DEFAULT CHARACTER SET utf8mb4"
    )
}

fn prefer_old(flavor: Flavor, name: &'static str) -> Setup {
    Setup { tables: PREFER_OLD.to_owned(), ..Setup::new(flavor, name) }
}

async fn value_is(pool: &Pool, query: &str, wanted: &str) -> Result<()> {
    until(query, SOON, || async {
        let found: Option<String> = pool.get_conn().await?.query_first(query).await?;
        let reached = found.as_deref() == Some(wanted);
        Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(format!("{found:?}")) })
    })
    .await
}

/// A capture has happened, but the process does not learn of it. Nothing else is written that would remind it.
async fn a_capture_without_an_answer_is_applied(flavor: Flavor) -> Result<()> {
    let new = SharedPair::get(flavor).await.new();
    let proxy = Proxy::start(new.port()).await?;
    let settings = format!("[store]\nurl = \"{}\"\n", proxy.url(&new.root_url())?);
    let mut migration = Migration::new(&Setup { settings, ..prefer_old(flavor, "lost_answer") }).await?;
    migration.expect_lines(AWAY);
    migration.on_both(&[CREATE_T]).await?;
    migration.init().await?;
    migration.start_both().await?;
    for id in 1..=3 {
        proxy.next_commit(CommitFate::AnswerLost);
        migration.on(&migration.old, &[&format!("INSERT INTO {{schema}}.t VALUES ({id}, 'x')")]).await?;
        let query = format!("SELECT v FROM `{}`.t WHERE id = {id}", migration.schema);
        value_is(&migration.new, &query, "x").await.with_context(|| migration.log_ends())?;
    }
    ensure!(proxy.incidents().commits == 3, "no answer was lost");
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(status.number("forward", "last_seq") == 3, "captured twice: {}", status.0);
    migration.stop_both().await
}

/// A row comes and goes on old; while the commit of that is on its way, a user of new inserts the row.
async fn nobody_inserts_behind_a_delete(flavor: Flavor) -> Result<()> {
    let servers = SharedPair::get(flavor).await;
    let proxy = Proxy::start(servers.new().port()).await?;
    let urls = SideUrls { old: account_url(servers.old()), new: proxy.url(&account_url(servers.new()))? };
    let settings = format!("[store]\nurl = \"{}\"\n", account_url(servers.new()));
    let setup = Setup { settings, urls: Some(urls), ..prefer_old(flavor, "behind_a_delete") };
    let mut migration = Migration::new(&setup).await?;
    migration.on_both(&[CREATE_T]).await?;
    migration.init().await?;
    migration.start_both().await?;
    proxy.next_commit(CommitFate::Delayed(Duration::from_millis(800)));
    let come_and_go = ["BEGIN", "INSERT INTO {schema}.t VALUES (1, 'x')", "DELETE FROM {schema}.t", "COMMIT"];
    migration.on(&migration.old, &come_and_go).await?;
    until("a commit on its way", LIMIT, || async {
        let met = proxy.incidents().commits > 0;
        Ok(if met { Progress::Reached(()) } else { Progress::NotYet("none".to_owned()) })
    })
    .await?;
    migration.on(&migration.new, &["INSERT INTO {schema}.t VALUES (1, 'again')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// A lane that waits for somebody's table lock lets go of the rows that it has locked in other tables.
async fn a_table_lock_locks_nobody_else_out(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "table_lock")).await?;
    let columns = "id INT PRIMARY KEY, v VARCHAR(40) NOT NULL";
    migration.on_both(&[&create_with_clock("a", columns), &create_with_clock("b", columns)]).await?;
    migration.init().await?;
    migration.start_both().await?;
    let insert = ["INSERT INTO {schema}.a (id, v) VALUES (1, 'x')", "INSERT INTO {schema}.b (id, v) VALUES (1, 'x')"];
    migration.on(&migration.old, &insert).await?;
    let query = format!("SELECT v FROM `{}`.b", migration.schema);
    value_is(&migration.new, &query, "x").await?;
    let mut locker = migration.new.get_conn().await?;
    locker.query_drop(format!("LOCK TABLES `{}`.b READ", migration.schema)).await?;
    let both = ["BEGIN", "UPDATE {schema}.a SET v = 'y'", "UPDATE {schema}.b SET v = 'y'", "COMMIT"];
    migration.on(&migration.old, &both).await?;
    let look = format!("SELECT v FROM `{}`.a FOR UPDATE NOWAIT", migration.schema);
    until("the lane holding a's row", LIMIT, || async {
        let looked: Result<Option<String>, _> = migration.new.get_conn().await?.query_first(&look).await;
        Ok(if looked.is_err() { Progress::Reached(()) } else { Progress::NotYet("the row is free".to_owned()) })
    })
    .await?;
    let begun = Instant::now();
    let patient = ["SET innodb_lock_wait_timeout = 60", "UPDATE {schema}.a SET v = 'z'"];
    let written = tokio::time::timeout(SOON, migration.on(&migration.new, &patient)).await;
    locker.query_drop("UNLOCK TABLES").await?;
    written.with_context(|| format!("a user waited {:?}", begun.elapsed()))??;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// Names that mean something in SQL, in the driver or in crossfade's own statements.
async fn any_name_is_only_a_name(flavor: Flavor) -> Result<()> {
    const NAMES: [&str; 12] =
        ["incoming", "we``ird", "a?b", "x:y", "it's", "q\"q", "-- c", "/* c", "#", "ключ", "100%", "Upper"];
    let mut migration = Migration::new(&Setup::new(flavor, "any_name")).await?;
    for name in NAMES {
        let columns = format!("`{name}` VARCHAR(60) NOT NULL PRIMARY KEY, `{name} 2` TEXT NULL");
        migration.on_both(&[&create_with_clock(&format!("`{name}`"), &columns)]).await?;
    }
    migration.init().await?;
    migration.start_both().await?;
    for name in NAMES {
        let table = format!("{{schema}}.`{name}`");
        let insert = format!("INSERT INTO {table} (`{name}`, `{name} 2`) VALUES ('a', 'x?:y'), ('b', NULL), ('c', '')");
        migration.on(&migration.old, &[&insert]).await?;
    }
    migration.until_quiet_and_equal(LIMIT).await?;
    for name in NAMES {
        let table = format!("{{schema}}.`{name}`");
        let of_old = [
            format!("UPDATE {table} SET `{name} 2` = '`''\"\\\\' WHERE `{name}` = 'a'"),
            format!("DELETE FROM {table} WHERE `{name}` = 'c'"),
        ];
        let of_new = format!("UPDATE {table} SET `{name}` = 'B' WHERE `{name}` = 'b'");
        migration.on(&migration.old, &[&of_old[0], &of_old[1]]).await?;
        migration.on(&migration.new, &[&of_new]).await?;
    }
    let (_, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() == 2 * NAMES.len() as u64, "{comparison}");
    migration.stop_both().await
}

/// With nothing to do, catching up ends at once.
async fn an_idle_source_is_caught_up(flavor: Flavor) -> Result<()> {
    let migration = Migration::new(&prefer_old(flavor, "idle_source")).await?;
    migration.on_both(&[CREATE_T]).await?;
    migration.init().await?;
    for direction in ["forward", "reverse", "forward"] {
        migration.crossfade(&["sync", direction, "--until-caught-up"]).await.with_context(|| direction.to_owned())?;
    }
    Ok(())
}

/// Sessions on new that wait for a lock on table `t` of the migration.
async fn waiting_for_table(migration: &Migration) -> Result<usize> {
    let sessions: Vec<mysql_async::Row> = migration.new.get_conn().await?.query("SHOW FULL PROCESSLIST").await?;
    let text =
        |row: &mysql_async::Row, column: usize| row.get::<Option<String>, _>(column).flatten().unwrap_or_default();
    let table = format!("`{}`.`t`", migration.schema);
    Ok(sessions
        .iter()
        .filter(|row| text(row, 6).contains("Waiting for table") && text(row, 7).contains(&table))
        .count())
}

/// Several lanes of a batch set rows aside. Of the first one's commit nobody hears, and before it is asked for, the others
/// commit: none of the rows is forgotten.
async fn what_several_lanes_set_aside_is_kept(flavor: Flavor) -> Result<()> {
    let new = SharedPair::get(flavor).await.new();
    let proxy = Proxy::watching(new.port(), &["`t`", "parked = COALESCE"]).await?;
    let (old, through) = (SharedPair::get(flavor).await.old(), proxy.url(&account_url(new))?);
    let settings = format!("[store]\nurl = \"{}\"\n\n[apply]\ncanary_every = \"1h\"\n", account_url(new));
    let urls = Some(SideUrls { old: account_url(old), new: through });
    let mut migration = Migration::new(&Setup { settings, urls, ..prefer_old(flavor, "lanes_aside") }).await?;
    migration.expect_lines(AWAY);
    migration.on_both(&[CREATE_T]).await?;
    migration.on(&migration.new, &["ALTER TABLE {schema}.t ADD CONSTRAINT short CHECK (LENGTH(v) < 10)"]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t VALUES (1, 'x')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&[Direction::Forward]).await?;
    let row = |id: u32| format!("({id}, '{}')", if id % 100 == 50 { "much too long" } else { "x" });
    let rows: Vec<String> = (1_000..1_800).map(row).collect();
    migration.on(&migration.old, &[&format!("INSERT INTO {{schema}}.t VALUES {}", rows.join(","))]).await?;
    until("all captured", LIMIT, || async {
        let status = migration.status().read().await?;
        let captured = status.number("forward", "last_seq") == 801;
        Ok(if captured { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await?;

    // Nobody can connect any more after the first commit, so all must have begun before it.
    let mut locker = migration.new.get_conn().await?;
    locker.query_drop(format!("LOCK TABLES `{}`.t READ", migration.schema)).await?;
    proxy.next_commit(CommitFate::AnswerLostThenAway);
    migration.crossfade(&["start", "forward"]).await?;
    until("four lanes at the lock", LIMIT, || async {
        let lanes = waiting_for_table(&migration).await?;
        Ok(if lanes == 4 { Progress::Reached(()) } else { Progress::NotYet(lanes.to_string()) })
    })
    .await?;
    locker.query_drop("UNLOCK TABLES").await?;
    until("all lanes through", LIMIT, || async {
        let commits = proxy.incidents().watched_commits;
        Ok(if commits >= 4 { Progress::Reached(()) } else { Progress::NotYet(commits.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    // None of them has heard of the first one's end, which is asked for now.
    proxy.come_back();
    until("all passed", LIMIT, || async {
        let status = migration.status().read().await?;
        let passed = status.number("forward", "settled_seq") == 801;
        Ok(if passed { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    migration.on(&migration.new, &["ALTER TABLE {schema}.t DROP CONSTRAINT short"]).await?;
    let tried = migration.crossfade(&["retry", "--all"]).await?;
    migration.until_quiet_and_equal(LIMIT).await.with_context(|| format!("tried again: {tried}"))?;
    migration.stop_both().await
}

/// The opposite reader lives and reads all there is, always some seconds late: what must be waited for gets there.
async fn a_reader_that_is_always_late_is_waited_for(flavor: Flavor) -> Result<()> {
    let new = SharedPair::get(flavor).await.new();
    let way = LateWay::start(new.port()).await?;
    let setup = prefer_old(flavor, "late_reader");
    let mut migration = Migration::new(&setup).await?;
    let direct = format!("[new]\nurl = \"{}\"", account_url(new));
    let late = account_url(new).replace(&format!(":{}", new.port()), &format!(":{}", way.port()));
    let read_late = format!("{direct}\nbinlog_url = \"{late}?ssl-mode=DISABLED\"");
    let configuration = migration.configuration(&setup);
    ensure!(configuration.contains(&direct), "{configuration}");
    std::fs::write(migration.config(), configuration.replace(&direct, &read_late))?;
    migration.on_both(&[CREATE_T]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t VALUES (1, 'x')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    way.be_late_by(Duration::from_secs(6));
    for id in 2..=4 {
        migration.on(&migration.old, &[&format!("INSERT INTO {{schema}}.t VALUES ({id}, 'x')")]).await?;
    }
    let query = format!("SELECT CAST(COUNT(*) AS CHAR) FROM `{}`.t", migration.schema);
    until("all rows there", LIMIT, || async {
        let found: Option<String> = migration.new.get_conn().await?.query_first(&query).await?;
        Ok(if found.as_deref() == Some("4") { Progress::Reached(()) } else { Progress::NotYet(format!("{found:?}")) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    way.be_late_by(Duration::ZERO);
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

on_both_brands! {
    a_capture_without_an_answer_is_applied: p1_lost_answer_on_mysql, p1_lost_answer_on_mariadb;
    nobody_inserts_behind_a_delete: p4_behind_a_delete_on_mysql, p4_behind_a_delete_on_mariadb;
    a_table_lock_locks_nobody_else_out: p10_table_lock_on_mysql, p10_table_lock_on_mariadb;
    any_name_is_only_a_name: any_name_on_mysql, any_name_on_mariadb;
    what_several_lanes_set_aside_is_kept: p1_lanes_aside_on_mysql, p1_lanes_aside_on_mariadb;
    a_reader_that_is_always_late_is_waited_for: p4_late_reader_on_mysql, p4_late_reader_on_mariadb;
    an_idle_source_is_caught_up: idle_source_on_mysql, idle_source_on_mariadb;
}
