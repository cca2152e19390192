//! Keys that the server folds, keys of every type, and names of every kind.

use crossfade_servers::Flavor;

use crate::scenario::Scenario;

pub fn scenarios(flavor: Flavor) -> Vec<Scenario> {
    let mut scenarios = vec![folded_keys(), names()];
    scenarios.extend(key_types());
    if flavor == Flavor::MariaDb {
        scenarios.push(key_type("uuid", "UUID", &UUIDS));
        scenarios.push(key_type("inet6", "INET6", &["'::{b}'", "'{b}::'", "'::{b}.2.3.4'", "'{b}:0:2::'"]));
    }
    scenarios
}

fn folded_keys() -> Scenario {
    Scenario::new(
        "keys that ignore case, accents and spaces at their end",
        &[
            "CREATE TABLE {t}ci (k VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, v INT {clock})",
            "CREATE TABLE {t}uni (k VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci PRIMARY KEY, v INT {clock})",
            "CREATE TABLE {t}sw (k CHAR(40) CHARACTER SET latin1 COLLATE latin1_swedish_ci PRIMARY KEY, v INT {clock})",
        ],
        &[
            "INSERT INTO {t}ci (k, v) VALUES ('ABC{b}', 1), ('resume{b}', 2), ('space{b}', 3), ('gone{b}', 4), ('both{b}', 5)",
            "UPDATE {t}ci SET k = 'abc{b}' WHERE k = 'ABC{b}'",
            "UPDATE {t}ci SET k = 'résumé{b}', v = v + 1 WHERE k = 'resume{b}'",
            "UPDATE {t}ci SET k = 'space{b}  ' WHERE k = 'space{b}'",
            "DELETE FROM {t}ci WHERE k = 'GONE{b}'",
            "BEGIN",
            "DELETE FROM {t}ci WHERE k = 'BOTH{b}'",
            "INSERT INTO {t}ci (k, v) VALUES ('BÖTH{b} ', 6)",
            "COMMIT",
            "BEGIN",
            "UPDATE {t}ci SET k = 'aside{b}' WHERE k = 'abc{b}'",
            "UPDATE {t}ci SET k = 'Abc{b}' WHERE k = 'space{b}'",
            "UPDATE {t}ci SET k = 'SPACE{b}' WHERE k = 'aside{b}'",
            "COMMIT",
            "INSERT INTO {t}uni (k, v) VALUES ('straße{b}', 1), ('Ab{b}', 2), ('x{b}', 3)",
            "UPDATE {t}uni SET k = 'STRASSE{b}' WHERE k = 'strasse{b}'",
            "UPDATE {t}uni SET k = 'aB{b}' WHERE k = 'ab{b}'",
            "BEGIN",
            "DELETE FROM {t}uni WHERE k = 'x{b}'",
            "INSERT INTO {t}uni (k, v) VALUES ('X{b}', 4)",
            "COMMIT",
            "UPDATE {t}uni SET v = v + 1 WHERE k IN ('strasse{b}', 'AB{b}')",
            "INSERT INTO {t}sw (k, v) VALUES ('Grün{b}', 1), ('a{b}', 2)",
            "UPDATE {t}sw SET k = 'GRÜN{b}' WHERE k = 'grün{b}'",
            "UPDATE {t}sw SET k = 'A{b}', v = 3 WHERE k = 'a{b}'",
            "DELETE FROM {t}sw WHERE k = 'á{b}'",
        ],
        5 + 3 + 1 + 2 + 3 + 3 + 2 + 2 + 2 + 2 + 2 + 1,
    )
}

fn names() -> Scenario {
    Scenario::new(
        "odd names",
        &[
            "CREATE TABLE `{t}we``ird \"na.me' sélect,*` (`key` INT PRIMARY KEY, `or``der` INT, `se.lect` INT, \
             `Gr\"oup, 'x'` VARCHAR(20), `ÜBER` INT, `where ?` INT UNIQUE, `:named` INT {clock})",
            "CREATE TABLE {t}UPPER (Id INT PRIMARY KEY, `FROM` INT {clock})",
            "CREATE TABLE {t}upper (id INT PRIMARY KEY, `from` INT {clock})",
        ],
        &[
            "INSERT INTO `{t}we``ird \"na.me' sélect,*` (`key`, `or``der`, `se.lect`, `Gr\"oup, 'x'`, `ÜBER`, `where ?`, \
             `:named`) VALUES ({b}1, 1, 2, 'three', 4, {b}5, 6), ({b}2, 1, 2, '?', 4, {b}6, 6)",
            "UPDATE `{t}we``ird \"na.me' sélect,*` SET `or``der` = 9, `where ?` = {b}7 WHERE `key` = {b}1",
            "UPDATE `{t}we``ird \"na.me' sélect,*` SET `key` = {b}3 WHERE `key` = {b}1",
            "DELETE FROM `{t}we``ird \"na.me' sélect,*` WHERE `key` = {b}2",
            "INSERT INTO {t}UPPER (id, `from`) VALUES ({b}1, 1)",
            "INSERT INTO {t}upper (id, `from`) VALUES ({b}1, 2)",
            "UPDATE {t}UPPER SET `FROM` = 3 WHERE Id = {b}1",
            "DELETE FROM {t}upper WHERE id = {b}1",
        ],
        5 + 4,
    )
}

fn key_types() -> Vec<Scenario> {
    let text = ["'漢{b}'", "'字{b}'", "'a{b} '", "'あ{b}'"];
    let latin = ["'é{b}'", "'ü{b}'", "'a{b}'", "'€{b}'"];
    let of: [(&str, &str, &[&str; 4]); 22] = [
        ("gbk", "VARCHAR(20) CHARACTER SET gbk", &text),
        ("sjis", "CHAR(20) CHARACTER SET sjis", &text),
        ("utf16", "VARCHAR(20) CHARACTER SET utf16", &text),
        ("utf32", "VARCHAR(20) CHARACTER SET utf32", &text),
        ("utf8mb3", "VARCHAR(20) CHARACTER SET utf8mb3", &text),
        ("bin", "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", &["'a{b}'", "'A{b}'", "'ä{b}'", "'😀{b}'"]),
        ("latin1", "VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_bin", &latin),
        ("cp1250", "VARCHAR(20) CHARACTER SET cp1250", &latin),
        ("varbinary", "VARBINARY(20)", &["x'0{b}00'", "x'0{b}'", "x'0{b}ff'", "x'0{b}20'"]),
        ("binary", "BINARY(4)", &["x'0{b}'", "x'0{b}0001'", "x'0{b}01'", "x'0{b}ff'"]),
        ("decimal", "DECIMAL(20,6)", &["{b}.5", "-{b}.25", "{b}0000000000000", "0.00000{b}"]),
        ("bigint", "BIGINT", &["-922337203685477580{b}", "922337203685477580{b}", "-{b}", "{b}"]),
        ("unsigned", "BIGINT UNSIGNED", &["1844674407370955161{b}", "922337203685477581{b}", "{b}", "{b}0"]),
        ("double", "DOUBLE", &["{b}.5", "{b}e300", "-{b}.1", "{b}e-300"]),
        ("date", "DATE", &["'200{b}-01-01'", "'000{b}-01-01'", "'900{b}-12-31'", "'200{b}-02-01'"]),
        (
            "datetime",
            "DATETIME(6)",
            &["'202{b}-01-01'", "'202{b}-01-01 00:00:00.000001'", "'100{b}-01-01'", "'999{b}-01-01'"],
        ),
        (
            "timestamp",
            "TIMESTAMP(3)",
            &["'202{b}-03-29 02:30:00.5'", "'202{b}-03-29 01:30'", "'197{b}-01-02'", "'203{b}-01-01'"],
        ),
        ("time", "TIME(2)", &["'-{b}00:00:00.25'", "'{b}00:00:00'", "'00:0{b}:00'", "'-00:00:0{b}'"]),
        ("year", "YEAR", &["190{b}", "200{b}", "210{b}", "197{b}"]),
        (
            "enum",
            "ENUM('a1','a2','a3','a4','b1','b2','b3','b4','c1','c2','c3','c4','d1','d2','d3','d4')",
            &["'d{b}'", "'b{b}'", "'c{b}'", "'a{b}'"],
        ),
        ("set", "SET('1','2','3','4','x','y')", &["'{b}'", "'{b},x'", "'{b},y'", "'{b},x,y'"]),
        ("bit", "BIT(40)", &["{b}", "{b}000000000", "{b}000", "{b}00"]),
    ];
    of.iter().map(|(name, sql_type, values)| key_type(name, sql_type, values)).collect()
}

/// Rows under a key of this type come, change, move and go.
fn key_type(name: &str, sql_type: &str, values: &[&str; 4]) -> Scenario {
    let table = format!("{{t}}key_{name}");
    let [first, second, third, fourth] = values;
    let create = format!("CREATE TABLE {table} (k {sql_type} PRIMARY KEY, v INT {{clock}})");
    let script = [
        format!("INSERT INTO {table} (k, v) VALUES ({first}, {{b}}1), ({second}, {{b}}2)"),
        format!("UPDATE {table} SET v = {{b}}3 WHERE v = {{b}}1"),
        format!("UPDATE {table} SET k = {third} WHERE v = {{b}}3"),
        format!("DELETE FROM {table} WHERE v = {{b}}2"),
        format!("INSERT INTO {table} (k, v) VALUES ({fourth}, {{b}}4)"),
    ];
    Scenario {
        tables: vec![create],
        script: script.to_vec(),
        ..Scenario::new(&format!("a key of {sql_type}"), &[], &[], 6)
    }
}

const UUIDS: [&str; 4] = [
    "'0{b}112233-4455-1677-8899-aabbccddeeff'",
    "'0{b}112233-4455-4677-8899-aabbccddee00'",
    "'0{b}112233-4455-7677-8899-aabbccddeeff'",
    "'f{b}ffffff-ffff-ffff-ffff-ffffffffffff'",
];
