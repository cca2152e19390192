//! What moves from one side to the other by itself: usually a user, with everything that hangs on it.

use std::fmt;
use std::sync::Arc;

use crate::{Side, Value};

/// Longest key, as the sides' nodes keep it.
pub const KEY_MAX_BYTES: usize = 512;

/// The key of an entity as text that is the same on both sides: a number in decimal digits, text as it is spelled, bytes as
/// `0x…` in lower-case digits. Keys are one where these texts are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityKey(Arc<str>);

impl EntityKey {
    /// Stands for every entity that has no authority of its own.
    pub fn rest() -> EntityKey {
        EntityKey("".into())
    }

    pub fn is_rest(&self) -> bool {
        self.0.is_empty()
    }

    /// A key as a person or a table of crossfade names it. `None` for what can be no key: nothing, or more than 512 bytes.
    pub fn parse(text: &str) -> Option<EntityKey> {
        (1..=KEY_MAX_BYTES).contains(&text.len()).then(|| EntityKey(text.into()))
    }

    /// The key that a row's column holds. `None` for NULL, empty text, and what two servers may print differently.
    pub fn of(value: &Value) -> Option<EntityKey> {
        match value {
            Value::Int(number) => EntityKey::parse(&number.to_string()),
            Value::UInt(number) | Value::Bit(number) => EntityKey::parse(&number.to_string()),
            Value::Year(year) => EntityKey::parse(&year.to_string()),
            Value::Decimal(digits) => EntityKey::parse(plain_decimal(digits)),
            Value::Text(text) | Value::Enum(text) | Value::Set(text) => EntityKey::parse(text),
            Value::Bytes(bytes) => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                EntityKey::parse(&format!("0x{digits}"))
            }
            _ => None,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A column of one scale may refer to one of another.
fn plain_decimal(digits: &str) -> &str {
    let plain = match digits.split_once('.') {
        Some(_) => digits.trim_end_matches('0').trim_end_matches('.'),
        None => digits,
    };
    if plain == "-0" { "0" } else { plain }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_rest() { "all others" } else { &self.0 })
    }
}

/// A change of authority: from here on it is `side` that users write the entity's rows on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub entity: EntityKey,
    pub side: Side,
    /// One more with each change of the entity; an earlier one never takes the place of a later one.
    pub version: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_text_whatever_type_carries_it() {
        let text = |value: Value| EntityKey::of(&value).map(|key| key.as_str().to_owned());
        assert_eq!(text(Value::Int(7)), text(Value::UInt(7)));
        assert_eq!(text(Value::Decimal("7.00".into())), text(Value::Int(7)));
        assert_eq!(text(Value::Decimal("700".into())).as_deref(), Some("700"));
        assert_eq!(text(Value::Decimal("-0.0".into())).as_deref(), Some("0"));
        assert_eq!(text(Value::Int(-7)).as_deref(), Some("-7"));
        assert_eq!(text(Value::Text("Ann ".into())).as_deref(), Some("Ann "));
        assert_eq!(text(Value::Bytes(vec![0, 0xab])).as_deref(), Some("0x00ab"));
    }

    #[test]
    fn what_can_be_no_key_is_none() {
        for value in [Value::Null, Value::Text(String::new()), Value::Double(1.0), Value::Text("x".repeat(513))] {
            assert_eq!(EntityKey::of(&value), None, "{value:?}");
        }
        assert_eq!(EntityKey::parse(""), None);
        assert!(EntityKey::rest().is_rest());
        assert_eq!(EntityKey::parse("7").map(|key| key.to_string()).as_deref(), Some("7"));
    }
}
