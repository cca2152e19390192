//! What `crossfade serve` tells of an entity.

use std::time::Duration;

use serde::Deserialize;

use crate::Side;

#[derive(Debug, Deserialize)]
struct Document {
    pair: String,
    entity: String,
    side: String,
    version: u64,
    fenced: bool,
    valid_for_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub side: Side,
    pub version: u64,
    pub fenced: bool,
    pub valid_for: Duration,
}

/// No server gives more; what is more is no answer.
const VALID_MOST: Duration = Duration::from_secs(3_600);

/// The pair's name, and what is told of the entity that was asked for.
///
/// # Errors
///
/// Why it is none, as a fragment. What is not understood is never taken for an answer.
pub(crate) fn parse(body: &[u8], id: &str) -> Result<(String, Told), String> {
    let document: Document =
        serde_json::from_slice(body).map_err(|error| format!("it answers with what tells of no entity: {error}"))?;
    if document.entity != id {
        return Err("it tells of another entity than was asked for".to_owned());
    }
    let side = match document.side.as_str() {
        "old" => Side::Old,
        "new" => Side::New,
        _ => return Err("it names a side that is neither old nor new".to_owned()),
    };
    let valid_for = Duration::from_millis(document.valid_for_ms);
    if valid_for > VALID_MOST {
        return Err("it says that its answer counts for more than an hour".to_owned());
    }
    Ok((document.pair, Told { side, version: document.version, fenced: document.fenced, valid_for }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_no_answer() {
        let told = |text: &str| parse(text.as_bytes(), "42");
        let good = r#"{"pair":"p","entity":"42","side":"new","version":7,"fenced":false,"valid_for_ms":2000,"more":1}"#;
        let valid_for = Duration::from_secs(2);
        assert_eq!(told(good), Ok(("p".to_owned(), Told { side: Side::New, version: 7, fenced: false, valid_for })));
        for bad in [
            "",
            "{}",
            &good.replace("\"42\"", "\"43\""),
            &good.replace("new", "both"),
            &good.replace("2000", "-1"),
            &good.replace("2000", "3600001"),
            &good.replace("\"fenced\":false,", ""),
        ] {
            assert!(told(bad).is_err(), "{bad}");
        }
    }
}
