//! Rows of several tables: parents and children, transactions, rollbacks.

use crate::scenario::Scenario;

pub fn scenarios() -> Vec<Scenario> {
    vec![restrict(), cascade(), set_null(), moved_parents(), moved_parents_of_many(), tree(), transactions()]
}

fn restrict() -> Scenario {
    Scenario::new(
        "foreign keys that refuse",
        &[
            "CREATE TABLE {t}fp (id INT PRIMARY KEY, code VARCHAR(10) NOT NULL UNIQUE, v INT {clock})",
            "CREATE TABLE {t}fc (id INT PRIMARY KEY, parent INT NOT NULL, code VARCHAR(10), \
             FOREIGN KEY (parent) REFERENCES {t}fp (id), FOREIGN KEY (code) REFERENCES {t}fp (code) {clock})",
        ],
        &[
            // Parent and child come and go in one batch, also as one transaction.
            "BEGIN",
            "INSERT INTO {t}fp (id, code, v) VALUES ({b}1, 'a{b}', 1), ({b}2, 'b{b}', 2)",
            "INSERT INTO {t}fc (id, parent, code) VALUES ({b}1, {b}1, 'b{b}'), ({b}2, {b}2, NULL), ({b}3, {b}2, 'a{b}')",
            "COMMIT",
            "BEGIN",
            "UPDATE {t}fc SET parent = {b}1, code = 'a{b}' WHERE id = {b}2",
            "UPDATE {t}fc SET parent = {b}1 WHERE id = {b}3",
            "UPDATE {t}fc SET code = 'a{b}' WHERE id = {b}1",
            "DELETE FROM {t}fp WHERE id = {b}2",
            "COMMIT",
            "INSERT INTO {t}fp (id, code, v) VALUES ({b}3, 'c{b}', 3)",
            "INSERT INTO {t}fc (id, parent, code) VALUES ({b}4, {b}3, 'c{b}')",
            "DELETE FROM {t}fc WHERE id = {b}4",
            "DELETE FROM {t}fp WHERE id = {b}3",
            "BEGIN",
            "INSERT INTO {t}fp (id, code, v) VALUES ({b}4, 'd{b}', 4)",
            "INSERT INTO {t}fc (id, parent, code) VALUES ({b}5, {b}4, 'd{b}')",
            "DELETE FROM {t}fc WHERE id = {b}5",
            "DELETE FROM {t}fp WHERE id = {b}4",
            "COMMIT",
            // The child goes over to a parent that takes the old one's key.
            "BEGIN",
            "INSERT INTO {t}fp (id, code, v) VALUES ({b}5, 'e{b}', 5)",
            "UPDATE {t}fc SET parent = {b}5, code = 'e{b}' WHERE parent = {b}1",
            "DELETE FROM {t}fp WHERE id = {b}1",
            "INSERT INTO {t}fp (id, code, v) VALUES ({b}1, 'a{b}', 6)",
            "COMMIT",
        ],
        5 + 4 + 4 + 4 + 6,
    )
}

/// MySQL writes what a cascade changes into its binlog; MariaDB does not, and the target's own cascade does it again.
fn cascade() -> Scenario {
    Scenario::new(
        "foreign keys that delete",
        &[
            "CREATE TABLE {t}cp (id INT PRIMARY KEY, v INT {clock})",
            "CREATE TABLE {t}cc (id INT PRIMARY KEY, parent INT, \
             FOREIGN KEY (parent) REFERENCES {t}cp (id) ON DELETE CASCADE {clock})",
            "CREATE TABLE {t}cg (id INT PRIMARY KEY, parent INT, \
             FOREIGN KEY (parent) REFERENCES {t}cc (id) ON DELETE CASCADE {clock})",
        ],
        &[
            "INSERT INTO {t}cp (id, v) VALUES ({b}1, 1), ({b}2, 2), ({b}3, 3)",
            "INSERT INTO {t}cc (id, parent) VALUES ({b}1, {b}1), ({b}2, {b}1), ({b}3, {b}2), ({b}4, NULL), ({b}5, {b}3)",
            "INSERT INTO {t}cg (id, parent) VALUES ({b}1, {b}1), ({b}2, {b}1), ({b}3, {b}3)",
            "DELETE FROM {t}cp WHERE id = {b}1",
            // A child leaves before its parent goes, another comes and goes with it.
            "BEGIN",
            "UPDATE {t}cc SET parent = {b}3 WHERE id = {b}3",
            "INSERT INTO {t}cc (id, parent) VALUES ({b}6, {b}2)",
            "DELETE FROM {t}cp WHERE id = {b}2",
            "COMMIT",
        ],
        11 + 5 + 4,
    )
    .on_mariadb(11 + 1 + 3)
}

fn set_null() -> Scenario {
    Scenario::new(
        "foreign keys that set NULL",
        &[
            "CREATE TABLE {t}np (id INT PRIMARY KEY, v INT {clock})",
            "CREATE TABLE {t}nc (id INT PRIMARY KEY, parent INT, v INT, \
             FOREIGN KEY (parent) REFERENCES {t}np (id) ON DELETE SET NULL {clock})",
        ],
        &[
            "INSERT INTO {t}np (id, v) VALUES ({b}1, 1), ({b}2, 2)",
            "INSERT INTO {t}nc (id, parent, v) VALUES ({b}1, {b}1, 1), ({b}2, {b}1, 2), ({b}3, {b}2, 3)",
            "DELETE FROM {t}np WHERE id = {b}1",
            "UPDATE {t}nc SET v = v + 1 WHERE id = {b}1",
            "BEGIN",
            "DELETE FROM {t}np WHERE id = {b}2",
            "INSERT INTO {t}np (id, v) VALUES ({b}2, 3)",
            "UPDATE {t}nc SET parent = {b}2 WHERE id = {b}2",
            "COMMIT",
        ],
        5 + 3 + 1 + 4,
    )
    .on_mariadb(5 + 1 + 1 + 3)
}

fn moved_parents() -> Scenario {
    Scenario::new(
        "foreign keys that follow",
        &[
            "CREATE TABLE {t}mp (id INT PRIMARY KEY, v INT {clock})",
            "CREATE TABLE {t}mc (id INT PRIMARY KEY, parent INT, v INT, \
             FOREIGN KEY (parent) REFERENCES {t}mp (id) ON UPDATE CASCADE {clock})",
        ],
        &[
            "INSERT INTO {t}mp (id, v) VALUES ({b}1, 1), ({b}2, 2)",
            "INSERT INTO {t}mc (id, parent, v) VALUES ({b}1, {b}1, 1), ({b}2, {b}1, 2), ({b}3, {b}2, 3)",
            "UPDATE {t}mp SET id = {b}3 WHERE id = {b}1",
            "UPDATE {t}mc SET v = v + 1 WHERE id = {b}1",
        ],
        5 + 3 + 1,
    )
    .on_mariadb(5 + 1 + 1)
}

/// Children whom a parent's new key changes twice, some that lose their reference to it, and references that share a column.
fn moved_parents_of_many() -> Scenario {
    Scenario::new(
        "several foreign keys that follow one key",
        &[
            "CREATE TABLE {t}mcu (id INT PRIMARY KEY, v INT {clock})",
            "CREATE TABLE {t}mod (customer INT, no INT, v INT, PRIMARY KEY (customer, no), \
             FOREIGN KEY (customer) REFERENCES {t}mcu (id) ON UPDATE CASCADE {clock})",
            "CREATE TABLE {t}mit (id INT PRIMARY KEY, customer INT, no INT, payer INT, v INT, \
             FOREIGN KEY (customer, no) REFERENCES {t}mod (customer, no) ON UPDATE CASCADE, \
             FOREIGN KEY (payer) REFERENCES {t}mcu (id) ON UPDATE CASCADE {clock})",
            "CREATE TABLE {t}mst (id INT PRIMARY KEY, customer INT, v INT, \
             FOREIGN KEY (customer) REFERENCES {t}mcu (id) ON UPDATE SET NULL {clock})",
            "CREATE TABLE {t}mtp (tenant INT, id INT, v INT, PRIMARY KEY (tenant, id) {clock})",
            "CREATE TABLE {t}mtc (id INT PRIMARY KEY, tenant INT, a INT, b INT, v INT, \
             FOREIGN KEY (tenant, a) REFERENCES {t}mtp (tenant, id) ON UPDATE CASCADE, \
             FOREIGN KEY (tenant, b) REFERENCES {t}mtp (tenant, id) ON UPDATE CASCADE {clock})",
        ],
        &[
            "INSERT INTO {t}mcu (id, v) VALUES ({b}1, 1), ({b}2, 2)",
            "INSERT INTO {t}mod (customer, no, v) VALUES ({b}1, 1, 1)",
            "INSERT INTO {t}mit (id, customer, no, payer) VALUES ({b}1, {b}1, 1, {b}1), ({b}2, {b}1, 1, {b}2)",
            "INSERT INTO {t}mst (id, customer) VALUES ({b}1, {b}1)",
            "INSERT INTO {t}mtp (tenant, id) VALUES ({b}1, 1)",
            "INSERT INTO {t}mtc (id, tenant, a) VALUES ({b}1, {b}1, 1)",
            "UPDATE {t}mcu SET id = id + 5 WHERE id IN ({b}1, {b}2)",
            "UPDATE {t}mtp SET tenant = {b}2 WHERE tenant = {b}1",
        ],
        8 + 8 + 2,
    )
    .on_mariadb(8 + 2 + 1)
}

fn tree() -> Scenario {
    Scenario::new(
        "rows whose parents are in their own table",
        &[
            "CREATE TABLE {t}tree (id INT PRIMARY KEY, parent INT, v INT, FOREIGN KEY (parent) REFERENCES {t}tree (id) {clock})",
        ],
        &[
            "BEGIN",
            "INSERT INTO {t}tree (id, parent, v) VALUES ({b}9, NULL, 0)",
            "INSERT INTO {t}tree (id, parent, v) VALUES ({b}5, {b}9, 1), ({b}1, {b}5, 2), ({b}7, {b}1, 3), ({b}2, {b}2, 4)",
            "COMMIT",
            "BEGIN",
            "INSERT INTO {t}tree (id, parent, v) VALUES ({b}3, NULL, 5)",
            "UPDATE {t}tree SET parent = {b}3 WHERE id = {b}1",
            "DELETE FROM {t}tree WHERE id = {b}5",
            "DELETE FROM {t}tree WHERE id = {b}9",
            "UPDATE {t}tree SET v = 9 WHERE id = {b}2",
            "COMMIT",
        ],
        5 + 5,
    )
}

fn transactions() -> Scenario {
    Scenario::new(
        "transactions over tables, rollbacks, savepoints",
        &[
            "CREATE TABLE {t}ta (id INT PRIMARY KEY, v INT {clock})",
            "CREATE TABLE {t}tb (id INT PRIMARY KEY, v INT {clock})",
        ],
        &[
            "BEGIN",
            "INSERT INTO {t}ta (id, v) VALUES ({b}1, 1)",
            "INSERT INTO {t}tb (id, v) VALUES ({b}1, 1)",
            "UPDATE {t}ta SET v = 2 WHERE id = {b}1",
            "COMMIT",
            "BEGIN",
            "INSERT INTO {t}ta (id, v) VALUES ({b}2, 1)",
            "SAVEPOINT one",
            "INSERT INTO {t}ta (id, v) VALUES ({b}3, 1)",
            "SAVEPOINT two",
            "DELETE FROM {t}tb WHERE id = {b}1",
            "ROLLBACK TO SAVEPOINT one",
            "INSERT INTO {t}tb (id, v) VALUES ({b}2, 1)",
            "RELEASE SAVEPOINT one",
            "COMMIT",
            "BEGIN",
            "INSERT INTO {t}ta (id, v) VALUES ({b}4, 1)",
            "DELETE FROM {t}tb",
            "ROLLBACK",
            "UPDATE {t}ta, {t}tb SET {t}ta.v = 7, {t}tb.v = 8 WHERE {t}ta.id = {t}tb.id AND {t}ta.id BETWEEN {b}1 AND {b}2",
            "DELETE {t}ta, {t}tb FROM {t}ta JOIN {t}tb ON {t}ta.id = {t}tb.id WHERE {t}ta.id = {b}2",
            // A row that is set to what it is makes no change.
            "UPDATE {t}ta SET v = v WHERE id = {b}1",
            "XA START '{t}x{b}'",
            "INSERT INTO {t}ta (id, v) VALUES ({b}5, 5)",
            "XA END '{t}x{b}'",
            "XA PREPARE '{t}x{b}'",
            "XA COMMIT '{t}x{b}'",
        ],
        3 + 2 + 4 + 2 + 1,
    )
}
