//! XA transactions: rows that are in the binlog at PREPARE and count only from COMMIT.

use std::collections::HashMap;
use std::fmt;

use crate::transaction::OpenTransaction;

/// An XA transaction's identifier, in the form in which both servers log it: `X'6131',X'',1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Xid {
    format: u32,
    global: Vec<u8>,
    branch: Vec<u8>,
}

impl Xid {
    /// Reads the identifier that a logged `XA COMMIT X'…',X'…',n` names.
    pub fn parse(statement: &str) -> Option<Xid> {
        let mut parts = statement.split(['X', 'x']).skip(1).filter_map(|part| part.strip_prefix('\''));
        let (global, _) = parts.next()?.split_once('\'')?;
        let (branch, tail) = parts.next()?.split_once('\'')?;
        let format = tail.trim_start_matches([',', ' ']);
        let digits = format.find(|c: char| !c.is_ascii_digit()).unwrap_or(format.len());
        Some(Xid { format: format[..digits].parse().ok()?, global: unhex(global)?, branch: unhex(branch)? })
    }

    /// Reads the body of an XA_PREPARE event: whether it commits in one phase, and the identifier.
    pub fn from_prepare_event(body: &[u8]) -> Option<(bool, Xid)> {
        let number = |at: usize| Some(u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?));
        let (format, global_len, branch_len) = (number(1)?, number(5)? as usize, number(9)? as usize);
        let global = body.get(13..13_usize.checked_add(global_len)?)?;
        let branch_from = 13 + global_len;
        let branch = body.get(branch_from..branch_from.checked_add(branch_len)?)?;
        Some((*body.first()? != 0, Xid { format, global: global.to_vec(), branch: branch.to_vec() }))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.remainder().is_empty().then_some(())?;
    pairs.map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        write!(f, "X'{}',X'{}',{}", hex(&self.global), hex(&self.branch), self.format)
    }
}

/// A place from which a transaction can be read again by file and offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePlace {
    pub file: String,
    pub offset: u64,
}

/// A transaction that is prepared and neither committed nor rolled back.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Where its first event begins.
    pub place: FilePlace,
    /// `None` where the rows did not fit into the bound; they are read again from `place`.
    pub transaction: Option<OpenTransaction>,
}

/// The prepared transactions met since the connection was made. Rows are bounded by bytes; places are small.
#[derive(Debug, Default)]
pub(crate) struct PreparedStore {
    transactions: HashMap<Xid, Prepared>,
    bytes: usize,
}

impl PreparedStore {
    /// How many bytes of rows are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn keep(&mut self, xid: Xid, prepared: Prepared) {
        self.take(&xid);
        self.bytes += prepared.bytes();
        self.transactions.insert(xid, prepared);
    }

    pub fn take(&mut self, xid: &Xid) -> Option<Prepared> {
        let prepared = self.transactions.remove(xid)?;
        self.bytes -= prepared.bytes();
        Some(prepared)
    }
}

impl Prepared {
    fn bytes(&self) -> usize {
        self.transaction.as_ref().map_or(0, |transaction| transaction.changes_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_identifier_agree() {
        let xid = Xid::parse("XA COMMIT X'6132',X'62',7").unwrap();
        assert_eq!(xid.to_string(), "X'6132',X'62',7");
        let body = [&[0][..], &[7, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0], b"a2", b"b"].concat();
        assert_eq!(Xid::from_prepare_event(&body), Some((false, xid)));
        assert_eq!(Xid::parse("XA ROLLBACK X'6131',X'',1").unwrap().to_string(), "X'6131',X'',1");
    }

    #[test]
    fn broken_identifiers_are_none() {
        for text in
            ["XA COMMIT", "XA COMMIT X'6',X'',1", "XA COMMIT X'61'", "XA COMMIT X'61',X'zz',1", "XA COMMIT X'61',X''"]
        {
            assert_eq!(Xid::parse(text), None, "{text}");
        }
        for len in 0..13 {
            assert_eq!(Xid::from_prepare_event(&vec![255; len]), None);
        }
        assert_eq!(Xid::from_prepare_event(&[255; 40]), None);
    }
}
