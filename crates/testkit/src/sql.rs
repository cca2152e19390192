//! Literals and names as text of a statement, and connections that behave alike on every server.

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts};

/// A name in back-quotes.
pub fn name(text: &str) -> String {
    format!("`{}`", text.replace('`', "``"))
}

/// `schema`.`table`, quoted.
pub fn full_name(schema: &str, table: &str) -> String {
    format!("{}.{}", name(schema), name(table))
}

/// A string literal that means the same with and without `NO_BACKSLASH_ESCAPES`, and whatever quotes it holds.
pub fn text(text: &str) -> String {
    if text.bytes().any(|byte| matches!(byte, b'\\' | b'\'' | 0)) {
        format!("_utf8mb4 {}", bytes(text.as_bytes()))
    } else {
        format!("'{text}'")
    }
}

/// A binary literal.
pub fn bytes(bytes: &[u8]) -> String {
    let mut literal = String::with_capacity(bytes.len() * 2 + 3);
    literal.push_str("X'");
    for byte in bytes {
        literal.push_str(&format!("{byte:02X}"));
    }
    literal.push('\'');
    literal
}

/// A pool of at most `connections` for `url`, with the time zone pinned so that timestamps read alike everywhere.
pub fn pool(url: &str, connections: usize) -> Result<Pool> {
    let opts = Opts::from_url(url).context("the address of a server cannot be read")?;
    Ok(pool_with(opts, connections))
}

/// As [`pool`], from options.
pub fn pool_with(opts: Opts, connections: usize) -> Pool {
    let constraints = PoolConstraints::new(0, connections.max(1)).unwrap_or_default();
    let opts = OptsBuilder::from_opts(opts)
        .prefer_socket(false)
        .setup(vec!["SET time_zone = '+00:00'"])
        .pool_opts(PoolOpts::default().with_constraints(constraints));
    Pool::new(opts)
}

/// Whether the server calls itself MariaDB.
pub async fn is_mariadb(connection: &mut Conn) -> Result<bool> {
    let version: Option<String> = connection.query_first("SELECT VERSION()").await?;
    Ok(version.is_some_and(|version| version.contains("MariaDB")))
}

/// ER_LOCK_DEADLOCK, and MariaDB's ER_CHECKREAD: the server has rolled the transaction back, and users run it again.
pub fn is_rolled_back(error: &mysql_async::Error) -> bool {
    matches!(error, mysql_async::Error::Server(server) if matches!(server.code, 1213 | 1020))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_break_out() {
        assert_eq!(name("a`b"), "`a``b`");
        assert_eq!(text("plain é"), "'plain é'");
        assert_eq!(text("it's"), "_utf8mb4 X'69742773'");
        assert_eq!(bytes(&[0, 255]), "X'00FF'");
    }
}
