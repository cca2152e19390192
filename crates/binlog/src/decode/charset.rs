//! Stored text to Unicode, where that loses nothing.

use crossfade_model::Value;

use super::single_byte;

/// How the bytes of a text column are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    Utf8,
    Ascii,
    /// MySQL's latin1 is Windows-1252, with its five gaps filled by the control characters of the same number.
    Latin1,
    Utf16,
    Utf16Le,
    Ucs2,
    Utf32,
    /// Bytes stay as they are stored.
    Other(&'static str),
}

impl Charset {
    pub fn named(name: &'static str) -> Charset {
        match name {
            "utf8mb4" | "utf8mb3" => Charset::Utf8,
            "ascii" => Charset::Ascii,
            "latin1" => Charset::Latin1,
            "utf16" => Charset::Utf16,
            "utf16le" => Charset::Utf16Le,
            "ucs2" => Charset::Ucs2,
            "utf32" => Charset::Utf32,
            other => Charset::Other(other),
        }
    }

    /// The text, or `None` where some byte cannot be had back from Unicode.
    #[inline]
    pub fn decode(self, bytes: &[u8]) -> Option<String> {
        match self {
            Charset::Utf8 => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Charset::Ascii if bytes.is_ascii() => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Charset::Ascii | Charset::Other(_) => None,
            Charset::Latin1 => encoding_rs::WINDOWS_1252
                .decode_without_bom_handling_and_without_replacement(bytes)
                .map(|text| text.into_owned()),
            Charset::Utf16 => utf16(bytes, u16::from_be_bytes),
            Charset::Utf16Le => utf16(bytes, u16::from_le_bytes),
            Charset::Ucs2 => utf16(bytes, u16::from_be_bytes).filter(|text| text.chars().all(|c| c <= '\u{ffff}')),
            Charset::Utf32 => utf32(bytes),
        }
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let mut text = String::with_capacity(bytes.len());
    for read in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        text.push(read.ok()?);
    }
    Some(text)
}

fn utf32(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit))).collect()
}

/// A text cell. `name` is the server's name of the character set, kept where the bytes cannot become text.
#[inline]
pub(super) fn text_value(charset: Charset, name: &'static str, bytes: &[u8]) -> Value {
    match charset.decode(bytes) {
        Some(text) => Value::Text(text),
        None => Value::Encoded { charset: name, bytes: bytes.to_vec() },
    }
}

/// The value of a text column, from its bytes as the server stores them and the server's name of its character set: what its
/// row events say. `None` for a character set that neither server has.
pub fn stored_text(charset: &str, bytes: &[u8]) -> Option<Value> {
    let name = super::collation::known_charset(charset)?;
    Some(text_value(Charset::named(name), name, bytes))
}

/// An ENUM or SET label. Labels must become text, so all character sets are read; those of several bytes by the tables of
/// the Encoding Standard, which agree with the server's for what stands in labels.
pub(super) fn label(charset: &'static str, bytes: &[u8]) -> Option<String> {
    if let Some(text) = Charset::named(charset).decode(bytes).or_else(|| single_byte::decode(charset, bytes)) {
        return Some(text);
    }
    let encoding = match charset {
        "big5" => encoding_rs::BIG5,
        "gbk" | "gb2312" => encoding_rs::GBK,
        "gb18030" => encoding_rs::GB18030,
        "sjis" | "cp932" => encoding_rs::SHIFT_JIS,
        "ujis" | "eucjpms" => encoding_rs::EUC_JP,
        "euckr" => encoding_rs::EUC_KR,
        _ => return None,
    };
    encoding.decode_without_bom_handling_and_without_replacement(bytes).map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latin1_byte_is_its_own_character() {
        let all: Vec<u8> = (0..=255).collect();
        let text = Charset::Latin1.decode(&all).unwrap();
        let mut seen: Vec<char> = text.chars().collect();
        assert_eq!(seen.len(), 256);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 256);
        assert_eq!(text.chars().nth(0x80), Some('€'));
        assert_eq!(text.chars().nth(0x81), Some('\u{81}'));
    }

    #[test]
    fn what_would_not_come_back_stays_bytes() {
        assert_eq!(Charset::Utf8.decode(b"a\xff"), None);
        assert_eq!(Charset::Ascii.decode(b"\x80"), None);
        assert_eq!(Charset::Utf16.decode(&[0xd8, 0x00]), None);
        assert_eq!(Charset::Utf16.decode(&[0x00]), None);
        assert_eq!(Charset::Utf16.decode(&[0xd8, 0x3d, 0xde, 0x00]).as_deref(), Some("😀"));
        assert_eq!(Charset::Ucs2.decode(&[0xd8, 0x3d, 0xde, 0x00]), None);
        assert_eq!(Charset::Utf32.decode(&[0, 0, 0xd8, 0]), None);
        assert_eq!(Charset::Utf32.decode(&[0, 1, 0xf6, 0]).as_deref(), Some("😀"));
        assert_eq!(
            text_value(Charset::Other("gbk"), "gbk", b"abc"),
            Value::Encoded { charset: "gbk", bytes: b"abc".to_vec() }
        );
    }
}
