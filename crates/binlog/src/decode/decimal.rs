//! DECIMAL from its packed form.
//!
//! Nine decimal digits share four big-endian bytes; what is left over at either end takes fewer. The first bit is the
//! sign, inverted, and a negative number has all its bits inverted (MySQL manual, "Precision Math").

use super::cursor::be_uint;

const MALFORMED: &str = "a DECIMAL with impossible digits";

/// Bytes that 0 to 9 digits take.
const BYTES: [u8; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
const MAX_PRECISION: u8 = 65;

/// Bytes of a stored DECIMAL; `None` where no column can be declared so.
pub(super) fn stored_len(precision: u8, scale: u8) -> Option<u16> {
    let whole = precision.checked_sub(scale)?;
    if precision == 0 || precision > MAX_PRECISION {
        return None;
    }
    Some(part_len(whole) + part_len(scale))
}

fn part_len(digits: u8) -> u16 {
    u16::from(digits / 9) * 4 + u16::from(BYTES[usize::from(digits % 9)])
}

/// The number as the server prints it: `-0.50`, `0`, `12.3400`.
pub(super) fn text(bytes: &[u8], precision: u8, scale: u8) -> Result<String, &'static str> {
    if stored_len(precision, scale).map(usize::from) != Some(bytes.len()) {
        return Err(MALFORMED);
    }
    let negative = bytes[0] & 0x80 == 0;
    let mut plain = [0_u8; 32];
    let plain = plain.get_mut(..bytes.len()).ok_or(MALFORMED)?;
    let flip = if negative { 0xff } else { 0 };
    plain.iter_mut().zip(bytes).for_each(|(to, from)| *to = from ^ flip);
    plain[0] ^= 0x80;

    let whole = precision - scale;
    let mut digits = Digits { text: String::with_capacity(usize::from(precision) + 3), rest: plain };
    if negative {
        digits.text.push('-');
    }
    let sign_len = digits.text.len();
    digits.group(whole % 9, true, sign_len)?;
    for _ in 0..whole / 9 {
        digits.group(9, true, sign_len)?;
    }
    if digits.text.len() == sign_len {
        digits.text.push('0');
    }
    if scale > 0 {
        digits.text.push('.');
        for _ in 0..scale / 9 {
            digits.group(9, false, sign_len)?;
        }
        digits.group(scale % 9, false, sign_len)?;
    }
    Ok(digits.text)
}

struct Digits<'a> {
    text: String,
    rest: &'a [u8],
}

impl Digits<'_> {
    /// Appends a group of digits. Leading zeros are dropped before the point as long as nothing but the sign stands there.
    fn group(&mut self, digits: u8, whole: bool, sign_len: usize) -> Result<(), &'static str> {
        let len = usize::from(BYTES[usize::from(digits)]);
        let (head, tail) = self.rest.split_at_checked(len).ok_or(MALFORMED)?;
        self.rest = tail;
        let number = be_uint(head);
        if number >= 10_u64.pow(u32::from(digits)) {
            return Err(MALFORMED);
        }
        let leading = whole && self.text.len() == sign_len;
        if leading && number == 0 {
            return Ok(());
        }
        let mut buffer = [b'0'; 9];
        let mut rest = number;
        for place in buffer[..usize::from(digits)].iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let shown = &buffer[..usize::from(digits)];
        let first = if leading { shown.iter().position(|digit| *digit != b'0').unwrap_or(0) } else { 0 };
        self.text.extend(shown[first..].iter().map(|digit| char::from(*digit)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The packed form, made the slow way, for round trips.
    fn pack(digits: &str, scale: u8, negative: bool) -> Vec<u8> {
        let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
        let mut bytes = Vec::new();
        let mut push = |group: &str| {
            if !group.is_empty() {
                let number: u32 = group.parse().unwrap();
                bytes.extend_from_slice(&number.to_be_bytes()[4 - usize::from(BYTES[group.len()])..]);
            }
        };
        let (head, groups) = whole.split_at(whole.len() % 9);
        push(head);
        groups.as_bytes().chunks(9).for_each(|group| push(std::str::from_utf8(group).unwrap()));
        fraction.as_bytes().chunks(9).for_each(|group| push(std::str::from_utf8(group).unwrap()));
        bytes[0] ^= 0x80;
        if negative {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        bytes
    }

    #[test]
    fn impossible_columns_have_no_length() {
        assert_eq!(stored_len(65, 30), Some(30));
        assert_eq!(stored_len(0, 0), None);
        assert_eq!(stored_len(3, 4), None);
        assert_eq!(stored_len(66, 0), None);
    }

    proptest! {
        #[test]
        fn every_packed_number_reads_back(digits in "[0-9]{1,65}", scale in 0_u8..=30, negative: bool) {
            let scale = scale.min(digits.len() as u8);
            let bytes = pack(&digits, scale, negative);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
            let whole = whole.trim_start_matches('0');
            let sign = if negative { "-" } else { "" };
            let whole = if whole.is_empty() { "0" } else { whole };
            let point = if scale > 0 { "." } else { "" };
            prop_assert_eq!(text(&bytes, digits.len() as u8, scale).unwrap(), format!("{sign}{whole}{point}{fraction}"));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), precision: u8, scale: u8) {
            let _ = text(&bytes, precision, scale);
        }
    }
}
