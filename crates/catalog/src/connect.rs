//! Opens connections to servers.

use std::path::Path;
use std::time::Duration;

use crossfade_config::{Endpoint, ServerUrl, TlsMode};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, OptsBuilder, SslOpts};

use crate::CatalogError;

const CONNECT_TIME_OUT: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The largest packet that the protocol knows (MySQL manual, "max_allowed_packet"). A client with a lower bound could
/// never read past a bigger event.
const LARGEST_PACKET_BYTES: usize = 1 << 30;

/// The driver asks for no host name check by looking for this word in the error's text, which no longer holds it; but
/// the text still holds the name that was looked for.
const ANY_HOST_NAME: &str = "NotValidForName.invalid";

/// What a connection is for. It decides about its settings, and shows in the server's list of connections
/// (`performance_schema.session_connect_attrs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Reading facts and definitions. The session has UTC as its time zone and an empty `sql_mode`, so that no setting
    /// of the server changes what a query means.
    Catalog,
    /// Writing rows. Counts of affected rows are counts of *matched* rows, and changes are logged as rows whatever the server's
    /// default is. The applier sets the rest of the session.
    Apply,
    /// Reading the binlog. Packets of any size are taken.
    Binlog,
}

/// Whatever the server's global settings are: every statement commits by itself, results are whole, and what takes long is
/// not ended half way, to be begun again for ever. MariaDB skips comments of versions 50700 to 99999, MySQL those with an M
/// (MariaDB documentation, "Comment Syntax").
const PLAIN_SESSION: &str = "SET SESSION autocommit = 1, completion_type = 0, sql_select_limit = 18446744073709551615, sql_safe_updates = 0, \
     sql_big_selects = 1 /*!50708 , max_execution_time = 0 */ /*M!100101 , max_statement_time = 0 */";

impl Purpose {
    fn program_name(self) -> &'static str {
        match self {
            Purpose::Catalog => "crossfade-catalog",
            Purpose::Apply => "crossfade-apply",
            Purpose::Binlog => "crossfade-binlog",
        }
    }
}

/// Opens a connection over TCP or the socket, encrypted as the URL demands. Dropping the future closes what was opened.
///
/// # Errors
///
/// [`CatalogError::Connect`], or [`CatalogError::TimedOut`] after 10 seconds.
pub async fn connect(url: &ServerUrl, purpose: Purpose) -> Result<Conn, CatalogError> {
    let waited = CONNECT_TIME_OUT;
    let timed_out = || CatalogError::TimedOut { server: url.to_string(), waited };
    let opening = async {
        let mut conn = open(url, purpose).await?;
        if purpose == Purpose::Apply {
            log_rows(&mut conn, url).await?;
        }
        Ok(conn)
    };
    tokio::time::timeout(waited, opening).await.map_err(|_| timed_out())?
}

/// A server that logs statements by default can log a session's changes as rows, if the account may ask for it. InnoDB writes
/// nothing in a session that logs statements and reads committed (MySQL manual, "Transaction Isolation Levels").
async fn log_rows(conn: &mut Conn, url: &ServerUrl) -> Result<(), CatalogError> {
    let format: Option<(String, String)> = conn
        .query_first("SHOW SESSION VARIABLES LIKE 'binlog_format'")
        .await
        .map_err(|source| CatalogError::Query { what: "binlog_format", source })?;
    match format {
        Some((_, format)) if !format.eq_ignore_ascii_case("ROW") => {
            let set = conn.query_drop("SET SESSION binlog_format = 'ROW'").await;
            set.map_err(|source| CatalogError::RowFormat { server: url.to_string(), source })
        }
        _ => Ok(()),
    }
}

async fn open(url: &ServerUrl, purpose: Purpose) -> Result<Conn, CatalogError> {
    check_certificates(url.tls_ca.as_deref()).await?;
    let tls = tls_options(url);
    match Conn::new(options(url, purpose, tls.clone())).await {
        Err(error) if tls.is_some() && has_no_tls(&error) => match url.tls_mode {
            TlsMode::Preferred => {
                let plain = Conn::new(options(url, purpose, None)).await;
                plain.map_err(|source| CatalogError::Connect { server: url.to_string(), source })
            }
            _ => Err(CatalogError::NoTls { server: url.to_string() }),
        },
        result => result.map_err(|source| CatalogError::Connect { server: url.to_string(), source }),
    }
}

fn has_no_tls(error: &mysql_async::Error) -> bool {
    matches!(error, mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer))
}

/// The driver would report a missing file without its name.
async fn check_certificates(path: Option<&Path>) -> Result<(), CatalogError> {
    let Some(path) = path else { return Ok(()) };
    let read = tokio::fs::read(path).await;
    read.map(drop).map_err(|source| CatalogError::Certificates { path: path.display().to_string(), source })
}

fn options(url: &ServerUrl, purpose: Purpose, tls: Option<SslOpts>) -> OptsBuilder {
    let builder = OptsBuilder::default()
        .user(Some(url.user.as_str()))
        .pass(Some(url.password.expose()))
        // Left alone, the driver moves from TCP to the socket that the server names, wherever that leads.
        .prefer_socket(false)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEPALIVE))
        .connect_attribute("program_name", purpose.program_name())
        .ssl_opts(tls);
    let builder = match &url.endpoint {
        Endpoint::Tcp { host, port } => builder.ip_or_hostname(host.as_str()).tcp_port(*port),
        Endpoint::Socket(path) => builder.socket(Some(path.display().to_string())),
    };
    match purpose {
        Purpose::Catalog => builder
            .init(vec![PLAIN_SESSION, "SET SESSION time_zone = '+00:00', sql_mode = '', sql_quote_show_create = 1"]),
        Purpose::Apply => builder.init(vec![PLAIN_SESSION]).client_found_rows(true),
        Purpose::Binlog => builder.init(vec![PLAIN_SESSION]).max_allowed_packet(Some(LARGEST_PACKET_BYTES)),
    }
}

fn tls_options(url: &ServerUrl) -> Option<SslOpts> {
    if matches!(url.endpoint, Endpoint::Socket(_)) {
        return None;
    }
    let any_host = |options: SslOpts| {
        options.with_danger_skip_domain_validation(true).with_danger_tls_hostname_override(Some(ANY_HOST_NAME))
    };
    let authorities = |options: SslOpts| match &url.tls_ca {
        Some(path) => options.with_root_certs(vec![path.clone().into()]).with_disable_built_in_roots(true),
        None => options,
    };
    let options = SslOpts::default();
    match url.tls_mode {
        TlsMode::Disabled => None,
        TlsMode::Preferred | TlsMode::Required => Some(any_host(options).with_danger_accept_invalid_certs(true)),
        TlsMode::VerifyCa => Some(any_host(authorities(options))),
        TlsMode::VerifyIdentity => Some(authorities(options)),
    }
}
