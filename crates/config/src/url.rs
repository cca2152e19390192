//! `mysql://user:password@host:port/?ssl-mode=…`: where a server is and how to log in.

use std::fmt;
use std::path::PathBuf;

use crate::Secret;

/// A server's address, account and encryption. `Display` and `Debug` never show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    pub user: String,
    pub password: Secret,
    pub endpoint: Endpoint,
    pub tls_mode: TlsMode,
    /// The file of certificates that the server's must lead to; `None` for those of the public web.
    pub tls_ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `host` is a name, an IPv4 address, or an IPv6 address without brackets.
    Tcp {
        host: String,
        port: u16,
    },
    Socket(PathBuf),
}

/// What the MySQL clients call `--ssl-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    Disabled,
    /// Encrypted where the server can, and whoever the server is.
    #[default]
    Preferred,
    /// Encrypted, whoever the server is.
    Required,
    /// Encrypted, and the certificate leads to a known authority.
    VerifyCa,
    /// As [`TlsMode::VerifyCa`], and the certificate names the host.
    VerifyIdentity,
}

impl TlsMode {
    fn parse(text: &str) -> Option<TlsMode> {
        Some(match text.to_ascii_uppercase().as_str() {
            "DISABLED" => TlsMode::Disabled,
            "PREFERRED" => TlsMode::Preferred,
            "REQUIRED" => TlsMode::Required,
            "VERIFY_CA" => TlsMode::VerifyCa,
            "VERIFY_IDENTITY" => TlsMode::VerifyIdentity,
            _ => return None,
        })
    }
}

impl ServerUrl {
    /// Reads a URL whose parts are percent-encoded.
    ///
    /// # Errors
    ///
    /// What is wrong and what to do, as fragments that repeat neither account nor password.
    pub fn parse(text: &str) -> Result<ServerUrl, (String, String)> {
        let rest = text.strip_prefix("mysql://").ok_or_else(|| {
            wrong("the URL does not begin with `mysql://`", "write it as `mysql://user:password@host:port`")
        })?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !path.is_empty() {
            return Err(wrong(
                "the URL names a schema after the host",
                "leave it out: tables are named with their schema, and crossfade's own schema is `crossfade`",
            ));
        }
        let (account, address) = authority.rsplit_once('@').ok_or_else(|| {
            wrong("the URL has no account before the host", "write it as `mysql://user:password@host:port`")
        })?;
        let (user, password) = account.split_once(':').unwrap_or((account, ""));
        let (user, password) = (decode(user)?, decode(password)?);
        if user.is_empty() {
            return Err(wrong("the URL has no user", "write it as `mysql://user:password@host:port`"));
        }
        let mut url = ServerUrl {
            user,
            password: Secret::new(password),
            endpoint: tcp_endpoint(address)?,
            tls_mode: TlsMode::default(),
            tls_ca: None,
        };
        url.read_query(query)?;
        Ok(url)
    }

    fn read_query(&mut self, query: &str) -> Result<(), (String, String)> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            match key {
                "ssl-mode" => {
                    self.tls_mode = TlsMode::parse(&value).ok_or_else(|| {
                        wrong(
                            "the URL's `ssl-mode` is unknown",
                            "use DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY",
                        )
                    })?;
                }
                "ssl-ca" if !value.is_empty() => self.tls_ca = Some(PathBuf::from(value)),
                "socket" if !value.is_empty() => self.endpoint = Endpoint::Socket(PathBuf::from(value)),
                "ssl-ca" | "socket" => {
                    return Err((
                        format!("the URL's `{key}` is empty"),
                        format!("write `{key}=/path/to/file`, or leave it out"),
                    ));
                }
                _ => {
                    // What follows an unencoded `?` in a password would come here: it is not repeated.
                    return Err(wrong(
                        "the URL has an unknown option",
                        "use `ssl-mode`, `ssl-ca` or `socket`; a `?` inside the password is written %3F",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Where the server is, for people: `db.example:3306`, `[::1]:3306`, `/run/mysqld.sock`.
    pub fn address(&self) -> String {
        match &self.endpoint {
            Endpoint::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Endpoint::Tcp { host, port } => format!("{host}:{port}"),
            Endpoint::Socket(path) => path.display().to_string(),
        }
    }
}

fn tcp_endpoint(address: &str) -> Result<Endpoint, (String, String)> {
    let wrong = |message| wrong(message, "write the host as `db.example:3306`, `10.0.0.1:3306` or `[::1]:3306`");
    let (host, port) = if let Some(bracketed) = address.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or_else(|| wrong("the URL's host has no closing `]`"))?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(wrong("the URL's host in brackets is not an IPv6 address"));
        }
        match after.strip_prefix(':') {
            Some(port) => (host.to_owned(), port),
            None if after.is_empty() => (host.to_owned(), ""),
            None => return Err(wrong("the URL has text between the host's `]` and the port")),
        }
    } else {
        let (host, port) = address.split_once(':').unwrap_or((address, ""));
        (decode(host)?, port)
    };
    if host.is_empty() {
        return Err(wrong("the URL has no host"));
    }
    if host.contains(|c: char| c.is_whitespace() || c == '@' || c == '/') || port.contains(':') {
        return Err(wrong("the URL's host is not a host name or address"));
    }
    let port = match port {
        "" => 3306,
        port => port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| {
            let (message, _) = wrong("the URL's port is not a number from 1 to 65535");
            (
                message,
                "write `:3306` after the host; a `@`, `/` or `:` inside the password is written %40, %2F or %3A".into(),
            )
        })?,
    };
    Ok(Endpoint::Tcp { host, port })
}

fn wrong(message: &str, remedy: &str) -> (String, String) {
    (message.to_owned(), remedy.to_owned())
}

/// Turns `%41` into `A`.
fn decode(text: &str) -> Result<String, (String, String)> {
    let wrong = |message| wrong(message, "write a plain `%` as `%25`");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|two| Some((hex(two[0])?, hex(two[1])?)));
        let (high, low) = digits.ok_or_else(|| wrong("the URL has a `%` that two hexadecimal digits do not follow"))?;
        bytes.push(high << 4 | low);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong("the URL's percent-encoded bytes are not UTF-8"))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Percent-encodes everything that could mean something in a URL.
pub(crate) fn encode(text: &str) -> String {
    use fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mysql://{}@{}", self.user, self.address())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerUrl({self}, {:?})", self.tls_mode)
    }
}
