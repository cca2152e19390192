//! The two servers of one run, and crossfade's configuration for them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, ServerBuilder};

use crate::usage::Usage;
use crate::workload::{CLOCK, SCHEMA};

/// Two durable servers in a folder of their own, which goes with them unless it is to be [kept](Stage::keep_logs).
#[derive(Debug)]
pub struct Stage {
    // Dropped before the folder is removed, since their data is in it.
    servers: Option<(Server, Server)>,
    folder: PathBuf,
    kept: bool,
}

/// The pair of all that is measured, unless said otherwise.
pub const PAIR: &str = "bench";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Source, Side::Target];

    pub fn other(self) -> Side {
        match self {
            Side::Source => Side::Target,
            Side::Target => Side::Source,
        }
    }

    pub fn folder(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }

    /// A source and its replica must not have the same.
    fn server_id(self) -> u32 {
        match self {
            Side::Source => 1,
            Side::Target => 2,
        }
    }
}

/// Whether each commit is on the disk before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// `sync_binlog=1` and `innodb_flush_log_at_trx_commit=1`.
    Durable,
    /// `sync_binlog=0` and `innodb_flush_log_at_trx_commit=2`.
    Relaxed,
}

impl fmt::Display for Durability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Durability::Durable => "durable",
            Durability::Relaxed => "relaxed",
        })
    }
}

impl Stage {
    /// Starts two servers in a new folder below `parent`: on copies of the data that `recorded` has, or empty ones.
    pub async fn set(flavor: Flavor, durability: Durability, parent: &Path, recorded: Option<&Path>) -> Result<Stage> {
        let mut stage = Stage { servers: None, folder: new_folder(parent)?, kept: false };
        if let Some(recorded) = recorded {
            for side in Side::BOTH {
                copy(&recorded.join(side.folder()).join("data"), &stage.folder.join(side.folder()))?;
            }
        }
        let (redo_log, size) = redo_log(flavor);
        let start = |side: Side| {
            let server = server(flavor, side, &stage.folder).durable(durability == Durability::Durable);
            // Not durable, private servers do without it, since tests start many.
            server.option("innodb_use_native_aio", "ON").option(redo_log, size).keep(false).start()
        };
        stage.servers = Some(tokio::try_join!(start(Side::Source), start(Side::Target))?);
        Ok(stage)
    }

    pub fn server(&self, side: Side) -> Result<&Server> {
        let (source, target) = self.servers.as_ref().context("the servers have not started")?;
        Ok(match side {
            Side::Source => source,
            Side::Target => target,
        })
    }

    pub fn source(&self) -> Result<&Server> {
        self.server(Side::Source)
    }

    pub fn target(&self) -> Result<&Server> {
        self.server(Side::Target)
    }

    /// The file to give to `crossfade --config`, written anew.
    pub fn write_config(&self, settings: &str) -> Result<PathBuf> {
        self.write_config_of(PAIR, settings)
    }

    pub fn write_config_of(&self, pair: &str, settings: &str) -> Result<PathBuf> {
        write_config(&self.folder, pair, [self.source()?, self.target()?], settings)
    }

    /// What [`write_config`](Stage::write_config) has written.
    pub fn config(&self) -> PathBuf {
        config(&self.folder, PAIR)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Leaves configuration and logs behind, to look at; returns where.
    pub fn keep_logs(&mut self) -> &Path {
        self.kept = true;
        &self.folder
    }

    /// CPU time and memory of source and target until now.
    pub fn usage(&self) -> Result<[Usage; 2]> {
        let usage = |side| Usage::of(self.server(side)?.pid().context("a server has ended")?);
        Ok([usage(Side::Source)?, usage(Side::Target)?])
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.servers.take());
        if !self.kept {
            // What stays below target/ does no harm.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A server of a side, with its data in a folder below `parent`; durable unless told otherwise.
pub fn server(flavor: Flavor, side: Side, parent: &Path) -> ServerBuilder {
    Server::builder(flavor)
        .data_dir(parent.join(side.folder()))
        .option("server_id", side.server_id())
        .option("innodb_buffer_pool_size", "512M")
}

/// A redo log that does not make a short run wait for its pages to be written. Not in recordings: it would be copied.
fn redo_log(flavor: Flavor) -> (&'static str, &'static str) {
    match flavor {
        Flavor::MySql => ("innodb_redo_log_capacity", "512M"),
        Flavor::MariaDb => ("innodb_log_file_size", "512M"),
    }
}

/// Writes crossfade's configuration into `folder`. The connections are plain ones, like those of the server's own replication.
pub fn write_config(folder: &Path, pair: &str, [source, target]: [&Server; 2], settings: &str) -> Result<PathBuf> {
    let path = config(folder, pair);
    let text = format!(
        "pair = \"{pair}\"\n\n[old]\nurl = \"{}/?ssl-mode=DISABLED\"\n\n[new]\nurl = \"{}/?ssl-mode=DISABLED\"\n\n\
         [[table]]\nname = \"{}.*\"\nclock = \"{}\"\n\n{settings}\n",
        source.root_url(),
        target.root_url(),
        SCHEMA,
        CLOCK
    );
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn config(folder: &Path, pair: &str) -> PathBuf {
    folder.join(format!("{pair}.toml"))
}

fn new_folder(parent: &Path) -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = parent.join(format!("run-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// Copies a stopped server's data directory into the folder `to`, and waits until the disk has it: a copy that is still
/// being written would slow the commits that are measured.
fn copy(data: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let copied =
        Command::new("cp").args(["--archive", "--reflink=auto", "--sparse=auto", "--"]).args([data, to]).status();
    ensure!(copied.context("cannot run cp")?.success(), "cannot copy {}", data.display());
    let written = Command::new("sync").arg("--file-system").arg(to).status();
    ensure!(written.context("cannot run sync")?.success(), "cannot write {} to the disk", to.display());
    Ok(())
}
