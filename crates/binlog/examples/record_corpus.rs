//! Records the binlogs that `src/assembly/damage.rs` damages: `cargo run -p crossfade-binlog --example record_corpus`.
//!
//! Run it again where the servers write other events than those of the corpus, or where there is a new kind to be read.

use std::path::Path;

use crossfade_servers::{Flavor, Server};
use mysql_async::prelude::Queryable;

/// One of each thing that a binlog can hold: every family of column types, transactions of all forms, and crossfade's own.
const BOTH: &[&str] = &[
    "CREATE DATABASE app",
    "CREATE TABLE app.t (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, i8 TINYINT, i64 BIGINT, d DECIMAL(20, 6), f FLOAT, \
     g DOUBLE, s VARCHAR(200), l VARCHAR(50) CHARACTER SET latin1, c CHAR(5), b VARBINARY(300), blo MEDIUMBLOB, j JSON, \
     e ENUM('a', 'b'), st SET('x', 'y', 'z'), bits BIT(17), dt DATETIME(6), ts TIMESTAMP(3) NULL, ti TIME(2), da DATE, \
     y YEAR, p POINT, v INT AS (i8 + 1), updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6))",
    "INSERT INTO app.t (i8, i64, d, f, g, s, l, c, b, blo, j, e, st, bits, dt, ts, ti, da, y, p) VALUES \
     (-1, -9223372036854775808, -12345678901234.123456, 1.5, -2.25, 'text é', 'é', 'ab', X'00FF', REPEAT('b', 400), \
     '{\"a\": [1, 2.5, \"x\", null, true], \"deep\": {\"er\": {\"est\": [[], {}]}}}', 'b', 'x,z', b'10000000000000001', \
     '2026-11-22 10:00:00.123456', '2026-11-22 10:00:00.123', '-100:59:59.25', '2026-11-22', 2026, ST_GeomFromText('POINT(1 2)')), \
     (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "UPDATE app.t SET s = CONCAT('changed ', COALESCE(s, '')), j = '[1]'",
    "BEGIN",
    "INSERT INTO app.t (s) VALUES ('one'), ('two'), ('three')",
    "SAVEPOINT a",
    "DELETE FROM app.t WHERE s = 'two'",
    "ROLLBACK TO SAVEPOINT a",
    "UPDATE app.t SET i8 = 7 WHERE s = 'three'",
    "COMMIT",
    "XA START 'x1'",
    "INSERT INTO app.t (s) VALUES ('prepared')",
    "XA END 'x1'",
    "XA PREPARE 'x1'",
    "XA COMMIT 'x1'",
    "ALTER TABLE app.t ADD added INT NULL",
    "INSERT INTO app.t (s, added) VALUES ('after', 1)",
    "CREATE TABLE app.other (id INT PRIMARY KEY)",
    "INSERT INTO app.other VALUES (1)",
    "BEGIN",
    "INSERT INTO crossfade.checkpoint VALUES ('pair', 'forward/old', 0, 7, 1, 7, 4, 9, 1, 1, NULL, UTC_TIMESTAMP(6))",
    "INSERT INTO app.t (s) VALUES ('echo')",
    "COMMIT",
    "INSERT INTO crossfade.heartbeat VALUES ('pair', 'forward/old', 3, UTC_TIMESTAMP(6))",
    "FLUSH BINARY LOGS",
];
const COMPRESSED: &[&str] = &[
    "BEGIN",
    "INSERT INTO app.t (s) VALUES (REPEAT('compressed ', 18))",
    "UPDATE app.t SET i8 = 3",
    "DELETE FROM app.t WHERE id = 1",
    "COMMIT",
];

#[tokio::main]
async fn main() {
    for (flavor, name) in [(Flavor::MySql, "mysql"), (Flavor::MariaDb, "mariadb")] {
        let server = Server::builder(flavor).relaxed().start().await.expect("a server");
        let mut conn = server.connect().await.expect("a connection");
        for script in ["001_tables.sql", "002_columns.sql"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sql/node").join(script);
            let script = std::fs::read_to_string(path).expect("the tables of a node");
            for statement in script.split(";\n").filter(|statement| !statement.trim().is_empty()) {
                // Columns that are there already are no concern here.
                let _ = conn.query_drop(statement).await;
            }
        }
        conn.query_drop("FLUSH BINARY LOGS").await.expect("a new file");
        let compress = match flavor {
            Flavor::MySql => "SET SESSION binlog_transaction_compression = ON",
            Flavor::MariaDb => "SET GLOBAL log_bin_compress = ON",
        };
        let statements = BOTH[..BOTH.len() - 1].iter().chain([&compress]).chain(COMPRESSED).chain(BOTH.last());
        for statement in statements {
            conn.query_drop(*statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(format!("{name}.binlog"));
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("the corpus");
        let bytes = std::fs::read(server.data_dir().join("binlog.000002")).expect("the second file");
        std::fs::write(&to, &bytes).expect("a file of the corpus");
        println!("{}: {} bytes of {}", to.display(), bytes.len(), server.version());
    }
}
