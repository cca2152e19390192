//! Splits a logged statement into words, names and signs.
//!
//! Only as much of SQL as it takes to see which tables a statement names: comments vanish, strings are kept apart from
//! words, the contents of `/*!…*/` and `/*M!…*/` count as text, as they do for the server.

/// One piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A bare word or number: keyword or name.
    Word(String),
    /// A name in back-quotes.
    Name(String),
    /// A text in double quotes: a name under `ANSI_QUOTES`, else a string.
    DoubleQuoted(String),
    /// A string in single quotes, without its contents.
    Text,
    Sign(char),
}

impl Token {
    pub fn is_word(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    pub fn is_sign(&self, sign: char) -> bool {
        *self == Token::Sign(sign)
    }

    /// What it reads as where a name is expected.
    pub fn as_name(&self) -> Option<&str> {
        match self {
            Token::Word(name) | Token::Name(name) | Token::DoubleQuoted(name) => Some(name),
            Token::Text | Token::Sign(_) => None,
        }
    }
}

/// `backslash_escapes` is off under `NO_BACKSLASH_ESCAPES`. Never fails: what is not closed runs to the end.
pub(crate) fn tokens(statement: &str, backslash_escapes: bool) -> Vec<Token> {
    let mut lexer = Lexer { rest: statement, backslash_escapes, tokens: Vec::new(), in_versioned: false };
    while lexer.step() {}
    lexer.tokens
}

struct Lexer<'a> {
    rest: &'a str,
    backslash_escapes: bool,
    tokens: Vec<Token>,
    in_versioned: bool,
}

impl Lexer<'_> {
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        let rest = self.rest;
        if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else if first == '#' || rest.starts_with("-- ") || rest.starts_with("--\t") || rest.starts_with("--\n") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.comment();
        } else if self.in_versioned && rest.starts_with("*/") {
            self.in_versioned = false;
            self.skip(2);
        } else if first == '`' {
            let name = self.quoted('`', false);
            self.tokens.push(Token::Name(name));
        } else if first == '"' {
            let text = self.quoted('"', self.backslash_escapes);
            self.tokens.push(Token::DoubleQuoted(text));
        } else if first == '\'' {
            self.quoted('\'', self.backslash_escapes);
            self.tokens.push(Token::Text);
        } else if is_word_char(first) {
            let end = rest.find(|c| !is_word_char(c)).unwrap_or(rest.len());
            self.tokens.push(Token::Word(rest[..end].to_owned()));
            self.skip(end);
        } else {
            self.tokens.push(Token::Sign(first));
            self.skip(first.len_utf8());
        }
        true
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    fn comment(&mut self) {
        let inside = &self.rest[2..];
        if let Some(versioned) = inside.strip_prefix('!').or_else(|| inside.strip_prefix("M!")) {
            self.rest = versioned.trim_start_matches(|c: char| c.is_ascii_digit());
            self.in_versioned = true;
        } else {
            self.skip(self.rest[2..].find("*/").map_or(self.rest.len(), |end| end + 4));
        }
    }

    /// Takes a quoted piece, doubled quotes standing for one.
    fn quoted(&mut self, quote: char, backslash_escapes: bool) -> String {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c == '\\' && backslash_escapes {
                text.extend(chars.next().map(|(_, escaped)| escaped));
            } else if c == quote {
                if chars.next_if(|(_, next)| *next == quote).is_none() {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return text;
                }
                text.push(quote);
            } else {
                text.push(c);
            }
        }
        self.rest = "";
        text
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || c == '@' || c >= '\u{80}'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(statement: &str) -> String {
        let render = |token: &Token| match token {
            Token::Word(word) => word.clone(),
            Token::Name(name) => format!("`{name}`"),
            Token::DoubleQuoted(text) => format!("\"{text}\""),
            Token::Text => "'…'".to_owned(),
            Token::Sign(sign) => sign.to_string(),
        };
        tokens(statement, true).iter().map(render).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_strings_and_comments_are_told_apart() {
        assert_eq!(text("drop table `a``b`.c -- x\n, /* `no` */ d"), "drop table `a`b` . c , d");
        assert_eq!(text("DROP /*!40000 TEMPORARY */ TABLE x"), "DROP TEMPORARY TABLE x");
        assert_eq!(text("DROP /*M!100100 TABLE*/ x # y"), "DROP TABLE x");
        assert_eq!(text("insert into t values ('a''b\\'c', \"d\")"), "insert into t values ( '…' , \"d\" )");
        assert_eq!(text("x '*/'"), "x '…'");
    }

    #[test]
    fn backslashes_are_plain_when_told_so() {
        assert_eq!(tokens("'a\\' b", false), vec![Token::Text, Token::Word("b".to_owned())]);
        assert_eq!(tokens("'a\\' b", true), vec![Token::Text]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(statement in ".{0,80}") {
            tokens(&statement, true);
            tokens(&statement, false);
        }
    }
}
