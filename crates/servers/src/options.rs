//! What a private server is told on its command line.

use std::collections::BTreeMap;

use crate::{Flavor, Version};

/// Options that must be the same when a data directory is made and when it is used.
const INITIALISE_OPTIONS: [&str; 5] = [
    "innodb_data_file_path",
    "innodb_page_size",
    "innodb_undo_directory",
    "innodb_undo_tablespaces",
    "lower_case_table_names",
];

/// Server options, by their name with underscores. A value of `None` is a bare `--name`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options(BTreeMap<String, Option<String>>);

impl Options {
    /// What every private server starts with; the caller's options come over it.
    pub(crate) fn defaults(version: &Version, durable: bool) -> Options {
        let mut options = Options::default();
        let mut set = |name: &str, value: &str| options.set(name, value);

        set("bind_address", "127.0.0.1");
        set("skip_name_resolve", "ON");
        set("max_connections", "500");
        set("max_allowed_packet", "64M");
        set("innodb_buffer_pool_size", "128M");
        set("character_set_server", "utf8mb4");
        // Costs memory and start time, and nothing here reads it.
        set("performance_schema", "OFF");

        // The name is relative to the data directory.
        set("log_bin", "binlog");
        set("binlog_row_image", "FULL");
        set("binlog_row_metadata", "FULL");
        let durability = if durable { "1" } else { "0" };
        set("sync_binlog", durability);
        // 2, not 0: written at every commit, though not synced, so that it outlives a kill of the process.
        set("innodb_flush_log_at_trx_commit", if durable { "1" } else { "2" });
        if !durable {
            // Each server takes thousands of the machine's asynchronous requests (`fs.aio-max-nr`): of many at a time, as tests
            // run them, the last ones would not start.
            set("innodb_use_native_aio", "OFF");
        }

        match version.flavor {
            Flavor::MySql => {
                set("gtid_mode", "ON");
                set("enforce_gtid_consistency", "ON");
                set("mysqlx", "OFF");
                if version.at_least(8, 4) {
                    // ROW is the default, and naming it is deprecated.
                    set("innodb_redo_log_capacity", "128M");
                } else {
                    set("binlog_format", "ROW");
                }
            }
            Flavor::MariaDb => {
                set("binlog_format", "ROW");
                set("log_slave_updates", "ON");
                set("innodb_log_file_size", "64M");
            }
        }
        options
    }

    /// Sets `name = value`; dashes and underscores in the name are the same, the last one set wins.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(canonical(name), Some(value.to_owned()));
    }

    /// Sets a bare `--name`, as `skip-log-bin`. What it contradicts is taken back.
    pub(crate) fn flag(&mut self, name: &str) {
        let name = canonical(name);
        if let Some(contradicted) = name.strip_prefix("skip_") {
            self.0.remove(contradicted);
        }
        self.0.insert(name, None);
    }

    pub(crate) fn merge(&mut self, other: &Options) {
        for (name, value) in &other.0 {
            match value {
                Some(value) => self.set(name, value),
                None => self.flag(name),
            }
        }
    }

    /// The part of the options that a data directory is made with.
    pub(crate) fn for_initialise(&self) -> Options {
        let part = self.0.iter().filter(|(name, _)| INITIALISE_OPTIONS.contains(&name.as_str()));
        Options(part.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    pub(crate) fn arguments(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, value)| match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        })
    }
}

fn canonical(name: &str) -> String {
    name.trim_start_matches("--").replace('-', "_").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_option_wins_however_it_is_spelt() {
        let mut options = Options::default();
        options.set("sync_binlog", "1");
        options.set("log_bin", "binlog");
        let mut callers = Options::default();
        callers.set("--sync-binlog", "0");
        callers.flag("skip-log-bin");
        callers.set("lower-case-table-names", "1");
        options.merge(&callers);
        let arguments: Vec<String> = options.arguments().collect();
        assert_eq!(arguments, ["--lower_case_table_names=1", "--skip_log_bin", "--sync_binlog=0"]);
        let initialise: Vec<String> = options.for_initialise().arguments().collect();
        assert_eq!(initialise, ["--lower_case_table_names=1"]);
    }
}
