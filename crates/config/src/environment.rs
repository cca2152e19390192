//! `${NAME}` in a text becomes the variable's value; `$${` is a plain `${`.

/// A piece of a text with placeholders.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'t> {
    Literal(&'t str),
    Variable(&'t str),
}

/// Takes a text apart.
///
/// # Errors
///
/// A fragment that says what is wrong with a placeholder.
pub(crate) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            pieces.push(Piece::Literal(&rest[..start - 1]));
            pieces.push(Piece::Literal("${"));
            rest = &rest[start + 2..];
            continue;
        }
        let after = &rest[start + 2..];
        let end = after.find('}').ok_or("a `${` has no closing `}`")?;
        let name = &after[..end];
        if !is_variable_name(name) {
            return Err(format!("`${{{name}}}` does not name an environment variable"));
        }
        pieces.push(Piece::Literal(&rest[..start]));
        pieces.push(Piece::Variable(name));
        rest = &after[end + 1..];
    }
    pieces.push(Piece::Literal(rest));
    pieces.retain(|piece| *piece != Piece::Literal(""));
    Ok(pieces)
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_stand_anywhere_and_can_be_escaped() {
        use Piece::{Literal, Variable};
        let cases: [(&str, Vec<Piece>); 6] = [
            ("", vec![]),
            ("plain $ text }", vec![Literal("plain $ text }")]),
            ("${A}", vec![Variable("A")]),
            ("a${B_2}c${D}", vec![Literal("a"), Variable("B_2"), Literal("c"), Variable("D")]),
            ("x$${A}", vec![Literal("x"), Literal("${"), Literal("A}")]),
            ("ü${A}ü", vec![Literal("ü"), Variable("A"), Literal("ü")]),
        ];
        for (text, expected) in cases {
            assert_eq!(pieces(text).as_deref(), Ok(expected.as_slice()), "{text}");
        }
    }

    #[test]
    fn a_broken_placeholder_is_named() {
        for text in ["${A", "${}", "${1A}", "${A-B}", "${${A}}"] {
            assert!(pieces(text).is_err(), "{text}");
        }
    }
}
