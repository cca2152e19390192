//! What is written: a table per type, with the values that are known to go wrong.

use crossfade_servers::Flavor;

/// A table: its columns beside `id`, `note` and the clock, and rows of values for those that are written.
pub struct Case {
    /// The line of the printed matrix.
    pub group: String,
    /// Definitions of `c0`, `c1`, …
    pub columns: Vec<String>,
    /// How many of the columns are written; the others compute themselves.
    pub written: usize,
    /// SQL expressions, as many in a row as columns are written.
    pub rows: Vec<Vec<String>>,
}

impl Case {
    /// Every value goes into a column of every type; a row of NULLs is added.
    pub fn new(group: &str, types: &[&str], values: &[&str]) -> Case {
        let rows = values.iter().chain(&["NULL"]).map(|value| vec![(*value).to_owned(); types.len()]).collect();
        let columns = types.iter().map(|sql_type| format!("{sql_type} NULL")).collect();
        Case { group: group.to_owned(), columns, written: types.len(), rows }
    }
}

/// Every case that does not depend on a character set.
pub fn plain(flavor: Flavor) -> Vec<Case> {
    let mut cases = integers();
    cases.extend(reals());
    cases.extend(bits_and_years());
    cases.extend(temporals(flavor));
    cases.extend(binaries());
    cases.extend(labels());
    cases.extend(geometries(flavor));
    cases.push(computed_and_invisible());
    cases.extend(match flavor {
        Flavor::MySql => vec![
            Case::new("VECTOR", &["VECTOR(3)"], &["TO_VECTOR('[1,2.5,-3e38]')", "TO_VECTOR('[0,0,0]')"]),
            Case::new("VECTOR", &["VECTOR(2000)"], &["TO_VECTOR('[1]')", "TO_VECTOR('[1,-0.0,3,1e-30]')"]),
        ],
        Flavor::MariaDb => mariadb_only(),
    });
    cases
}

fn integers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, bits) in [("TINYINT", 8), ("SMALLINT", 16), ("MEDIUMINT", 24), ("INT", 32), ("BIGINT", 64)] {
        let (low, high, top) = (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1, (1_i128 << bits) - 1);
        let signed: Vec<String> = [low, low + 1, -1, 0, 1, high - 1, high].iter().map(i128::to_string).collect();
        let unsigned: Vec<String> = [0, 1, high, high + 1, top - 1, top].iter().map(i128::to_string).collect();
        cases.push(Case::new(name, &[name], &texts(&signed)));
        let (plain, filled) = (format!("{name} UNSIGNED"), format!("{name} ZEROFILL"));
        cases.push(Case::new(&plain, &[&plain, &filled], &texts(&unsigned)));
    }
    cases
}

fn reals() -> Vec<Case> {
    let nines = "9".repeat(65);
    let decimals: Vec<String> = (1..=20).map(|precision| format!("DECIMAL({precision},{})", precision / 2)).collect();
    vec![
        Case::new(
            "FLOAT",
            &["FLOAT"],
            &["0", "-0e0", "1.1", "-1.1", "3.4028234e38", "1.17549435e-38", "1e-45", "16777217", "0.1"],
        ),
        Case::new("FLOAT", &["FLOAT UNSIGNED", "FLOAT(9,3)"], &["0", "1.5", "345.678"]),
        Case::new(
            "DOUBLE",
            &["DOUBLE"],
            &["0", "-0e0", "0.1", "-1.7976931348623157e308", "2.2250738585072014e-308", "5e-324", "9007199254740993"],
        ),
        Case::new("DOUBLE", &["DOUBLE UNSIGNED", "DOUBLE(15,4)"], &["0", "1e10", "12345.6789"]),
        Case::new(
            "DECIMAL",
            &["DECIMAL(65,30)"],
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
        Case::new("DECIMAL", &["DECIMAL(65,0)"], &[&nines, "-1", "0", "1000000000000000000"]),
        Case::new("DECIMAL", &["DECIMAL(30,30)"], &["0.5", "-0.5", "0", "0.999999999999999999999999999999"]),
        Case::new("DECIMAL", &["DECIMAL(10,2) UNSIGNED"], &["0", "0.01", "99999999.99"]),
        // Too large ones become the largest that the column holds.
        Case::new("DECIMAL", &texts(&decimals), &["0", &nines, &format!("-{nines}"), "0.1", "-0.09"]),
    ]
}

fn bits_and_years() -> Vec<Case> {
    let mut cases: Vec<Case> = [1_u32, 7, 8, 9, 31, 33, 63, 64]
        .into_iter()
        .map(|bits| {
            let (top, high) = ((u64::MAX >> (64 - bits)).to_string(), (1_u64 << (bits - 1)).to_string());
            Case::new("BIT", &[&format!("BIT({bits})")], &["0", "1", &top, &high])
        })
        .collect();
    cases.push(Case::new("YEAR", &["YEAR"], &["0", "'0000'", "1901", "2000", "2155"]));
    cases.push(Case::new("BOOLEAN", &["BOOLEAN"], &["TRUE", "FALSE"]));
    cases
}

/// A column for each number of fraction digits.
fn temporals(flavor: Flavor) -> Vec<Case> {
    let digits = |name: &str| (0..=6).map(|digits| format!("{name}({digits})")).collect::<Vec<_>>();
    let mut dates = vec![
        "'0000-00-00'",
        "'2001-00-00'",
        "'2001-02-00'",
        "'1000-01-01'",
        "'9999-12-31'",
        "'2024-02-29'",
        "'0001-01-01'",
    ];
    if flavor == Flavor::MariaDb {
        dates.push("'0000-01-01'");
    }
    let times = [
        "'00:00:00'",
        "'00:00:00.000001'",
        "'23:59:59.987654'",
        "'838:59:59'",
        "'100:00:01.987654'",
        "'-00:00:01.987654'",
        "'-00:00:00.100000'",
        "'-00:00:00.000001'",
        "'-838:59:59'",
        "'-101:02:03.010101'",
        "'-00:00:01'",
    ];
    let datetimes = [
        "'0000-00-00 00:00:00'",
        "'2001-00-00 00:00:00'",
        "'1000-01-01 00:00:00.987654'",
        "'9999-12-31 23:59:59.123456'",
        "'2026-03-29 02:30:00.000001'",
    ];
    let timestamps = [
        "'0000-00-00 00:00:00'",
        "'1970-01-01 00:00:01'",
        "'2026-03-29 02:30:00.987654'",
        "'2026-10-25 02:30:00.5'",
        "'2038-01-19 03:14:06.999999'",
    ];
    vec![
        Case::new("DATE", &["DATE"], &dates),
        Case::new("TIME(0..6)", &texts(&digits("TIME")), &times),
        Case::new("DATETIME(0..6)", &texts(&digits("DATETIME")), &datetimes),
        Case::new("TIMESTAMP(0..6)", &texts(&digits("TIMESTAMP")), &timestamps),
    ]
}

fn binaries() -> Vec<Case> {
    let all: String = (0..=255_u8).map(|byte| format!("{byte:02x}")).collect();
    let all = format!("x'{all}'");
    vec![
        Case::new("BINARY", &["BINARY(4)"], &["''", "x'00'", "x'0100'", "x'01020300'", "x'ffffffff'", "'a '"]),
        Case::new("BINARY", &["BINARY(255)"], &["''", "x'00ff00'", &format!("LEFT({all}, 255)")]),
        Case::new("VARBINARY", &["VARBINARY(300)", "VARBINARY(255)"], &["''", "x'00'", "x'010000'", "x'20'"]),
        Case::new("VARBINARY", &["VARBINARY(300)"], &[&all, "REPEAT(x'00',300)"]),
        Case::new("TINYBLOB", &["TINYBLOB"], &["''", "x'00'", "REPEAT(x'ff',255)"]),
        Case::new("BLOB", &["BLOB"], &["''", "x'00'", "REPEAT(x'00ff',30000)", &all]),
        Case::new("MEDIUMBLOB", &["MEDIUMBLOB"], &["''", "REPEAT(x'a5',70000)"]),
        Case::new("LONGBLOB", &["LONGBLOB"], &["''", "REPEAT(x'a5',2000000)"]),
    ]
}

fn labels() -> Vec<Case> {
    let many: Vec<String> = (0..300).map(|number| format!("'label {number}'")).collect();
    let sixty_four: Vec<String> = (0..64).map(|number| format!("'s{number}'")).collect();
    let all = format!("'{}'", (0..64).map(|number| format!("s{number}")).collect::<Vec<_>>().join(","));
    vec![
        // In the writers' mode a value that is no label becomes the error value 0.
        Case::new("ENUM", &["ENUM('a','B c','d''e','1','')"], &["'a'", "'B c'", "''", "'d''e'", "'1'", "1"]),
        Case::new("ENUM", &["ENUM('ä','漢','\\\\','\"','`',',')"], &["1", "2", "3", "4", "5", "6", "0", "'no label'"]),
        Case::new("ENUM", &[&format!("ENUM({})", many.join(","))], &["1", "255", "256", "300", "'label 7'", "0"]),
        Case::new("SET", &["SET('x','y','z w')"], &["''", "'x'", "'z w,x'", "7", "'y,nothing'"]),
        Case::new("SET", &[&format!("SET({})", sixty_four.join(","))], &["''", "'s63'", "'s0,s31,s32,s63'", &all]),
        Case::new("SET", &["SET('1','2','3','4','5','6','7','8','9')"], &["''", "511", "256", "255"]),
    ]
}

fn geometries(flavor: Flavor) -> Vec<Case> {
    let shapes = [
        "ST_GeomFromText('POINT(1 -2.5)')",
        "ST_GeomFromText('LINESTRING(0 0,1 1,2 0)')",
        "ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 4,0 0))')",
        "ST_GeomFromText('MULTIPOINT(0 0,1 1)')",
        "ST_GeomFromText('MULTIPOLYGON(((0 0,4 0,4 4,0 0)),((9 9,8 9,8 8,9 9)))')",
        "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')",
        "ST_GeomFromText('POINT(1 2)', 4326)",
        "ST_GeomFromText('POLYGON((10 20,30 20,30 40,10 20))', 4326)",
    ];
    let mut cases = vec![
        Case::new("GEOMETRY", &["GEOMETRY"], &shapes),
        Case::new("GEOMETRY", &["POINT"], &[shapes[0], shapes[6]]),
        Case::new("GEOMETRY", &["POLYGON"], &[shapes[2], shapes[7]]),
    ];
    if flavor == Flavor::MySql {
        let srid =
            Case::new("GEOMETRY", &["POINT SRID 4326"], &[shapes[6], "ST_GeomFromText('POINT(-89.5 179)', 4326)"]);
        cases.push(srid);
        cases.push(Case::new("GEOMETRY", &["GEOMETRY SRID 3857"], &["ST_GeomFromText('POINT(1 2)', 3857)"]));
    }
    cases
}

fn computed_and_invisible() -> Case {
    let columns = [
        "INT NULL",
        "VARCHAR(20) CHARACTER SET latin1 NULL INVISIBLE",
        "VARBINARY(10) NULL",
        "BIGINT AS (c0 * 2) VIRTUAL",
        "VARCHAR(40) AS (CONCAT(c1, '!')) STORED",
        "VARBINARY(20) AS (CONCAT(c2, x'00')) STORED",
    ];
    let rows = [["1", "'a'", "x'00'"], ["-5", "'déjà'", "x'ff00'"], ["2147483647", "''", "''"], ["NULL"; 3]];
    Case {
        group: "generated, invisible".to_owned(),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        written: 3,
        rows: rows.iter().map(|row| row.iter().map(|value| (*value).to_owned()).collect()).collect(),
    }
}

fn mariadb_only() -> Vec<Case> {
    let text = ["''", "'short ä'", "REPEAT('long and longer ',500)", "REPEAT('ä',90)"];
    vec![
        Case::new("INET4", &["INET4"], &["'0.0.0.0'", "'1.2.3.0'", "'255.255.255.255'"]),
        Case::new(
            "INET6",
            &["INET6"],
            &["'::'", "'::1'", "'::1.2.3.4'", "'::ffff:1.2.3.4'", "'1:0:2::'", "'2001:db8::'", "'1:0:0:2:3:0:0:4'"],
        ),
        Case::new(
            "UUID",
            &["UUID"],
            &[
                "'00112233-4455-1677-8899-aabbccddeeff'",
                "'00112233-4455-4677-8899-aabbccddee00'",
                "'00112233-4455-7677-8899-aabbccddeeff'",
                "'00000000-0000-0000-0000-000000000000'",
                "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
            ],
        ),
        Case::new("JSON (LONGTEXT)", &["JSON"], &["'{\"a\":1,  \"b\": \"ä\"}'", "'[]'", "'18446744073709551616'"]),
        Case::new("COMPRESSED", &["VARCHAR(9000) COMPRESSED", "TEXT COMPRESSED"], &text),
        Case::new(
            "COMPRESSED",
            &["BLOB COMPRESSED", "VARBINARY(9000) COMPRESSED"],
            &["''", "x'00'", "REPEAT(x'00ff',3000)"],
        ),
    ]
}

/// Columns of every form of text in one character set. `sample` is text that it can hold, `letter` one letter of it.
pub fn charset(name: &str, max_len: u64, sample: &str, letter: &str) -> [Case; 2] {
    let converted = format!("CONVERT('{sample}' USING {name})");
    let mut values = vec!["''".to_owned(), "'abc'".to_owned(), "'trailing  '".to_owned(), converted];
    if max_len == 1 {
        // Bytes that stand for no character must survive too. A CHAR drops spaces at its end, so the last byte is none.
        let all: String = (0..=255_u8).map(|byte| format!("{byte:02x}")).collect();
        values.push(format!("_{name} x'{all}'"));
    }
    let of = |sql_type: &str| format!("{sql_type} CHARACTER SET {name}");
    // The CHAR is cut where it is shorter.
    let types = ["VARCHAR(400)", "CHAR(60)", "TINYTEXT", "LONGTEXT"].map(of);
    let labels = [format!("ENUM('a','{letter}')"), format!("SET('a','{letter}')")].map(|sql_type| of(&sql_type));
    [
        Case::new(&format!("text in {name}"), &texts(&types), &texts(&values)),
        Case::new(&format!("labels in {name}"), &texts(&labels), &["1", "2", "0"]),
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

fn texts(strings: &[String]) -> Vec<&str> {
    strings.iter().map(String::as_str).collect()
}
