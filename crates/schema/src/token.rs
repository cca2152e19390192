//! Statements as a server prints them, in pieces: names stand in back-quotes, texts in quotes.

/// A piece with the white space before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'t> {
    pub kind: TokenKind,
    pub space: &'t str,
    pub text: &'t str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A keyword, a number, a name without back-quotes.
    Word,
    /// A name in back-quotes.
    Name,
    /// In quotes of either kind.
    Text,
    Sign,
    /// `/*!50100`, `/*M!100301` or `*/`: what stands between is meant.
    Hint,
}

impl Token<'_> {
    pub fn is_word(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(word)
    }

    pub fn is_sign(&self, sign: &str) -> bool {
        self.kind == TokenKind::Sign && self.text == sign
    }

    /// A name without its back-quotes.
    pub fn name(&self) -> Option<String> {
        let inside = self.text.strip_prefix('`')?.strip_suffix('`')?;
        (self.kind == TokenKind::Name).then(|| inside.replace("``", "`"))
    }
}

/// Splits a text. Whatever it holds, the pieces put together again are the text.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let space_end = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        let (space, from) = rest.split_at(space_end);
        let (kind, len) = piece(from);
        let (text, after) = from.split_at(len);
        found.push(Token { kind, space, text });
        rest = after;
    }
    found
}

/// What the text begins with, and its bytes.
fn piece(text: &str) -> (TokenKind, usize) {
    if let Some(len) = hint(text) {
        return (TokenKind::Hint, len);
    }
    let is_of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    match text.chars().next() {
        Some('`') => (TokenKind::Name, quoted(text, '`', false)),
        Some(quote @ ('\'' | '"')) => (TokenKind::Text, quoted(text, quote, true)),
        Some(c) if is_of_word(c) => (TokenKind::Word, text.find(|c| !is_of_word(c)).unwrap_or(text.len())),
        Some(c) => (TokenKind::Sign, c.len_utf8()),
        None => (TokenKind::Sign, 0),
    }
}

fn hint(text: &str) -> Option<usize> {
    if text.starts_with("*/") {
        return Some(2);
    }
    let begin = ["/*!", "/*M!"].into_iter().find(|begin| text.starts_with(begin))?.len();
    Some(begin + text[begin..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - begin))
}

/// Up to the quote that ends it; one that is doubled does not, nor does one behind a backslash in a text.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if escapes && c == '\\' {
            characters.next();
        } else if c == quote {
            if characters.peek().is_none_or(|(_, next)| *next != quote) {
                return at + quote.len_utf8();
            }
            characters.next();
        }
    }
    text.len()
}

/// Without hints and with plain spaces: what two servers print alike where they mean the same.
pub(crate) fn plain(tokens: &[Token<'_>]) -> String {
    let mut text = String::new();
    let mut space = false;
    for token in tokens {
        space |= !token.space.is_empty();
        if token.kind == TokenKind::Hint {
            continue;
        }
        if space && !text.is_empty() {
            text.push(' ');
        }
        text.push_str(token.text);
        space = false;
    }
    text
}

/// As they stood.
pub(crate) fn printed(tokens: &[Token<'_>]) -> String {
    tokens.iter().flat_map(|token| [token.space, token.text]).collect()
}

/// How deep in brackets the token after this one stands, counted from `depth`.
pub(crate) fn depth_after(depth: usize, token: &Token<'_>) -> usize {
    match (token.kind, token.text) {
        (TokenKind::Sign, "(") => depth + 1,
        (TokenKind::Sign, ")") => depth.saturating_sub(1),
        _ => depth,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_put_together_are_the_text() {
        let texts = [
            "",
            " ",
            "`a``b`\n",
            r"concat(_utf8mb4'it\'s','','''',`b`) */ /*!50100 PARTITION BY (`c`) */",
            "`never ended",
            "'never ended\\",
            "/*!",
            "ü`ü`'ü'\u{a0}ü",
        ];
        for text in texts {
            assert_eq!(printed(&tokens(text)), text);
        }
    }

    #[test]
    fn quotes_and_hints_are_known() {
        let kinds = |text| tokens(text).iter().map(|token| (token.kind, token.text)).collect::<Vec<_>>();
        use TokenKind::{Hint, Name, Sign, Text, Word};
        assert_eq!(kinds(r"x'\'y''z' "), [(Word, "x"), (Text, r"'\'y''z'"), (Sign, "")]);
        assert_eq!(
            kinds("/*!80023 INVISIBLE */,"),
            [(Hint, "/*!80023"), (Word, "INVISIBLE"), (Hint, "*/"), (Sign, ",")]
        );
        assert_eq!(kinds("`a``)`)"), [(Name, "`a``)`"), (Sign, ")")]);
        assert_eq!(tokens("`a``b`")[0].name().as_deref(), Some("a`b"));
        assert_eq!(plain(&tokens("\n/*!50100 PARTITION  BY\n(`a`) */")), "PARTITION BY (`a`)");
    }
}
