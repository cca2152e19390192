//! MariaDB's INET4, INET6 and UUID as its server prints them.
//!
//! The event holds them as binary strings in network order (a UUID too, whatever order the storage engine keeps it in), without
//! trailing zero bytes.

use std::fmt::Write;
use std::net::Ipv4Addr;

const TOO_LONG: &str = "an address longer than its type";

pub(super) fn inet4(cell: &[u8]) -> Result<String, &'static str> {
    Ok(Ipv4Addr::from(exact::<4>(cell)?).to_string())
}

pub(super) fn uuid(cell: &[u8]) -> Result<String, &'static str> {
    let mut text = String::with_capacity(36);
    for (place, byte) in exact::<16>(cell)?.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
    }
    Ok(text)
}

/// Not as RFC 5952 has it: a single zero group is left out too, and a compatible address ends in dotted form.
pub(super) fn inet6(cell: &[u8]) -> Result<String, &'static str> {
    let bytes = exact::<16>(cell)?;
    let groups: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
    let (gap, gap_len) = longest_zeros(&groups);
    let dotted = gap == 0 && (gap_len == 6 || gap_len == 5 && groups[5] == 0xffff);
    let shown = if dotted { &groups[..6] } else { &groups[..] };

    let mut text = String::with_capacity(39);
    for (place, group) in shown.iter().enumerate() {
        if gap_len > 0 && (gap..gap + gap_len).contains(&place) {
            if place == gap {
                text.push_str("::");
            }
            continue;
        }
        if !text.is_empty() && !text.ends_with(':') {
            text.push(':');
        }
        let _ = write!(text, "{group:x}");
    }
    if dotted {
        if !text.ends_with(':') {
            text.push(':');
        }
        let _ = write!(text, "{}.{}.{}.{}", bytes[12], bytes[13], bytes[14], bytes[15]);
    }
    Ok(text)
}

/// The first of the longest runs of zero groups: where it begins and how long it is.
fn longest_zeros(groups: &[u16]) -> (usize, usize) {
    let mut longest = (0, 0);
    let mut begin = 0;
    for (place, group) in groups.iter().enumerate() {
        if *group != 0 {
            begin = place + 1;
        } else if place + 1 - begin > longest.1 {
            longest = (begin, place + 1 - begin);
        }
    }
    longest
}

fn exact<const N: usize>(cell: &[u8]) -> Result<[u8; N], &'static str> {
    let mut bytes = [0; N];
    bytes.get_mut(..cell.len()).ok_or(TOO_LONG)?.copy_from_slice(cell);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Left: groups; right: what MariaDB 10.11.19 prints for them.
    #[test]
    fn inet6_as_the_server_prints_it() {
        for (groups, printed) in [
            ([1, 0, 2, 3, 4, 5, 6, 7], "1::2:3:4:5:6:7"),
            ([0, 0, 0, 0, 0, 0, 1, 0], "::0.1.0.0"),
            ([1, 0, 0, 2, 3, 0, 0, 4], "1::2:3:0:0:4"),
            ([0, 0, 2, 3, 4, 5, 6, 7], "::2:3:4:5:6:7"),
            ([2, 3, 4, 5, 6, 7, 0, 0], "2:3:4:5:6:7::"),
            ([0, 0, 0, 0, 0, 0xffff, 0, 0], "::ffff:0.0.0.0"),
            ([0, 0, 0, 0, 0xfffe, 0xffff, 0, 0], "::fffe:ffff:0:0"),
            ([0; 8], "::"),
            ([0, 0, 0, 0, 0, 0, 0, 1], "::1"),
            ([0xabcd, 0, 0, 0, 0, 0xffff, 0x102, 0x304], "abcd::ffff:102:304"),
            ([0, 1, 0, 0, 0, 0, 0, 0], "0:1::"),
            ([1, 0, 0, 0, 1, 0, 0, 1], "1::1:0:0:1"),
        ] {
            let bytes: Vec<u8> = groups.iter().flat_map(|group: &u16| group.to_be_bytes()).collect();
            assert_eq!(inet6(&bytes).as_deref(), Ok(printed));
            let trimmed = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            assert_eq!(inet6(&bytes[..trimmed]).as_deref(), Ok(printed));
        }
        assert!(inet6(&[1; 17]).is_err());
    }
}
