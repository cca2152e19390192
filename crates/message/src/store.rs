//! The connection to the store.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use crossfade_config::{Endpoint, ServerUrl, TlsMode};
use crossfade_model::TableLayout;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPool, MySqlPoolOptions, MySqlSslMode};
use sqlx::{ConnectOptions, Executor};

use crate::StoreError;
use crate::connections::{AT_HAND, AnewAt, Connections, KEPT_FOR, SURE_FOR, is_alive};

/// The schema that holds the store, wherever its server is.
pub const SCHEMA: &str = "crossfade";

/// One pair's part of the store. Cheap to clone; clones share connections.
///
/// Every method may be dropped before it ends: an open transaction is then rolled back. Whether a commit that was under
/// way has happened shows when the state is read again.
#[derive(Clone)]
pub struct Store {
    /// For what a running process asks and tells: answers that do not come in time are not waited for.
    pub(crate) pool: Connections,
    /// The pool itself, for what people ask and for what changes tables: that takes as long as it takes.
    pub(crate) patient: MySqlPool,
    pub(crate) pair: Arc<str>,
    /// The key of the flag: the pair's, or that of a group of its tables.
    pub(crate) flag_key: Arc<str>,
    /// TLS is not asked for, but the server may insist.
    plain_first: bool,
    anew_at: AnewAt,
    /// Layouts that are known to be in the store, by id.
    pub(crate) layouts: Arc<RwLock<HashMap<u64, Arc<TableLayout>>>>,
    pub(crate) probe: Option<Probe>,
}

/// Called at named points inside the store's work; tests stop the process there.
pub type Probe = Arc<dyn Fn(&'static str) + Send + Sync>;

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("pair", &self.pair).finish_non_exhaustive()
    }
}

impl Store {
    /// Connects on first use, so it succeeds before the server or the schema is there. Where encryption is only preferred
    /// and the server is on this machine, it is used only if the server insists; [`version_check`](Store::version_check) or
    /// [`migrate`](Store::migrate) find that out, so one of them comes first.
    pub fn new(server: &ServerUrl, pair: &str) -> Store {
        let plain_first = server.tls_mode == TlsMode::Preferred && is_this_machine(&server.endpoint);
        let mut options = connect_options(server);
        if plain_first {
            // sqlx leaves Nagle's algorithm on, and each TLS record is a write of its own: over the loopback interface,
            // every packet of more than one record then waits 40 ms for an acknowledgement.
            options = options.ssl_mode(MySqlSslMode::Disabled);
        }
        let anew_at = AnewAt::default();
        let anew = anew_at.clone();
        let pool = MySqlPoolOptions::new()
            // Those at hand count as taken.
            .max_connections(8 + AT_HAND as u32)
            .acquire_timeout(Duration::from_secs(10))
            .idle_timeout(KEPT_FOR)
            // A connection that has just been used is taken to live; asking first would double every short call.
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let made_at = Instant::now().checked_sub(meta.age);
                let is_former = made_at.is_none_or(|at| anew.is_former(at));
                let has_rested = meta.idle_for > SURE_FOR;
                // One that does not answer gives way to the next.
                Box::pin(async move { Ok(!is_former && (!has_rested || is_alive(connection).await)) })
            })
            .after_connect(|connection, _| Box::pin(prepare_session(connection)))
            .connect_lazy_with(options);
        Store {
            pool: Connections::new(pool.clone(), anew_at.clone()),
            patient: pool,
            pair: pair.into(),
            flag_key: pair.into(),
            plain_first,
            anew_at,
            layouts: Arc::default(),
            probe: None,
        }
    }

    /// The store is on another server from now on, which has the same data. Connections to the former one are not used again.
    pub fn move_to(&self, server: &ServerUrl) {
        let mut options = connect_options(server);
        if self.plain_first && is_this_machine(&server.endpoint) {
            options = options.ssl_mode(self.patient.connect_options().get_ssl_mode());
        }
        self.patient.set_connect_options(options);
        self.begin_sessions_anew();
    }

    /// Connections that are open are not used again. A server looks privileges on a schema up when a session begins to use it
    /// (MySQL manual, "When Privilege Changes Take Effect"), so those that were given meanwhile count for new sessions alone.
    pub fn begin_sessions_anew(&self) {
        self.anew_at.begin_anew();
    }

    /// Calls `probe` at the points `inside-capture` (rows written, not committed) and `after-capture`.
    pub fn with_probe(mut self, probe: Probe) -> Store {
        self.probe = Some(probe);
        self
    }

    pub fn pair(&self) -> &str {
        &self.pair
    }

    /// The same store, with the flag and the instances of a group of tables; `None`: those of the pair, for tables in no group.
    #[must_use]
    pub fn of_group(&self, group: Option<&str>) -> Store {
        let flag_key = group.map_or_else(|| self.pair.clone(), |group| format!("{}/{group}", self.pair).into());
        Store { flag_key, ..self.clone() }
    }

    /// What the flag is kept under, here and on the nodes: the pair's name, or `<pair>/<group>`.
    pub fn flag_key(&self) -> &str {
        &self.flag_key
    }

    /// The group whose flag this is.
    pub fn group(&self) -> Option<&str> {
        self.flag_key.split_once('/').map(|(_, group)| group)
    }

    /// Closes all connections, also those of clones.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A connection of its own, outside any schema, which may not exist yet.
    pub(crate) async fn connect_without_schema(&self) -> Result<MySqlConnection, StoreError> {
        let options = self.patient.connect_options();
        // sqlx has no way to unset a schema; this one is on every server.
        let without_schema = (*options).clone().database("information_schema");
        let mut connected = without_schema.connect().await;
        if self.plain_first && matches!(connected, Err(sqlx::Error::Database(_))) {
            let encrypted = without_schema.ssl_mode(MySqlSslMode::Preferred).connect().await;
            if encrypted.is_ok() {
                self.patient.set_connect_options((*options).clone().ssl_mode(MySqlSslMode::Preferred));
                connected = encrypted;
            }
        }
        let mut connection = connected.map_err(StoreError::during("connect"))?;
        prepare_session(&mut connection).await.map_err(StoreError::during("connect"))?;
        Ok(connection)
    }

    pub(crate) fn reached(&self, point: &'static str) {
        if let Some(probe) = &self.probe {
            probe(point);
        }
    }
}

fn is_this_machine(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Socket(_) => true,
        Endpoint::Tcp { host, .. } => {
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

fn connect_options(server: &ServerUrl) -> MySqlConnectOptions {
    let mut options =
        MySqlConnectOptions::new().username(&server.user).database(SCHEMA).ssl_mode(match server.tls_mode {
            TlsMode::Disabled => MySqlSslMode::Disabled,
            TlsMode::Preferred => MySqlSslMode::Preferred,
            TlsMode::Required => MySqlSslMode::Required,
            TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
            TlsMode::VerifyIdentity => MySqlSslMode::VerifyIdentity,
        });
    if !server.password.is_empty() {
        options = options.password(server.password.expose());
    }
    if let Some(file) = &server.tls_ca {
        options = options.ssl_ca(file);
    }
    let options = match &server.endpoint {
        Endpoint::Tcp { host, port } => options.host(host).port(*port),
        Endpoint::Socket(path) => options.socket(path),
    };
    options.disable_statement_logging()
}

/// sqlx sets UTC, utf8mb4 and a sql_mode of its own; the rest is ours.
async fn prepare_session(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
    // The server drops a session that says nothing for 8 s, and with it the locks of a process that was frozen inside a
    // transaction: not later than its lease runs out.
    // A day's partition that waits behind somebody's long query makes every capture wait behind it: not for long.
    // Read committed asks for row format on servers that write a binlog (MySQL manual, "Transaction Isolation Levels");
    // the default sql_mode of sqlx lets a value be cut silently, which the store must never do.
    connection
        .execute(
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO',
               innodb_lock_wait_timeout = 10, lock_wait_timeout = 5, wait_timeout = 8, autocommit = 1,
               completion_type = 0, sql_select_limit = 18446744073709551615, sql_safe_updates = 0,
               sql_big_selects = 1 /*!50708 , max_execution_time = 0 */ /*M!100101 , max_statement_time = 0 */",
        )
        .await?;
    // As for the sides: see `crossfade_catalog::connect`.
    let format: Option<(String, String)> =
        sqlx::query_as("SHOW SESSION VARIABLES LIKE 'binlog_format'").fetch_optional(&mut *connection).await?;
    if format.is_some_and(|(_, format)| !format.eq_ignore_ascii_case("ROW")) {
        connection.execute("SET SESSION binlog_format = 'ROW'").await?;
    }
    // Table sizes are cached for a day on MySQL 8 and later. MariaDB knows no such setting and skips comments of
    // versions 50700 to 99999 (MariaDB documentation, "Comment Syntax").
    connection.execute("/*!80000 SET SESSION information_schema_stats_expiry = 0 */").await?;
    Ok(())
}
