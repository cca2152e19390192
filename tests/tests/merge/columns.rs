//! What becomes of columns that both sides change while neither hears of the other, case by case.

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Migration};
use mysql_async::prelude::Queryable;

use crate::Side::{self, New, Old};
use crate::{LIMIT, accounts, in_turn, row};

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

pub async fn columns_are_merged(flavor: Flavor) -> Result<()> {
    let mut migration = accounts(flavor, "merge").await?;
    for id in (1..=10).chain(12..=14) {
        let insert = format!(
            "INSERT INTO {{schema}}.accounts VALUES ({id}, 'name', 'mail', 5, '2020-05-05', 100, 1.5, '{{\"b\": true}}', NOW(6), NOW(6))"
        );
        migration.on(&migration.old, &[&insert]).await?;
    }
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    for (statements, _, _) in SCENARIOS {
        let statements: Vec<(Side, String)> =
            statements.iter().map(|(side, statement)| (*side, statement.replace("{a}", "{schema}.accounts"))).collect();
        let statements: Vec<(Side, &str)> = statements.iter().map(|(side, text)| (*side, text.as_str())).collect();
        in_turn(&migration, &statements).await?;
    }
    migration.go_on(&Direction::BOTH).await?;
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
pub async fn rows_come_back_whole(flavor: Flavor) -> Result<()> {
    let mut migration = accounts(flavor, "merge_back").await?;
    let insert =
        "INSERT INTO {schema}.accounts VALUES (1, 'name', 'mail', 5, '2020-05-05', 100, 1.5, NULL, NOW(6), NOW(6))";
    migration.on(&migration.old, &[insert]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let earlier = "UPDATE {schema}.accounts SET name = 'earlier', balance = balance + 10, best = 7";
    in_turn(&migration, &[(New, earlier), (Old, NEXT_SECOND), (Old, "DELETE FROM {schema}.accounts")]).await?;
    migration.go_on(&[Direction::Reverse]).await?;
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
    migration.go_on(&[Direction::Forward]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let found = row(&migration, 1).await?;
    ensure!(found.as_deref() == Some("earlier later 7 2020-05-05 111 1.5"), "{found:?}");
    migration.stop_both().await
}
