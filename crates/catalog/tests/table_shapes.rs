//! Definitions as both servers declare them, read and compared with what the statements say.

use crossfade_catalog::{Purpose, connect, table_shape, table_shapes};
use crossfade_config::{ServerUrl, TablePattern};
use crossfade_model::{ColumnKind, ReferentialAction, TableName, TableShape};
use crossfade_servers::{Flavor, SharedPair};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

async fn fresh_schema(flavor: Flavor, name: &str) -> (Conn, String) {
    let pair = SharedPair::get(flavor).await;
    let schema = pair.create_schema(name).await.unwrap();
    let url = ServerUrl::parse(&pair.old().root_url()).unwrap();
    let mut conn = connect(&url, Purpose::Catalog).await.unwrap();
    conn.query_drop(format!("USE `{schema}`")).await.unwrap();
    (conn, schema)
}

async fn shape_of(conn: &mut Conn, schema: &str, table: &str) -> TableShape {
    table_shape(conn, &TableName::new(schema, table)).await.unwrap().expect("the table exists")
}

fn names(shape: &TableShape, columns: &[usize]) -> Vec<String> {
    columns.iter().map(|&column| shape.columns[column].name.clone()).collect()
}

fn text(charset: &str) -> ColumnKind {
    ColumnKind::Text { charset: charset.to_owned() }
}

/// Types that both servers have, with what they must be read as.
fn common_types() -> Vec<(&'static str, ColumnKind)> {
    use ColumnKind::*;
    vec![
        ("TINYINT", Integer { bytes: 1, unsigned: false }),
        ("BOOL", Integer { bytes: 1, unsigned: false }),
        ("SMALLINT UNSIGNED", Integer { bytes: 2, unsigned: true }),
        ("MEDIUMINT(5) ZEROFILL", Integer { bytes: 3, unsigned: true }),
        ("INT", Integer { bytes: 4, unsigned: false }),
        ("BIGINT UNSIGNED", Integer { bytes: 8, unsigned: true }),
        ("FLOAT", Float),
        ("FLOAT(7,4)", Float),
        ("DOUBLE UNSIGNED", Double),
        ("DECIMAL", Decimal { precision: 10, scale: 0 }),
        ("DECIMAL(65,30)", Decimal { precision: 65, scale: 30 }),
        ("BIT(13)", Bit { bits: 13 }),
        ("DATE", Date),
        ("TIME(3)", Time { fraction_digits: 3 }),
        ("DATETIME", Datetime { fraction_digits: 0 }),
        ("DATETIME(6)", Datetime { fraction_digits: 6 }),
        ("TIMESTAMP(4) NULL", Timestamp { fraction_digits: 4 }),
        ("YEAR", Year),
        ("CHAR(10) CHARACTER SET latin1", text("latin1")),
        ("VARCHAR(190)", text("utf8mb4")),
        ("TINYTEXT CHARACTER SET gbk", text("gbk")),
        ("LONGTEXT CHARACTER SET utf16", text("utf16")),
        ("VARCHAR(10) CHARACTER SET binary", Bytes { fixed_len: 0 }),
        ("BINARY(16)", Bytes { fixed_len: 16 }),
        ("BINARY", Bytes { fixed_len: 1 }),
        ("VARBINARY(20)", Bytes { fixed_len: 0 }),
        ("MEDIUMBLOB", Bytes { fixed_len: 0 }),
        ("GEOMETRY", Geometry),
        ("POINT", Geometry),
        ("MULTIPOLYGON", Geometry),
        ("GEOMETRYCOLLECTION", Geometry),
    ]
}

fn types_of(flavor: Flavor) -> Vec<(&'static str, ColumnKind)> {
    let mut types = common_types();
    types.extend(match flavor {
        Flavor::MySql => vec![
            ("JSON", ColumnKind::Json),
            ("VECTOR(3)", ColumnKind::Vector),
            ("VARCHAR(5) CHARACTER SET utf8mb3", text("utf8mb3")),
        ],
        Flavor::MariaDb => vec![
            ("JSON", text("utf8mb4")),
            ("INET6", ColumnKind::Inet6),
            ("INET4", ColumnKind::Inet4),
            ("UUID", ColumnKind::Uuid),
            ("TEXT COMPRESSED", text("utf8mb4")),
            ("VARCHAR(5) CHARACTER SET utf8mb3", text("utf8mb3")),
        ],
    });
    types
}

async fn every_type_is_read(flavor: Flavor) {
    let (mut conn, schema) = fresh_schema(flavor, "types").await;
    let types = types_of(flavor);
    let columns: Vec<String> = types.iter().enumerate().map(|(n, (sql, _))| format!("c{n} {sql}")).collect();
    conn.query_drop(format!("CREATE TABLE everything ({})", columns.join(", "))).await.unwrap();
    let shape = shape_of(&mut conn, &schema, "everything").await;
    assert_eq!(shape.columns.len(), types.len());
    for (column, (sql, kind)) in shape.columns.iter().zip(&types) {
        assert_eq!(column.kind, *kind, "{flavor}: {sql} is declared as {}", column.declared);
    }
    assert_eq!(shape.engine, "InnoDB");
    assert_eq!(shape.row_key(), None);
}

#[tokio::test]
async fn every_type_is_read_on_mysql() {
    every_type_is_read(Flavor::MySql).await;
}

#[tokio::test]
async fn every_type_is_read_on_mariadb() {
    every_type_is_read(Flavor::MariaDb).await;
}

/// The server itself says what label stands at which place.
async fn labels_are_those_that_the_server_stores(flavor: Flavor) {
    let (mut conn, schema) = fresh_schema(flavor, "labels").await;
    conn.query_drop(
        r#"CREATE TABLE labelled (
             e ENUM('plain', 'it''s', 'a,b', 'c)d', 'back\\slash', 'line\nend', 'return\rend', 'tab\tend', '"quoted"',
                    'ünïcode', '日本', '', ' leading', '%_', '`', '\\''', '\\n') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
             s SET('it''s', 'back\\slash', 'ünïcode', 'x(y)') CHARACTER SET utf8mb4,
             l ENUM('é', 'à''') CHARACTER SET latin1)"#,
    )
    .await
    .unwrap();
    let shape = shape_of(&mut conn, &schema, "labelled").await;
    let (ColumnKind::Enum { labels: e }, ColumnKind::Set { labels: s }, ColumnKind::Enum { labels: l }) =
        (&shape.columns[0].kind, &shape.columns[1].kind, &shape.columns[2].kind)
    else {
        panic!("{shape:?}")
    };
    assert_eq!((e.len(), s.len(), l.len()), (17, 4, 2), "{flavor}: {e:?} {s:?} {l:?}");
    let stored = async |conn: &mut Conn, column: &str, value: u64| -> String {
        conn.query_drop("DELETE FROM labelled").await.unwrap();
        conn.query_drop(format!("INSERT INTO labelled ({column}) VALUES ({value})")).await.unwrap();
        conn.query_first(format!("SELECT {column} FROM labelled")).await.unwrap().unwrap()
    };
    for (column, labels, is_set) in [("e", e, false), ("s", s, true), ("l", l, false)] {
        for (index, label) in labels.iter().enumerate() {
            let value = if is_set { 1 << index } else { index as u64 + 1 };
            assert_eq!(*label, stored(&mut conn, column, value).await, "{flavor}: {column} {value}");
        }
    }
}

#[tokio::test]
async fn labels_are_those_that_mysql_stores() {
    labels_are_those_that_the_server_stores(Flavor::MySql).await;
}

#[tokio::test]
async fn labels_are_those_that_mariadb_stores() {
    labels_are_those_that_the_server_stores(Flavor::MariaDb).await;
}

async fn properties_and_keys_are_read(flavor: Flavor) {
    let (mut conn, schema) = fresh_schema(flavor, "keys").await;
    conn.query_drop("CREATE TABLE parent (a INT NOT NULL, b VARCHAR(9) NOT NULL, PRIMARY KEY (b, a))").await.unwrap();
    conn.query_drop(
        "CREATE TABLE child (
           id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
           `a` INT, b VARCHAR(9), self BIGINT UNSIGNED,
           plain VARCHAR(9), with_default VARCHAR(9) DEFAULT 'x', required INT NOT NULL,
           `computed` INT AS (required + 1) VIRTUAL, stored_one INT AS (required + 2) STORED,
           hidden INT NOT NULL DEFAULT 1 INVISIBLE,
           changed TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
           created DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
           UNIQUE KEY by_required (required), UNIQUE KEY by_nullable (a, required), UNIQUE KEY by_prefix (plain(3)),
           KEY not_unique (created),
           CONSTRAINT to_parent FOREIGN KEY (b, a) REFERENCES parent (b, a) ON DELETE CASCADE,
           CONSTRAINT to_self FOREIGN KEY (self) REFERENCES child (id) ON DELETE SET NULL ON UPDATE NO ACTION)",
    )
    .await
    .unwrap();
    let shape = shape_of(&mut conn, &schema, "child").await;
    let with = |test: fn(&crossfade_model::Column) -> bool| -> Vec<&str> {
        shape.columns.iter().filter(|column| test(column)).map(|column| column.name.as_str()).collect()
    };
    assert_eq!(with(|c| c.generated), ["computed", "stored_one"]);
    assert_eq!(with(|c| c.invisible), ["hidden"]);
    assert_eq!(with(|c| c.auto_increment), ["id"]);
    assert_eq!(with(|c| c.on_update_now), ["changed"]);
    assert_eq!(with(|c| c.has_default), ["with_default", "hidden", "changed", "created"]);
    assert_eq!(with(|c| !c.nullable), ["id", "required", "hidden", "changed", "created"]);
    assert_eq!(names(&shape, &shape.primary_key), ["id"]);

    let keys: Vec<(&str, Vec<String>, bool, bool)> = shape
        .unique_keys
        .iter()
        .map(|key| (key.name.as_str(), names(&shape, &key.columns), key.nullable, key.partial))
        .collect();
    let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(
        keys,
        [
            ("by_nullable", list(&["a", "required"]), true, false),
            ("by_prefix", list(&["plain"]), true, true),
            ("by_required", list(&["required"]), false, false),
        ]
    );
    let [to_parent, to_self] = shape.foreign_keys.as_slice() else { panic!("{:?}", shape.foreign_keys) };
    assert_eq!(names(&shape, &to_parent.columns), ["b", "a"]);
    assert_eq!(to_parent.parent, TableName::new(schema.as_str(), "parent"));
    assert_eq!(to_parent.parent_columns, ["b", "a"]);
    assert_eq!(to_parent.on_delete, ReferentialAction::Cascade);
    assert_eq!(to_parent.on_update, ReferentialAction::Restrict);
    assert_eq!((to_self.on_delete, to_self.on_update), (ReferentialAction::SetNull, ReferentialAction::Restrict));
    let parent = shape_of(&mut conn, &schema, "parent").await;
    assert_eq!(names(&parent, &parent.primary_key), ["b", "a"]);
}

#[tokio::test]
async fn properties_and_keys_are_read_on_mysql() {
    properties_and_keys_are_read(Flavor::MySql).await;
}

#[tokio::test]
async fn properties_and_keys_are_read_on_mariadb() {
    properties_and_keys_are_read(Flavor::MariaDb).await;
}

#[tokio::test]
async fn a_key_over_an_expression_identifies_no_row() {
    let (mut conn, schema) = fresh_schema(Flavor::MySql, "expression").await;
    conn.query_drop("CREATE TABLE t (a INT NOT NULL, b VARCHAR(9) NOT NULL, UNIQUE KEY k (a, (LOWER(b))))")
        .await
        .unwrap();
    let shape = shape_of(&mut conn, &schema, "t").await;
    let [key] = shape.unique_keys.as_slice() else { panic!("{shape:?}") };
    assert!(key.partial && key.nullable && key.columns.is_empty(), "{key:?}");
    assert_eq!(shape.row_key(), None);
}

async fn a_prefix_as_primary_key_identifies_no_row(flavor: Flavor) {
    let (mut conn, schema) = fresh_schema(flavor, "prefix").await;
    conn.query_drop("CREATE TABLE t (a VARCHAR(99) NOT NULL, PRIMARY KEY (a(5)))").await.unwrap();
    let shape = shape_of(&mut conn, &schema, "t").await;
    assert_eq!(shape.row_key(), None, "{flavor}");
    assert_eq!((shape.unique_keys[0].name.as_str(), shape.unique_keys[0].partial), ("PRIMARY", true));
}

#[tokio::test]
async fn a_prefix_as_primary_key_identifies_no_row_on_either_server() {
    a_prefix_as_primary_key_identifies_no_row(Flavor::MySql).await;
    a_prefix_as_primary_key_identifies_no_row(Flavor::MariaDb).await;
}

async fn odd_names_are_taken_as_they_are(flavor: Flavor) {
    let (mut conn, schema) = fresh_schema(flavor, "odd").await;
    let odd = ["back`quote", "quo'te", "dot.ted", "a space", "UPPER", "select", "kom,ma", "ünïcode", "per%cent", "a*b"];
    for name in odd {
        let quoted = crossfade_model::quote_identifier(name);
        conn.query_drop(format!("CREATE TABLE {quoted} ({quoted} INT PRIMARY KEY)")).await.unwrap();
    }
    conn.query_drop("CREATE VIEW a_view AS SELECT 1 AS one").await.unwrap();
    for name in odd {
        let shape = shape_of(&mut conn, &schema, name).await;
        assert_eq!((&*shape.name.table, shape.columns[0].name.as_str(), shape.columns.len()), (name, name, 1));
        assert_eq!(shape.primary_key, [0]);
    }
    let all = table_shapes(&mut conn, &[TablePattern::parse(&format!("{schema}.*")).unwrap()]).await.unwrap();
    assert_eq!(all.len(), odd.len(), "{flavor}: the view is left out");
    let some = table_shapes(&mut conn, &[TablePattern::parse(&format!("{schema}.*o*e")).unwrap()]).await.unwrap();
    let some: Vec<&str> = some.iter().map(|shape| &*shape.name.table).collect();
    assert_eq!(some, ["back`quote", "quo'te", "ünïcode"]);
    let absent = table_shape(&mut conn, &TableName::new(schema.as_str(), "upper")).await.unwrap();
    assert_eq!(absent, None, "names are compared as they are spelled");
}

#[tokio::test]
async fn odd_names_are_taken_as_they_are_on_mysql() {
    odd_names_are_taken_as_they_are(Flavor::MySql).await;
}

#[tokio::test]
async fn odd_names_are_taken_as_they_are_on_mariadb() {
    odd_names_are_taken_as_they_are(Flavor::MariaDb).await;
}

/// Foreign keys must be seen whole by an account that has privileges on single tables only.
#[tokio::test]
async fn foreign_keys_are_read_without_privileges_on_the_schema() {
    for flavor in Flavor::ALL {
        let (mut root, schema) = fresh_schema(flavor, "grants").await;
        for statement in [
            "CREATE TABLE parent (id INT PRIMARY KEY)",
            "CREATE TABLE child (id INT PRIMARY KEY, p INT, q INT,
               CONSTRAINT one FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE SET NULL,
               CONSTRAINT two FOREIGN KEY (q) REFERENCES parent (id))",
            "CREATE USER narrow IDENTIFIED BY 'x'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON child TO narrow",
        ] {
            root.query_drop(statement).await.unwrap();
        }
        let of_root = shape_of(&mut root, &schema, "child").await;
        let url = ServerUrl::parse(&SharedPair::get(flavor).await.old().url("narrow", "x")).unwrap();
        let mut narrow = connect(&url, Purpose::Catalog).await.unwrap();
        let of_narrow = shape_of(&mut narrow, &schema, "child").await;
        assert_eq!(of_narrow.foreign_keys.len(), 2);
        assert_eq!(of_narrow, of_root, "{flavor}");
        assert_eq!(of_narrow.foreign_keys[0].on_delete, ReferentialAction::Cascade);
    }
}
