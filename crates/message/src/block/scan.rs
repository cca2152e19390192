//! Reading what [`super::encode`] wrote: JSON whose members are known and come in a known order.

/// What was expected at a place, and was not there.
#[derive(Debug)]
pub struct Unexpected {
    pub at: usize,
    pub wanted: &'static str,
}

pub struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    pub fn new(text: &'a str) -> Scan<'a> {
        Scan { text, at: 0 }
    }

    pub fn fail<T>(&self, wanted: &'static str) -> Result<T, Unexpected> {
        Err(Unexpected { at: self.at, wanted })
    }

    /// Goes past `literal` if it is next.
    pub fn skip(&mut self, literal: &[u8]) -> bool {
        let found = self.rest().starts_with(literal);
        if found {
            self.at += literal.len();
        }
        found
    }

    pub fn expect(&mut self, literal: &[u8], wanted: &'static str) -> Result<(), Unexpected> {
        if self.skip(literal) { Ok(()) } else { self.fail(wanted) }
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// A number's characters, with or without quotes.
    pub fn number(&mut self) -> Result<&'a str, Unexpected> {
        let quoted = self.skip(b"\"");
        let len = self
            .rest()
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .unwrap_or(self.rest().len());
        if len == 0 {
            return self.fail("a number");
        }
        let text = &self.text[self.at..self.at + len];
        self.at += len;
        if quoted {
            self.expect(b"\"", "the end of a number")?;
        }
        Ok(text)
    }

    pub fn parse<T: std::str::FromStr>(&mut self, wanted: &'static str) -> Result<T, Unexpected> {
        let start = self.at;
        self.number()?.parse().map_err(|_| Unexpected { at: start, wanted })
    }

    /// A string without escapes.
    pub fn plain_string(&mut self) -> Result<&'a str, Unexpected> {
        self.expect(b"\"", "a string")?;
        let Some(len) = self.rest().iter().position(|byte| *byte == b'"') else { return self.fail("a string's end") };
        let text = &self.text[self.at..self.at + len];
        self.at += len + 1;
        Ok(text)
    }

    pub fn string(&mut self) -> Result<String, Unexpected> {
        self.expect(b"\"", "a string")?;
        let mut out = String::new();
        loop {
            let Some(len) = self.rest().iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
                return self.fail("a string's end");
            };
            let run = &self.text[self.at..self.at + len];
            self.at += len + 1;
            if self.text.as_bytes()[self.at - 1] == b'"' {
                if out.is_empty() {
                    return Ok(run.to_owned());
                }
                out.push_str(run);
                return Ok(out);
            }
            out.reserve(len + 16);
            out.push_str(run);
            out.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, Unexpected> {
        let Some(letter) = self.rest().first() else { return self.fail("an escape") };
        self.at += 1;
        Ok(match letter {
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'"' => '"',
            b'\\' => '\\',
            b'u' => {
                let code = self.text.get(self.at..self.at + 4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                let Some(character) = code.and_then(char::from_u32) else { return self.fail("four digits") };
                self.at += 4;
                character
            }
            _ => return self.fail("an escape"),
        })
    }

    pub fn mark(&self) -> usize {
        self.at
    }

    pub fn return_to(&mut self, mark: usize) {
        self.at = mark;
    }

    /// Goes past a number, a string or an object.
    pub fn skip_value(&mut self) -> Result<(), Unexpected> {
        match self.rest().first() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.skip_object(),
            _ => self.number().map(drop),
        }
    }

    /// Goes past an object, whatever is in it.
    pub fn skip_object(&mut self) -> Result<(), Unexpected> {
        let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
        for (offset, byte) in self.rest().iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b'{' if !in_string => depth += 1,
                b'}' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                self.at += offset + 1;
                return if *byte == b'}' { Ok(()) } else { self.fail("an object") };
            }
        }
        self.fail("an object's end")
    }
}
