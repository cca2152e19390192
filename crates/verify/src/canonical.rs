//! Values as SQL that gives the same bytes for equal values on both sides, whatever they are stored as.
//!
//! Each expression is made for a pair of columns, since what is equal depends on both: `5` and `5.00`, `é` in latin1 and in
//! utf8mb4, a label in two lists. That each type is told
//! from every damage is shown end to end, by `tests/tests/verify`.

use crossfade_model::{Column, ColumnKind, quote_identifier};

/// Values that may be longer stand in a row as their own digest, so that the whole row fits every packet.
const SHORT_CHARS: u64 = 2_000;

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
    /// Bytes, with their number before them.
    Short,
    /// Bytes, by their digest.
    Long,
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

    /// The value among others of its row, never NULL: NULL is an `N`, which no value is.
    pub fn part(&self) -> String {
        let value = &self.value;
        let shown = match self.form {
            Form::Plain => value.clone(),
            Form::Short => format!("CONCAT(LENGTH({value}), ':', {value})"),
            Form::Long => format!("SHA2({value}, 256)"),
        };
        if self.may_be_null { format!("COALESCE({shown}, 'N')") } else { shown }
    }
}

/// The digest of some columns together, as 64 hexadecimal digits.
pub(crate) fn digest<'c>(columns: impl IntoIterator<Item = &'c Canonical>) -> String {
    let parts: Vec<String> = columns.into_iter().map(Canonical::part).collect();
    format!("SHA2(CONCAT_WS(',', {}), 256)", parts.join(", "))
}

fn expression(mine: &Column, other: &Column) -> (String, Form) {
    use ColumnKind::*;
    let name = quote_identifier(&mine.name);
    // What ZEROFILL prints before a number goes with the addition.
    let number = || (format!("{name} + 0"), Form::Plain);
    match (&mine.kind, &other.kind) {
        (Integer { .. }, Decimal { .. }) | (Decimal { .. }, _) => {
            let scale = scale(&mine.kind).max(scale(&other.kind));
            (format!("CAST({name} AS DECIMAL(65,{scale}))"), Form::Plain)
        }
        (Integer { .. } | Year | Bit { .. }, _) => number(),
        (Float | Double, _) => (real(&name), Form::Plain),
        (Date | Datetime { .. } | Timestamp { .. } | Time { .. }, _) => (moment(&name, mine, other), Form::Plain),
        (Enum { labels }, Enum { labels: others }) if is_alike(labels, others) => number(),
        (Set { labels }, Set { labels: others }) if is_alike(labels, others) => number(),
        (Set { labels }, Set { labels: others }) => (members(&name, labels, others), Form::Plain),
        (Enum { .. } | Set { .. }, _) => (format!("CAST(CONVERT({name} USING utf8mb4) AS BINARY)"), Form::Short),
        (Text { charset }, other_kind) => {
            let is_same = matches!(other_kind, Text { charset: other } if other == charset);
            // A CHAR has lost the spaces at its end.
            let name = if is_char(mine) == is_char(other) { name } else { format!("RTRIM({name})") };
            let text = if is_same { name } else { format!("CONVERT({name} USING utf8mb4)") };
            (format!("CAST({text} AS BINARY)"), length_of(mine))
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
