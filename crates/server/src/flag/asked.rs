//! What is asked for, checked. All that is wrong with a question is told together.

use std::time::Duration;

use axum::http::{HeaderMap, header};

/// Whoever waits longer asks again.
const WAIT_MOST: Duration = Duration::from_secs(60);

/// A registration that counts longer would have a dead instance waited for.
const TTL_MS: std::ops::RangeInclusive<u64> = 100..=300_000;

/// As wide as the store's column.
const NAME_MOST_CHARS: usize = 190;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Poll {
    /// The version that is known already.
    pub after: Option<u64>,
    pub wait: Duration,
}

/// Of a query's parameters.
pub(crate) fn poll(query: &[(String, String)]) -> Result<Poll, Vec<String>> {
    let mut poll = Poll { after: None, wait: Duration::ZERO };
    let mut problems = Vec::new();
    for (at, (name, value)) in query.iter().enumerate() {
        if query[..at].iter().any(|(earlier, _)| earlier == name) {
            problems.push(format!("`{name}` is given twice"));
        }
        match name.as_str() {
            "after" => match value.parse() {
                Ok(version) => poll.after = Some(version),
                Err(_) => problems.push("`after` is no version: it is a number, as in `after=7`".to_owned()),
            },
            "wait" => match humantime::parse_duration(value) {
                Ok(wait) if wait <= WAIT_MOST => poll.wait = wait,
                Ok(_) => problems.push(format!("`wait` is at most {WAIT_MOST:?}")),
                Err(_) => problems.push("`wait` is no duration: it has a unit, as in `wait=30s`".to_owned()),
            },
            name => problems.push(format!("there is no parameter `{name}`: after, wait")),
        }
    }
    if query.iter().any(|(name, _)| name == "wait") && !query.iter().any(|(name, _)| name == "after") {
        problems.push("`wait` needs `after`, the version that is known".to_owned());
    }
    if problems.is_empty() { Ok(poll) } else { Err(problems) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub version: u64,
    pub ttl: Duration,
}

/// Of the body with which an instance registers.
pub(super) fn acknowledged(instance: &str, body: &[u8]) -> Result<Acknowledged, Vec<String>> {
    let mut problems: Vec<String> = self::instance(instance).err().into_iter().collect();
    let body: serde_json::Value = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => {
            problems.push(format!("the body is no JSON: {error}"));
            return Err(problems);
        }
    };
    let mut number = |key: &str, what: &str| {
        let number = body.get(key).and_then(serde_json::Value::as_u64);
        if number.is_none() {
            problems.push(format!("`{key}` must be {what}"));
        }
        number
    };
    let version = number("version", "the version of the flag that is acknowledged");
    let ttl_ms = number("ttl_ms", "the milliseconds for which the instance counts");
    if let Some(ttl_ms) = ttl_ms.filter(|ttl_ms| !TTL_MS.contains(ttl_ms)) {
        problems.push(format!("`ttl_ms` of {ttl_ms} is not within {} and {}", TTL_MS.start(), TTL_MS.end()));
    }
    match (version, ttl_ms) {
        (Some(version), Some(ttl_ms)) if problems.is_empty() => {
            Ok(Acknowledged { version, ttl: Duration::from_millis(ttl_ms) })
        }
        _ => Err(problems),
    }
}

pub(super) fn instance(name: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '@');
    if (1..=NAME_MOST_CHARS).contains(&name.len()) && name.chars().all(is_allowed) {
        return Ok(());
    }
    Err(format!(
        "that is no name of an instance: use 1 to {NAME_MOST_CHARS} of a-z, A-Z, 0-9, `.`, `_`, `-`, `:` and `@`"
    ))
}

/// Whether the asker says that he has this version (RFC 9110, 13.1.2).
pub(crate) fn has_version(headers: &HeaderMap, tag: &str) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = given.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|given| given == "*" || given.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &[(&str, &str)]) -> Result<Poll, Vec<String>> {
        poll(&query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn all_that_is_wrong_with_a_question_is_told() {
        assert_eq!(asked(&[]), Ok(Poll { after: None, wait: Duration::ZERO }));
        let wait = Duration::from_millis(1_500);
        assert_eq!(asked(&[("after", "7"), ("wait", "1500ms")]), Ok(Poll { after: Some(7), wait }));
        assert_eq!(asked(&[("after", "-1"), ("wait", "61s"), ("x", "")]).err().map(|problems| problems.len()), Some(3));
        assert_eq!(asked(&[("wait", "5")]).err().map(|problems| problems.len()), Some(2));
        assert!(asked(&[("after", "1"), ("after", "2")]).is_err());

        let ttl = Duration::from_secs(10);
        let good = acknowledged("web-1.a@b:c_d", br#"{"version":0,"ttl_ms":10000}"#);
        assert_eq!(good, Ok(Acknowledged { version: 0, ttl }));
        let problems = |name: &str, body: &[u8]| acknowledged(name, body).err().map_or(0, |problems| problems.len());
        assert_eq!(problems("a b", br#"{"version":-1,"ttl_ms":1}"#), 3);
        assert_eq!(problems("a b", br#"{"version":"7"}"#), 3);
        assert_eq!(problems(&"a".repeat(191), b"{"), 2);
        assert_eq!(problems("a", br#"{"version":7,"ttl_ms":300001}"#), 1);
    }

    #[test]
    fn tags_are_compared_weakly() {
        let has = |given: &str| {
            let value = given.parse().expect("a header");
            has_version(&HeaderMap::from_iter([(header::IF_NONE_MATCH, value)]), "\"7\"")
        };
        assert!(has("\"7\"") && has("W/\"7\"") && has("\"6\", \"7\"") && has("*"));
        assert!(!has("\"6\"") && !has("7") && !has("\"77\""));
        assert!(!has_version(&HeaderMap::new(), "\"7\""));
    }
}
