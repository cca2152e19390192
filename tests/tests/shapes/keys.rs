//! Keys that move, swap, come back, and are one for the server though their bytes differ.

use crate::scenario::Scenario;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        primary_keys(),
        unique_values(),
        unique_but_not_told(),
        composite(),
        composite_of_latin1(),
        only_unique(),
        auto_increment(),
        folds(),
    ]
}

fn primary_keys() -> Scenario {
    Scenario::new(
        "primary keys that move",
        &["CREATE TABLE {t}pk (id INT PRIMARY KEY, v VARCHAR(20) {clock})"],
        &[
            "INSERT INTO {t}pk (id, v) VALUES ({b}0001,'1'),({b}0002,'2'),({b}0003,'3'),({b}0004,'4'),({b}0005,'5'),\
             ({b}0006,'6'),({b}0007,'7'),({b}0008,'8'),({b}0009,'9')",
            // One, alone.
            "UPDATE {t}pk SET id = {b}0051, v = 'moved' WHERE id = {b}0001",
            // A chain, in one transaction and in one statement.
            "BEGIN",
            "UPDATE {t}pk SET id = {b}0052 WHERE id = {b}0003",
            "UPDATE {t}pk SET id = {b}0003 WHERE id = {b}0002",
            "COMMIT",
            "UPDATE {t}pk SET id = id + 1 WHERE id BETWEEN {b}0006 AND {b}0009 ORDER BY id DESC",
            // A swap through a third value.
            "BEGIN",
            "UPDATE {t}pk SET id = {b}0099 WHERE id = {b}0004",
            "UPDATE {t}pk SET id = {b}0004 WHERE id = {b}0005",
            "UPDATE {t}pk SET id = {b}0005 WHERE id = {b}0099",
            "COMMIT",
            // The key goes to another row.
            "BEGIN",
            "DELETE FROM {t}pk WHERE id = {b}0007",
            "INSERT INTO {t}pk (id, v) VALUES ({b}0007, 'again')",
            "DELETE FROM {t}pk WHERE id = {b}0008",
            "UPDATE {t}pk SET id = {b}0008, v = 'into the gap' WHERE id = {b}0009",
            "INSERT INTO {t}pk (id, v) VALUES ({b}0060, 'short life')",
            "DELETE FROM {t}pk WHERE id = {b}0060",
            "COMMIT",
            // Moved and gone.
            "BEGIN",
            "UPDATE {t}pk SET id = {b}0070 WHERE id = {b}0010",
            "DELETE FROM {t}pk WHERE id = {b}0070",
            "COMMIT",
            // There and back.
            "BEGIN",
            "UPDATE {t}pk SET id = {b}0071 WHERE id = {b}0051",
            "UPDATE {t}pk SET id = {b}0051, v = 'back' WHERE id = {b}0071",
            "COMMIT",
        ],
        9 + 1 + 2 + 4 + 3 + 6 + 2 + 2,
    )
}

fn unique_values() -> Scenario {
    Scenario::new(
        "unique values that change hands",
        &[
            "CREATE TABLE {t}uq (id INT PRIMARY KEY, mail VARCHAR(40) UNIQUE, code INT, v INT NOT NULL DEFAULT 0 {clock}, \
           UNIQUE KEY code_v (code, v))",
        ],
        &[
            "INSERT INTO {t}uq (id, mail, code) VALUES ({b}001,'a{b}',{b}1),({b}002,'b{b}',{b}2),({b}003,'c{b}',{b}3),\
             ({b}004,NULL,NULL),({b}005,NULL,NULL)",
            "BEGIN",
            "UPDATE {t}uq SET mail = NULL WHERE id = {b}001",
            "UPDATE {t}uq SET mail = 'a{b}' WHERE id = {b}002",
            "UPDATE {t}uq SET mail = 'b{b}' WHERE id = {b}001",
            "COMMIT",
            "BEGIN",
            "UPDATE {t}uq SET mail = 'x{b}' WHERE id = {b}001",
            "UPDATE {t}uq SET mail = 'b{b}' WHERE id = {b}003",
            "UPDATE {t}uq SET mail = 'c{b}' WHERE id = {b}002",
            "UPDATE {t}uq SET mail = 'a{b}' WHERE id = {b}001",
            "COMMIT",
            "BEGIN",
            "DELETE FROM {t}uq WHERE id = {b}003",
            "INSERT INTO {t}uq (id, mail, code) VALUES ({b}006, 'b{b}', {b}3)",
            "COMMIT",
            // The same over transactions, which one batch may hold.
            "UPDATE {t}uq SET mail = NULL WHERE id = {b}006",
            "UPDATE {t}uq SET mail = 'b{b}' WHERE id = {b}002",
            "UPDATE {t}uq SET mail = 'c{b}' WHERE id = {b}006",
            // A part of a longer key.
            "BEGIN",
            "UPDATE {t}uq SET v = 1 WHERE id = {b}001",
            "UPDATE {t}uq SET code = {b}1 WHERE id = {b}002",
            "UPDATE {t}uq SET code = {b}2, v = 0 WHERE id = {b}001",
            "COMMIT",
            "UPDATE {t}uq SET v = v + 1 WHERE id IN ({b}004, {b}005)",
            // Primary key and unique value at once.
            "UPDATE {t}uq SET id = {b}050, mail = 'A{b}' WHERE id = {b}001",
        ],
        5 + 3 + 4 + 2 + 3 + 3 + 2 + 1,
    )
}

fn unique_but_not_told() -> Scenario {
    Scenario::new(
        "unique keys over prefixes and computed columns",
        &[
            "CREATE TABLE {t}pre (id INT PRIMARY KEY, long_text VARCHAR(200), UNIQUE KEY (long_text(8)) {clock})",
            "CREATE TABLE {t}gen (id INT PRIMARY KEY, mail VARCHAR(40), folded VARCHAR(40) AS (LOWER(mail)) STORED UNIQUE, \
             twice INT AS (id * 2) VIRTUAL {clock})",
        ],
        &[
            "INSERT INTO {t}pre (id, long_text) VALUES ({b}001, '{b}-aaaaaa 1'), ({b}002, '{b}-bbbbbb 2')",
            "BEGIN",
            "UPDATE {t}pre SET long_text = '{b}-cccccc 1' WHERE id = {b}001",
            "UPDATE {t}pre SET long_text = '{b}-aaaaaa 2' WHERE id = {b}002",
            "UPDATE {t}pre SET long_text = '{b}-bbbbbb 1' WHERE id = {b}001",
            "COMMIT",
            "INSERT INTO {t}gen (id, mail) VALUES ({b}001, 'Ada{b}'), ({b}002, 'Bob{b}')",
            "BEGIN",
            "DELETE FROM {t}gen WHERE id = {b}001",
            "UPDATE {t}gen SET mail = 'ADA{b}' WHERE id = {b}002",
            "INSERT INTO {t}gen (id, mail) VALUES ({b}003, 'BOB{b}')",
            "COMMIT",
        ],
        2 + 3 + 2 + 3,
    )
}

fn composite() -> Scenario {
    Scenario::new(
        "keys of several columns",
        &["CREATE TABLE {t}ck (a INT, v VARCHAR(20), b VARCHAR(20), c DATE, PRIMARY KEY (c, a, b) {clock})"],
        &[
            "INSERT INTO {t}ck (a, b, c, v) VALUES ({b}1,'x','2026-01-01','1'),({b}1,'y','2026-01-01','2'),\
             ({b}2,'x','2026-01-01','3'),({b}1,'x','2026-01-02','4')",
            "UPDATE {t}ck SET b = 'z' WHERE a = {b}1 AND c = '2026-01-01' AND b = 'x'",
            "BEGIN",
            "UPDATE {t}ck SET c = '2027-01-01' WHERE a = {b}1 AND b = 'z'",
            "UPDATE {t}ck SET b = 'z', v = 'swapped' WHERE a = {b}1 AND b = 'y'",
            "UPDATE {t}ck SET c = '2026-01-01', b = 'y' WHERE a = {b}1 AND c = '2027-01-01'",
            "COMMIT",
            "DELETE FROM {t}ck WHERE a = {b}2",
            "UPDATE {t}ck SET v = CONCAT(v, '!') WHERE a = {b}1",
        ],
        4 + 1 + 3 + 1 + 3,
    )
}

/// Several rows at a time are looked for by keys whose texts the connection has in another character set.
fn composite_of_latin1() -> Scenario {
    Scenario::new(
        "keys of several columns, texts of other character sets among them",
        &[
            "CREATE TABLE {t}cl (a INT, b VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_german1_ci, v INT, \
             PRIMARY KEY (a, b) {clock})",
            "CREATE TABLE {t}cu (a INT, b VARCHAR(20) CHARACTER SET ucs2, v INT, PRIMARY KEY (a, b) {clock})",
        ],
        &[
            "INSERT INTO {t}cl (a, b, v) VALUES ({b}1,'é1',1),({b}1,'é2',1),({b}2,'ü1',1),({b}2,'x',1),({b}3,'ß',1)",
            "INSERT INTO {t}cu (a, b, v) VALUES ({b}1,'é1',1),({b}1,'Ж',1),({b}2,'x',1),({b}3,'y',1)",
            "UPDATE {t}cl SET v = v + 1 WHERE a BETWEEN {b}1 AND {b}2",
            "UPDATE {t}cu SET v = v + 1 WHERE a BETWEEN {b}1 AND {b}2",
            "DELETE FROM {t}cl WHERE a BETWEEN {b}2 AND {b}3",
            "DELETE FROM {t}cu WHERE a BETWEEN {b}1 AND {b}2",
        ],
        5 + 4 + 4 + 3 + 3 + 3,
    )
}

fn only_unique() -> Scenario {
    Scenario::new(
        "a unique key in place of a primary one",
        &["CREATE TABLE {t}nu (n INT NULL UNIQUE, code VARCHAR(12) NOT NULL UNIQUE, v INT {clock})"],
        &[
            "INSERT INTO {t}nu (n, code, v) VALUES ({b}1,'a{b}',1),({b}2,'b{b}',2),(NULL,'c{b}',3),(NULL,'d{b}',4)",
            "UPDATE {t}nu SET v = v + 10 WHERE code LIKE '_{b}'",
            "UPDATE {t}nu SET code = 'e{b}' WHERE code = 'a{b}'",
            "BEGIN",
            "UPDATE {t}nu SET code = 'x{b}' WHERE code = 'b{b}'",
            "UPDATE {t}nu SET code = 'b{b}', n = NULL WHERE code = 'e{b}'",
            "UPDATE {t}nu SET code = 'e{b}', n = {b}1 WHERE code = 'x{b}'",
            "COMMIT",
            "DELETE FROM {t}nu WHERE code = 'd{b}'",
        ],
        4 + 4 + 1 + 3 + 1,
    )
}

fn auto_increment() -> Scenario {
    Scenario::new(
        "number 0 of an AUTO_INCREMENT key",
        &["CREATE TABLE {t}ai (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, of_run INT, v INT, KEY (of_run) {clock})"],
        &[
            "SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')",
            "INSERT INTO {t}ai (id, of_run, v) VALUES ({b}01, {b}, 1), ({b}02, {b}, 2)",
            "INSERT INTO {t}ai (id, of_run, v) VALUES (0, {b}, 0)",
            "UPDATE {t}ai SET v = v + 1 WHERE id = 0",
            "UPDATE {t}ai SET id = {b}03 WHERE id = 0",
            "UPDATE {t}ai SET id = 0 WHERE id = {b}02",
            // The next run shall find it free.
            "DELETE FROM {t}ai WHERE id = 0",
        ],
        2 + 5,
    )
}

fn folds() -> Scenario {
    Scenario::new(
        "many changes of one row, REPLACE and ON DUPLICATE KEY UPDATE",
        &[
            "CREATE TABLE {t}hot (id INT PRIMARY KEY, v INT {clock})",
            "CREATE TABLE {t}rp (id INT PRIMARY KEY, mail VARCHAR(40) UNIQUE, v INT {clock})",
        ],
        &[
            "INSERT INTO {t}hot (id, v) VALUES ({b}01, 0), ({b}02, 0)",
            "UPDATE {t}hot SET v = v + 1 WHERE id = {b}01",
            "UPDATE {t}hot SET v = v + 1 WHERE id = {b}01",
            "UPDATE {t}hot SET v = v + 1 WHERE id = {b}01",
            "DELETE FROM {t}hot WHERE id = {b}01",
            "INSERT INTO {t}hot (id, v) VALUES ({b}01, 7)",
            "UPDATE {t}hot SET v = v + 1 WHERE id = {b}01",
            "DELETE FROM {t}hot WHERE id = {b}02",
            "INSERT INTO {t}rp (id, mail, v) VALUES ({b}01,'a{b}',1), ({b}02,'b{b}',2), ({b}03,'c{b}',3)",
            "INSERT INTO {t}rp (id, mail, v) VALUES ({b}01,'z{b}',9), ({b}04,'d{b}',4) ON DUPLICATE KEY UPDATE v = v + 10",
            "INSERT INTO {t}rp (id, mail, v) VALUES ({b}05,'b{b}',9) ON DUPLICATE KEY UPDATE id = {b}06, v = 11",
            "INSERT INTO {t}rp (id, mail, v) VALUES ({b}07,'c{b}',9) ON DUPLICATE KEY UPDATE v = v",
            // One row gives way, then two for one.
            "DELETE FROM {t}rp WHERE id = {b}04",
            "REPLACE INTO {t}rp (id, mail, v) VALUES ({b}08,'h{b}',8)",
            "REPLACE INTO {t}rp (id, mail, v) VALUES ({b}08,'i{b}',9)",
            "REPLACE INTO {t}rp (id, mail, v) VALUES ({b}08,'a{b}',10)",
        ],
        // The servers write a REPLACE of one row as an update, and of two rows as two deletes and an insert.
        9 + 3 + 2 + 1 + 1 + 1 + 1 + 3,
    )
}
