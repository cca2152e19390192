//! The body of QUERY events.

use std::borrow::Cow;
use std::io::Read;

/// A statement's own and the session's settings that its text depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    pub schema: Cow<'a, str>,
    pub text: Cow<'a, str>,
    pub backslash_escapes: bool,
}

const POST_HEADER_BYTES: usize = 13;
/// EXECUTE_LOAD_QUERY has four more numbers after the post-header: file id, two offsets, how duplicates are handled.
const LOAD_BYTES: usize = 13;
/// Status variables, of which only the first two concern us (Query_log_event::write): flags2 (4 bytes), sql_mode (8).
const FLAGS2: u8 = 0;
const SQL_MODE: u8 = 1;
const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;
/// The longest statement that a compressed event may announce.
const LONGEST_STATEMENT_BYTES: u64 = 1 << 30;

impl<'a> Query<'a> {
    /// `None` for a damaged body. `loads`: an EXECUTE_LOAD_QUERY event; `compressed`: MariaDB's QUERY_COMPRESSED.
    pub fn parse(body: &'a [u8], loads: bool, compressed: bool) -> Option<Query<'a>> {
        let schema_len = usize::from(*body.get(8)?);
        let variables_len = usize::from(u16::from_le_bytes(body.get(11..13)?.try_into().ok()?));
        let variables_from = POST_HEADER_BYTES + if loads { LOAD_BYTES } else { 0 };
        let variables = body.get(variables_from..variables_from + variables_len)?;
        let schema_from = variables_from + variables_len;
        let schema = body.get(schema_from..schema_from + schema_len)?;
        let text = body.get(schema_from + schema_len + 1..)?;
        let text = if compressed { Cow::Owned(inflate(text)?) } else { Cow::Borrowed(text) };
        Some(Query {
            schema: String::from_utf8_lossy(schema),
            text: lossy(text),
            backslash_escapes: sql_mode(variables) & NO_BACKSLASH_ESCAPES == 0,
        })
    }
}

fn lossy(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

fn sql_mode(variables: &[u8]) -> u64 {
    let rest: &[u8] = match variables.first() {
        Some(&FLAGS2) => variables.get(5..).unwrap_or_default(),
        _ => variables,
    };
    match rest.first() {
        Some(&SQL_MODE) => rest.get(1..9).and_then(|mode| mode.try_into().ok()).map_or(0, u64::from_le_bytes),
        _ => 0,
    }
}

/// A byte `0x80 | n`, n bytes of length (most significant first), then zlib.
fn inflate(packed: &[u8]) -> Option<Vec<u8>> {
    let len_bytes = usize::from(packed.first()? & 7);
    let length = packed.get(1..1 + len_bytes)?.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let mut text = Vec::new();
    // To the very end, where the sum stands that tells damage.
    let zlib = flate2::read::ZlibDecoder::new(&packed[1 + len_bytes..]);
    zlib.take(LONGEST_STATEMENT_BYTES).read_to_end(&mut text).ok()?;
    (text.len() as u64 == length).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(variables: &[u8], schema: &str, text: &[u8]) -> Vec<u8> {
        let mut body = vec![0; 8];
        body.extend([schema.len() as u8, 0, 0, variables.len() as u8, 0]);
        body.extend([variables, schema.as_bytes(), &[0], text].concat());
        body
    }

    #[test]
    fn the_session_mode_is_found() {
        let mode = [&[0, 0, 0, 0, 0, 1][..], &(1_u64 << 20).to_le_bytes()].concat();
        let body = body(&mode, "app", b"DROP TABLE t");
        let query = Query::parse(&body, false, false).unwrap();
        assert_eq!((&*query.schema, &*query.text, query.backslash_escapes), ("app", "DROP TABLE t", false));
    }

    #[test]
    fn compressed_statements_are_unpacked_and_damage_is_none() {
        use std::io::Write;
        let mut zlib = flate2::write::ZlibEncoder::new(vec![0x81, 12], flate2::Compression::fast());
        zlib.write_all(b"DROP TABLE t").unwrap();
        let mut bytes = body(&[], "", &zlib.finish().unwrap());
        assert_eq!(Query::parse(&bytes, false, true).unwrap().text, "DROP TABLE t");
        let middle = bytes.len() - 6;
        bytes[middle] ^= 0x55;
        assert_eq!(Query::parse(&bytes, false, true), None);
        (0..14).for_each(|len| assert_eq!(Query::parse(&bytes[..len], false, false), None));
    }
}
