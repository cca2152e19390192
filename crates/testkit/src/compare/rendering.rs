//! SQL expressions that render a value to text that is equal exactly where the values are.

use super::shape::{Column, Shape};
use crate::sql;

/// Longer values travel as their length and SHA-256: `HEX` of a value near `max_allowed_packet` would be NULL.
const LONGEST_IN_FULL_BYTES: u32 = 1 << 20;

/// Types whose own order is the order of the rendered numbers.
pub fn is_integer(column: &Column) -> bool {
    matches!(column.data_type.as_str(), "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
}

/// `column` as the server shall render it, given its like on the other side.
pub fn expression(column: &Column, other: &Column) -> String {
    let name = sql::name(&column.name);
    match column.data_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" | "decimal" | "date" | "time" | "datetime"
        | "timestamp" | "inet6" | "inet4" | "uuid" => format!("CAST({name} AS CHAR)"),
        // A FLOAT's own text has six digits. As a double it has all of them; the product keeps the sign of zero.
        "float" | "double" => format!("CAST({name} * 1e0 AS CHAR)"),
        "bit" => format!("HEX({name} + 0)"),
        "char" | "varchar" => format!("HEX({})", characters(&name, column, other)),
        // Label, not number: the two sides may list their labels in another order. Number 0 is the invalid value.
        "enum" => format!("CONCAT({name} + 0 = 0, HEX({}))", characters(&name, column, other)),
        "set" => format!("HEX({})", characters(&name, column, other)),
        "tinytext" | "text" | "mediumtext" | "longtext" => digested(&characters(&name, column, other)),
        "json" => format!("CONCAT(JSON_TYPE({name}), {})", digested(&format!("CAST({name} AS CHAR)"))),
        _ => digested(&name),
    }
}

/// Strings of one character set are compared byte by byte; across character sets, by their characters.
fn characters(name: &str, column: &Column, other: &Column) -> String {
    if column.charset == other.charset { name.to_owned() } else { format!("CONVERT({name} USING utf8mb4)") }
}

fn digested(value: &str) -> String {
    format!(
        "IF(LENGTH({value}) > {LONGEST_IN_FULL_BYTES}, \
         CONCAT(LENGTH({value}), ' bytes ', SHA2({value}, 256)), HEX({value}))"
    )
}

/// How a table is read: the query of one side, and how its rows are ordered.
#[derive(Debug)]
pub struct Reading {
    pub sql: String,
    /// The first so many columns of a result row are the key.
    pub key_columns: usize,
    /// The key's parts are integers and compare as such; otherwise they compare as bytes.
    pub numeric: bool,
    /// Names of the compared columns, which follow the key in a result row.
    pub columns: Vec<String>,
}

/// The query for `mine`, with the columns both sides have, keyed as the old side is. `key` must be columns of both.
pub fn reading(full_name: &str, mine: &Shape, other: &Shape, key: &[String]) -> Reading {
    let shared: Vec<(&Column, &Column)> =
        mine.columns.iter().filter_map(|column| Some((column, other.column(&column.name)?))).collect();
    let find = |name: &String| shared.iter().find(|(column, _)| column.name == *name).copied();
    let keys: Vec<(&Column, &Column)> =
        if key.is_empty() { shared.clone() } else { key.iter().filter_map(find).collect() };
    let numeric = keys.iter().all(|(a, b)| is_integer(a) && is_integer(b));
    if key.is_empty() && !numeric {
        return reading_by_digest(full_name, &shared);
    }
    let selected: Vec<String> = keys.iter().chain(&shared).map(|(a, b)| expression(a, b)).collect();
    let order: Vec<String> = keys
        .iter()
        .map(|(a, b)| if numeric { sql::name(&a.name) } else { format!("CAST({} AS BINARY)", expression(a, b)) })
        .collect();
    Reading {
        sql: format!("SELECT {} FROM {full_name} ORDER BY {}", selected.join(", "), order.join(", ")),
        key_columns: keys.len(),
        numeric,
        columns: shared.iter().map(|(column, _)| column.name.clone()).collect(),
    }
}

/// Rows without a key, in the order of a digest of all their values: servers have no room to sort by many long ones.
fn reading_by_digest(full_name: &str, shared: &[(&Column, &Column)]) -> Reading {
    let values: Vec<String> = shared.iter().map(|(a, b)| expression(a, b)).collect();
    let told: Vec<String> = values.iter().map(|value| format!("COALESCE({value}, 'NULL')")).collect();
    let digest = format!("SHA2(CONCAT_WS('|', {}), 256)", told.join(", "));
    Reading {
        sql: format!("SELECT {digest} AS digest, {} FROM {full_name} ORDER BY digest", values.join(", ")),
        key_columns: 1,
        numeric: false,
        columns: shared.iter().map(|(column, _)| column.name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, data_type: &str, charset: Option<&str>) -> Column {
        Column { name: name.into(), data_type: data_type.into(), charset: charset.map(str::to_owned) }
    }

    #[test]
    fn strings_of_two_character_sets_meet_in_utf8mb4() {
        let latin = column("c", "varchar", Some("latin1"));
        let utf8 = column("c", "varchar", Some("utf8mb4"));
        assert_eq!(expression(&latin, &latin), "HEX(`c`)");
        assert_eq!(expression(&latin, &utf8), "HEX(CONVERT(`c` USING utf8mb4))");
    }

    #[test]
    fn a_table_without_a_key_is_ordered_by_all_of_its_columns() {
        let shape = Shape { columns: vec![column("a", "int", None), column("b", "int", None)], key: vec![] };
        let reading = reading("t", &shape, &shape, &[]);
        assert_eq!((reading.key_columns, reading.numeric), (2, true));
        assert!(reading.sql.ends_with("ORDER BY `a`, `b`"), "{}", reading.sql);
        let shape = Shape { columns: vec![column("a", "int", None), column("b", "blob", None)], key: vec![] };
        let reading = super::reading("t", &shape, &shape, &[]);
        assert_eq!((reading.key_columns, reading.numeric), (1, false));
        assert!(reading.sql.ends_with("ORDER BY digest"), "{}", reading.sql);
    }
}
