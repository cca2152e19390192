//! JSON paths as MySQL writes them: `$.a[0]."b c"`.

use super::text::quote;

/// One step down a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step<Key> {
    Member(Key),
    Element(usize),
}

/// The path of a node.
pub(super) fn print(steps: &[Step<&str>]) -> String {
    let mut path = String::from("$");
    for step in steps {
        match step {
            Step::Element(place) => {
                path.push('[');
                path.push_str(&place.to_string());
                path.push(']');
            }
            Step::Member(key) if is_identifier(key) => {
                path.push('.');
                path.push_str(key);
            }
            Step::Member(key) => {
                path.push('.');
                quote(&mut path, key);
            }
        }
    }
    path
}

/// Keys that need no quotes in a path.
fn is_identifier(key: &str) -> bool {
    let mut chars = key.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || matches!(first, '_' | '$'))
        && chars.all(|other| other.is_ascii_alphanumeric() || matches!(other, '_' | '$'))
}

/// The steps of a path without wildcards; `None` where it is not one.
pub(super) fn parse(path: &str) -> Option<Vec<Step<String>>> {
    let mut rest = path.trim().strip_prefix('$')?;
    let mut steps = Vec::new();
    while let Some(first) = rest.chars().next() {
        match first {
            '[' => {
                let (place, after) = rest[1..].split_once(']')?;
                steps.push(Step::Element(place.trim().parse().ok()?));
                rest = after;
            }
            '.' if rest[1..].starts_with('"') => {
                let end = closing_quote(&rest[1..])?;
                steps.push(Step::Member(serde_json::from_str(&rest[1..=end + 1]).ok()?));
                rest = &rest[end + 2..];
            }
            '.' => {
                let end = rest[1..].find(['.', '[']).map_or(rest.len(), |end| end + 1);
                steps.push(Step::Member(rest[1..end].to_owned()));
                rest = &rest[end..];
            }
            _ => return None,
        }
    }
    Some(steps)
}

/// Where the quote that opens `text` is closed.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().enumerate().skip(1).find_map(|(place, byte)| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes.then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_back() {
        for path in ["$", "$.a", "$[3]", "$.a[0].\"b c\"", "$.\"\"", "$.\"a\\\"]b\\\\\"[12].c", "$.\"ä\"", "$.$x._1"] {
            let steps = parse(path).unwrap();
            let borrowed: Vec<Step<&str>> = steps
                .iter()
                .map(|step| match step {
                    Step::Member(key) => Step::Member(key.as_str()),
                    Step::Element(place) => Step::Element(*place),
                })
                .collect();
            assert_eq!(print(&borrowed), path);
        }
    }

    #[test]
    fn no_path_is_no_path() {
        for path in ["", "a", "$[", "$[x]", "$.\"a", "$a", "$[-1]"] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
