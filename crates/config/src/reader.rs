//! Reads a TOML tree by hand, so that one bad value does not hide the next.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::environment::{Piece, pieces};
use crate::problem::Collector;
use crate::url::encode;
use crate::{ServerUrl, quantity};

/// What all sections of a file share.
pub(crate) struct Source<'s> {
    pub(crate) collector: RefCell<Collector>,
    pub(crate) environment: &'s dyn Fn(&str) -> Option<String>,
}

impl Source<'_> {
    pub(crate) fn problem(&self, line: usize, message: impl Into<String>, remedy: impl Into<String>) {
        self.collector.borrow_mut().add(line, message, remedy);
    }

    fn line_of(&self, offset: usize) -> usize {
        self.collector.borrow().line_of(offset)
    }

    /// Looks up every variable of a text; each missing one is a problem.
    fn fill(&self, template: &str, line: usize, fill_in: impl Fn(usize, String) -> String) -> Option<String> {
        let pieces = pieces(template)
            .map_err(|message| {
                self.problem(line, message, "write a variable as `${NAME}`, and a plain `${` as `$${`");
            })
            .ok()?;
        let mut filled = Some(String::new());
        let mut literal_bytes = 0;
        for piece in pieces {
            let text = match piece {
                Piece::Literal(text) => {
                    literal_bytes += text.len();
                    Some(text.to_owned())
                }
                Piece::Variable(name) => {
                    let value = (self.environment)(name);
                    if value.is_none() {
                        self.problem(
                            line,
                            format!("environment variable `{name}` is not set"),
                            format!("set it before the start, as in `export {name}=…`, or write the value here"),
                        );
                    }
                    value.map(|value| fill_in(literal_bytes, value))
                }
            };
            filled = filled.zip(text).map(|(filled, text)| filled + &text);
        }
        filled
    }
}

/// A text value with variables filled in. Problems show `written`, since a variable may hold a secret.
pub(crate) struct Text {
    pub(crate) value: String,
    pub(crate) written: String,
    pub(crate) line: usize,
}

/// One table of the file. Ends with [`Section::finish`], which reports the keys that nobody asked for.
pub(crate) struct Section<'d> {
    source: &'d Source<'d>,
    /// `None` for a section that the file leaves out.
    table: Option<&'d DeTable<'d>>,
    /// How people call it: `[old]`, `[[table]]`, or `the file`.
    name: &'static str,
    pub(crate) line: usize,
    known: Vec<&'static str>,
}

impl<'d> Section<'d> {
    pub(crate) fn root(source: &'d Source<'d>, table: &'d DeTable<'d>) -> Section<'d> {
        Section { source, table: Some(table), name: "the file", line: 1, known: Vec::new() }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The line of a key's value; the section's own where the key is not there.
    pub(crate) fn line_of(&self, key: &str) -> usize {
        let value = self.table.and_then(|table| table.get(key));
        value.map_or(self.line, |value| self.source.line_of(value.span().start))
    }

    fn get(&mut self, key: &'static str) -> Option<(&'d DeValue<'d>, usize)> {
        self.known.push(key);
        let value: &Spanned<DeValue> = self.table?.get(key)?;
        Some((value.get_ref(), self.source.line_of(value.span().start)))
    }

    pub(crate) fn problem(&self, line: usize, message: impl Into<String>, remedy: impl Into<String>) {
        self.source.problem(line, message, remedy);
    }

    fn wrong_type(&self, key: &str, value: &DeValue, line: usize, wanted: &str, example: &str) {
        let found = value.type_str();
        self.problem(line, format!("`{key}` is {found}, not {wanted}"), format!("write it as `{key} = {example}`"));
    }

    /// A required text.
    pub(crate) fn require_text(&mut self, key: &'static str, example: &str) -> Option<Text> {
        if !self.has(key) {
            self.known.push(key);
            self.missing(key, example);
            return None;
        }
        self.text(key, example)
    }

    pub(crate) fn missing(&self, key: &str, example: &str) {
        self.problem(self.line, format!("`{key}` is missing in {}", self.name), format!("add `{key} = {example}`"));
    }

    pub(crate) fn text(&mut self, key: &'static str, example: &str) -> Option<Text> {
        let (value, line) = self.get(key)?;
        let Some(written) = value.as_str() else {
            self.wrong_type(key, value, line, "text", example);
            return None;
        };
        let value = self.source.fill(written, line, |_, value| value)?;
        Some(Text { value, written: written.to_owned(), line })
    }

    /// One of a few words; the first is the default.
    pub(crate) fn one_of<T: Copy>(&mut self, key: &'static str, what: &str, words: &[(&'static str, T)]) -> T {
        let default = words[0].1;
        let Some(text) = self.text(key, &format!("\"{}\"", words[0].0)) else { return default };
        let found = words.iter().find(|(word, _)| *word == text.value);
        found.map_or_else(
            || {
                let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                let message = format!("`{key} = \"{}\"` is not {what}", text.written);
                self.problem(text.line, message, format!("use {}", known.join(" or ")));
                default
            },
            |(_, value)| *value,
        )
    }

    /// An address and a port of this machine.
    pub(crate) fn socket(&mut self, key: &'static str, default: SocketAddr) -> SocketAddr {
        let Some(text) = self.text(key, &format!("\"{default}\"")) else { return default };
        text.value.parse().unwrap_or_else(|_| {
            let message = format!("`{key} = \"{}\"` is not an address with a port", text.written);
            self.problem(
                text.line,
                message,
                format!("write it as `{default}`, or `0.0.0.0:{}` for all", default.port()),
            );
            default
        })
    }

    /// A server's URL. A variable inside the account is taken as it is: the password that it holds needs no encoding.
    pub(crate) fn url(&mut self, key: &'static str) -> Option<ServerUrl> {
        let (value, line) = self.get(key)?;
        let Some(written) = value.as_str() else {
            self.wrong_type(key, value, line, "text", "\"mysql://user:password@host:port\"");
            return None;
        };
        self.parse_url(key, written, line)
    }

    /// A list of servers' URLs, each read as by [`Section::url`]; `None` where it is not there, is empty, or one is wrong.
    pub(crate) fn urls(&mut self, key: &'static str) -> Option<Vec<ServerUrl>> {
        const EXAMPLE: &str = "[\"mysql://user:password@first:3306\", \"mysql://user:password@second:3306\"]";
        let (value, line) = self.get(key)?;
        let Some(list) = value.as_array() else {
            self.wrong_type(key, value, line, "a list of texts", EXAMPLE);
            return None;
        };
        if list.is_empty() {
            self.problem(line, format!("`{key}` is empty"), format!("write it as `{key} = {EXAMPLE}`"));
            return None;
        }
        let mut urls = Vec::new();
        for value in list {
            let line = self.source.line_of(value.span().start);
            match value.get_ref().as_str() {
                Some(written) => urls.push(self.parse_url(key, written, line)),
                None => {
                    self.wrong_type(key, value.get_ref(), line, "a list of texts", EXAMPLE);
                    urls.push(None);
                }
            }
        }
        urls.into_iter().collect()
    }

    fn parse_url(&self, key: &str, written: &str, line: usize) -> Option<ServerUrl> {
        let literal: usize = "mysql://".len();
        let begins_literally = written.starts_with("mysql://");
        let account_end = account_end(written);
        let filled = self.source.fill(written, line, |literals_before, value| {
            let in_account = begins_literally && account_end.is_some_and(|end| literals_before < end);
            if in_account && literals_before >= literal { encode(&value) } else { value }
        })?;
        let url = ServerUrl::parse(&filled);
        url.map_err(|(message, remedy)| self.problem(line, format!("`{key}`: {message}"), remedy)).ok()
    }

    pub(crate) fn require_url(&mut self, key: &'static str) -> Option<ServerUrl> {
        if self.has(key) {
            return self.url(key);
        }
        self.known.push(key);
        self.missing(key, "\"mysql://user:${PASSWORD}@host:3306\"");
        None
    }

    pub(crate) fn number(&mut self, key: &'static str, range: RangeInclusive<u32>, default: u32) -> u32 {
        let Some((value, line)) = self.get(key) else { return default };
        let Some(number) = value.as_integer() else {
            self.wrong_type(key, value, line, "a whole number", &default.to_string());
            return default;
        };
        let parsed = u32::from_str_radix(number.as_str(), number.radix()).ok();
        parsed.filter(|parsed| range.contains(parsed)).unwrap_or_else(|| {
            let message = format!("`{key} = {number}` is out of range");
            self.problem(line, message, format!("use a number from {} to {}", range.start(), range.end()));
            default
        })
    }

    pub(crate) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let Some((value, line)) = self.get(key) else { return default };
        value.as_bool().unwrap_or_else(|| {
            self.wrong_type(key, value, line, "true or false", &default.to_string());
            default
        })
    }

    /// A size in bytes; at least `least`.
    pub(crate) fn size(&mut self, key: &'static str, least: u64, default: &str) -> u64 {
        let fallback = quantity::size_bytes(default).unwrap_or(least);
        let Some(text) = self.quantity(key, default) else { return fallback };
        let parsed = quantity::size_bytes(&text.value).filter(|bytes| *bytes >= least);
        parsed.unwrap_or_else(|| {
            let message = format!("`{key} = \"{}\"` is not a size of at least {least} bytes", text.written);
            self.problem(
                text.line,
                message,
                format!("write a whole number with a unit, as in `{key} = \"{default}\"`"),
            );
            fallback
        })
    }

    /// A length of time; at least `least`.
    pub(crate) fn duration(&mut self, key: &'static str, least: Duration, default: &str) -> Duration {
        let fallback = quantity::duration(default).unwrap_or(least);
        let Some(text) = self.quantity(key, default) else { return fallback };
        let parsed = quantity::duration(&text.value).filter(|duration| *duration >= least);
        parsed.unwrap_or_else(|| {
            let message = format!("`{key} = \"{}\"` is not a length of time of at least {least:?}", text.written);
            self.problem(text.line, message, format!("write a number with a unit, as in `{key} = \"{default}\"`"));
            fallback
        })
    }

    /// A share, as parts of a million.
    pub(crate) fn share(&mut self, key: &'static str, default: &str) -> u32 {
        let fallback = quantity::share_ppm(default).unwrap_or(0);
        let Some(text) = self.quantity(key, default) else { return fallback };
        quantity::share_ppm(&text.value).unwrap_or_else(|| {
            let message = format!("`{key} = \"{}\"` is not a share", text.written);
            self.problem(text.line, message, format!("write a percentage up to 100, as in `{key} = \"{default}\"`"));
            fallback
        })
    }

    fn quantity(&mut self, key: &'static str, default: &str) -> Option<Text> {
        let (value, line) = self.get(key)?;
        if let Some(number) = value.as_integer() {
            let message = format!("`{key} = {number}` has no unit");
            self.problem(line, message, format!("write it with a unit, as in `{key} = \"{default}\"`"));
            return None;
        }
        self.known.pop();
        self.text(key, &format!("\"{default}\""))
    }

    /// A text, or a list of texts, with their lines.
    pub(crate) fn one_or_more(&mut self, key: &'static str, example: &str) -> Vec<(String, usize)> {
        let Some((value, line)) = self.get(key) else { return Vec::new() };
        let list = match (value.as_str(), value.as_array()) {
            (Some(text), _) => {
                return self.source.fill(text, line, |_, value| value).map(|text| (text, line)).into_iter().collect();
            }
            (None, Some(list)) => list,
            (None, None) => {
                self.wrong_type(key, value, line, "a text or a list of texts", example);
                return Vec::new();
            }
        };
        if list.is_empty() {
            self.problem(line, format!("`{key}` is empty"), format!("write it as `{key} = {example}`"));
        }
        let mut texts = Vec::new();
        for value in list {
            let line = self.source.line_of(value.span().start);
            match value.get_ref().as_str() {
                Some(text) => texts.extend(self.source.fill(text, line, |_, value| value).map(|text| (text, line))),
                None => self.wrong_type(key, value.get_ref(), line, "a text or a list of texts", example),
            }
        }
        texts
    }

    /// The names and values of a table of texts, with their lines.
    pub(crate) fn texts(&mut self, key: &'static str, example: &str) -> Vec<(String, String, usize)> {
        let Some((value, line)) = self.get(key) else { return Vec::new() };
        let Some(table) = value.as_table() else {
            self.wrong_type(key, value, line, "a table", example);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (name, value) in table {
            let line = self.source.line_of(value.span().start);
            match value.get_ref().as_str() {
                Some(text) => texts.push((name.get_ref().to_string(), text.to_owned(), line)),
                None => self.wrong_type(key, value.get_ref(), line, "a table of texts", example),
            }
        }
        texts
    }

    /// A list of texts with their lines, as they are written: names of columns.
    pub(crate) fn names(&mut self, key: &'static str, example: &str) -> Vec<(String, usize)> {
        let Some((value, line)) = self.get(key) else { return Vec::new() };
        let Some(list) = value.as_array() else {
            self.wrong_type(key, value, line, "a list of texts", example);
            return Vec::new();
        };
        let mut names = Vec::new();
        for value in list {
            let line = self.source.line_of(value.span().start);
            match value.get_ref().as_str() {
                Some(name) => names.push((name.to_owned(), line)),
                None => self.wrong_type(key, value.get_ref(), line, "a list of texts", example),
            }
        }
        names
    }

    pub(crate) fn section(&mut self, key: &'static str, name: &'static str) -> Option<Section<'d>> {
        let (value, line) = self.get(key)?;
        let Some(table) = value.as_table() else {
            let message = format!("`{key}` is {}, not a section", value.type_str());
            self.problem(line, message, format!("write `{name}` on a line of its own"));
            return None;
        };
        Some(Section { source: self.source, table: Some(table), name, line, known: Vec::new() })
    }

    /// A section that may be left out; then all its defaults serve.
    pub(crate) fn section_or_empty(&mut self, key: &'static str, name: &'static str) -> Section<'d> {
        let empty = Section { source: self.source, table: None, name, line: 1, known: Vec::new() };
        self.section(key, name).unwrap_or(empty)
    }

    /// An array of sections: `[[table]]`. At least one must be there; `example` shows what one holds.
    pub(crate) fn require_sections(
        &mut self,
        key: &'static str,
        name: &'static str,
        example: &str,
    ) -> Vec<Section<'d>> {
        let source = self.source;
        let none = |line| {
            source.problem(line, format!("no {key} is named"), format!("add `{name}` with `{example}` below it"));
        };
        let Some((value, line)) = self.get(key) else {
            none(self.line);
            return Vec::new();
        };
        let Some(array) = value.as_array() else {
            let message = format!("`{key}` is {}, not a list of sections", value.type_str());
            self.problem(line, message, format!("write `{name}`, with two brackets, before each"));
            return Vec::new();
        };
        if array.is_empty() {
            none(line);
        }
        let mut sections = Vec::new();
        for value in array {
            let line = self.source.line_of(value.span().start);
            match value.get_ref().as_table() {
                Some(table) => {
                    sections.push(Section { source: self.source, table: Some(table), name, line, known: Vec::new() });
                }
                None => self.problem(
                    line,
                    format!("`{key}` holds {}", value.get_ref().type_str()),
                    format!("write `{name}`, with two brackets, before each"),
                ),
            }
        }
        sections
    }

    /// Reports every key that nobody asked for.
    pub(crate) fn finish(self) {
        for key in self.table.iter().flat_map(|table| table.keys()) {
            let name = key.get_ref();
            if self.known.iter().any(|known| known == name) {
                continue;
            }
            let nearest = self.known.iter().min_by_key(|known| distance(known, name));
            let remedy = match nearest {
                Some(known) if distance(known, name) <= 2 => format!("did you mean `{known}`?"),
                _ => format!("remove it; known here: {}", self.known.join(", ")),
            };
            let line = self.source.line_of(key.span().start);
            self.problem(line, format!("unknown key `{name}` in {}", self.name), remedy);
        }
    }
}

/// How many bytes of a URL's literal text stand before the end of its account; `None` where it has none.
fn account_end(written: &str) -> Option<usize> {
    let pieces = pieces(written).ok()?;
    let mut literals = String::new();
    for piece in pieces {
        if let Piece::Literal(text) = piece {
            literals.push_str(text);
        }
    }
    let authority_end = literals["mysql://".len().min(literals.len())..]
        .find(['/', '?'])
        .map_or(literals.len(), |end| end + "mysql://".len());
    literals.get(..authority_end)?.rfind('@').map(|at| at + 1)
}

/// Levenshtein's distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
