//! A value of each type, and what it is damaged to.

use crossfade_servers::Flavor;

/// A column, as each side defines it, with SQL expressions of its values.
pub struct Case {
    pub old: String,
    pub new: String,
    pub value: String,
    /// The same value, as it has crossed to the new side.
    pub crossed: String,
    pub damaged: String,
}

fn same(definition: &str, value: &str, damaged: &str) -> Case {
    mapped(definition, definition, [value, value], damaged)
}

fn mapped(old: &str, new: &str, [value, crossed]: [&str; 2], damaged: &str) -> Case {
    let [old, new, value, crossed, damaged] = [old, new, value, crossed, damaged].map(str::to_owned);
    Case { old, new, value, crossed, damaged }
}

/// Types that both sides define alike.
pub fn alike(flavor: Flavor) -> Vec<Case> {
    let mut cases = vec![
        same("TINYINT", "-1", "1"),
        same("INT(9) ZEROFILL", "42", "420"),
        same("DECIMAL(9,2) ZEROFILL", "'4.20'", "'42.00'"),
        same("VARCHAR(40) NOT NULL", "','", "'1,'"),
        same("INT", "NULL", "0"),
        same("BIGINT UNSIGNED", "18446744073709551615", "18446744073709551614"),
        same("DECIMAL(65,30)", "'1.000000000000000000000000000001'", "'1.000000000000000000000000000002'"),
        same("FLOAT", "16777216", "16777218"),
        same("FLOAT", "0.1", "0.10000001"),
        same("DOUBLE", "-1.7976931348623157e308", "-1.7976931348623155e308"),
        same("DOUBLE", "2.2250738585072014e-308", "2.225073858507202e-308"),
        same("DOUBLE", "5e-324", "1e-323"),
        same("DOUBLE", "0.1", "0.10000000000000002"),
        same("CHAR(10)", "'a'", "'A'"),
        same("VARCHAR(40) CHARACTER SET utf8mb4", "'é'", "'e'"),
        same("VARCHAR(40)", "''", "NULL"),
        same("VARCHAR(40)", "'N'", "NULL"),
        same("VARCHAR(40)", "'a'", "'a '"),
        same("VARCHAR(4000)", "'0'", "'00'"),
        same("TEXT", "''", "NULL"),
        same("MEDIUMTEXT", "REPEAT('x', 70000)", "CONCAT(REPEAT('x', 69999), 'y')"),
        same("VARCHAR(40) CHARACTER SET latin1", "x'81'", "x'8d'"),
        same("VARCHAR(40) CHARACTER SET gbk", "'汉'", "'字'"),
        same("VARCHAR(40) CHARACTER SET sjis", "'漢'", "'字'"),
        same("TEXT CHARACTER SET utf16", "'\u{1f600}'", "'\u{1f601}'"),
        same("BINARY(4)", "x'01'", "x'0101'"),
        same("VARBINARY(20)", "x'00'", "''"),
        same("VARBINARY(20)", "'a'", "x'6100'"),
        same("BLOB", "x'00ff'", "x'00fe'"),
        same("LONGBLOB", "REPEAT(x'ab', 1000000)", "CONCAT(REPEAT(x'ab', 999999), x'ac')"),
        same("BIT(64)", "18446744073709551615", "18446744073709551614"),
        same("BIT(9)", "0", "256"),
        same("DATE", "'2001-00-00'", "'2001-02-00'"),
        same("DATE", "'0000-00-00'", "NULL"),
        same("TIME(6)", "'-00:00:00.000001'", "'00:00:00.000001'"),
        same("TIME", "'838:59:59'", "'838:59:58'"),
        same("DATETIME(6)", "'2026-01-02 03:04:05.000001'", "'2026-01-02 03:04:05.000002'"),
        same("TIMESTAMP(6) NULL", "'2026-03-29 02:30:00.5'", "'2026-03-29 01:30:00.5'"),
        same("TIMESTAMP NULL", "'0000-00-00 00:00:00'", "NULL"),
        same("YEAR", "2000", "'0000'"),
        same("ENUM('a','b')", "'a'", "'b'"),
        same("ENUM('a','b')", "0", "NULL"),
        same("SET('a','b','c')", "'a,b'", "'b'"),
        same("SET('a','b')", "''", "NULL"),
        same("GEOMETRY", "ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('POINT(1 2.0000001)')"),
        same("GEOMETRY", "ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('POINT(1 2)', 4326)"),
    ];
    cases.extend(match flavor {
        Flavor::MySql => vec![
            same("JSON", "'{\"a\": 1}'", "'{\"a\": 2}'"),
            same("JSON", "'null'", "NULL"),
            same("JSON", "'[1]'", "'[\"1\"]'"),
            same("VARCHAR(20) INVISIBLE", "'a'", "'b'"),
            same("VECTOR(3)", "TO_VECTOR('[1,2.5,3]')", "TO_VECTOR('[1,2.5,3.0000002]')"),
        ],
        Flavor::MariaDb => vec![
            same("JSON", "'{\"a\":1}'", "'{\"a\": 1}'"),
            same("INET4", "'1.2.3.0'", "'1.2.0.3'"),
            same("INET6", "'::1.2.3.4'", "'::ffff:1.2.3.4'"),
            same("UUID", "'00112233-4455-1677-8899-aabbccddeeff'", "'00112233-4455-1677-8899-aabbccddeefe'"),
            same("VARCHAR(9000) COMPRESSED", "REPEAT('long and longer ', 100)", "REPEAT('long and longer', 100)"),
        ],
    });
    cases
}

/// Columns that hold equal values in different forms.
pub fn in_two_forms() -> Vec<Case> {
    vec![
        mapped(
            "VARCHAR(40) CHARACTER SET latin1",
            "VARCHAR(40) CHARACTER SET utf8mb4",
            ["'grün déjà'", "'grün déjà'"],
            "'grun déjà'",
        ),
        mapped("VARCHAR(40) CHARACTER SET gbk", "VARCHAR(40) CHARACTER SET utf8mb4", ["'汉字'", "'汉字'"], "'汉'"),
        mapped(
            "VARCHAR(40) CHARACTER SET utf16",
            "TEXT CHARACTER SET utf8mb4",
            ["'\u{1f600}'", "'\u{1f600}'"],
            "'\u{1f601}'",
        ),
        mapped("VARCHAR(40) CHARACTER SET latin1", "LONGTEXT CHARACTER SET utf8mb4", ["'grün'", "'grün'"], "'grun'"),
        mapped("TINYTEXT CHARACTER SET latin2", "VARCHAR(255) CHARACTER SET utf16", ["'łąka'", "'łąka'"], "'ląka'"),
        mapped("VARCHAR(40) NOT NULL", "VARCHAR(40) NULL", ["''", "''"], "NULL"),
        mapped("INT UNSIGNED NOT NULL", "INT(9) ZEROFILL NULL", ["0", "0"], "NULL"),
        mapped("INT(9) ZEROFILL", "BIGINT", ["7", "7"], "70"),
        mapped("DECIMAL(10,2) ZEROFILL", "DECIMAL(30,2)", ["'0.50'", "'0.50'"], "'0.51'"),
        mapped("CHAR(40)", "VARCHAR(40)", ["'a  '", "'a'"], "'b'"),
        mapped("INT", "BIGINT", ["-7", "-7"], "7"),
        mapped("INT UNSIGNED ZEROFILL", "DECIMAL(20,5)", ["7", "7"], "'7.00001'"),
        mapped("DECIMAL(10,2)", "DECIMAL(30,10)", ["'-0.50'", "'-0.50'"], "'-0.5000000001'"),
        mapped("FLOAT", "DOUBLE", ["1.1", "1.100000023841858"], "1.1"),
        mapped("DATE", "DATETIME(3)", ["'2026-01-02'", "'2026-01-02'"], "'2026-01-02 00:00:00.001'"),
        mapped(
            "DATETIME",
            "DATETIME(6)",
            ["'2001-00-00 00:00:00'", "'2001-00-00 00:00:00'"],
            "'2001-00-00 00:00:00.000001'",
        ),
        mapped(
            "TIMESTAMP(1) NULL",
            "DATETIME(6)",
            ["'2026-03-29 02:30:00.5'", "'2026-03-29 02:30:00.5'"],
            "'2026-03-29 02:30:00.500001'",
        ),
        mapped("TIME(2)", "TIME(5)", ["'-10:00:00.25'", "'-10:00:00.25'"], "'-10:00:00.25001'"),
        mapped("YEAR", "INT", ["2026", "2026"], "2027"),
        mapped("ENUM('a','b','c')", "ENUM('c','b','a','d')", ["'a'", "'a'"], "'c'"),
        mapped("ENUM('a','b')", "VARCHAR(20)", ["'b'", "'b'"], "'B'"),
        mapped("SET('x','y','z')", "SET('z','w','y','x')", ["'x,z'", "'x,z'"], "'x,w'"),
        mapped("BINARY(3)", "VARBINARY(9)", ["x'01'", "x'010000'"], "x'01'"),
        mapped("BIT(3)", "BIT(60)", ["5", "5"], "13"),
        mapped("VARCHAR(20)", "LONGTEXT", ["''", "''"], "NULL"),
    ]
}
