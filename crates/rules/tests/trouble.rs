//! P7: what servers say is sorted by numbers that bear the names which the servers themselves give them, and what can be
//! provoked on a server is of the class that the list says.

use std::collections::HashMap;
use std::process::Command;

use crossfade_rules::trouble::{Brand, Class, KNOWN, Trouble, answered, sort};
use crossfade_servers::{Flavor, Server, SharedPair};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

/// Every number that a brand's table names has that name there, and no number of the other brand alone means something
/// that is about a row or the connection here.
fn names_are(brand: Brand, names: &HashMap<u16, String>) {
    for known in KNOWN.iter().filter(|known| known.brand == Brand::Both || known.brand == brand) {
        let found = names.get(&known.code).map(String::as_str);
        assert_eq!(found, Some(known.name), "{brand:?} {}", known.code);
    }
}

#[tokio::test]
async fn p7_the_names_are_mysqls() {
    let server = Server::builder(Flavor::MySql).relaxed().option("performance_schema", "ON").start().await.unwrap();
    let mut conn = server.connect().await.unwrap();
    let rows: Vec<(u16, Option<String>)> = conn
        .query(
            "SELECT error_number, error_name FROM performance_schema.events_errors_summary_global_by_error \
             WHERE error_number BETWEEN 1000 AND 9999",
        )
        .await
        .unwrap();
    assert!(rows.len() > 1_000, "the server's list has only {} errors", rows.len());
    names_are(Brand::MySql, &rows.into_iter().filter_map(|(code, name)| Some((code, name?))).collect());
}

/// MariaDB gives names by its program `perror` only, which comes with the server.
#[test]
fn p7_the_names_are_mariadbs() {
    let codes = KNOWN.iter().map(|known| known.code.to_string());
    let output = Command::new("perror").args(codes).output().expect("perror comes with MariaDB's server");
    let text = String::from_utf8_lossy(&output.stdout);
    let names: HashMap<u16, String> = text.lines().filter_map(name_of).collect();
    assert!(names.len() > 50, "not MariaDB's perror: {text}");
    names_are(Brand::MariaDb, &names);
}

/// From `MariaDB error code 1062 (ER_DUP_ENTRY): …`.
fn name_of(line: &str) -> Option<(u16, String)> {
    let rest = line.strip_prefix("MariaDB error code ")?;
    let (code, rest) = rest.split_once(" (")?;
    Some((code.parse().ok()?, rest.split_once(')')?.0.to_owned()))
}

const TABLES: &[&str] = &[
    "CREATE TABLE parent (id INT PRIMARY KEY) ENGINE=InnoDB",
    "CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id)) ENGINE=InnoDB",
    "CREATE TABLE t (id INT PRIMARY KEY, u INT UNIQUE, s VARCHAR(3) CHARACTER SET latin1, n INT NOT NULL DEFAULT 0, \
     d DATE, e ENUM('a'), g POINT, j JSON, c INT CHECK (c < 10)) ENGINE=InnoDB",
    "CREATE TABLE must (id INT PRIMARY KEY, v INT NOT NULL) ENGINE=InnoDB",
    "CREATE TABLE parted (id INT PRIMARY KEY) ENGINE=InnoDB PARTITION BY RANGE (id) (PARTITION p VALUES LESS THAN (10))",
    "CREATE TABLE ruled (id INT PRIMARY KEY) ENGINE=InnoDB",
    "CREATE TRIGGER rule BEFORE INSERT ON ruled FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'",
    "CREATE TABLE judged (id INT PRIMARY KEY, n INT) ENGINE=InnoDB",
    "CREATE TRIGGER judge BEFORE INSERT ON judged FOR EACH ROW BEGIN
       DECLARE found INT;
       CASE NEW.id
         WHEN 1 THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 30001, MESSAGE_TEXT = 'no';
         WHEN 2 THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1205, MESSAGE_TEXT = 'no';
         WHEN 3 THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1146, MESSAGE_TEXT = 'no';
         WHEN 4 THEN SELECT id INTO found FROM t;
         WHEN 5 THEN SET NEW.n = (SELECT id FROM t);
       END CASE;
     END",
    "CREATE TABLE made (id INT PRIMARY KEY, s VARCHAR(20), g GEOMETRY AS (ST_GeomFromGeoJSON(s)) STORED) ENGINE=InnoDB",
    "CREATE TABLE found (id INT PRIMARY KEY, path VARCHAR(20), v JSON AS (JSON_EXTRACT('{}', path)) STORED) ENGINE=InnoDB",
    "INSERT INTO parent VALUES (1)",
    "INSERT INTO child VALUES (1, 1)",
    "INSERT INTO t (id, u) VALUES (1, 1), (9, 9)",
];

/// What only MySQL has: vectors, and indexes over the elements of an array.
const PROVOKED_ON_MYSQL: &[(&str, Class)] = &[
    ("INSERT INTO near (id, v) VALUES (1, X'00')", Class::Value),
    ("INSERT INTO near (id, v) VALUES (1, X'0000c07f0000c07f')", Class::Value),
    ("INSERT INTO tagged (id, tags) VALUES (1, '{\"a\": 1}')", Class::Value),
];

const PROVOKED: &[(&str, Class)] = &[
    ("INSERT INTO t (id) VALUES (1)", Class::OtherRows),
    ("INSERT INTO t (id, u) VALUES (2, 1)", Class::OtherRows),
    ("INSERT INTO child VALUES (2, 7)", Class::OtherRows),
    ("DELETE FROM parent", Class::OtherRows),
    ("INSERT INTO t (id, s) VALUES (3, 'four')", Class::Value),
    ("INSERT INTO t (id, s) VALUES (3, '\u{1F600}')", Class::Value),
    ("INSERT INTO t (id, n) VALUES (3, NULL)", Class::Value),
    ("INSERT INTO t (id, n) VALUES (3, 99999999999)", Class::Value),
    ("INSERT INTO t (id, n) VALUES (3, 'x')", Class::Value),
    ("INSERT INTO t (id, d) VALUES (3, '2001-13-01')", Class::Value),
    ("INSERT INTO t (id, e) VALUES (3, 'b')", Class::Value),
    ("INSERT INTO t (id, g) VALUES (3, X'00')", Class::Value),
    ("INSERT INTO t (id, j) VALUES (3, '{')", Class::Value),
    ("INSERT INTO t (id, c) VALUES (3, 10)", Class::Value),
    ("INSERT INTO must (id) VALUES (1)", Class::Value),
    ("INSERT INTO parted VALUES (10)", Class::Value),
    ("INSERT INTO ruled VALUES (1)", Class::Value),
    // Under whatever number, in no case of its own, or because it finds more than it expects: a trigger refuses a row.
    ("INSERT INTO judged (id) VALUES (1)", Class::Value),
    ("INSERT INTO judged (id) VALUES (2)", Class::Value),
    ("INSERT INTO judged (id) VALUES (3)", Class::Value),
    ("INSERT INTO judged (id) VALUES (4)", Class::Value),
    ("INSERT INTO judged (id) VALUES (5)", Class::Value),
    ("INSERT INTO judged (id) VALUES (6)", Class::Value),
    // What a column of the target is computed from.
    ("INSERT INTO made (id, s) VALUES (1, '{\"type\": \"Spot\"}')", Class::Value),
    ("INSERT INTO found (id, path) VALUES (1, 'a')", Class::Value),
    ("INSERT INTO t (id, s) VALUES (3, _utf8mb4 X'ff')", Class::Value),
    ("INSERT INTO gone VALUES (1)", Class::Missing),
    ("INSERT INTO t (id, gone) VALUES (3, 1)", Class::Missing),
    ("INSERT INTO nowhere.t VALUES (1)", Class::Missing),
    ("INSERT INTO t (id) SELECT SLEEP(10) + 3", Class::Outage),
    ("SELECT nonsense(", Class::Unknown),
];

fn class_of(error: &Error) -> Class {
    match error {
        Error::Server(server) => sort(answered(server.code, &server.state)),
        other => panic!("not a server's error: {other}"),
    }
}

async fn fails(conn: &mut Conn, sql: &str) -> Error {
    conn.query_drop(sql).await.expect_err(sql)
}

async fn provoked_errors_are_sorted(flavor: Flavor) {
    let pair = SharedPair::get(flavor).await;
    let schema = pair.create_schema("trouble").await.unwrap();
    let mut conn = pair.new().connect().await.unwrap();
    conn.query_drop(format!("USE `{schema}`")).await.unwrap();
    conn.query_drop("SET SESSION sql_mode = 'STRICT_ALL_TABLES', innodb_lock_wait_timeout = 1").await.unwrap();
    // The one statement that takes long is ended by its session's own limit.
    let limit = match flavor {
        Flavor::MySql => "SET SESSION max_execution_time = 200",
        Flavor::MariaDb => "SET SESSION max_statement_time = 0.2",
    };
    for table in TABLES {
        conn.query_drop(*table).await.unwrap();
    }
    let mut provoked = PROVOKED.to_vec();
    if flavor == Flavor::MySql {
        conn.query_drop("CREATE TABLE near (id INT PRIMARY KEY, v VECTOR(2))").await.unwrap();
        let tagged = "CREATE TABLE tagged (id INT PRIMARY KEY, tags JSON, KEY ((CAST(tags AS UNSIGNED ARRAY))))";
        conn.query_drop(tagged).await.unwrap();
        provoked.extend(PROVOKED_ON_MYSQL);
    }
    for (sql, class) in &provoked {
        if *class == Class::Outage {
            if flavor == Flavor::MySql {
                // MySQL limits SELECT alone.
                conn.query_drop(limit).await.unwrap();
                assert_eq!(class_of(&fails(&mut conn, "SELECT COUNT(*) FROM information_schema.columns a, information_schema.columns b, information_schema.columns c").await), *class);
                continue;
            }
            conn.query_drop(limit).await.unwrap();
        }
        let error = fails(&mut conn, sql).await;
        assert_eq!(class_of(&error), *class, "{flavor:?} {sql}: {error}");
    }
    conn.query_drop(limit.split_once('=').unwrap().0.to_owned() + "= DEFAULT").await.unwrap();
    locks_and_sessions(flavor, &mut conn, pair, &schema).await;
    what_an_account_may_not(&mut conn, pair, &schema).await;
}

async fn locks_and_sessions(flavor: Flavor, conn: &mut Conn, pair: &SharedPair, schema: &str) {
    let mut other = pair.new().connect().await.unwrap();
    other.query_drop(format!("USE `{schema}`")).await.unwrap();
    other.query_drop("BEGIN").await.unwrap();
    other.query_drop("UPDATE t SET n = 1 WHERE id = 1").await.unwrap();
    let error = fails(conn, "UPDATE t SET n = 2 WHERE id = 1").await;
    assert_eq!(class_of(&error), Class::Collision, "{error}");
    // Both wait for each other.
    conn.query_drop("SET SESSION innodb_lock_wait_timeout = 20").await.unwrap();
    conn.query_drop("BEGIN").await.unwrap();
    conn.query_drop("UPDATE parent SET id = 1 WHERE id = 1").await.unwrap();
    conn.query_drop("SELECT * FROM parent WHERE id = 1 FOR UPDATE").await.unwrap();
    let (ours, others) = tokio::join!(
        conn.query_drop("UPDATE t SET n = 2 WHERE id = 1"),
        other.query_drop("SELECT * FROM parent WHERE id = 1 FOR UPDATE")
    );
    let error = ours.err().or(others.err()).expect("a deadlock");
    assert_eq!(class_of(&error), Class::Collision, "{error}");
    conn.query_drop("ROLLBACK").await.unwrap();
    other.query_drop("ROLLBACK").await.unwrap();
    conn.query_drop("START TRANSACTION READ ONLY").await.unwrap();
    let error = fails(conn, "UPDATE t SET n = 2 WHERE id = 1").await;
    assert_eq!(class_of(&error), Class::Outage, "{error}");
    conn.query_drop("ROLLBACK").await.unwrap();
    // A session that is killed hears of it at its next statement, by a word of the server or by nothing.
    let id = other.id();
    conn.query_drop(format!("KILL {id}")).await.unwrap();
    let class = match other.query_drop("SELECT 1").await.expect_err("the session is killed") {
        Error::Server(server) => sort(Trouble::Server(server.code)),
        _ => sort(Trouble::Connection),
    };
    assert!(class.remedy().passes(), "{flavor:?} {class:?}");
}

async fn what_an_account_may_not(conn: &mut Conn, pair: &SharedPair, schema: &str) {
    let user = format!("u_{}", &schema[schema.len().saturating_sub(12)..]);
    conn.query_drop(format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'Secret-1'")).await.unwrap();
    conn.query_drop(format!("GRANT SELECT ON `{schema}`.parent TO '{user}'@'%'")).await.unwrap();
    let options = |password: &str| {
        mysql_async::OptsBuilder::from_opts(mysql_async::Opts::from_url(&pair.new().root_url()).unwrap())
            .user(Some(user.clone()))
            .pass(Some(password.to_owned()))
            .prefer_socket(false)
    };
    let error = Conn::new(options("wrong")).await.expect_err("the password is wrong");
    assert_eq!(class_of(&error), Class::Login, "{error}");
    let mut limited = Conn::new(options("Secret-1")).await.unwrap();
    for sql in [
        format!("INSERT INTO `{schema}`.parent VALUES (9)"),
        format!("SELECT * FROM `{schema}`.t"),
        "SET GLOBAL max_connections = 500".to_owned(),
        "USE mysql".to_owned(),
    ] {
        let error = fails(&mut limited, &sql).await;
        assert_eq!(class_of(&error), Class::Denied, "{sql}: {error}");
    }
    conn.query_drop(format!("DROP USER '{user}'@'%'")).await.unwrap();
}

#[tokio::test]
async fn p7_provoked_errors_are_sorted_on_mysql() {
    provoked_errors_are_sorted(Flavor::MySql).await;
}

#[tokio::test]
async fn p7_provoked_errors_are_sorted_on_mariadb() {
    provoked_errors_are_sorted(Flavor::MariaDb).await;
}
