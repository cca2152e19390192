//! Texts that hold what stands between values where rows are compared, and NULLs beside them: no row is taken for another one,
//! in whatever character sets they are, and whichever side may hold NULLs.

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_tests::{Migration, Setup, on_both_brands};
use serde_json::Value;

use crate::{differences, number, of_table, unseen, verify};

const VALUES: [&str; 5] = ["NULL", "''", "','", "'1,'", "'é'"];

/// `d` comes first and `c` last of the texts.
const COLUMNS: [&str; 4] = ["d", "a", "b", "c"];

const OLD: &str = "CREATE TABLE mixed (id INT(9) UNSIGNED ZEROFILL PRIMARY KEY, d VARCHAR(20) CHARACTER SET ascii NOT NULL, \
     a VARCHAR(20) CHARACTER SET latin1, b VARCHAR(20) CHARACTER SET latin2, n DECIMAL(9,2) ZEROFILL, \
     c CHAR(10) CHARACTER SET utf16, updated_at DATETIME(6) NOT NULL)";
const NEW: &str = "CREATE TABLE mixed (id INT UNSIGNED PRIMARY KEY, d VARCHAR(20) CHARACTER SET ascii, \
     a VARCHAR(20) CHARACTER SET utf8mb4, b VARCHAR(20) CHARACTER SET latin2, n DECIMAL(9,2) UNSIGNED, \
     c VARCHAR(20) CHARACTER SET utf8mb4, updated_at DATETIME(6) NOT NULL)";

/// Nothing but texts, the key as well. One of them alone follows the key.
const WORDS: [&str; 2] = [
    "CREATE TABLE words (word VARCHAR(20) CHARACTER SET latin1 PRIMARY KEY, meaning VARCHAR(20) CHARACTER SET latin2)",
    "CREATE TABLE words (word VARCHAR(20) CHARACTER SET utf8mb4 PRIMARY KEY, meaning VARCHAR(20) CHARACTER SET utf8mb4)",
];

/// A row of `mixed`: one for each way to fill three columns.
fn row(number: usize) -> [&'static str; 4] {
    let of = |place: usize| VALUES[place % VALUES.len()];
    ["''", of(number), of(number / 5), of(number / 25)]
}

/// Each row as the next one is, and in every other one a NULL where the old side has an empty text.
fn damaged(number: usize) -> [&'static str; 4] {
    let mut row = row((number + 1) % 125);
    if number % 2 == 1 {
        row[0] = "NULL";
    }
    row
}

async fn texts_are_told_apart(flavor: Flavor) -> Result<()> {
    let tables = "[[table]]\nname = \"{schema}.words\"\none_way = true\n\
         [[table]]\nname = \"{schema}.*\"\nclock = \"updated_at\"\none_way = true\n"
        .to_owned();
    let migration = Migration::new(&Setup { tables, ..Setup::new(flavor, "verify_texts") }).await?;
    let rows: Vec<String> = (0..125).map(|id| format!("({id}, {}, 0.5, '2026-01-01')", row(id).join(", "))).collect();
    let mixed = format!("INSERT INTO mixed (id, d, a, b, c, n, updated_at) VALUES {}", rows.join(", "));
    let words = "INSERT INTO words VALUES ('', NULL), ('N', ''), (',', ','), ('é', 'é'), ('0', '1,')".to_owned();
    for (pool, definition, of_words) in [(&migration.old, OLD, WORDS[0]), (&migration.new, NEW, WORDS[1])] {
        let statements = [definition.to_owned(), mixed.clone(), of_words.to_owned(), words.clone()];
        unseen(pool, &migration.schema, &statements).await?;
    }
    migration.init().await?;
    let (code, before) = verify(&migration, &[]).await?;
    ensure!(code == Some(0), "equal sides: {before}\n{:?}", differences(&migration).await?);
    ensure!(number(&before, "rows_old") == 130, "{before}");

    let mut damages: Vec<String> = (0..125)
        .map(|id| {
            let values = COLUMNS.iter().zip(damaged(id)).map(|(column, value)| format!("{column} = {value}"));
            format!("UPDATE mixed SET {} WHERE id = {id}", values.collect::<Vec<_>>().join(", "))
        })
        .collect();
    damages.extend(
        [
            "UPDATE words SET meaning = '' WHERE word = ''",
            "UPDATE words SET meaning = NULL WHERE word = 'N'",
            "UPDATE words SET word = '1' WHERE word = '0'",
        ]
        .map(str::to_owned),
    );
    unseen(&migration.new, &migration.schema, &damages).await?;
    let (code, after) = verify(&migration, &["--keep", "200"]).await?;
    ensure!(code == Some(1), "{after}");
    ensure!(number(of_table(&after, ".mixed"), "different") == 125, "{after}");
    let of_words = of_table(&after, ".words");
    let counts = ["different", "missing_on_old", "missing_on_new"].map(|name| number(of_words, name));
    ensure!(counts == [2, 1, 1], "{of_words}");
    let shown = differences(&migration).await?;
    let of_mixed = || shown.iter().filter(|difference| difference["table_name"] == "mixed");
    ensure!(of_mixed().count() == 125, "{shown:?}");
    for difference in of_mixed() {
        let id = difference["row_key"]["id"].as_u64().context("no key")?;
        let (was, is) = (row(usize::try_from(id)?), damaged(usize::try_from(id)?));
        let unlike: Vec<&str> = (0..4).filter(|place| was[*place] != is[*place]).map(|place| COLUMNS[place]).collect();
        let mut named: Vec<&str> = difference["columns"]
            .as_array()
            .context("no columns")?
            .iter()
            .filter_map(|names| names["old"].as_str())
            .collect();
        named.sort_by_key(|name| COLUMNS.iter().position(|column| column == name));
        ensure!(named == unlike, "{id}: {was:?} to {is:?}: {difference}");
    }
    let meanings =
        shown.iter().filter(|difference| difference["table_name"] == "words" && difference["kind"] == "different");
    let is_meaning =
        |difference: &Value| difference["columns"] == serde_json::json!([{ "old": "meaning", "new": "meaning" }]);
    ensure!(meanings.clone().count() == 2 && meanings.clone().all(is_meaning), "{shown:?}");
    migration.forget();
    Ok(())
}

on_both_brands! {
    p4_texts_are_told_apart => texts_are_told_apart,
}
