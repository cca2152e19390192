//! What is written: a table per column type, with the values that are known to go wrong.

use crossfade_model::ColumnKind;
use crossfade_servers::Flavor;

/// How the server's answer and the decoded value are brought to one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// `CAST(c AS CHAR)`.
    Printed,
    /// Temporal text with so many fraction digits.
    Temporal(usize),
    /// Microseconds since the epoch.
    Epoch,
    /// `HEX(c)`.
    Hex,
    /// Raw bytes, Unicode, and whether one leads back to the other.
    Text,
    /// Unicode of a label.
    Label,
    Number,
    /// Bits over the binary protocol.
    Float,
    Json,
}

pub struct Case {
    /// The line of the printed matrix that counts this case.
    pub group: String,
    pub sql_type: String,
    /// SQL expressions; NULL is added to all.
    pub values: Vec<String>,
    pub judge: Judge,
    /// What the definition says of columns whose type no event tells.
    pub tracked: Option<ColumnKind>,
}

fn case(group: &str, sql_type: impl Into<String>, judge: Judge, values: &[&str]) -> Case {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Case { group: group.to_owned(), sql_type: sql_type.into(), values, judge, tracked: None }
}

/// Every case that does not depend on a character set.
pub fn plain(flavor: Flavor) -> Vec<Case> {
    let mut cases = integers();
    cases.extend(reals());
    cases.extend(bits_and_years());
    cases.extend(temporals(flavor));
    cases.extend(binaries());
    cases.extend(labels());
    cases.extend(geometries());
    cases.extend(match flavor {
        Flavor::MySql => mysql_only(),
        Flavor::MariaDb => mariadb_only(),
    });
    cases
}

fn integers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, bits) in [("TINYINT", 8), ("SMALLINT", 16), ("MEDIUMINT", 24), ("INT", 32), ("BIGINT", 64)] {
        let (low, high) = (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1);
        let signed: Vec<String> = [low, low + 1, -1, 0, 1, high - 1, high].iter().map(i128::to_string).collect();
        let top = (1_i128 << bits) - 1;
        let unsigned: Vec<String> = [0, 1, high, high + 1, top - 1, top].iter().map(i128::to_string).collect();
        let group = name.to_owned();
        cases.push(Case {
            group: group.clone(),
            sql_type: name.to_owned(),
            values: signed,
            judge: Judge::Printed,
            tracked: None,
        });
        cases.push(Case {
            group: group + " UNSIGNED",
            sql_type: format!("{name} UNSIGNED"),
            values: unsigned,
            judge: Judge::Printed,
            tracked: None,
        });
    }
    cases
}

fn reals() -> Vec<Case> {
    let mut cases = vec![
        case(
            "FLOAT",
            "FLOAT",
            Judge::Float,
            &["0", "-0e0", "1.1", "-1.1", "3.4028234e38", "1.17549435e-38", "1e-45", "16777217", "0.1"],
        ),
        case("FLOAT", "FLOAT UNSIGNED", Judge::Float, &["0", "1.5", "3e38"]),
        case(
            "DOUBLE",
            "DOUBLE",
            Judge::Float,
            &["0", "-0e0", "0.1", "-1.7976931348623157e308", "2.2250738585072014e-308", "5e-324", "9007199254740993"],
        ),
        case("DOUBLE", "DOUBLE UNSIGNED", Judge::Float, &["0", "1e300"]),
        case(
            "DECIMAL",
            "DECIMAL(65,30)",
            Judge::Printed,
            &[
                "99999999999999999999999999999999999.999999999999999999999999999999",
                "-99999999999999999999999999999999999.999999999999999999999999999999",
                "0.000000000000000000000000000001",
                "-0.000000000000000000000000000001",
                "0",
                "1000000000",
                "-100000000.000000001",
            ],
        ),
        case("DECIMAL", "DECIMAL(65,0)", Judge::Printed, &[&"9".repeat(65), "-1", "0", "1000000000000000000"]),
        case("DECIMAL", "DECIMAL(30,30)", Judge::Printed, &["0.5", "-0.5", "0", "0.999999999999999999999999999999"]),
        case("DECIMAL", "DECIMAL(10,2) UNSIGNED", Judge::Printed, &["0", "0.01", "99999999.99"]),
    ];
    for precision in 1..=20 {
        let nines = "9".repeat(precision - precision / 2);
        let sql_type = format!("DECIMAL({precision},{})", precision / 2);
        cases.push(case("DECIMAL", sql_type, Judge::Printed, &["0", &nines, &format!("-{nines}"), "0.1", "-0.09"]));
    }
    cases
}

fn bits_and_years() -> Vec<Case> {
    let mut cases: Vec<Case> = [1_u32, 7, 8, 9, 31, 33, 63, 64]
        .into_iter()
        .map(|bits| {
            let top = format!("{}", u64::MAX >> (64 - bits));
            let high = format!("{}", 1_u64 << (bits - 1));
            case("BIT", format!("BIT({bits})"), Judge::Number, &["0", "1", &top, &high])
        })
        .collect();
    cases.push(case("YEAR", "YEAR", Judge::Printed, &["0", "'0000'", "1901", "2000", "2155"]));
    cases
}

fn temporals(flavor: Flavor) -> Vec<Case> {
    let mut cases = vec![case(
        "DATE",
        "DATE",
        Judge::Printed,
        &[
            "'0000-00-00'",
            "'2001-00-00'",
            "'2001-02-00'",
            "'1000-01-01'",
            "'9999-12-31'",
            "'2024-02-29'",
            "'0001-01-01'",
        ],
    )];
    for digits in 0..=6_usize {
        let fraction = &".987654"[..if digits == 0 { 0 } else { digits + 1 }];
        let tiny = if digits == 0 { String::new() } else { format!(".{:0>digits$}", 1) };
        let quoted = |text: &str, fraction: &str| format!("'{text}{fraction}'");
        let times = [
            quoted("00:00:00", ""),
            quoted("00:00:00", &tiny),
            quoted("23:59:59", fraction),
            quoted("838:59:59", ""),
            quoted("100:00:01", fraction),
        ];
        let negative = [
            quoted("-00:00:01", fraction),
            quoted("-00:00:00", fraction),
            quoted("-00:00:00", &tiny),
            quoted("-838:59:59", ""),
            quoted("-101:02:03", &tiny),
            quoted("-00:00:01", ""),
        ];
        let datetimes = [
            quoted("0000-00-00 00:00:00", ""),
            quoted("2001-00-00 00:00:00", ""),
            quoted("1000-01-01 00:00:00", fraction),
            quoted("9999-12-31 23:59:59", fraction),
            quoted("2026-03-29 02:30:00", &tiny),
        ];
        let timestamps = [
            quoted("0000-00-00 00:00:00", ""),
            quoted("1970-01-01 00:00:01", ""),
            quoted("2026-03-29 02:30:00", fraction),
            quoted("2038-01-19 03:14:07", if digits == 0 { "" } else { &tiny }),
        ];
        let plain = digits == 0;
        let sql = |name: &str| if plain { name.to_owned() } else { format!("{name}({digits})") };
        for (name, sql_type, values) in [
            ("TIME", "TIME", &times[..]),
            ("TIME, negative", "TIME", &negative[..]),
            ("DATETIME", "DATETIME", &datetimes[..]),
        ] {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            cases.push(case(name, sql(sql_type), Judge::Temporal(digits), &values));
        }
        let values: Vec<&str> = timestamps.iter().map(String::as_str).collect();
        cases.push(case("TIMESTAMP", format!("TIMESTAMP({digits})"), Judge::Epoch, &values));
    }
    if flavor == Flavor::MariaDb {
        cases.push(case("DATE", "DATE", Judge::Printed, &["'2001-01-32'", "'0000-01-01'"]));
    }
    cases
}

fn binaries() -> Vec<Case> {
    let all_bytes: String = (0..=255_u8).map(|byte| format!("{byte:02x}")).collect();
    let all_bytes = format!("x'{all_bytes}'");
    vec![
        case("BINARY", "BINARY(4)", Judge::Hex, &["''", "x'00'", "x'0100'", "x'01020300'", "x'ffffffff'", "'a '"]),
        case("BINARY", "BINARY(255)", Judge::Hex, &["''", "x'00ff00'", &format!("LEFT({all_bytes}, 255)")]),
        case("VARBINARY", "VARBINARY(255)", Judge::Hex, &["''", "x'00'", "x'010000'", "x'20'"]),
        case("VARBINARY", "VARBINARY(300)", Judge::Hex, &["''", &all_bytes, "REPEAT(x'00',300)"]),
        case("TINYBLOB", "TINYBLOB", Judge::Hex, &["''", "x'00'", "REPEAT(x'ff',255)"]),
        case("BLOB", "BLOB", Judge::Hex, &["''", "x'00'", "REPEAT(x'00ff',30000)", &all_bytes]),
        case("MEDIUMBLOB", "MEDIUMBLOB", Judge::Hex, &["''", "REPEAT(x'a5',70000)"]),
        case("LONGBLOB", "LONGBLOB", Judge::Hex, &["''", "REPEAT(x'a5',2000000)"]),
    ]
}

fn labels() -> Vec<Case> {
    let many: Vec<String> = (0..300).map(|number| format!("'label {number}'")).collect();
    let sixty_four: Vec<String> = (0..64).map(|number| format!("'s{number}'")).collect();
    let all: Vec<String> = (0..64).map(|number| format!("s{number}")).collect();
    vec![
        // In this mode of the server a value that is no label becomes the error value 0.
        case(
            "ENUM",
            "ENUM('a','B c','','d''e')",
            Judge::Label,
            &["'a'", "'B c'", "''", "'d''e'", "'no label'", "0", "1"],
        ),
        case("ENUM", format!("ENUM({})", many.join(",")), Judge::Label, &["1", "255", "256", "300", "'label 7'"]),
        case("SET", "SET('x','y','z w')", Judge::Label, &["''", "'x'", "'z w,x'", "7", "'y,nothing'"]),
        case(
            "SET",
            format!("SET({})", sixty_four.join(",")),
            Judge::Label,
            &["''", "'s63'", "'s0,s31,s32,s63'", &format!("'{}'", all.join(","))],
        ),
        case("SET", "SET('1','2','3','4','5','6','7','8','9')", Judge::Label, &["''", "511", "256", "255"]),
    ]
}

fn geometries() -> Vec<Case> {
    let shapes = [
        "ST_GeomFromText('POINT(1 -2.5)')",
        "ST_GeomFromText('LINESTRING(0 0,1 1,2 0)')",
        "ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 4,0 0))')",
        "ST_GeomFromText('MULTIPOINT(0 0,1 1)')",
        "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1))')",
    ];
    let mut cases = vec![case("GEOMETRY", "GEOMETRY", Judge::Hex, &shapes)];
    cases.push(case("GEOMETRY", "GEOMETRY", Judge::Hex, &["ST_GeomFromText('POINT(1 2)', 4326)"]));
    cases.push(case("GEOMETRY", "POINT", Judge::Hex, &shapes[..1]));
    cases
}

fn mysql_only() -> Vec<Case> {
    let long = format!("CAST('{{\"k\": \"{}\", \"n\": [1, 2, 3]}}' AS JSON)", "v".repeat(70_000));
    vec![
        case(
            "JSON",
            "JSON",
            Judge::Json,
            &[
                "'null'",
                "'true'",
                "'[]'",
                "'{}'",
                "'{\"b\": 1, \"a\": [1, 2.5, {\"\": null}], \"ccc\": \"x\"}'",
                r#"'"\\u0000\\u001f\\u007f\\/\\"\\\\\\b\\f\\n\\r\\t\\u2028\\ud83d\\ude00é"'"#,
                "'[0, -1, 32767, -32768, 32768, 65535, 65536, 2147483647, -2147483648, 4294967295, 4294967296]'",
                "'[9223372036854775807, -9223372036854775808, 18446744073709551615, 9007199254740993]'",
                "'[1.0, -0.0, 1e15, 1e-15, 1e-16, 1.5e300, 5e-324, 123456789012345.6]'",
                "CONCAT(REPEAT('[', 100), REPEAT(']', 100))",
                "JSON_ARRAY(12.340, CAST(-0.5 AS DECIMAL(10,3)), CAST('1e10' AS DECIMAL(65,30)))",
                "JSON_OBJECT('d', CAST('2026-01-02' AS DATE), 't', CAST('-12:00:00.5' AS TIME(6)))",
                "JSON_OBJECT('dt', TIMESTAMP'2026-01-02 03:04:05.123456', 'x y', x'00ff', 'long', REPEAT(x'00', 100))",
                "JSON_ARRAY(JSON_ARRAY(JSON_ARRAY(x'')), JSON_OBJECT('$x', 1, '1a', 2, 'A\"', 3, 'ä', 4))",
                &long,
            ],
        ),
        case("VECTOR", "VECTOR(3)", Judge::Hex, &["TO_VECTOR('[1,2.5,-3e38]')", "TO_VECTOR('[0,0,0]')"]),
        case("VECTOR", "VECTOR(2000)", Judge::Hex, &["TO_VECTOR('[1]')", "TO_VECTOR('[1,2,3,4]')"]),
    ]
}

fn mariadb_only() -> Vec<Case> {
    let tracked = |case: Case, kind: ColumnKind| Case { tracked: Some(kind), ..case };
    let text = |sql_type: &str| {
        case(
            "COMPRESSED text",
            sql_type,
            Judge::Text,
            &["''", "'short ä'", "REPEAT('long and longer ',500)", "REPEAT('ä',90)"],
        )
    };
    vec![
        tracked(
            case("INET4", "INET4", Judge::Printed, &["'0.0.0.0'", "'1.2.3.0'", "'255.255.255.255'"]),
            ColumnKind::Inet4,
        ),
        tracked(
            case(
                "INET6",
                "INET6",
                Judge::Printed,
                &["'::'", "'::1'", "'::1.2.3.4'", "'::ffff:1.2.3.4'", "'1:0:2::'", "'2001:db8::'", "'1:0:0:2:3:0:0:4'"],
            ),
            ColumnKind::Inet6,
        ),
        tracked(
            case(
                "UUID",
                "UUID",
                Judge::Printed,
                &[
                    "'00112233-4455-1677-8899-aabbccddeeff'",
                    "'00112233-4455-4677-8899-aabbccddee00'",
                    "'00112233-4455-7677-8899-aabbccddeeff'",
                    "'00000000-0000-0000-0000-000000000000'",
                    "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
                ],
            ),
            ColumnKind::Uuid,
        ),
        case("JSON (LONGTEXT)", "JSON", Judge::Text, &["'{\"a\":1,  \"b\": \"ä\"}'", "'[]'"]),
        text("VARCHAR(9000) COMPRESSED"),
        text("VARCHAR(200) COMPRESSED"),
        text("TEXT COMPRESSED"),
        case("COMPRESSED bytes", "BLOB COMPRESSED", Judge::Hex, &["''", "x'00'", "REPEAT(x'00ff',3000)"]),
        case("COMPRESSED bytes", "VARBINARY(5000) COMPRESSED", Judge::Hex, &["''", "x'80'", "REPEAT(x'00ff',2000)"]),
    ]
}

/// A character set's case: text columns of every form with a sample that the character set can hold, and every byte.
pub fn charset(name: &str, max_len: u64, sample: &str, letter: &str) -> Vec<Case> {
    let sample = format!("CONVERT('{sample}' USING {name})");
    let mut values = vec!["''".to_owned(), "'abc'".to_owned(), "'trailing  '".to_owned(), sample.clone()];
    if max_len == 1 {
        let all: String = (0..=255_u8).map(|byte| format!("{byte:02x}")).collect();
        values.push(format!("_{name} x'{all}'"));
    }
    let of = |sql_type: String, judge: Judge, values: Vec<String>| Case {
        group: format!("text in {name}"),
        sql_type,
        values,
        judge,
        tracked: None,
    };
    let repeated = format!("REPEAT({sample}, 100)");
    vec![
        of(format!("VARCHAR(400) CHARACTER SET {name}"), Judge::Text, values.clone()),
        of(format!("VARCHAR(60) CHARACTER SET {name}"), Judge::Text, values[..4].to_vec()),
        of(format!("CHAR(60) CHARACTER SET {name}"), Judge::Text, values[..4].to_vec()),
        of(format!("CHAR(255) CHARACTER SET {name}"), Judge::Text, values[..4].to_vec()),
        of(format!("TINYTEXT CHARACTER SET {name}"), Judge::Text, values[..3].to_vec()),
        of(format!("LONGTEXT CHARACTER SET {name}"), Judge::Text, [values.clone(), vec![repeated]].concat()),
        Case {
            group: format!("labels in {name}"),
            sql_type: format!("ENUM('a','{letter}') CHARACTER SET {name}"),
            values: vec!["1".to_owned(), "2".to_owned(), "0".to_owned()],
            judge: Judge::Label,
            tracked: None,
        },
        Case {
            group: format!("labels in {name}"),
            sql_type: format!("SET('a','{letter}') CHARACTER SET {name}"),
            values: vec!["0".to_owned(), "1".to_owned(), "2".to_owned(), "3".to_owned()],
            judge: Judge::Label,
            tracked: None,
        },
    ]
}

/// Texts of many scripts; a character set gets the first it can hold.
pub const SAMPLES: [(&str, &str); 12] = [
    ("mixed äž漢あ한ไ😀", "漢"),
    ("mixed äž漢あ한", "漢"),
    ("漢字とあいう", "漢"),
    ("漢字", "漢"),
    ("한글", "한"),
    ("жук по-русски", "ж"),
    ("άλφα βήτα", "λ"),
    ("שלום", "ש"),
    ("ไทย", "ไ"),
    ("žluťoučký", "ž"),
    ("grün déjà", "ü"),
    ("plain", "b"),
];
