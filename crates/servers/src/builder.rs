//! Settings of a private server.

use std::path::PathBuf;
use std::time::Duration;

use crate::folder::{Folder, Port};
use crate::options::Options;
use crate::{Error, Flavor, Server, ServerBinary};

/// Settings of a private server; made by [`Server::builder`].
///
/// Unless said otherwise the server is durable (`sync_binlog=1`, `innodb_flush_log_at_trx_commit=1`), has a buffer pool of
/// 128 MiB, packets of up to 64 MiB, a random `server_id`, no performance schema, and `root` without a password.
#[derive(Debug, Clone)]
pub struct ServerBuilder {
    pub(crate) flavor: Flavor,
    pub(crate) binary: Option<ServerBinary>,
    pub(crate) options: Options,
    pub(crate) durable: bool,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) keep: Option<bool>,
    pub(crate) port: Option<u16>,
    pub(crate) launcher: Vec<String>,
    pub(crate) root_password: String,
    pub(crate) start_time_out: Duration,
}

impl ServerBuilder {
    pub(crate) fn new(flavor: Flavor) -> ServerBuilder {
        ServerBuilder {
            flavor,
            binary: None,
            options: Options::default(),
            durable: true,
            folder: None,
            keep: None,
            port: None,
            launcher: Vec::new(),
            root_password: String::new(),
            start_time_out: Duration::from_secs(60),
        }
    }

    /// Starts this program instead of looking for one. Its brand must be the builder's.
    pub fn binary(mut self, binary: ServerBinary) -> Self {
        self.binary = Some(binary);
        self
    }

    /// Sets a server option, `name=value`. Dashes and underscores are the same; the last one wins, also over the
    /// defaults.
    pub fn option(mut self, name: &str, value: impl ToString) -> Self {
        self.options.set(name, &value.to_string());
        self
    }

    /// Sets a bare option, as `skip-log-bin`.
    pub fn flag(mut self, name: &str) -> Self {
        self.options.flag(name);
        self
    }

    /// Whether a commit outlives a crash of the machine. `false` is several times as fast; a crash of the server alone
    /// (`kill9`) still loses nothing.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// The same as `durable(false)`: for quick tests.
    pub fn relaxed(self) -> Self {
        self.durable(false)
    }

    /// Puts everything (data directory, socket, error log) into this folder instead of a temporary one. Data that is there is
    /// used. Such a folder is kept unless [`keep`](Self::keep) says otherwise. One server at a time.
    pub fn data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Whether the folder stays when the server goes. Without this call: a folder given by [`data_dir`](Self::data_dir)
    /// stays, a temporary one does not.
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = Some(keep);
        self
    }

    /// Listens on this loopback port instead of a random free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Starts the server by this command, which gets the server's own program and arguments after its own, and must become it
    /// without a fork (`env`, `unshare`, a shell with `exec`): for another clock, another view of the disk, and the like.
    pub fn launcher<S: Into<String>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.launcher = command.into_iter().map(Into::into).collect();
        self
    }

    /// Root's password in a new data directory. Where data is already there, this must be the password it was made with.
    pub fn root_password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.root_password);
        self
    }

    /// How long the server may take until it answers; 60 s unless set.
    pub fn start_time_out(mut self, time_out: Duration) -> Self {
        self.start_time_out = time_out;
        self
    }

    /// Starts the server and waits until it answers. When the future is dropped before, the server ends as soon as it has
    /// started.
    ///
    /// # Errors
    ///
    /// No such server on this machine, no data directory, or a server that ends or does not answer: with the last
    /// lines of its error log.
    pub async fn start(self) -> Result<Server, Error> {
        crate::server::blocking(move || self.start_blocking()).await
    }

    /// As [`start`](Self::start), for threads outside an async runtime.
    pub fn start_blocking(self) -> Result<Server, Error> {
        Server::start(self)
    }

    pub(crate) fn make_folder(&self) -> Result<Folder, Error> {
        match &self.folder {
            Some(folder) => Folder::chosen(folder),
            None => Folder::temporary(),
        }
    }

    pub(crate) fn make_port(&self) -> Result<Port, Error> {
        self.port.map_or_else(Port::reserve, |number| Ok(Port::chosen(number)))
    }
}
