//! The store's tables and their versions.
//!
//! A version is `major.minor`. A new minor version only adds, so a program one minor version older still runs on it and
//! a pair can be upgraded one process at a time. A new major version is refused by older programs.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::connections::in_time;
use crate::error::server_error;
use crate::{Store, StoreError};

/// What this program writes and reads.
const CURRENT: Version = Version { major: 1, minor: 7 };

/// In order. Every statement is repeatable, since DDL commits by itself and a migration can be interrupted anywhere.
const STEPS: &[(Version, &[&str])] = &[
    (
        Version { major: 1, minor: 0 },
        &[include_str!("../../../sql/store/001_tables.sql"), include_str!("../../../sql/store/002_message_view.sql")],
    ),
    (Version { major: 1, minor: 1 }, &[include_str!("../../../sql/store/003_conflicts.sql")]),
    (Version { major: 1, minor: 2 }, &[include_str!("../../../sql/store/004_requests.sql")]),
    (Version { major: 1, minor: 3 }, &[include_str!("../../../sql/store/005_verify.sql")]),
    (
        Version { major: 1, minor: 4 },
        &[include_str!("../../../sql/store/006_backfill.sql"), include_str!("../../../sql/store/007_throttle.sql")],
    ),
    (
        Version { major: 1, minor: 5 },
        &[
            include_str!("../../../sql/store/008_backfill_pace.sql"),
            include_str!("../../../sql/store/009_continuous_verify.sql"),
            include_str!("../../../sql/store/010_deferred_index.sql"),
        ],
    ),
    (Version { major: 1, minor: 6 }, &[include_str!("../../../sql/store/011_flag.sql")]),
    (
        Version { major: 1, minor: 7 },
        &[include_str!("../../../sql/store/012_authority.sql"), include_str!("../../../sql/store/013_entity.sql")],
    ),
];

/// ER_DUP_FIELDNAME: a column that is to be added is there already, which only happens when a step is repeated.
pub const COLUMN_EXISTS: u16 = 1060;

const NODE: [&str; 2] =
    [include_str!("../../../sql/node/001_tables.sql"), include_str!("../../../sql/node/002_columns.sql")];

/// Whoever makes the schema, changes its tables, or removes it, holds this lock of the server meanwhile.
pub const MIGRATION_LOCK: &str = "crossfade.migrate";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u16,
    minor: u16,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The statements that make the schema `crossfade` of a side's node. Run them in order on any connection; they are
/// repeatable where the error that a [column exists](COLUMN_EXISTS) is passed over.
pub fn node_statements() -> Vec<&'static str> {
    NODE.into_iter().flat_map(statements).collect()
}

/// The tables of a side's node; those of the store have other names.
pub fn node_tables() -> Vec<&'static str> {
    let made = node_statements().into_iter().filter_map(|statement| {
        let name = statement.split_once("CREATE TABLE IF NOT EXISTS crossfade.")?.1;
        name.split_whitespace().next()
    });
    made.collect()
}

/// Statements end with a semicolon at the end of a line. Comments between them go with the next one.
fn statements(script: &'static str) -> Vec<&'static str> {
    script.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()).collect()
}

impl Store {
    /// Creates the schema and brings its tables to this program's version. Calling it again changes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooNew`] when a newer program was here, [`StoreError::MigrationBusy`] when one is at it for longer
    /// than 30 s.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.connect_without_schema().await?;
        let locked: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK('crossfade.migrate', 30)")
            .fetch_one(&mut connection)
            .await
            .map_err(StoreError::during("lock itself for migration"))?;
        if locked != Some(1) {
            return Err(StoreError::MigrationBusy);
        }
        let done = migrate_locked(&mut connection).await;
        // Ends the lock too.
        let _ = connection.close().await;
        done?;
        self.add_partitions().await
    }

    /// Whether this program can work with the store as it is.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotMigrated`] or [`StoreError::TooNew`].
    pub async fn version_check(&self) -> Result<(), StoreError> {
        let asking = async {
            let mut connection = self.connect_without_schema().await?;
            let found = stored_version(&mut connection).await?;
            let _ = connection.close().await;
            Ok(found)
        };
        check(in_time("connect", 0, asking).await?)
    }
}

fn check(found: Option<Version>) -> Result<(), StoreError> {
    let needed = CURRENT.to_string();
    match found {
        None => Err(StoreError::NotMigrated { found: None, needed }),
        Some(found) if is_too_new(found) => Err(StoreError::TooNew { found: found.to_string(), known: needed }),
        Some(found) if found < CURRENT => Err(StoreError::NotMigrated { found: Some(found.to_string()), needed }),
        Some(_) => Ok(()),
    }
}

fn is_too_new(found: Version) -> bool {
    found.major > CURRENT.major || (found.major == CURRENT.major && found.minor > CURRENT.minor + 1)
}

async fn migrate_locked(connection: &mut MySqlConnection) -> Result<(), StoreError> {
    let run = StoreError::during("be migrated");
    let found = stored_version(connection).await?;
    if let Some(found) = found.filter(|found| is_too_new(*found)) {
        return Err(StoreError::TooNew { found: found.to_string(), known: CURRENT.to_string() });
    }
    if found.is_some_and(|found| found >= CURRENT) {
        return Ok(());
    }
    run_statements(connection, found).await.map_err(run)
}

async fn run_statements(connection: &mut MySqlConnection, found: Option<Version>) -> Result<(), sqlx::Error> {
    connection.execute("CREATE DATABASE IF NOT EXISTS crossfade DEFAULT CHARACTER SET utf8mb4").await?;
    connection.execute("USE crossfade").await?;
    connection
        .execute(
            "CREATE TABLE IF NOT EXISTS store_version (
               id TINYINT UNSIGNED NOT NULL PRIMARY KEY, major SMALLINT UNSIGNED NOT NULL, minor SMALLINT UNSIGNED NOT NULL,
               migrated_at DATETIME(6) NOT NULL) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4",
        )
        .await?;
    for (version, scripts) in STEPS.iter().filter(|(version, _)| found.is_none_or(|found| *version > found)) {
        for statement in scripts.iter().flat_map(|script| statements(script)) {
            if let Err(error) = sqlx::raw_sql(statement).execute(&mut *connection).await
                && server_error(&error) != Some(COLUMN_EXISTS)
            {
                return Err(error);
            }
        }
        let record = format!(
            "INSERT INTO store_version VALUES (1, {}, {}, UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE
               major = VALUES(major), minor = VALUES(minor), migrated_at = VALUES(migrated_at)",
            version.major, version.minor
        );
        sqlx::raw_sql(AssertSqlSafe(record)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// `None` where there is no store.
async fn stored_version(connection: &mut MySqlConnection) -> Result<Option<Version>, StoreError> {
    let during = || StoreError::during("tell its version");
    let exists: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'crossfade' AND table_name = 'store_version'",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(during())?;
    if exists == 0 {
        return Ok(None);
    }
    let row = sqlx::query("SELECT major, minor FROM crossfade.store_version WHERE id = 1")
        .fetch_optional(&mut *connection)
        .await
        .map_err(during())?;
    row.map(|row| Ok(Version { major: row.try_get(0)?, minor: row.try_get(1)? })).transpose().map_err(during())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u16, minor: u16) -> Option<Version> {
        Some(Version { major, minor })
    }

    #[test]
    fn neighbouring_versions_run_together_and_newer_ones_are_refused() {
        let Version { major, minor } = CURRENT;
        assert!(check(version(major, minor)).is_ok());
        assert!(check(version(major, minor + 1)).is_ok());
        assert!(matches!(check(version(major, minor + 2)), Err(StoreError::TooNew { .. })));
        assert!(matches!(check(version(major + 1, 0)), Err(StoreError::TooNew { .. })));
        assert!(matches!(check(version(major - 1, 99)), Err(StoreError::NotMigrated { found: Some(_), .. })));
        assert!(matches!(check(None), Err(StoreError::NotMigrated { found: None, .. })));
    }

    #[test]
    fn scripts_split_into_whole_statements() {
        let node = node_statements();
        assert_eq!(node.len(), 9);
        let store: Vec<_> = STEPS.iter().flat_map(|(_, scripts)| scripts.iter()).flat_map(|s| statements(s)).collect();
        let repeatable = ["IF NOT EXISTS", "CREATE OR REPLACE", "ADD COLUMN"];
        let is_repeatable = |statement: &&str| repeatable.iter().any(|word| statement.contains(word));
        assert!(node_tables().starts_with(&["checkpoint", "tombstone", "heartbeat", "returned", "flag"]));
        assert!(store.iter().chain(&node).all(is_repeatable), "{store:?} {node:?}");
        assert!(store.iter().chain(&node).all(|statement| !statement.ends_with(';')));
    }
}
