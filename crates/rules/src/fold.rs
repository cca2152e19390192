//! Folding of text: one rendering for all texts that some collation of either server may call equal.
//!
//! Collations disagree (`ß` is `s` in one and `ss` in another, `ä` is `a` or `ae`, `ü` is `y` in Swedish), so the folding
//! merges what any of them merges. It is a coarse equivalence: two texts that fold to the same bytes *may* be equal, two
//! that fold differently are not equal on any server. It never decides that two rows are one.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Appends the folded form of a text.
pub(crate) fn fold_text(text: &str, out: &mut Vec<u8>) {
    let mut folder = Folder { out, last: '\0', spaces: 0 };
    if text.is_ascii() {
        text.bytes().for_each(|byte| folder.push(char::from(byte)));
    } else {
        text.nfkd().for_each(|letter| folder.push_letter(letter));
    }
}

struct Folder<'a> {
    out: &'a mut Vec<u8>,
    /// The last character written.
    last: char,
    /// Spaces that are written only when something follows them: trailing spaces do not count.
    spaces: usize,
}

impl Folder<'_> {
    fn push_letter(&mut self, letter: char) {
        if letter.is_ascii() {
            return self.push(letter);
        }
        if is_combining_mark(letter) || is_ignorable(letter) {
            return;
        }
        // Upper case first: it has the expansions, and unites the two small sigmas.
        for upper in letter.to_uppercase() {
            for folded in upper.to_lowercase().nfkd().filter(|part| !is_combining_mark(*part)) {
                self.push(base_letter(folded));
            }
        }
    }

    fn push(&mut self, letter: char) {
        let letter = match letter {
            ' ' => {
                self.spaces += 1;
                return;
            }
            '\0'..='\u{8}' | '\u{e}'..='\u{1f}' | '\u{7f}' => return,
            'Y' | 'y' => 'u',
            'A'..='Z' => letter.to_ascii_lowercase(),
            _ => letter,
        };
        if self.spaces > 0 {
            self.out.resize(self.out.len() + self.spaces, b' ');
            self.spaces = 0;
            self.last = ' ';
        }
        // `aa`, `ss` and `ae`, `oe`, `ue` stand for one letter in some collation.
        if letter == self.last && letter.is_alphabetic() || letter == 'e' && matches!(self.last, 'a' | 'o' | 'u') {
            return;
        }
        self.last = letter;
        let mut buffer = [0; 4];
        self.out.extend_from_slice(letter.encode_utf8(&mut buffer).as_bytes());
    }
}

/// Format characters, selectors and fillers that weigh nothing.
fn is_ignorable(letter: char) -> bool {
    matches!(letter,
        '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The base letter of what Unicode does not decompose and collations do.
fn base_letter(letter: char) -> char {
    match letter {
        'ø' => 'o',
        'đ' | 'ð' => 'd',
        'ł' => 'l',
        'ħ' => 'h',
        // Katakana and hiragana are one.
        '\u{30a1}'..='\u{30f6}' => char::from_u32(letter as u32 - 0x60).unwrap_or(letter),
        // Outside the basic plane the older collations give every character the same weight.
        '\u{10000}'.. => '\u{fffd}',
        _ => letter,
    }
}

/// A text in a character set that the reader leaves as bytes, decoded well enough for folding; `None` where that is
/// not possible.
pub(crate) fn decode_roughly(charset: &str, bytes: &[u8]) -> Option<String> {
    let encoding = match charset {
        "gbk" | "gb2312" => encoding_rs::GBK,
        "gb18030" => encoding_rs::GB18030,
        "big5" => encoding_rs::BIG5,
        "sjis" | "cp932" => encoding_rs::SHIFT_JIS,
        "ujis" | "eucjpms" => encoding_rs::EUC_JP,
        "euckr" => encoding_rs::EUC_KR,
        "latin2" => encoding_rs::ISO_8859_2,
        "latin5" => encoding_rs::WINDOWS_1254,
        "latin7" => encoding_rs::ISO_8859_13,
        "greek" => encoding_rs::ISO_8859_7,
        "hebrew" => encoding_rs::ISO_8859_8,
        "tis620" => encoding_rs::WINDOWS_874,
        "cp1250" => encoding_rs::WINDOWS_1250,
        "cp1251" => encoding_rs::WINDOWS_1251,
        "cp1256" => encoding_rs::WINDOWS_1256,
        "cp1257" => encoding_rs::WINDOWS_1257,
        "cp866" => encoding_rs::IBM866,
        "koi8r" => encoding_rs::KOI8_R,
        "koi8u" => encoding_rs::KOI8_U,
        "macroman" => encoding_rs::MACINTOSH,
        _ => return None,
    };
    encoding.decode_without_bom_handling_and_without_replacement(bytes).map(Into::into)
}
