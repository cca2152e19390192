//! The flag as `crossfade serve` tells it.

use serde::Deserialize;

use crate::{Flag, Phase};

#[derive(Debug, Deserialize)]
struct Document {
    pair: String,
    version: u64,
    flag: u8,
    phase: String,
    fenced: bool,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    error: String,
}

/// What others say may be long.
const REASON_MOST_CHARS: usize = 300;

/// The pair's name, and its flag.
///
/// # Errors
///
/// Why it is none, as a fragment. What is not understood is never taken for a flag.
pub(crate) fn parse(body: &[u8]) -> Result<(String, Flag), String> {
    let document: Document =
        serde_json::from_slice(body).map_err(|error| format!("it answers with what is no flag: {error}"))?;
    let phase = Phase::from_flag(document.flag).ok_or_else(|| format!("{} is no value of a flag", document.flag))?;
    if phase.as_str() != document.phase {
        return Err(format!("it says {} ({}) where {phase} is meant by that number", document.phase, document.flag));
    }
    let flag = Flag { version: document.version, phase, fenced: document.fenced };
    Ok((document.pair, flag))
}

/// Why it refuses, as it says so itself.
pub(crate) fn refusal(status: u16, body: &[u8]) -> String {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { error }) => {
            format!("it answers {status}: {}", error.chars().take(REASON_MOST_CHARS).collect::<String>())
        }
        Err(_) => format!("it answers {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_no_flag() {
        let told = |text: &str| parse(text.as_bytes());
        let good = r#"{"pair":"p","version":7,"flag":2,"phase":"read_new","fenced":true,"more":1}"#;
        let flag = Flag { version: 7, phase: Phase::ReadNew, fenced: true };
        assert_eq!(told(good), Ok(("p".to_owned(), flag)));
        for bad in [
            "",
            "<html>",
            "{}",
            r#"{"pair":"p","version":7,"flag":4,"phase":"x","fenced":true}"#,
            r#"{"pair":"p","version":7,"flag":1,"phase":"read_new","fenced":true}"#,
            r#"{"pair":"p","version":-1,"flag":2,"phase":"read_new","fenced":true}"#,
            r#"{"pair":"p","version":7,"flag":2,"phase":"read_new"}"#,
        ] {
            assert!(told(bad).is_err(), "{bad}");
        }
    }
}
