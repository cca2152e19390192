//! Ways round a circle of unique values.
//!
//! Where changes of several rows win, each may want a unique value that the next one's row still has on the target, and the last
//! one that of the first: no order of them works. So a row that is refused for a unique value is written with another value
//! in its place at first, and with its own when all others are written. Whoever still stands in its way then has not been
//! told to leave, and the row is set aside as ever. All that is inside one transaction.

use crossfade_model::{Column, ColumnKind, Row, Value};
use crossfade_rules::{ChangeKind, Remedy};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::error::{ApplyError, row_remedy};
use crate::judged::JudgedStep;
use crate::lane::Shared;
use crate::table::TargetTable;
use crate::writing::put_one;

/// So many characters or bytes of a value made up by chance make it another one than any that is there.
const MADE_UP: usize = 16;

/// The row with other values in those unique keys that other rows stand in the way of. `None` where there are none, or
/// nothing can take their place.
pub(crate) async fn around(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    row: &Row,
) -> Result<Option<Row>, mysql_async::Error> {
    let mapping = &shared.mappings[table];
    let mut other = row.clone();
    for key in &mapping.unique_keys {
        if in_the_way(&shared.tables[table], conn, key, row).await?.is_empty() {
            continue;
        }
        let Some((column, value)) = free_value(shared, table, key, row) else { return Ok(None) };
        other[column] = value;
    }
    Ok((other != *row).then_some(other))
}

/// Puts rows into their places to which others may refer, and which are not there: users of the target have deleted them, and
/// a later change has won. No order asks for them, since to their source they were there all the time. Each has its own turn
/// all the same.
pub(crate) async fn place_parents(
    shared: &Shared,
    conn: &mut Conn,
    steps: &mut [JudgedStep<'_>],
) -> Result<(), ApplyError> {
    loop {
        let mut has_placed_some = false;
        for step in steps.iter_mut() {
            let JudgedStep::Net { table, kind: ChangeKind::Update, rows } = step else { continue };
            if shared.children[*table].is_empty() {
                continue;
            }
            for row in rows.iter_mut().filter(|row| row.arrives_whole() && !row.on_detour) {
                let Some(after) = row.after() else { continue };
                let is_placed = place(shared, conn, *table, after).await?;
                (row.on_detour, row.came_back) = (is_placed, is_placed);
                has_placed_some |= is_placed;
            }
        }
        // One may need another.
        if !has_placed_some {
            return Ok(());
        }
    }
}

/// `false`: the row is there already, or cannot come.
async fn place(shared: &Shared, conn: &mut Conn, table: usize, row: &Row) -> Result<bool, ApplyError> {
    let target = &shared.tables[table];
    if target.lock_and_tell(conn, &[target.key_of(row)]).await?[0] {
        return Ok(false);
    }
    conn.query_drop("SAVEPOINT part").await?;
    let around = around(shared, conn, table, row).await?;
    match put_one(target, conn, around.as_ref().unwrap_or(row)).await {
        Err(source) if row_remedy(&source) == Remedy::Park => {
            conn.query_drop("ROLLBACK TO SAVEPOINT part").await?;
            Ok(false)
        }
        put => Ok(put.map(|_| true)?),
    }
}

/// What stands for the rows on the target that have the unique values of this one. Who changes these is to be tried together
/// with it.
pub(crate) async fn rivals(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    row: &Row,
) -> Result<Vec<u64>, mysql_async::Error> {
    let mut rivals = Vec::new();
    for key in &shared.mappings[table].unique_keys {
        let found = in_the_way(&shared.tables[table], conn, key, row).await?;
        let ties = found.iter().map(|rival| shared.planner.dependence(table, Some(rival), None));
        rivals.extend(ties.flat_map(|ties| ties.keys().to_vec()));
    }
    Ok(rivals)
}

/// Other rows that have the unique value of this one. They are not locked: a user may be about to mend one.
async fn in_the_way(
    target: &TargetTable,
    conn: &mut Conn,
    key: &[usize],
    row: &Row,
) -> Result<Vec<Row>, mysql_async::Error> {
    let values: Vec<&Value> = key.iter().map(|column| &row[*column]).collect();
    if values.iter().any(|value| value.is_null()) {
        return Ok(Vec::new());
    }
    let mut found = target.look_where(conn, key, &[values]).await?;
    found.retain(|found| target.key_of(found) != target.key_of(row));
    Ok(found)
}

/// A column of a unique key that nobody else looks at, and what it can be for a while.
fn free_value(shared: &Shared, table: usize, key: &[usize], row: &Row) -> Option<(usize, Value)> {
    let (mapping, columns) = (&shared.mappings[table], shared.tables[table].columns());
    let referred = |column: &usize| shared.children[table].iter().any(|link| link.referred.contains(column));
    let mut free = key.iter().copied().filter(|column| !mapping.row_key.contains(column) && !referred(column));
    let refers = |column: usize| mapping.parents.iter().any(|link| link.columns.contains(&column));
    let nullable = free.clone().find(|column| !mapping.columns[*column].not_null);
    if let Some(column) = nullable {
        return Some((column, Value::Null));
    }
    free.find_map(|column| Some((column, made_up(&columns[column], &row[column])?)).filter(|_| !refers(column)))
}

/// A value that is hardly anywhere yet.
fn made_up(column: &Column, own: &Value) -> Option<Value> {
    let chance: u64 = rand::random();
    let longest = declared_length(&column.declared).unwrap_or(MADE_UP).clamp(1, MADE_UP);
    match (own, &column.kind) {
        (Value::Int(_) | Value::UInt(_), ColumnKind::Integer { bytes, unsigned }) => {
            let bits = u32::from(*bytes) * 8;
            Some(match unsigned {
                true => Value::UInt(chance >> (64 - bits.clamp(8, 64))),
                false => Value::Int(chance.cast_signed() >> (64 - bits.clamp(8, 64))),
            })
        }
        (Value::Text(_), ColumnKind::Text { .. }) => {
            let digits = format!("{chance:0MADE_UP$x}");
            Some(Value::Text(digits.chars().take(longest).collect()))
        }
        (Value::Text(_), ColumnKind::Uuid) => Some(Value::Text(uuid_text(rand::random()))),
        (Value::Bytes(own), ColumnKind::Bytes { fixed_len }) => {
            let chance: [u8; MADE_UP] = rand::random();
            // What is padded to its length is found as such.
            let rest = own.iter().copied().skip(longest).filter(|_| *fixed_len > 0);
            Some(Value::Bytes(chance.into_iter().take(longest).chain(rest).collect()))
        }
        _ => None,
    }
}

/// Of `varchar(9)` or `binary(16)` the number.
fn declared_length(declared: &str) -> Option<usize> {
    let (_, rest) = declared.split_once('(')?;
    rest.split_once(')')?.0.parse().ok()
}

fn uuid_text(chance: u128) -> String {
    let digits = format!("{chance:032x}");
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: ColumnKind, declared: &str) -> Column {
        Column { declared: declared.to_owned(), ..Column::plain("c", kind) }
    }

    #[test]
    fn what_is_made_up_fits_its_column() {
        let text = || ColumnKind::Text { charset: "utf8mb4".to_owned() };
        for (declared, longest) in [("char(1)", 1), ("varchar(9)", 9), ("varchar(190)", MADE_UP), ("text", MADE_UP)] {
            let made = made_up(&column(text(), declared), &Value::Text("own".to_owned()));
            assert!(matches!(made, Some(Value::Text(text)) if text.chars().count() == longest), "{declared}");
        }
        let bytes = column(ColumnKind::Bytes { fixed_len: 20 }, "binary(20)");
        let made = made_up(&bytes, &Value::Bytes(vec![7; 20]));
        assert!(matches!(made, Some(Value::Bytes(bytes)) if bytes.len() == 20 && bytes.ends_with(&[7; 4])));
        for _ in 0..100 {
            let tiny = |unsigned| column(ColumnKind::Integer { bytes: 1, unsigned }, "tinyint");
            let made = made_up(&tiny(false), &Value::Int(0));
            assert!(matches!(made, Some(Value::Int(-128..=127))), "{made:?}");
            let made = made_up(&tiny(true), &Value::UInt(0));
            assert!(matches!(made, Some(Value::UInt(0..=255))), "{made:?}");
        }
        assert_eq!(made_up(&column(ColumnKind::Date, "date"), &Value::Int(0)), None);
        assert_eq!(uuid_text(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef), "01234567-89ab-cdef-0123-456789abcdef");
    }
}
