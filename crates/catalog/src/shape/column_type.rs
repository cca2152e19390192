//! Reads a column's declared type, as `information_schema.COLUMNS.COLUMN_TYPE` prints it.

use crossfade_model::ColumnKind;

/// `declared` is the printed type, `data_type` its first word, `charset` that of a text column.
///
/// Whatever is not known becomes [`ColumnKind::Other`], never an error: a table may have such a column and not sync it.
pub(super) fn column_kind(data_type: &str, declared: &str, charset: Option<&str>) -> ColumnKind {
    let arguments = arguments(declared);
    let number = |index: usize| arguments.get(index).and_then(|argument| argument.trim().parse::<u32>().ok());
    let fraction_digits = || number(0).and_then(|digits| u8::try_from(digits).ok()).unwrap_or(0);
    let integer = |bytes| ColumnKind::Integer { bytes, unsigned: has_word(declared, "unsigned") };
    match data_type.to_ascii_lowercase().as_str() {
        "tinyint" => integer(1),
        "smallint" => integer(2),
        "mediumint" => integer(3),
        "int" => integer(4),
        "bigint" => integer(8),
        "float" => ColumnKind::Float,
        "double" => ColumnKind::Double,
        "decimal" => ColumnKind::Decimal {
            precision: number(0).and_then(|digits| u8::try_from(digits).ok()).unwrap_or(10),
            scale: number(1).and_then(|digits| u8::try_from(digits).ok()).unwrap_or(0),
        },
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => match charset {
            Some(charset) => ColumnKind::Text { charset: charset.to_ascii_lowercase() },
            None => ColumnKind::Bytes { fixed_len: 0 },
        },
        "binary" => ColumnKind::Bytes { fixed_len: number(0).unwrap_or(1) },
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => ColumnKind::Bytes { fixed_len: 0 },
        "date" => ColumnKind::Date,
        "time" => ColumnKind::Time { fraction_digits: fraction_digits() },
        "datetime" => ColumnKind::Datetime { fraction_digits: fraction_digits() },
        "timestamp" => ColumnKind::Timestamp { fraction_digits: fraction_digits() },
        "year" => ColumnKind::Year,
        "bit" => ColumnKind::Bit { bits: number(0).and_then(|bits| u8::try_from(bits).ok()).unwrap_or(1) },
        "enum" => ColumnKind::Enum { labels: labels(declared) },
        "set" => ColumnKind::Set { labels: labels(declared) },
        "json" => ColumnKind::Json,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geomcollection" | "geometrycollection" => ColumnKind::Geometry,
        "vector" => ColumnKind::Vector,
        "inet4" => ColumnKind::Inet4,
        "inet6" => ColumnKind::Inet6,
        "uuid" => ColumnKind::Uuid,
        other => ColumnKind::Other { name: other.to_owned() },
    }
}

/// The numbers in the brackets of `decimal(10,2) unsigned`.
fn arguments(declared: &str) -> Vec<&str> {
    let inside = declared.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inside, _)| inside);
    inside.map(|inside| inside.split(',').collect()).unwrap_or_default()
}

fn has_word(declared: &str, word: &str) -> bool {
    declared.split_whitespace().any(|found| found.eq_ignore_ascii_case(word))
}

/// The labels in `enum('a','it''s','back\\slash')`. Both servers double quotes; which characters they write with a
/// backslash is tried out in `tests/table_shapes.rs`.
fn labels(declared: &str) -> Vec<String> {
    let mut labels = Vec::new();
    let mut characters = declared.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '\'' {
            continue;
        }
        let mut label = String::new();
        while let Some(character) = characters.next() {
            match character {
                '\'' if characters.peek() == Some(&'\'') => {
                    characters.next();
                    label.push('\'');
                }
                '\'' => break,
                '\\' => label.extend(characters.next().map(unescaped)),
                plain => label.push(plain),
            }
        }
        labels.push(label);
    }
    labels
}

fn unescaped(character: char) -> char {
    match character {
        '0' => '\0',
        'n' => '\n',
        'r' => '\r',
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_with_their_parameters() {
        let text = |charset: &str| ColumnKind::Text { charset: charset.to_owned() };
        let cases = [
            ("int", "int(10) unsigned zerofill", None, ColumnKind::Integer { bytes: 4, unsigned: true }),
            ("bigint", "bigint", None, ColumnKind::Integer { bytes: 8, unsigned: false }),
            ("mediumint", "mediumint(8)", None, ColumnKind::Integer { bytes: 3, unsigned: false }),
            ("decimal", "decimal(65,30)", None, ColumnKind::Decimal { precision: 65, scale: 30 }),
            ("decimal", "decimal(5,0) unsigned", None, ColumnKind::Decimal { precision: 5, scale: 0 }),
            ("varchar", "varchar(190)", Some("utf8mb4"), text("utf8mb4")),
            ("text", "text /*M!100301 COMPRESSED*/", Some("latin1"), text("latin1")),
            ("binary", "binary(16)", None, ColumnKind::Bytes { fixed_len: 16 }),
            ("datetime", "datetime(3)", None, ColumnKind::Datetime { fraction_digits: 3 }),
            ("timestamp", "timestamp", None, ColumnKind::Timestamp { fraction_digits: 0 }),
            ("bit", "bit(64)", None, ColumnKind::Bit { bits: 64 }),
            ("geomcollection", "geomcollection", None, ColumnKind::Geometry),
            ("xmltype", "xmltype", None, ColumnKind::Other { name: "xmltype".to_owned() }),
        ];
        for (data_type, declared, charset, kind) in cases {
            assert_eq!(column_kind(data_type, declared, charset), kind, "{declared}");
        }
    }

    #[test]
    fn labels_may_hold_anything() {
        let cases: [(&str, &[&str]); 5] = [
            ("enum('a','b')", &["a", "b"]),
            ("set('it''s','a)b','',' ')", &["it's", "a)b", "", " "]),
            (r"enum('back\\slash','line\nend')", &["back\\slash", "line\nend"]),
            ("enum('a','b') unsigned", &["a", "b"]),
            ("enum('unfinished", &["unfinished"]),
        ];
        for (declared, expected) in cases {
            assert_eq!(labels(declared), expected, "{declared}");
        }
    }
}
