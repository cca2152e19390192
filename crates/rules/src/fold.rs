//! Folding of text: one rendering for all texts that some collation of either server may call equal.
//!
//! Collations disagree (`ß` is `s` in one and `ss` in another, `ä` is `a` or `ae`, `ü` is `y` in Swedish, `i` is `y` in
//! Lithuanian), so the folding merges what any of them merges. It is a coarse equivalence: two texts that fold to the
//! same bytes *may* be equal. It never decides that two rows are one.
//!
//! `tests/collations.rs` asks both servers about every letter in everyday use. Known not to be merged, because that would
//! merge everything, or because nobody keeps such keys:
//! - what only a Latin, Persian, Roman, Danish latin1, or old 8-bit Lithuanian, Bulgarian, Hungarian or Macintosh
//!   collation calls equal (`m` and `n`);
//! - letters outside the basic plane under the collations before UCA 9, which do not tell them from any other character
//!   there; here they are the letters they resemble. All other characters there (emoji) are one;
//! - phonetic, medieval and historic letters, and numbers of other scripts that are no decimal digits.

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
        if let Some(small) = small_letter_above(letter) {
            return self.push(small);
        }
        if is_combining_mark(letter) || is_ignorable(letter) {
            return;
        }
        if let Some(digit) = decimal_digit(letter) {
            return self.push(digit);
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
            'A'..='Z' => letter.to_ascii_lowercase(),
            _ => letter,
        };
        let letter = match letter {
            'j' | 'u' | 'v' | 'w' | 'y' | '~' => 'i',
            // In latin1_swedish_ci these are Å, Ä and Ö.
            '[' | '\\' => 'a',
            ']' => 'o',
            _ => letter,
        };
        if self.spaces > 0 {
            self.out.resize(self.out.len() + self.spaces, b' ');
            self.spaces = 0;
            self.last = ' ';
        }
        // `aa`, `ss` and `ae`, `oe`, `ue` stand for one letter in some collation.
        let second = match letter {
            'e' => matches!(self.last, 'a' | 'o' | 'i'),
            'h' => matches!(self.last, 'c' | 't'),
            _ => false,
        };
        if second || letter == self.last && letter.is_alphabetic() {
            return;
        }
        self.last = letter;
        let mut buffer = [0; 4];
        self.out.extend_from_slice(letter.encode_utf8(&mut buffer).as_bytes());
    }
}

/// Letters that stand above other letters and weigh like letters.
fn small_letter_above(letter: char) -> Option<char> {
    const LETTERS: [char; 13] = ['a', 'e', 'i', 'o', 'u', 'c', 'd', 'h', 'm', 'r', 't', 'v', 'x'];
    LETTERS.get((letter as usize).checked_sub(0x363)?).copied()
}

/// The value of a decimal digit of any script of the basic plane (Unicode category Nd).
fn decimal_digit(letter: char) -> Option<char> {
    const ZEROS: [u32; 36] = [
        0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
        0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0,
        0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    ];
    let code = letter as u32;
    let zero = ZEROS.iter().find(|zero| (**zero..**zero + 10).contains(&code))?;
    char::from_digit(code - zero, 10)
}

/// Characters that weigh nothing in some collation: format characters, selectors, fillers, the Arabic tatweel, and the
/// iota, which is written below a letter or beside it.
fn is_ignorable(letter: char) -> bool {
    matches!(letter,
        '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{b7}' | '\u{34f}' | '\u{345}' | '\u{37a}' | '\u{399}' | '\u{3b9}' | '\u{1fbe}'
        | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{640}' | '\u{6dd}' | '\u{70f}' | '\u{7fa}' | '\u{8e2}' | '\u{180a}'..='\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The base letter of what Unicode does not decompose and collations do.
fn base_letter(letter: char) -> char {
    match letter {
        'æ' | 'ɐ' => 'a',
        'ø' | 'œ' => 'o',
        'đ' | 'ð' => 'd',
        'ł' => 'l',
        'ħ' => 'h',
        'ŧ' | 'þ' => 't',
        'ƒ' => 'f',
        'ß' => 's',
        'ı' => 'i',
        'ŋ' => 'n',
        'ĸ' => 'q',
        'ґ' => 'г',
        // Final letters of Hebrew.
        'ך' | 'ם' | 'ן' | 'ף' | 'ץ' => char::from_u32(letter as u32 + 1).unwrap_or(letter),
        'ٴ' | '۽' => 'ء',
        // Nuskhuri and mkhedruli are two cases of Georgian.
        '\u{2d00}'..='\u{2d25}' => char::from_u32(letter as u32 - 0x2d00 + 0x10d0).unwrap_or(letter),
        // Katakana and hiragana are one.
        '\u{30a1}'..='\u{30f6}' => base_letter(char::from_u32(letter as u32 - 0x60).unwrap_or(letter)),
        // And so are small and full kana.
        'ぁ' | 'ぃ' | 'ぅ' | 'ぇ' | 'ぉ' | 'っ' | 'ゃ' | 'ゅ' | 'ょ' | 'ゎ' => {
            char::from_u32(letter as u32 + 1).unwrap_or(letter)
        }
        'ヽ' | 'ヾ' => 'ゝ',
        'ゕ' => 'か',
        'ゖ' => 'け',
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
        // All others but Swedish 7-bit hold ASCII where ASCII is.
        _ if charset != "swe7" && bytes.is_ascii() => return Some(bytes.iter().copied().map(char::from).collect()),
        _ => return None,
    };
    encoding.decode_without_bom_handling_and_without_replacement(bytes).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        let mut out = Vec::new();
        fold_text(text, &mut out);
        String::from_utf8(out).expect("folding text gives text")
    }

    /// Equal in at least one collation, as the servers say.
    #[test]
    fn what_some_collation_calls_equal_folds_alike() {
        let equal = [
            ("abc", "ABC"),
            ("abc", "abc  "),
            ("abc", "ábç"),
            ("cafe\u{301}", "CAFÉ"),
            ("straße", "STRASSE"),
            ("straße", "strase"),
            ("STRAẞE", "straße"),
            ("ärger", "aerger"),
            ("ærger", "Ärger"),
            ("Øl", "ol"),
            ("œuvre", "oeuvre"),
            ("müller", "myller"),
            ("müller", "mueller"),
            ("ångström", "aangstrom"),
            ("ﬁn", "fin"),
            ("ＡＢＣ１", "abc1"),
            ("ΣΊΣΥΦΟΣ", "Σίσυφος"),
            ("ІЙ", "ій"),
            ("łódź", "LODZ"),
            ("Đorđe", "dorde"),
            ("カタカナ", "かたかな"),
            ("ｶﾞ", "か"),
            ("ャ", "や"),
            ("가", "\u{1100}\u{1161}"),
            ("a\u{200d}b", "ab"),
            ("a\u{0}b", "ab"),
            ("a\u{ad}b", "ab"),
            ("a \u{1}", "a"),
            ("😀", "🎉"),
            ("𝐀", "a"),
            ("١", "1"),
            ("þór", "thor"),
            ("İstanbul", "istanbul"),
            ("ıstanbul", "ISTANBUL"),
            ("ﷺ", "صلى الله عليه وسلم"),
        ];
        for (a, b) in equal {
            assert_eq!(folded(a), folded(b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn what_no_collation_calls_equal_stays_apart() {
        let texts =
            ["", "a", "b", "ab", "ba", "a b", "1", "11", "12", "a-b", "a_b", "a.b", "e", "ea", "z", "がき", "中", "国"];
        for (index, a) in texts.iter().enumerate() {
            for b in &texts[index + 1..] {
                assert_ne!(folded(a), folded(b), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn digits_are_never_merged() {
        assert_eq!(folded("user 1002@example.org"), "iser 1002@example.org");
        assert_ne!(folded("1122"), folded("12"));
    }

    #[test]
    fn the_quick_way_for_ascii_folds_like_the_long_one() {
        for text in ["AAron  x ", "\u{1}yes~[\\]", "Chthonic Aeoeue", "  lead", ""] {
            let mut out = Vec::new();
            let mut folder = Folder { out: &mut out, last: '\0', spaces: 0 };
            text.nfkd().for_each(|letter| folder.push_letter(letter));
            assert_eq!(folded(text).into_bytes(), out, "{text:?}");
        }
    }

    #[test]
    fn texts_in_other_character_sets_fold_like_their_characters() {
        let cyrillic = decode_roughly("cp1251", &[0xcf, 0xf0]).expect("cp1251 decodes");
        assert_eq!(folded(&cyrillic), folded("пр"));
        assert_eq!(decode_roughly("swe7", b"a"), None);
        assert_eq!(decode_roughly("dec8", b"abc").as_deref(), Some("abc"));
        assert_eq!(decode_roughly("dec8", &[0xe4]), None);
        assert_eq!(decode_roughly("gbk", &[0x81]), None);
    }
}
