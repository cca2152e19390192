//! P4 and P2 for `merge = "columns"`: changes of different columns of one row both survive, of one column the rule decides, and
//! what is added on both sides adds up, exactly, whatever is killed meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration, Setup, rounds};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const LIMIT: Duration = Duration::from_secs(120);

const ACCOUNTS: &str = "CREATE TABLE {schema}.accounts (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, \
     email VARCHAR(40) CHARACTER SET latin1 NULL, best INT NULL, earliest DATETIME NOT NULL, balance BIGINT NOT NULL, \
     price DECIMAL(30,10) NOT NULL, extra JSON NULL, \
     touched_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";

const MERGED: &str = "[[table]]\nname = \"{schema}.*\"\nclock = \"updated_at\"\nmerge = \"columns\"\n\
     merge_rules = { best = \"max\", earliest = \"min\", balance = \"sum-delta\", price = \"sum-delta\" }\n";

/// Rows of such a table can be judged by sight.
const SUMS_ONLY: &str = "[[table]]\nname = \"{schema}.accounts\"\nclock = \"updated_at\"\nmerge = \"columns\"\n\
     merge_rules = { balance = \"sum-delta\", price = \"sum-delta\" }\n";

async fn accounts(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let setup = Setup { tables: MERGED.to_owned(), ..Setup::new(flavor, name) };
    let mut migration = Migration::new(&setup).await?;
    migration.on_both(&[ACCOUNTS]).await?;
    migration.init().await?;
    migration.start_both().await?;
    Ok(migration)
}

/// Applying rests in these directions; capture goes on.
async fn rest(migration: &Migration, directions: &[Direction]) -> Result<()> {
    for direction in directions {
        migration.crossfade(&["stop", direction.as_str()]).await?;
    }
    until("resting", LIMIT, || async {
        let status = migration.status().read().await?;
        let rests = |direction: &Direction| {
            status.streams().iter().any(|stream| {
                let is_of = |name: &str| name.starts_with(direction.as_str());
                stream["stream"].as_str().is_some_and(is_of) && stream["state"] == "paused"
            })
        };
        Ok(if directions.iter().all(rests) { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
}

async fn go_on(migration: &Migration, directions: &[Direction]) -> Result<()> {
    for direction in directions {
        migration.crossfade(&["start", direction.as_str()]).await?;
    }
    Ok(())
}

/// Runs statements one after the other, each on its side, so that each is later than the one before.
async fn in_turn(migration: &Migration, statements: &[(Side, &str)]) -> Result<()> {
    for (side, statement) in statements {
        let pool = if *side == Side::Old { &migration.old } else { &migration.new };
        migration.on(pool, &[statement]).await?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Old,
    New,
}
use Side::{New, Old};

/// `name email best earliest balance price`, or nothing.
async fn row(migration: &Migration, id: u32) -> Result<Option<String>> {
    let query = format!(
        "SELECT CONCAT_WS(' ', name, email, best, DATE(earliest), balance, TRIM(TRAILING '0' FROM price)) \
         FROM `{}`.accounts WHERE id = {id}",
        migration.schema
    );
    Ok(migration.old.get_conn().await?.query_first(query).await?)
}

/// MariaDB tells the time of a commit, which is the clock of a delete, in whole seconds.
const NEXT_SECOND: &str = "DO SLEEP(1.1)";

/// Statements, one after the other; the row's id, and what it is in the end.
type Scenario = (&'static [(Side, &'static str)], u32, Option<&'static str>);

/// What becomes of rows that both sides change while neither hears of the other.
const SCENARIOS: &[Scenario] = &[
    // Different columns.
    (
        &[(New, "UPDATE {a} SET name = 'new' WHERE id = 1"), (Old, "UPDATE {a} SET email = 'old' WHERE id = 1")],
        1,
        Some("new old 5 2020-05-05 100 1.5"),
    ),
    // The same column: the later change; another one beside it survives.
    (
        &[
            (Old, "UPDATE {a} SET name = 'earlier', email = 'kept' WHERE id = 2"),
            (New, "UPDATE {a} SET name = 'later' WHERE id = 2"),
        ],
        2,
        Some("later kept 5 2020-05-05 100 1.5"),
    ),
    // And the other way round. What was set back to what it was counts as a change.
    (
        &[
            (New, "UPDATE {a} SET name = 'earlier' WHERE id = 3"),
            (Old, "UPDATE {a} SET name = 'later' WHERE id = 3"),
            (Old, "UPDATE {a} SET name = 'name' WHERE id = 3"),
        ],
        3,
        Some("name mail 5 2020-05-05 100 1.5"),
    ),
    // The greatest and the smallest value, whoever was later.
    (
        &[
            (Old, "UPDATE {a} SET best = 70, earliest = '2020-05-03' WHERE id = 4"),
            (New, "UPDATE {a} SET best = 60, earliest = '2020-05-04' WHERE id = 4"),
        ],
        4,
        Some("name mail 70 2020-05-03 100 1.5"),
    ),
    (
        &[
            (Old, "UPDATE {a} SET best = NULL, earliest = '2020-05-09' WHERE id = 5"),
            (New, "UPDATE {a} SET best = -1, earliest = '2020-05-08' WHERE id = 5"),
        ],
        5,
        Some("name mail -1 2020-05-08 100 1.5"),
    ),
    // Sums add up, also beside what wins or loses.
    (
        &[
            (Old, "UPDATE {a} SET balance = balance - 30, price = price + 0.25, name = 'earlier' WHERE id = 6"),
            (New, "UPDATE {a} SET balance = balance + 7, name = 'later' WHERE id = 6"),
            (Old, "UPDATE {a} SET balance = 0 WHERE id = 6"),
            (New, "UPDATE {a} SET price = price * 3 WHERE id = 6"),
        ],
        6,
        Some("later mail 5 2020-05-05 7 4.75"),
    ),
    // An earlier delete: the row stays, with what was done to it before the delete, too.
    (
        &[
            (Old, "UPDATE {a} SET name = 'before', balance = balance + 5 WHERE id = 7"),
            (Old, "DELETE FROM {a} WHERE id = 7"),
            (New, "UPDATE {a} SET email = 'after', balance = balance + 2 WHERE id = 7"),
        ],
        7,
        Some("before after 5 2020-05-05 107 1.5"),
    ),
    // A later delete.
    (
        &[
            (Old, "UPDATE {a} SET name = 'before', balance = balance + 5 WHERE id = 8"),
            (New, NEXT_SECOND),
            (New, "DELETE FROM {a} WHERE id = 8"),
        ],
        8,
        None,
    ),
    // Inserted again on one side: the other side's earlier change of a column is overtaken, its additions are not.
    (
        &[
            (New, "UPDATE {a} SET email = 'overtaken', balance = balance + 2 WHERE id = 9"),
            (Old, "DELETE FROM {a} WHERE id = 9"),
            (Old, "INSERT INTO {a} VALUES (9, 'again', 'again', 3, '2021-01-01', 1000, 2, NULL, NOW(6), NOW(6))"),
        ],
        9,
        Some("again again 3 2021-01-01 1002 2."),
    ),
    // Its later change is not.
    (
        &[
            (Old, "DELETE FROM {a} WHERE id = 10"),
            (Old, "INSERT INTO {a} VALUES (10, 'again', 'again', 3, '2021-01-01', 1000, 2, NULL, NOW(6), NOW(6))"),
            (New, "UPDATE {a} SET email = 'later', balance = balance + 2 WHERE id = 10"),
        ],
        10,
        Some("again later 3 2021-01-01 1002 2."),
    ),
    // Inserted on both sides: one insert is the beginning, the greatest and smallest values of both count.
    (
        &[
            (Old, "INSERT INTO {a} VALUES (11, 'o', 'o', 9, '2021-01-09', 10, 1, '{\"o\": 1.50}', NOW(6), NOW(6))"),
            (Old, "UPDATE {a} SET balance = balance + 1 WHERE id = 11"),
            (New, "INSERT INTO {a} VALUES (11, 'n', 'n', 3, '2021-01-03', 20, 2, '{\"n\": 1.50}', NOW(6), NOW(6))"),
        ],
        11,
        Some("n n 9 2021-01-03 21 2."),
    ),
    // Deleted on both.
    (&[(Old, "DELETE FROM {a} WHERE id = 12"), (New, "DELETE FROM {a} WHERE id = 12")], 12, None),
    // One side changes the key, the other one a column, earlier.
    (
        &[
            (New, "UPDATE {a} SET name = 'left behind' WHERE id = 13"),
            (Old, "UPDATE {a} SET id = 113, name = 'moved' WHERE id = 13"),
        ],
        113,
        Some("moved mail 5 2020-05-05 100 1.5"),
    ),
    // Changes of bytes that are no Unicode, and of documents, stay what they are beside a merge.
    (
        &[
            (Old, "UPDATE {a} SET email = _latin1 x'e4f6', extra = '{\"a\": 1.50}' WHERE id = 14"),
            (New, "UPDATE {a} SET name = 'new' WHERE id = 14"),
        ],
        14,
        Some("new äö 5 2020-05-05 100 1.5"),
    ),
];

/// A message's status and reason, by the row's key.
async fn outcome(migration: &Migration, stream: &str, id: u32) -> Result<Vec<(String, String)>> {
    let query =
        "SELECT status, reason FROM crossfade.outcome WHERE pair = ? AND stream = ? AND row_key = ? ORDER BY seq";
    let key = format!("{{\"id\":{id}}}");
    Ok(migration.new.get_conn().await?.exec(query, (&migration.pair, stream, key)).await?)
}

async fn columns_are_merged(flavor: Flavor) -> Result<()> {
    let mut migration = accounts(flavor, "merge").await?;
    for id in (1..=10).chain(12..=14) {
        let insert = format!(
            "INSERT INTO {{schema}}.accounts VALUES ({id}, 'name', 'mail', 5, '2020-05-05', 100, 1.5, '{{\"b\": true}}', NOW(6), NOW(6))"
        );
        migration.on(&migration.old, &[&insert]).await?;
    }
    migration.until_quiet_and_equal(LIMIT).await?;
    rest(&migration, &Direction::BOTH).await?;
    for (statements, _, _) in SCENARIOS {
        let statements: Vec<(Side, String)> =
            statements.iter().map(|(side, statement)| (*side, statement.replace("{a}", "{schema}.accounts"))).collect();
        let statements: Vec<(Side, &str)> = statements.iter().map(|(side, text)| (*side, text.as_str())).collect();
        in_turn(&migration, &statements).await?;
    }
    go_on(&migration, &Direction::BOTH).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    let mut wrong = Vec::new();
    for (_, id, expected) in SCENARIOS {
        let found = row(&migration, *id).await?;
        if found.as_deref() != *expected {
            wrong.push(format!("{id}: {found:?} instead of {expected:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{flavor:?}: {}\n{}", wrong.join("\n"), status.0);
    ensure!(status.total("open_failures") + status.total("held") == 0, "{}", status.0);

    // What was lost is told, and nothing else.
    for (stream, id) in [("forward/old", 1), ("reverse/new", 1), ("forward/old", 4), ("reverse/new", 10)] {
        let found = outcome(&migration, stream, id).await?;
        ensure!(found.is_empty(), "{id}: {found:?}");
    }
    let found = outcome(&migration, "forward/old", 2).await?;
    let is_partly = |(status, reason): &(String, String)| {
        status == "applied" && reason.starts_with("merged, but for `name`: a concurrent update has the later clock")
    };
    ensure!(found.len() == 1 && found.iter().all(is_partly), "{found:?}");
    let found = outcome(&migration, "reverse/new", 3).await?;
    ensure!(matches!(&found[..], [(status, _)] if status == "conflict_lost"), "{found:?}");
    let found = outcome(&migration, "reverse/new", 4).await?;
    let (status, reason) = found.first().context("an outcome")?;
    ensure!(status == "conflict_lost" && reason == "a concurrent change has the greater value", "{found:?}");
    let found = outcome(&migration, "forward/old", 8).await?;
    ensure!(matches!(&found[..], [(status, _)] if status == "conflict_lost"), "{found:?}");

    // The rows live on.
    in_turn(&migration, &[(New, "UPDATE {schema}.accounts SET balance = balance + id, name = 'later'")]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// A row that is deleted, and of which the other side has changed one column before the delete and one after it: the earlier
/// change, which has lost against the delete in a batch of its own, comes back with the row.
async fn rows_come_back_whole(flavor: Flavor) -> Result<()> {
    let mut migration = accounts(flavor, "merge_back").await?;
    let insert =
        "INSERT INTO {schema}.accounts VALUES (1, 'name', 'mail', 5, '2020-05-05', 100, 1.5, NULL, NOW(6), NOW(6))";
    migration.on(&migration.old, &[insert]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    rest(&migration, &Direction::BOTH).await?;
    let earlier = "UPDATE {schema}.accounts SET name = 'earlier', balance = balance + 10, best = 7";
    in_turn(&migration, &[(New, earlier), (Old, NEXT_SECOND), (Old, "DELETE FROM {schema}.accounts")]).await?;
    go_on(&migration, &[Direction::Reverse]).await?;
    until("the earlier change lost", LIMIT, || async {
        let found = outcome(&migration, "reverse/new", 1).await?;
        let is_lost = matches!(&found[..], [(status, _)] if status == "conflict_lost");
        let applied = migration.status().read().await?.number("reverse", "applied");
        let reached = is_lost && applied >= 1;
        Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(format!("{found:?}, {applied} applied")) })
    })
    .await?;
    ensure!(row(&migration, 1).await?.is_none(), "the delete has won so far");
    in_turn(&migration, &[(New, "UPDATE {schema}.accounts SET email = 'later', balance = balance + 1")]).await?;
    until("the row is back", LIMIT, || async {
        let found = row(&migration, 1).await?;
        Ok(if found.is_some() { Progress::Reached(()) } else { Progress::NotYet("it is not there".to_owned()) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    go_on(&migration, &[Direction::Forward]).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    migration.until_quiet_and_equal(LIMIT).await?;
    let found = row(&migration, 1).await?;
    ensure!(found.as_deref() == Some("earlier later 7 2020-05-05 111 1.5"), "{found:?}");
    migration.stop_both().await
}

const ROWS: u32 = 10;
const INCREMENTS: u32 = 1_000;

/// Adds to balances and prices, one transaction each. Returns what was added, by row.
async fn add_up(pool: Pool, schema: String, seed: u64) -> Result<Vec<(i64, i64)>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut conn = pool.get_conn().await?;
    let mut added = vec![(0, 0); ROWS as usize];
    let update = format!(
        "UPDATE {}.accounts SET balance = balance + ?, price = price + CAST(? AS DECIMAL(30,10)) / 1000, best = GREATEST(best, ?) \
         WHERE id = ?",
        sql::name(&schema)
    );
    for number in 0..INCREMENTS {
        let (id, balance, price) =
            (random.random_range(0..ROWS), random.random_range(-50..100), random.random_range(-500..900));
        conn.exec_drop(&update, (balance, price, number, id)).await?;
        let sums = &mut added[id as usize];
        *sums = (sums.0 + balance, sums.1 + price);
        tokio::time::sleep(Duration::from_millis(random.random_range(0..30))).await;
    }
    Ok(added)
}

async fn balances_add_up(flavor: Flavor) -> Result<()> {
    let seed: u64 = match std::env::var("CROSSFADE_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::random(),
    };
    println!("{flavor:?}: the seed is CROSSFADE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut migration = accounts(flavor, "balances").await?;
    for id in 0..ROWS {
        let insert = format!(
            "INSERT INTO {{schema}}.accounts VALUES ({id}, 'n', NULL, 0, '2020-05-05', 1000, 0, NULL, NOW(6), NOW(6))"
        );
        migration.on(&migration.old, &[&insert]).await?;
    }
    migration.until_quiet_and_equal(LIMIT).await?;

    let writers = [(&migration.old, seed), (&migration.new, seed ^ 1)]
        .map(|(pool, seed)| tokio::spawn(add_up(pool.clone(), migration.schema.clone(), seed)));
    let mut kills = [0; 2];
    for _ in 0..rounds(3, 20) {
        tokio::time::sleep(Duration::from_millis(random.random_range(500..3_000))).await;
        let direction = Direction::BOTH[random.random_range(0..2)];
        migration.process(direction)?.kill9().await?;
        kills[direction as usize] += 1;
        migration.start(direction, &[])?;
        // Long enough for the next one to find it at work again.
        let applied = migration.status().read().await?.number(direction.as_str(), "applied");
        until("work goes on after the kill", LIMIT, || async {
            let status = migration.status().read().await?;
            let goes_on = status.number(direction.as_str(), "applied") > applied || status.is_caught_up();
            Ok(if goes_on { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
        })
        .await
        .with_context(|| migration.log_ends())?;
    }
    let mut expected = vec![(1000, 0); ROWS as usize];
    for writer in writers {
        for (sums, (balance, price)) in expected.iter_mut().zip(writer.await??) {
            *sums = (sums.0 + balance, sums.1 + price);
        }
    }
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    for pool in [&migration.old, &migration.new] {
        let query = format!(
            "SELECT balance, CAST(price * 1000 AS SIGNED) FROM {}.accounts ORDER BY id",
            sql::name(&migration.schema)
        );
        let found: Vec<(i64, i64)> = pool.get_conn().await?.query(query).await?;
        ensure!(found == expected, "seed {seed}: {found:?} instead of {expected:?}\n{}", status.0);
    }
    println!(
        "{flavor:?}: {} additions on {ROWS} rows, {kills:?} kills, merged {}, wholly lost {}",
        2 * INCREMENTS,
        status.total("conflicts_won"),
        status.total("conflicts_lost")
    );
    ensure!(status.total("conflicts_won") > 50, "too little was merged: {}", status.0);
    ensure!(status.total("open_failures") == 0, "rows were parked: {}", status.0);
    migration.stop_both().await
}

/// As the accounts, but a unique key over a part of a column keeps their changes in order, one by one.
const LEDGER: &str = "CREATE TABLE {schema}.ledger LIKE {schema}.accounts";
const IN_ORDER: &str = "ALTER TABLE {schema}.ledger ADD tag VARCHAR(10) NULL, ADD UNIQUE KEY (tag(3))";

const HOT_ROWS: u32 = 12;

/// A change of a few rows, which the server may refuse.
fn any_change(random: &mut StdRng, table: &str) -> String {
    let id = random.random_range(0..HOT_ROWS);
    let number = random.random_range(0..1_000);
    let set = match random.random_range(0..6) {
        0 => format!("name = 'n{number}'"),
        1 => format!("email = 'e{number}', balance = balance + {number}"),
        2 => format!("best = {number}, earliest = '2020-01-01' + INTERVAL {number} DAY"),
        3 => format!("best = NULL, price = price - {number} / 8"),
        4 => format!("balance = balance - {number}"),
        _ => format!("name = 'name', extra = '{{\"n\": {number}}}'"),
    };
    let columns = "(id, name, email, best, earliest, balance, price)";
    match random.random_range(0..12) {
        0 => format!("DELETE FROM {table} WHERE id = {id}"),
        1 | 2 => {
            format!("INSERT INTO {table} {columns} VALUES ({id}, 'i{number}', NULL, {number}, NOW(), {number}, 0)")
        }
        3 => format!("UPDATE {table} SET id = {}, {set} WHERE id = {id}", random.random_range(0..HOT_ROWS)),
        4 => format!("UPDATE {table} SET {set} WHERE id IN ({id}, {}, {})", (id + 3) % HOT_ROWS, (id + 7) % HOT_ROWS),
        _ => format!("UPDATE {table} SET {set} WHERE id = {id}"),
    }
}

/// Transactions of one to three changes. Returns how many changes the server took.
async fn change_at_random(pool: Pool, schema: String, seed: u64, transactions: u32) -> Result<u32> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut conn = pool.get_conn().await?;
    let mut taken = 0;
    for _ in 0..transactions {
        conn.query_drop("BEGIN").await?;
        for _ in 0..random.random_range(1..=3) {
            let table = ["accounts", "ledger"][random.random_range(0..2)];
            let change = any_change(&mut random, &format!("{}.{table}", sql::name(&schema)));
            match conn.query_drop(&change).await {
                Ok(()) => taken += 1,
                // A key that is taken, or a deadlock, which has rolled back all.
                Err(mysql_async::Error::Server(error)) if matches!(error.code, 1062 | 1205 | 1213) => {}
                Err(error) => return Err(error).context(change),
            }
        }
        conn.query_drop("COMMIT").await?;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..20))).await;
    }
    Ok(taken)
}

/// Anything on both sides of the same rows, while directions rest and processes die.
async fn random_changes_converge(flavor: Flavor) -> Result<()> {
    let seed: u64 = match std::env::var("CROSSFADE_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::random(),
    };
    println!("{flavor:?}: the seed is CROSSFADE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let tables = format!("{SUMS_ONLY}{MERGED}");
    let setup = Setup { tables, ..Setup::new(flavor, "merge_random") };
    let mut migration = Migration::new(&setup).await?;
    migration.on_both(&[ACCOUNTS, LEDGER, IN_ORDER]).await?;
    migration.init().await?;
    migration.start_both().await?;
    let transactions = rounds(400, 4_000);
    let writers = [(&migration.old, seed), (&migration.new, seed ^ 1)]
        .map(|(pool, seed)| tokio::spawn(change_at_random(pool.clone(), migration.schema.clone(), seed, transactions)));
    for round in 0..rounds(4, 30) {
        let directions = [Direction::BOTH[random.random_range(0..2)]];
        if round % 4 == 3 {
            migration.process(directions[0])?.kill9().await?;
            migration.start(directions[0], &[])?;
        } else {
            rest(&migration, &directions).await?;
            tokio::time::sleep(Duration::from_millis(random.random_range(300..2_000))).await;
            go_on(&migration, &directions).await?;
        }
    }
    let mut changes = 0;
    for writer in writers {
        changes += writer.await??;
    }
    let (status, comparison) =
        migration.until_quiet_and_equal(LIMIT).await.with_context(|| format!("{flavor:?}, CROSSFADE_SEED={seed}"))?;
    println!(
        "{flavor:?}: {changes} statements, {} rows equal, merged {}, wholly lost {}, by sight {}, by waiting {}",
        comparison.rows_compared(),
        status.total("conflicts_won"),
        status.total("conflicts_lost"),
        status.total("judged_by_sight"),
        status.total("judged_by_waiting"),
    );
    ensure!(
        status.total("conflicts_won") > 50 && status.total("conflicts_lost") > 20,
        "too little was met: {}",
        status.0
    );
    ensure!(status.total("open_failures") + status.total("held") == 0, "rows were set aside: {}", status.0);
    // Where nobody else writes, a row needs no waiting.
    in_turn(
        &migration,
        &[(New, "INSERT INTO {schema}.accounts VALUES (99, 'n', NULL, 0, NOW(), 0, 0, NULL, NOW(6), NOW(6))")],
    )
    .await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    in_turn(&migration, &[(Old, "UPDATE {schema}.accounts SET name = 'quiet', balance = balance + 1")]).await?;
    let (later, _) = migration.until_quiet_and_equal(LIMIT).await?;
    let by_sight = |status: &Status| status.number("forward", "judged_by_sight");
    ensure!(by_sight(&later) > by_sight(&status), "nothing was judged by sight: {}", later.0);
    migration.stop_both().await
}

/// Both sides sell more than there is: what the column cannot hold waits until there is more, and nothing is lost.
async fn sums_wait_where_they_do_not_fit(flavor: Flavor) -> Result<()> {
    let tables = "[[table]]\nname = \"{schema}.*\"\nclock = \"updated_at\"\nmerge = \"columns\"\n\
         merge_rules = { pieces = \"sum-delta\" }\n";
    let setup = Setup { tables: tables.to_owned(), ..Setup::new(flavor, "merge_stock") };
    let mut migration = Migration::new(&setup).await?;
    let create = "CREATE TABLE {schema}.stock (id INT PRIMARY KEY, pieces INT UNSIGNED NOT NULL, name VARCHAR(20), \
         updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";
    migration.on_both(&[create]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration
        .on(&migration.old, &["INSERT INTO {schema}.stock VALUES (1, 10, 'x', NOW(6)), (2, 10, 'y', NOW(6))"])
        .await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    rest(&migration, &Direction::BOTH).await?;
    let sell = "UPDATE {schema}.stock SET pieces = pieces - 8 WHERE id = 1";
    let rename = "UPDATE {schema}.stock SET name = 'new', pieces = pieces - 1 WHERE id = 2";
    in_turn(&migration, &[(Old, sell), (New, sell), (New, rename)]).await?;
    go_on(&migration, &Direction::BOTH).await?;
    until("both sales set aside, and all else done", LIMIT, || async {
        let status = migration.status().read().await?;
        let query = format!("SELECT pieces FROM {}.stock WHERE id = 2 AND name = 'new'", sql::name(&migration.schema));
        let other: Option<u32> = migration.old.get_conn().await?.query_first(query).await?;
        let reached = status.total("open_failures") == 2 && other == Some(9);
        Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(format!("{other:?}, {}", status.0)) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    in_turn(&migration, &[(Old, "UPDATE {schema}.stock SET pieces = pieces + 10 WHERE id = 1")]).await?;
    // A process that starts tries at once what it would else try within a minute.
    migration.stop(Direction::Reverse).await?;
    migration.start(Direction::Reverse, &[])?;
    until("nothing set aside", LIMIT, || async {
        let status = migration.status().read().await?;
        let reached = status.total("open_failures") == 0;
        Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let query = format!("SELECT pieces FROM {}.stock WHERE id = 1", sql::name(&migration.schema));
    let left: Option<u32> = migration.new.get_conn().await?.query_first(query).await?;
    ensure!(left == Some(4), "{left:?} pieces are left of 10 + 10 - 8 - 8");
    migration.stop_both().await
}

macro_rules! tests {
    ($($test:ident: $of:ident on $flavor:ident;)*) => {$(
        #[tokio::test]
        async fn $test() -> Result<()> {
            $of(Flavor::$flavor).await
        }
    )*};
}

tests! {
    p4_columns_are_merged_on_mysql: columns_are_merged on MySql;
    p4_columns_are_merged_on_mariadb: columns_are_merged on MariaDb;
    p4_rows_come_back_whole_on_mysql: rows_come_back_whole on MySql;
    p4_rows_come_back_whole_on_mariadb: rows_come_back_whole on MariaDb;
    p7_sums_wait_where_they_do_not_fit_on_mysql: sums_wait_where_they_do_not_fit on MySql;
    p7_sums_wait_where_they_do_not_fit_on_mariadb: sums_wait_where_they_do_not_fit on MariaDb;
    p4_random_changes_converge_on_mysql: random_changes_converge on MySql;
    p4_random_changes_converge_on_mariadb: random_changes_converge on MariaDb;
    p2_balances_add_up_on_mysql: balances_add_up on MySql;
    p2_balances_add_up_on_mariadb: balances_add_up on MariaDb;
}
