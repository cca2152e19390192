//! The SQL whose text depends on the server's version. Nothing else in crossfade asks which server it is to build a
//! statement.

use crate::{Flavor, Version};

/// Statements for one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    flavor: Flavor,
    /// MySQL 8.2 and later: the words MASTER and SLAVE are going, and gone with 8.4.
    binary_log_words: bool,
    /// MySQL 8.0.22 and later.
    replica_words: bool,
}

impl Dialect {
    pub fn of(version: &Version) -> Dialect {
        let mysql = version.flavor == Flavor::MySql;
        Dialect {
            flavor: version.flavor,
            binary_log_words: mysql && version.at_least(8, 2, 0),
            replica_words: mysql && version.at_least(8, 0, 22),
        }
    }

    pub fn flavor(self) -> Flavor {
        self.flavor
    }

    /// The file and offset that is written now, and the filters: columns `File`, `Position`, `Binlog_Do_DB`,
    /// `Binlog_Ignore_DB`. No row where the binlog is off.
    pub fn binlog_status(self) -> &'static str {
        if self.binary_log_words { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" }
    }

    /// The server's binlog files: columns `Log_name`, `File_size`.
    pub fn binlog_files(self) -> &'static str {
        "SHOW BINARY LOGS"
    }

    /// Who reads the server's binlog under which `Server_id`.
    pub fn binlog_readers(self) -> &'static str {
        if self.replica_words { "SHOW REPLICAS" } else { "SHOW SLAVE HOSTS" }
    }

    /// What has been committed, as a GTID set (MySQL) or a GTID position (MariaDB): one text.
    pub fn gtid_executed(self) -> &'static str {
        match self.flavor {
            Flavor::MySql => "SELECT @@GLOBAL.gtid_executed",
            Flavor::MariaDb => "SELECT @@GLOBAL.gtid_binlog_pos",
        }
    }

    /// What is no longer in the binlog, as a GTID set; `None` where the server does not say.
    pub fn gtid_purged(self) -> Option<&'static str> {
        match self.flavor {
            Flavor::MySql => Some("SELECT @@GLOBAL.gtid_purged"),
            Flavor::MariaDb => None,
        }
    }

    /// Whether the server replays another one's transactions: a row for each source, with the columns that
    /// [`Dialect::replication_threads`] names.
    pub fn replica_status(self) -> &'static str {
        match self.flavor {
            Flavor::MySql if self.replica_words => "SHOW REPLICA STATUS",
            Flavor::MySql => "SHOW SLAVE STATUS",
            Flavor::MariaDb => "SHOW ALL SLAVES STATUS",
        }
    }

    /// The columns that say whether a replica fetches and replays.
    pub fn replication_threads(self) -> [&'static str; 2] {
        if self.replica_words {
            ["Replica_IO_Running", "Replica_SQL_Running"]
        } else {
            ["Slave_IO_Running", "Slave_SQL_Running"]
        }
    }

    /// XA transactions that are prepared and not yet decided.
    pub fn prepared_transactions(self) -> &'static str {
        match self.flavor {
            Flavor::MySql => "XA RECOVER CONVERT XID",
            Flavor::MariaDb => "XA RECOVER FORMAT='SQL'",
        }
    }

    /// The privilege that [`Dialect::binlog_status`] asks for.
    pub fn binlog_status_privilege(self) -> &'static str {
        match self.flavor {
            Flavor::MySql => "REPLICATION CLIENT",
            Flavor::MariaDb => "BINLOG MONITOR",
        }
    }

    /// All accounts and roles but the server's own: user, host, plugin, `1` where locked, what of TLS is asked for, `1` for a
    /// role that has no host. What they prove themselves with is not read.
    pub(crate) fn accounts(self) -> &'static str {
        match self.flavor {
            Flavor::MySql => {
                "SELECT user, host, plugin, CAST(account_locked = 'Y' AS CHAR), CAST(ssl_type AS CHAR), '0' FROM mysql.user
                  WHERE user NOT IN ('mysql.sys', 'mysql.session', 'mysql.infoschema') ORDER BY user, host"
            }
            Flavor::MariaDb => {
                "SELECT u.user, u.host, u.plugin,
                        CAST(COALESCE(JSON_VALUE(g.priv, '$.account_locked'), '0') IN ('1', 'true') AS CHAR),
                        CAST(u.ssl_type AS CHAR), CAST(u.is_role = 'Y' AS CHAR)
                   FROM mysql.user AS u JOIN mysql.global_priv AS g ON g.user = u.user AND g.host = u.host
                  WHERE u.user NOT IN ('mariadb.sys', 'PUBLIC') ORDER BY u.user, u.host"
            }
        }
    }
}
