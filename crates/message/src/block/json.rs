//! Strings and bytes as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How a byte of UTF-8 stands in a JSON string: 0 as it is, `u` as `\u00XX`, else a backslash and this letter.
const ESCAPE: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[8] = b'b';
    table[12] = b'f';
    table
};

pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape = ESCAPE[usize::from(*byte)];
        if escape != 0 {
            out.extend_from_slice(&bytes[plain_from..at]);
            push_escape(out, *byte, escape);
            plain_from = at + 1;
        }
    }
    out.extend_from_slice(&bytes[plain_from..]);
    out.push(b'"');
}

#[cold]
fn push_escape(out: &mut Vec<u8>, byte: u8, escape: u8) {
    out.extend_from_slice(&[b'\\', escape]);
    if escape == b'u' {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        out.extend_from_slice(&[b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

/// `"…"` without looking for anything to escape.
pub fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The room was made for exactly this.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

/// How bytes stand in an image.
pub fn push_bytes_object(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(BYTES_OBJECT);
    push_base64(out, bytes);
    out.push(b'}');
}

pub const BYTES_OBJECT: &[u8] = b"{\"$base64\":";

pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}
