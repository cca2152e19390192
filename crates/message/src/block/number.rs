//! Numbers as JSON.

/// Integers up to here are exact in every reader of JSON; beyond they are written as strings.
const EXACT: u64 = 1 << 53;

pub fn push_unsigned(out: &mut Vec<u8>, number: u64) {
    let mut buffer = itoa::Buffer::new();
    quoted_if(out, number > EXACT, buffer.format(number));
}

pub fn push_signed(out: &mut Vec<u8>, number: i64) {
    let mut buffer = itoa::Buffer::new();
    quoted_if(out, number.unsigned_abs() > EXACT, buffer.format(number));
}

/// A number as such, for members that are no column's value.
pub fn push_plain(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The shortest digits that give the same bits; `false`, and nothing written, for what JSON has no number for.
pub fn push_float(out: &mut Vec<u8>, number: impl ryu::Float, finite: bool) -> bool {
    if finite {
        out.extend_from_slice(ryu::Buffer::new().format_finite(number).as_bytes());
    }
    finite
}

fn quoted_if(out: &mut Vec<u8>, quoted: bool, digits: &str) {
    if quoted {
        out.push(b'"');
        out.extend_from_slice(digits.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(digits.as_bytes());
    }
}
