//! What a server says of itself.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::{CatalogError, Dialect, Flavor, SupportLevel, Version};

/// How often the server's clock is asked; the fastest answer counts.
const CLOCK_SAMPLES: u32 = 5;

/// A server's version, identity and settings.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    pub version: Version,
    /// `server_uuid` of MySQL; `server_uid` of MariaDB, or `<server_id>@<host>:<port>` where it has none.
    pub identity: String,
    pub server_id: u32,
    pub gtid_mode: GtidMode,
    pub binlog: BinlogFacts,
    /// `innodb_flush_log_at_trx_commit`.
    pub flush_log_at_commit: u8,
    pub lower_case_table_names: u8,
    /// `@@global.time_zone`; `SYSTEM` stands for `system_time_zone`.
    pub time_zone: String,
    pub system_time_zone: String,
    pub max_allowed_packet_bytes: u64,
    pub read_only: bool,
    pub auto_increment_increment: u64,
    pub auto_increment_offset: u64,
    /// What an ON DELETE or ON UPDATE action changes is in the binlog: MySQL 9.6 and later, unless
    /// `innodb_native_foreign_keys` is on.
    pub logs_cascades: bool,
    pub clock: ClockDifference,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GtidMode {
    On,
    Off,
    /// MySQL: on the way from one to the other.
    Permissive,
    /// MariaDB numbers transactions always.
    Always,
}

/// The binlog settings that sessions start with. A session may override most of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BinlogFacts {
    pub enabled: bool,
    /// What it replays as a replica goes into its binlog too (`log_replica_updates`).
    pub logs_replicated: bool,
    /// What it replays as a replica it commits in the order of its source.
    pub keeps_commit_order: bool,
    /// Changes are to be seen in the order in which they are logged (`binlog_order_commits`; MariaDB knows nothing else).
    pub orders_commits: bool,
    /// `ROW`, `STATEMENT`, `MIXED`.
    pub format: String,
    /// `FULL`, `MINIMAL`, `NOBLOB`, `FULL_NODUP`.
    pub row_image: String,
    /// `FULL`, `MINIMAL`, `NO_LOG`; empty where the server does not know the setting.
    pub row_metadata: String,
    /// `PARTIAL_JSON` or empty.
    pub row_value_options: String,
    pub checksum: String,
    pub sync_binlog: u64,
    /// How long files are kept; `None` for ever.
    pub retention: Option<Duration>,
}

/// The server's clock minus this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDifference {
    pub micros: i64,
    /// The true difference is within `micros` ± this.
    pub uncertainty_micros: i64,
}

impl ServerFacts {
    /// Asks a server. Takes any connection of [`connect`](crate::connect); changes nothing.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Query`], or [`CatalogError::Unexpected`] for an answer that makes no sense.
    pub async fn read(conn: &mut Conn) -> Result<ServerFacts, CatalogError> {
        let variables = Variables::read(conn).await?;
        let version = Version::parse(variables.text("version"))?;
        let clock = clock_difference(conn).await?;
        Ok(ServerFacts {
            identity: identity(&version, &variables),
            server_id: u32::try_from(variables.number("server_id")?).unwrap_or_default(),
            gtid_mode: gtid_mode(&version, &variables),
            binlog: binlog_facts(&variables)?,
            flush_log_at_commit: variables.number("innodb_flush_log_at_trx_commit")? as u8,
            lower_case_table_names: variables.number("lower_case_table_names")? as u8,
            time_zone: variables.text("time_zone").to_owned(),
            system_time_zone: variables.text("system_time_zone").to_owned(),
            max_allowed_packet_bytes: variables.number("max_allowed_packet")?,
            read_only: variables.is_on("read_only") || variables.is_on("super_read_only"),
            auto_increment_increment: variables.number("auto_increment_increment")?,
            auto_increment_offset: variables.number("auto_increment_offset")?,
            logs_cascades: version.flavor == Flavor::MySql
                && version.at_least(9, 6, 0)
                && !variables.is_on("innodb_native_foreign_keys"),
            clock,
            version,
        })
    }

    pub fn flavor(&self) -> Flavor {
        self.version.flavor
    }

    pub fn dialect(&self) -> Dialect {
        Dialect::of(&self.version)
    }

    pub fn support_level(&self) -> SupportLevel {
        self.version.support_level()
    }

    /// Positions of this server are GTIDs, not file and offset.
    pub fn has_gtids(&self) -> bool {
        matches!(self.gtid_mode, GtidMode::On | GtidMode::Always)
    }
}

fn identity(version: &Version, variables: &Variables) -> String {
    let own = match version.flavor {
        Flavor::MySql => variables.text("server_uuid"),
        Flavor::MariaDb => variables.text("server_uid"),
    };
    if !own.is_empty() {
        return own.to_owned();
    }
    format!("{}@{}:{}", variables.text("server_id"), variables.text("hostname"), variables.text("port"))
}

fn gtid_mode(version: &Version, variables: &Variables) -> GtidMode {
    match (version.flavor, variables.text("gtid_mode")) {
        (Flavor::MariaDb, _) => GtidMode::Always,
        (Flavor::MySql, "ON") => GtidMode::On,
        (Flavor::MySql, "ON_PERMISSIVE" | "OFF_PERMISSIVE") => GtidMode::Permissive,
        (Flavor::MySql, _) => GtidMode::Off,
    }
}

fn binlog_facts(variables: &Variables) -> Result<BinlogFacts, CatalogError> {
    let upper = |name| variables.text(name).to_ascii_uppercase();
    Ok(BinlogFacts {
        enabled: variables.is_on("log_bin"),
        logs_replicated: variables.is_on("log_replica_updates") || variables.is_on("log_slave_updates"),
        keeps_commit_order: keeps_commit_order(variables)?,
        orders_commits: variables.get("binlog_order_commits").is_none_or(|value| matches!(value, "ON" | "1")),
        format: upper("binlog_format"),
        row_image: upper("binlog_row_image"),
        row_metadata: upper("binlog_row_metadata"),
        row_value_options: upper("binlog_row_value_options"),
        checksum: upper("binlog_checksum"),
        sync_binlog: variables.number("sync_binlog")?,
        retention: retention(variables)?,
    })
}

/// MariaDB keeps it within a domain, however many threads replay (MariaDB documentation, "Parallel Replication").
fn keeps_commit_order(variables: &Variables) -> Result<bool, CatalogError> {
    let named = ["replica_preserve_commit_order", "slave_preserve_commit_order"];
    let Some(kept) = named.into_iter().find_map(|name| variables.get(name)) else { return Ok(true) };
    let workers = variables.number("replica_parallel_workers")?.max(variables.number("slave_parallel_workers")?);
    Ok(matches!(kept, "ON" | "1") || workers <= 1)
}

/// MySQL 8 and MariaDB 10.6 keep both names in step; the one in seconds is the finer. MySQL can be told not to purge.
fn retention(variables: &Variables) -> Result<Option<Duration>, CatalogError> {
    if variables.get("binlog_expire_logs_auto_purge").is_some_and(|value| value.eq_ignore_ascii_case("OFF")) {
        return Ok(None);
    }
    let seconds = variables.number("binlog_expire_logs_seconds")?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// All global variables, read at once, since which there are depends on the version.
struct Variables(HashMap<String, String>);

impl Variables {
    async fn read(conn: &mut Conn) -> Result<Variables, CatalogError> {
        let what = "the server's variables";
        let rows: Vec<Row> =
            conn.query("SHOW GLOBAL VARIABLES").await.map_err(|source| CatalogError::Query { what, source })?;
        let pair = |mut row: Row| {
            let text = |value: Option<Vec<u8>>| String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
            Some((text(row.take_opt(0)?.ok()?), text(row.take_opt(1)?.ok()?)))
        };
        Ok(Variables(rows.into_iter().filter_map(pair).collect()))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    fn is_on(&self, name: &str) -> bool {
        matches!(self.text(name), "ON" | "1")
    }

    /// 0 where the server does not know the variable.
    fn number(&self, name: &'static str) -> Result<u64, CatalogError> {
        match self.text(name) {
            "" => Ok(0),
            // MariaDB prints some intervals with a fraction: `864000.000000`.
            text => text
                .split('.')
                .next()
                .unwrap_or_default()
                .parse()
                .map_err(|_| CatalogError::Unexpected { what: name, found: text.to_owned() }),
        }
    }
}

/// The server's clock was read somewhere between question and answer, so half the round trip bounds the error.
async fn clock_difference(conn: &mut Conn) -> Result<ClockDifference, CatalogError> {
    let mut best: Option<ClockDifference> = None;
    for _ in 0..CLOCK_SAMPLES {
        let before = SystemTime::now();
        let asked = Instant::now();
        let what = "the server's clock";
        let server: Option<i64> = conn
            .query_first("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)")
            .await
            .map_err(|source| CatalogError::Query { what, source })?;
        let round_trip_micros = i64::try_from(asked.elapsed().as_micros()).unwrap_or(i64::MAX);
        let before = before.duration_since(UNIX_EPOCH).unwrap_or_default();
        let middle = i64::try_from(before.as_micros()).unwrap_or(i64::MAX).saturating_add(round_trip_micros / 2);
        let sample = ClockDifference {
            micros: server.unwrap_or_default().saturating_sub(middle),
            uncertainty_micros: round_trip_micros / 2 + 1,
        };
        if best.is_none_or(|best| sample.uncertainty_micros < best.uncertainty_micros) {
            best = Some(sample);
        }
    }
    Ok(best.unwrap_or(ClockDifference { micros: 0, uncertainty_micros: i64::MAX }))
}
