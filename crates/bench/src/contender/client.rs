//! `mysqlbinlog | mysql`: what people do by hand.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use crossfade_servers::{Flavor, Server};

use crate::recording::BinlogPlace;
use crate::stage::Stage;
use crate::tool::{Tool, account, program};
use crate::usage::Usage;

/// Once everything is written.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Two programs with a pipe between them, and the shell that made it.
#[derive(Debug)]
pub struct Client {
    shell: PathBuf,
    pipe: String,
    log: PathBuf,
    tool: Option<Tool>,
}

impl Client {
    /// Reads the source's binlog from the disk, from a place on, as MySQL's own manual does it for a restore.
    pub fn prepare(stage: &Stage, from: &BinlogPlace) -> Result<Client> {
        let (source, target) = (stage.source()?, stage.target()?);
        let (reader, writer) = match target.flavor() {
            Flavor::MySql => ("mysqlbinlog", "mysql"),
            Flavor::MariaDb => ("mariadb-binlog", "mariadb"),
        };
        let unencrypted = match target.flavor() {
            Flavor::MySql => "--ssl-mode=DISABLED",
            Flavor::MariaDb => "--skip-ssl",
        };
        let file = source.data_dir().join(&from.file);
        let pipe = format!(
            "set -o pipefail; {} --start-position={} {} | {} {} {unencrypted}",
            beside(target, reader)?.display(),
            from.offset,
            file.display(),
            beside(target, writer)?.display(),
            account(target).join(" "),
        );
        Ok(Client { shell: program("bash")?, pipe, log: stage.log("client"), tool: None })
    }

    pub fn begin(&mut self) -> Result<()> {
        self.tool = Some(Tool::start(&self.shell, &["-c", &self.pipe], &self.log)?);
        Ok(())
    }

    /// It ends by itself when it has written everything, and otherwise with an error.
    pub fn must_run(&mut self) -> Result<()> {
        let tool = self.tool.as_mut().context("it has not begun")?;
        tool.must_not_have_failed()
    }

    pub fn usage(&mut self) -> Result<Usage> {
        let used = self.tool.as_mut().context("it has not begun")?.usage()?;
        // The memory is the shell's.
        Ok(Usage { peak_bytes: 0, ..used })
    }

    pub async fn end(&mut self) -> Result<Usage> {
        let tool = self.tool.as_mut().context("it has not begun")?;
        tool.wait(END_LIMIT).await?;
        self.usage()
    }
}

/// The server's own, or else the machine's.
fn beside(server: &Server, name: &str) -> Result<PathBuf> {
    let own = server.binary().path().with_file_name(name);
    if own.is_file() { Ok(own) } else { program(name) }
}
