//! Values as SQL that gives the same bytes for equal values on both sides, whatever they are stored as.
//!
//! Each expression is made for a pair of columns, since what is equal depends on both: `5` and `5.00`, `é` in latin1 and in
//! utf8mb4, a label in two lists. That each type is told
//! from every damage is shown end to end, by `tests/tests/verify`.

use crossfade_model::{Column, ColumnKind, quote_identifier};

/// Values that may be longer stand in a row as their own digest, so that the whole row fits every packet.
const SHORT_CHARS: u64 = 2_000;

/// With a separator of bytes, texts of any character sets are put together byte by byte. With one that is text they are
/// converted, or refused where they have no character set in common (errors 1270 and 1271); and so with `_binary ','` and `X'2c'`,
/// which servers take for text that happens to be binary.
const SEPARATOR: &str = "CAST(',' AS BINARY)";

/// A carried column, on one side.
#[derive(Debug, Clone)]
pub(crate) struct Canonical {
    value: String,
    form: Form,
    may_be_null: bool,
}

/// How a value stands among others, so that no two rows of different values look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// Printed with digits and signs, never with a comma or an `N`.
    Plain,
    /// Bytes, with their number before them where anything follows.
    Short,
    /// Bytes, by their digest.
    Long,
}

/// What CONCAT_WS gets of a row.
#[derive(Debug, Clone, Copy)]
enum Part<'c> {
    /// Before a value that stands alone, so that there is a comma to miss.
    Zero,
    /// A value of a form that has no comma. NULL is an `N`, which no value is.
    Shown(&'c Canonical),
    /// The number of the bytes that follow; for NULL an `N`, and none follow.
    Length(&'c Canonical),
    /// As they are. NULL is left out with its comma, as CONCAT_WS does.
    Bytes(&'c Canonical),
}

impl Canonical {
    /// A pair of columns: as the first stands on its side. The other way round it gives the other side's half.
    ///
    /// `only_digests`: the server takes no packets in which a row of short values is sure to fit.
    pub fn of(mine: &Column, other: &Column, only_digests: bool) -> Canonical {
        let (value, form) = expression(mine, other);
        let (_, other_form) = expression(other, mine);
        let form = match form.max(other_form) {
            Form::Short if only_digests => Form::Long,
            form => form,
        };
        Canonical { value, form, may_be_null: mine.nullable || other.nullable }
    }

    fn or_n(&self, shown: String) -> String {
        if self.may_be_null { format!("IFNULL({shown}, 'N')") } else { shown }
    }
}

impl Part<'_> {
    fn sql(self) -> String {
        match self {
            Part::Zero => "0".to_owned(),
            Part::Shown(column) if column.form == Form::Long => column.or_n(format!("SHA2({}, 256)", column.value)),
            Part::Shown(column) => column.or_n(column.value.clone()),
            Part::Length(column) => column.or_n(format!("LENGTH({})", column.value)),
            Part::Bytes(column) => column.value.clone(),
        }
    }
}

/// Values in an order that follows from their forms, which both sides have in common: what has no comma comes first, then
/// the bytes. Read from the left, each part tells where it ends, and the last one ends with the row.
fn parts<'c>(columns: impl IntoIterator<Item = &'c Canonical>) -> Vec<Part<'c>> {
    let (short, shown): (Vec<_>, Vec<_>) = columns.into_iter().partition(|column| column.form == Form::Short);
    let mut parts: Vec<Part> = shown.into_iter().map(Part::Shown).collect();
    let Some((last, others)) = short.split_last() else { return parts };
    parts.extend(others.iter().flat_map(|column| [Part::Length(column), Part::Bytes(column)]));
    if parts.is_empty() {
        parts.push(Part::Zero);
    }
    parts.push(Part::Bytes(last));
    parts
}

/// The digest of some columns together, as 64 hexadecimal digits.
pub(crate) fn digest<'c>(columns: impl IntoIterator<Item = &'c Canonical>) -> String {
    let parts: Vec<String> = parts(columns).into_iter().map(Part::sql).collect();
    format!("SHA2(CONCAT_WS({SEPARATOR}, {}), 256)", parts.join(", "))
}

fn expression(mine: &Column, other: &Column) -> (String, Form) {
    use ColumnKind::*;
    let name = quote_identifier(&mine.name);
    // What ZEROFILL prints before a number goes with the addition.
    let number = || (format!("{name} + 0"), Form::Plain);
    match (&mine.kind, &other.kind) {
        (Decimal { scale, .. }, Decimal { scale: other_scale, .. })
            if scale == other_scale && !is_zerofill(mine) && !is_zerofill(other) =>
        {
            (name, Form::Plain)
        }
        (Integer { .. }, Decimal { .. }) | (Decimal { .. }, _) => {
            let scale = scale(&mine.kind).max(scale(&other.kind));
            (format!("CAST({name} AS DECIMAL(65,{scale}))"), Form::Plain)
        }
        (Integer { .. }, _) if !is_zerofill(mine) => (name, Form::Plain),
        (Integer { .. } | Year | Bit { .. }, _) => number(),
        (Float | Double, _) => (real(&name), Form::Plain),
        (Date | Datetime { .. } | Timestamp { .. } | Time { .. }, _) => (moment(&name, mine, other), Form::Plain),
        (Enum { labels }, Enum { labels: others }) if is_alike(labels, others) => number(),
        (Set { labels }, Set { labels: others }) if is_alike(labels, others) => number(),
        (Set { labels }, Set { labels: others }) => (members(&name, labels, others), Form::Plain),
        (Enum { .. } | Set { .. }, _) => (format!("CONVERT({name} USING utf8mb4)"), Form::Short),
        (Text { charset }, other_kind) => {
            let is_same = matches!(other_kind, Text { charset: other } if other == charset);
            // A CHAR has lost the spaces at its end.
            let name = if is_char(mine) == is_char(other) { name } else { format!("RTRIM({name})") };
            (if is_same { name } else { format!("CONVERT({name} USING utf8mb4)") }, length_of(mine))
        }
        (Bytes { .. }, _) => (name, length_of(mine)),
        (Inet4 | Inet6 | Uuid, _) => (format!("CAST({name} AS CHAR)"), Form::Plain),
        (Json, _) => (format!("CAST({name} AS CHAR CHARACTER SET utf8mb4)"), Form::Long),
        // As it is stored, SRID included.
        (Geometry | Vector | Other { .. }, _) => (format!("CAST({name} AS BINARY)"), Form::Long),
    }
}

fn scale(kind: &ColumnKind) -> u8 {
    if let ColumnKind::Decimal { scale, .. } = kind { *scale } else { 0 }
}

/// A FLOAT is printed with six digits, a DOUBLE with as many as tell it from all others, unless that makes more than 22
/// characters: MySQL then leaves the last digit out. So the sign goes by itself, -0 has one too, and very small numbers are
/// made larger by a power of two, which changes no digit of theirs.
fn real(name: &str) -> String {
    format!(
        "CONCAT(LEFT({name} * 1e0, 1) = '-', ABS({name}) < 1e-90, \
         IF(ABS({name}) < 1e-90, ABS({name}) * POW(2, 1000), ABS({name}) * 1e0))"
    )
}

/// Points in time with as many digits as either side has, as text: a cast would lose dates that are none.
fn moment(name: &str, mine: &Column, other: &Column) -> String {
    let (own, wanted) = (digits(&mine.kind), digits(&mine.kind).max(digits(&other.kind)));
    let is_date = |column: &Column| column.kind == ColumnKind::Date;
    let mut added = String::new();
    if is_date(mine) && !is_date(other) {
        added.push_str(" 00:00:00");
    }
    if wanted > own {
        added.push_str(if own == 0 { "." } else { "" });
        added.push_str(&"0".repeat((wanted - own).into()));
    }
    if added.is_empty() { name.to_owned() } else { format!("CONCAT({name}, '{added}')") }
}

fn digits(kind: &ColumnKind) -> u8 {
    match kind {
        ColumnKind::Time { fraction_digits }
        | ColumnKind::Datetime { fraction_digits }
        | ColumnKind::Timestamp { fraction_digits } => *fraction_digits,
        _ => 0,
    }
}

/// A label has one number in both lists.
fn is_alike(labels: &[String], others: &[String]) -> bool {
    labels.iter().zip(others).all(|(label, other)| label == other)
}

/// One digit for each label that both lists have, in an order that does not depend on the side; then what is not in both.
fn members(name: &str, labels: &[String], others: &[String]) -> String {
    let mut shared: Vec<(&String, usize)> = labels
        .iter()
        .enumerate()
        .filter(|(_, label)| others.contains(label))
        .map(|(place, label)| (label, place))
        .collect();
    shared.sort();
    let is_shared = |place: usize| shared.iter().any(|(_, shared)| *shared == place);
    let rest = (0..labels.len()).filter(|place| !is_shared(*place)).fold(0_u64, |mask, place| mask | (1 << place));
    let mut parts: Vec<String> = shared.iter().map(|(_, place)| format!("(({name} + 0) >> {place}) & 1")).collect();
    parts.push(format!("':', ({name} + 0) & {rest}"));
    format!("CONCAT({})", parts.join(", "))
}

fn is_zerofill(column: &Column) -> bool {
    column.declared.to_ascii_lowercase().contains("zerofill")
}

fn is_char(column: &Column) -> bool {
    column.declared.to_ascii_lowercase().starts_with("char")
}

fn length_of(column: &Column) -> Form {
    let declared = column.declared.to_ascii_lowercase();
    let (base, rest) = declared.split_at(declared.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(declared.len()));
    let digits: String = rest.chars().skip(1).take_while(char::is_ascii_digit).collect();
    let is_short = match base {
        "tinytext" | "tinyblob" => true,
        "char" | "varchar" | "binary" | "varbinary" => digits.parse::<u64>().is_ok_and(|length| length <= SHORT_CHARS),
        _ => false,
    };
    if is_short { Form::Short } else { Form::Long }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A value of each column, as bytes; `None` is NULL.
    type Values = Vec<Option<Vec<u8>>>;

    fn column(name: &str, kind: ColumnKind, declared: &str, nullable: bool) -> Column {
        Column { nullable, declared: declared.to_owned(), ..Column::plain(name, kind) }
    }

    fn text(charset: &str) -> ColumnKind {
        ColumnKind::Text { charset: charset.to_owned() }
    }

    const INT: ColumnKind = ColumnKind::Integer { bytes: 4, unsigned: false };

    fn both(old: &Column, new: &Column) -> [Canonical; 2] {
        [Canonical::of(old, new, false), Canonical::of(new, old, false)]
    }

    /// What a server puts together: CONCAT_WS, with the values of columns `0`, `1`, … in the place of their SQL.
    fn put_together(parts: &[Part], values: &Values) -> Vec<u8> {
        let of = |column: &Canonical| {
            let index: usize = column.value.trim_matches('`').parse().expect("a column's number");
            values[index].clone()
        };
        let or_n =
            |column: &Canonical, shown: Option<Vec<u8>>| shown.or_else(|| column.may_be_null.then(|| b"N".to_vec()));
        let shown = parts.iter().filter_map(|part| match part {
            Part::Zero => Some(b"0".to_vec()),
            Part::Shown(column) if column.form == Form::Plain => or_n(column, of(column)),
            // Any digest has these properties: no comma, no N, one for each value.
            Part::Shown(column) => or_n(
                column,
                of(column).map(|bytes| bytes.iter().flat_map(|b| format!("{b:02x}").into_bytes()).collect()),
            ),
            Part::Length(column) => or_n(column, of(column).map(|bytes| bytes.len().to_string().into_bytes())),
            Part::Bytes(column) => of(column),
        });
        shown.collect::<Vec<_>>().join(&b',')
    }

    /// All texts of at most two of these characters: what a length, a NULL or the end of a value could be taken for.
    fn texts() -> Vec<Vec<u8>> {
        let characters = [b',', b'N', b'0', b'1'];
        let pairs = characters.iter().flat_map(|first| characters.iter().map(|second| vec![*first, *second]));
        let singles = characters.iter().map(|character| vec![*character]);
        std::iter::once(Vec::new()).chain(singles).chain(pairs).collect()
    }

    /// Old and new columns of each form, with NULLs on neither side, on both, or on one alone, and their values.
    fn sorts() -> Vec<([Column; 2], Values)> {
        let few = |values: &[&str]| values.iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>();
        let forms = [
            (INT, ["int(11)", "int"], few(&["0", "1", "-1", "11"])),
            (text("utf8mb4"), ["varchar(20)", "varchar(90)"], texts()),
            (text("utf8mb4"), ["varchar(20)", "longtext"], few(&["", ",", "N"])),
        ];
        let mut sorts = Vec::new();
        for (kind, declared, values) in forms {
            for nullable in [[false, false], [true, true], [true, false], [false, true]] {
                let columns = [0, 1].map(|side| column("", kind.clone(), declared[side], nullable[side]));
                let null = nullable.contains(&true).then_some(None);
                sorts.push((columns, values.iter().cloned().map(Some).chain(null).collect()));
            }
        }
        sorts
    }

    /// Both sides of a table with these columns: equal rows are put together alike on both, different rows never.
    fn tells_rows_apart(columns: &[&([Column; 2], Values)]) {
        let sides = [0, 1].map(|side| {
            let canonical = columns.iter().enumerate().map(|(number, (pair, _))| {
                let named = |column: &Column| Column { name: number.to_string(), ..column.clone() };
                Canonical::of(&named(&pair[side]), &named(&pair[1 - side]), false)
            });
            canonical.collect::<Vec<_>>()
        });
        let [old, new] = [parts(&sides[0]), parts(&sides[1])];
        let mut rows: Vec<Values> = vec![Vec::new()];
        for (_, values) in columns {
            rows = rows
                .iter()
                .flat_map(|row| values.iter().map(|value| [&row[..], std::slice::from_ref(value)].concat()))
                .collect();
        }
        let mut known: HashMap<Vec<u8>, Values> = HashMap::new();
        for row in rows {
            let bytes = put_together(&old, &row);
            assert_eq!(bytes, put_together(&new, &row), "{row:?} in {columns:?}");
            if let Some(other) = known.insert(bytes, row.clone()) {
                panic!("{row:?} looks like {other:?} in {columns:?}");
            }
        }
    }

    /// Of tables with up to three columns of any form every row: so a text of any column, which may hold what stands between
    /// values, and a NULL, are told from each other before and after columns of every form.
    #[test]
    fn p4_different_rows_are_put_together_differently_and_equal_ones_alike() {
        let sorts = sorts();
        for first in &sorts {
            tells_rows_apart(&[first]);
            for second in &sorts {
                tells_rows_apart(&[first, second]);
            }
        }
        // With three columns the number of rows is kept small by fewer texts.
        let few: Vec<_> = sorts
            .iter()
            .map(|(columns, values)| {
                let is_kept =
                    |value: &&Option<Vec<u8>>| value.as_ref().is_none_or(|bytes| bytes.len() < 2 || bytes[1] == b',');
                (columns.clone(), values.iter().filter(is_kept).cloned().collect::<Values>())
            })
            .collect();
        for first in &few {
            for second in &few {
                for third in &few {
                    tells_rows_apart(&[first, second, third]);
                }
            }
        }
    }

    #[test]
    fn p4_both_sides_put_values_in_one_order() {
        let old = [
            column("a", text("latin1"), "varchar(20)", true),
            column("b", text("latin2"), "char(5)", false),
            column("id", INT, "int(9) unsigned zerofill", false),
            column("price", ColumnKind::Decimal { precision: 9, scale: 2 }, "decimal(9,2)", true),
            column("body", text("utf8mb4"), "text", true),
        ];
        let new = [
            column("a", text("utf8mb4"), "varchar(20)", false),
            column("b", text("latin2"), "char(5)", false),
            column("id", INT, "int", false),
            column("price", ColumnKind::Decimal { precision: 30, scale: 2 }, "decimal(30,2)", false),
            column("body", text("utf8mb4"), "varchar(90)", false),
        ];
        let pairs: Vec<[Canonical; 2]> = old.iter().zip(&new).map(|(old, new)| both(old, new)).collect();
        let of = |side: usize| digest(pairs.iter().map(|pair| &pair[side]));
        let a = "CONVERT(`a` USING utf8mb4)";
        let shown = |id: &str| {
            format!(
                "SHA2(CONCAT_WS(CAST(',' AS BINARY), {id}, IFNULL(`price`, 'N'), IFNULL(SHA2(`body`, 256), 'N'), \
                 IFNULL(LENGTH({a}), 'N'), {a}, `b`), 256)"
            )
        };
        assert_eq!([of(0), of(1)], [shown("`id` + 0"), shown("`id`")]);
        // A value that stands alone has a comma before it that a NULL has not.
        assert_eq!(digest([&pairs[0][0]]), format!("SHA2(CONCAT_WS(CAST(',' AS BINARY), 0, {a}), 256)"));
        assert_eq!(digest([&pairs[2][1]]), "SHA2(CONCAT_WS(CAST(',' AS BINARY), `id`), 256)");
    }
}
