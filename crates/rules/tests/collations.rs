//! P5 rests on it: what some collation of a server calls equal folds alike. The servers themselves are asked.

use std::collections::HashMap;

use crossfade_model::Value;
use crossfade_rules::key::{Fineness, render};
use crossfade_servers::{Flavor, Server};
use mysql_async::prelude::Queryable;

/// Collations that are known to call equal what is not folded: they merge whole alphabets.
const NOT_FOLDED: [&str; 5] = ["_la_0900", "persian", "roman", "latin1_danish", "_bin"];

/// Letters that stand for two, signs of recitation, and what Swedish alone takes for other letters.
const NOT_FOLDED_LETTERS: &str = "ƍƾȸȹʣʦʪʫỺỻ۞ۥۦ۾Ęę";

fn texts() -> Vec<String> {
    let blocks = [
        0x1..0x500,
        0x590..0x700,
        0xe01..0xe60,
        0x10a0..0x1100,
        0x1e00..0x2070,
        0x3041..0x3100,
        0x4e00..0x4f00,
        0xac00..0xad00,
        0xff00..0xffa0,
        0x1f300..0x1f650,
    ];
    let letters = blocks.into_iter().flatten().filter_map(char::from_u32).map(String::from);
    let pairs = ('a'..='z').flat_map(|a| ('a'..='z').map(move |b| format!("{a}{b}")));
    letters.filter(|text| !NOT_FOLDED_LETTERS.contains(text.as_str())).chain(pairs).collect()
}

fn folded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    render(Fineness::Folded, &Value::Text(text.to_owned()), &mut out);
    out
}

/// Collations with their character sets, named so that COLLATE takes them.
async fn collations(connection: &mut mysql_async::Conn, flavor: Flavor) -> Vec<(String, String)> {
    let name = if flavor == Flavor::MariaDb { "full_collation_name" } else { "collation_name" };
    let query = format!(
        "SELECT {name}, character_set_name FROM information_schema.collation_character_set_applicability \
         WHERE character_set_name IN ('utf8mb4', 'latin1') ORDER BY 1"
    );
    let all: Vec<(String, String)> = connection.query(query).await.expect("the server lists its collations");
    all.into_iter().filter(|(name, _)| !NOT_FOLDED.iter().any(|part| name.contains(part))).collect()
}

async fn check(flavor: Flavor) {
    let server = Server::builder(flavor).relaxed().start().await.unwrap_or_else(|error| panic!("{error}"));
    let mut connection = server.connect().await.expect("a started server takes connections");
    connection.query_drop("CREATE DATABASE fold").await.expect("a schema is created");
    let table = "CREATE TABLE fold.texts (i INT PRIMARY KEY, t VARCHAR(8) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin)";
    connection.query_drop(table).await.expect("a table is created");
    let texts = texts();
    for (start, part) in texts.chunks(1000).enumerate() {
        let value = |(index, text): (usize, &String)| {
            let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("({}, X'{hex}')", start * 1000 + index)
        };
        let values: Vec<String> = part.iter().enumerate().map(value).collect();
        let insert = format!("INSERT INTO fold.texts VALUES {}", values.join(","));
        connection.query_drop(insert).await.expect("texts are inserted");
    }
    let (mut equal, mut unfolded) = (0, Vec::new());
    let collations = collations(&mut connection, flavor).await;
    for (collation, charset) in &collations {
        let query = format!(
            "SELECT i, WEIGHT_STRING(CONVERT(t USING {charset}) COLLATE {collation}) FROM fold.texts \
             WHERE CONVERT(CONVERT(t USING {charset}) USING utf8mb4) COLLATE utf8mb4_bin = t ORDER BY i"
        );
        let weights: Vec<(usize, Option<Vec<u8>>)> = connection.query(query).await.expect("the server weighs texts");
        let mut first_of = HashMap::new();
        for (index, weight) in weights {
            let first = *first_of.entry(weight).or_insert(index);
            if first != index {
                equal += 1;
                if folded(&texts[first]) != folded(&texts[index]) {
                    unfolded.push(format!("{collation}: {:?} = {:?}", texts[first], texts[index]));
                }
            }
        }
    }
    assert!(collations.len() > 50, "only {} collations were asked", collations.len());
    assert!(equal > 50_000, "only {equal} equalities were found");
    assert!(unfolded.is_empty(), "{} not folded: {:#?}", unfolded.len(), &unfolded[..unfolded.len().min(40)]);
}

#[tokio::test]
async fn p5_what_mysql_calls_equal_folds_alike() {
    check(Flavor::MySql).await;
}

#[tokio::test]
async fn p5_what_mariadb_calls_equal_folds_alike() {
    check(Flavor::MariaDb).await;
}
