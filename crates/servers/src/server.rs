//! One private server: its life from start to end.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::Rng;

use crate::builder::ServerBuilder;
use crate::folder::{Folder, Port};
use crate::options::Options;
use crate::template::{create_data_directory, log_tail};
use crate::{Error, Flavor, ServerBinary, Version, process};

/// How long a server may take to end in good order before it is killed.
const STOP_TIME_OUT: Duration = Duration::from_secs(60);
/// How often another port is tried when somebody else took the one that was free.
const PORT_ATTEMPTS: u32 = 5;

/// A private MySQL or MariaDB server.
///
/// Ends when dropped: killed at once if its folder goes with it, stopped in good order (which can take seconds, so rather call
/// [`stop`](Server::stop) before) if the folder stays. Bound to no async runtime. All calls take `&self`; calls that change
/// whether it runs wait for each other. An async call whose future is dropped goes on to its end in the background.
#[derive(Debug)]
pub struct Server {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    binary: ServerBinary,
    launcher: Vec<String>,
    folder: Folder,
    keep: bool,
    port: Port,
    socket: PathBuf,
    root_password: String,
    start_time_out: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    options: Options,
    /// Set from start to stop, also of a process that has crashed meanwhile.
    child: Option<Child>,
    /// Set when the folder was removed: nothing may start again.
    ended: bool,
}

impl Server {
    /// Begins the settings of a new server.
    pub fn builder(flavor: Flavor) -> ServerBuilder {
        ServerBuilder::new(flavor)
    }

    pub(crate) fn start(builder: ServerBuilder) -> Result<Server, Error> {
        let binary = match &builder.binary {
            Some(binary) => binary.clone(),
            None => ServerBinary::find(builder.flavor)?,
        };
        let mut options = Options::defaults(binary.version(), builder.durable);
        options.set("server_id", &rand::rng().random_range(1..=u32::MAX).to_string());
        options.merge(&builder.options);

        let mut attempt = 1;
        loop {
            let server = Server::prepare(&builder, binary.clone(), options.clone())?;
            let fresh = !server.inner.folder.data().join("mysql").is_dir();
            let started = server.inner.start_first(fresh);
            match started {
                Ok(()) => return Ok(server),
                Err(Error::StartFailed { log_tail, .. })
                    if builder.port.is_none() && attempt < PORT_ATTEMPTS && port_was_taken(&log_tail) =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn prepare(builder: &ServerBuilder, binary: ServerBinary, options: Options) -> Result<Server, Error> {
        let folder = builder.make_folder()?;
        let keep = builder.keep.unwrap_or(builder.folder.is_some());
        if keep {
            folder.keep();
        }
        let inner = Arc::new(Inner {
            binary,
            launcher: builder.launcher.clone(),
            keep,
            port: builder.make_port()?,
            socket: folder.socket(),
            folder,
            root_password: builder.root_password.clone(),
            start_time_out: builder.start_time_out,
            state: Mutex::new(State { options, child: None, ended: false }),
        });
        register(&inner);
        Ok(Server { inner })
    }

    /// Stops the server in good order, if it runs. [`restart`](Server::restart) starts it again.
    ///
    /// # Errors
    ///
    /// Only of the system. A server that does not end within a minute is killed.
    pub async fn stop(&self) -> Result<(), Error> {
        self.blocking(Inner::stop).await
    }

    /// Kills the server, as `kill -9` does, and waits until it is gone. Nothing happens if it does not run.
    pub async fn kill9(&self) -> Result<(), Error> {
        self.blocking(Inner::kill9).await
    }

    /// Stops the server if it runs, and starts it on the same port with the same data and options.
    ///
    /// # Errors
    ///
    /// As those of the first start.
    pub async fn restart(&self) -> Result<(), Error> {
        self.blocking(Inner::restart).await
    }

    /// As [`restart`](Server::restart), with some options changed from now on.
    pub async fn restart_with(&self, changed: &[(&str, &str)]) -> Result<(), Error> {
        let mut options = Options::default();
        changed.iter().for_each(|(name, value)| options.set(name, value));
        self.blocking(move |inner| {
            inner.state().options.merge(&options);
            inner.restart()
        })
        .await
    }

    /// Halts the process (SIGSTOP): connections stay open, nothing answers. Returns when all its threads stand still.
    /// [`thaw`](Server::thaw) lets it go on.
    pub async fn freeze(&self) -> Result<(), Error> {
        self.blocking(|inner| inner.with_child(process::freeze)).await
    }

    /// Lets a frozen process go on (SIGCONT).
    pub fn thaw(&self) -> Result<(), Error> {
        self.inner.with_child(|child| process::signal(child, Signal::SIGCONT))
    }

    /// The id of the server's process; `None` when it is stopped, killed or has crashed.
    pub fn pid(&self) -> Option<u32> {
        let mut state = self.inner.state();
        let child = state.child.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    pub fn flavor(&self) -> Flavor {
        self.inner.flavor()
    }

    pub fn version(&self) -> &Version {
        self.inner.binary.version()
    }

    /// The program this server runs.
    pub fn binary(&self) -> &ServerBinary {
        &self.inner.binary
    }

    /// Listens on 127.0.0.1 at this port, the same after every restart.
    pub fn port(&self) -> u16 {
        self.inner.port.number()
    }

    /// The Unix socket; accounts see such connections come from `localhost`, those over TCP from `127.0.0.1`.
    pub fn socket(&self) -> &Path {
        &self.inner.socket
    }

    /// The server's data directory, with its binary logs (`binlog.000001` …).
    pub fn data_dir(&self) -> PathBuf {
        self.inner.folder.data()
    }

    /// What the server logs. Grows over restarts.
    pub fn error_log(&self) -> PathBuf {
        self.inner.folder.error_log()
    }

    /// `mysql://user:password@127.0.0.1:port`, without a slash at the end: a schema can be appended as `/schema`.
    pub fn url(&self, user: &str, password: &str) -> String {
        let password = if password.is_empty() { String::new() } else { format!(":{}", percent_encoded(password)) };
        format!("mysql://{}{password}@127.0.0.1:{}", percent_encoded(user), self.port())
    }

    /// [`url`](Server::url) of `root`, who may do everything.
    pub fn root_url(&self) -> String {
        self.url("root", &self.inner.root_password)
    }

    /// Of `root`; it is made for this server alone.
    pub fn root_password(&self) -> &str {
        &self.inner.root_password
    }

    /// Opens a connection as `root`, over TCP. It belongs to the calling runtime, not to the server.
    pub async fn connect(&self) -> Result<mysql_async::Conn, Error> {
        let options = mysql_async::OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port())
            .user(Some("root"))
            .pass(Some(self.inner.root_password.clone()))
            // What is asked for is a TCP connection; left alone, the driver moves to the socket.
            .prefer_socket(false);
        let refused = |source| Error::Database { what: "a connection".to_owned(), source };
        mysql_async::Conn::new(options).await.map_err(refused)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.inner);
        blocking(move || work(&inner)).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.inner.end();
    }
}

/// Runs waiting work on a thread of its own kind, so that the runtime's threads stay free.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Error::system("wait for a server")(error.into())),
        },
    }
}

impl Inner {
    fn flavor(&self) -> Flavor {
        self.binary.version().flavor
    }

    /// A panic of another thread does not make the state wrong: a child is in it or is not.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn start_first(&self, fresh: bool) -> Result<(), Error> {
        let mut state = self.state();
        if !fresh {
            return self.start(&mut state, None);
        }
        create_data_directory(&self.binary, &state.options, &self.folder.data())?;
        if self.root_password.is_empty() {
            return self.start(&mut state, None);
        }
        let accounts = self.folder.path().join("accounts.sql");
        let result = self.write_accounts(&accounts).and_then(|()| self.start(&mut state, Some(&accounts)));
        let _ = std::fs::remove_file(&accounts);
        result
    }

    /// SQL that sets root's password, without a trace in the binary log.
    fn write_accounts(&self, path: &Path) -> Result<(), Error> {
        use std::io::Write;
        let password = self.root_password.replace('\\', "\\\\").replace('\'', "''");
        let statements = format!(
            "SET sql_log_bin = 0;\n\
             ALTER USER root@'localhost' IDENTIFIED BY '{password}';\n\
             ALTER USER root@'127.0.0.1' IDENTIFIED BY '{password}';\n"
        );
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(statements.as_bytes()))
            .map_err(Error::system(format!("write {}", path.display())))
    }

    fn restart(&self) -> Result<(), Error> {
        let mut state = self.state();
        Self::stop_child(&mut state)?;
        self.start(&mut state, None)
    }

    fn stop(&self) -> Result<(), Error> {
        Self::stop_child(&mut self.state())
    }

    fn stop_child(state: &mut State) -> Result<(), Error> {
        if let Some(child) = state.child.as_mut() {
            process::terminate(child, STOP_TIME_OUT)?;
        }
        state.child = None;
        Ok(())
    }

    fn kill9(&self) -> Result<(), Error> {
        Self::kill_child(&mut self.state())
    }

    fn kill_child(state: &mut State) -> Result<(), Error> {
        if let Some(child) = state.child.as_mut() {
            process::kill9(child)?;
        }
        state.child = None;
        Ok(())
    }

    fn with_child(&self, work: impl FnOnce(&Child) -> Result<(), Error>) -> Result<(), Error> {
        match self.state().child.as_ref() {
            Some(child) => work(child),
            None => Err(Error::NotRunning { flavor: self.flavor() }),
        }
    }

    fn start(&self, state: &mut State, init_file: Option<&Path>) -> Result<(), Error> {
        if state.ended {
            return Err(Error::NotRunning { flavor: self.flavor() });
        }
        let began = Instant::now();
        // A killed server leaves its socket behind, and a lock file that names a process id which may be another's by now.
        for leftover in [self.socket.clone(), self.socket.with_extension("sock.lock")] {
            let _ = std::fs::remove_file(leftover);
        }
        let child = process::spawn(self.command(&state.options, init_file)?)?;
        let child = state.child.insert(child);
        if let Err(error) = self.wait_until_it_answers(child) {
            Self::kill_child(state)?;
            return Err(error);
        }
        tracing::debug!(server = %self.binary.version(), port = self.port.number(), took = ?began.elapsed(), "private server started");
        Ok(())
    }

    fn command(&self, options: &Options, init_file: Option<&Path>) -> Result<Command, Error> {
        let log_path = self.folder.error_log();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(Error::system(format!("open {}", log_path.display())))?;
        let mut command = match self.launcher.split_first() {
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(self.binary.path());
                command
            }
            None => Command::new(self.binary.path()),
        };
        command
            // Must come first. The machine's own option files belong to other servers.
            .arg("--no-defaults")
            .arg(format!("--datadir={}", self.folder.data().display()))
            .arg(format!("--socket={}", self.socket.display()))
            .arg(format!("--tmpdir={}", self.folder.temporary_tables()?.display()))
            .arg(format!("--pid-file={}", self.folder.path().join("server.pid").display()))
            .arg(format!("--log-error={}", log_path.display()))
            .arg(format!("--port={}", self.port.number()))
            .args(options.arguments());
        if nix::unistd::geteuid().is_root() {
            command.arg("--user=root");
        }
        if let Some(path) = init_file {
            command.arg(format!("--init-file={}", path.display()));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(Error::system("share a log file"))?).stderr(log);
        Ok(command)
    }

    fn wait_until_it_answers(&self, child: &mut Child) -> Result<(), Error> {
        let end = Instant::now() + self.start_time_out;
        loop {
            if let Some(status) = process::wait(child, Duration::ZERO)? {
                return Err(self.start_failed(format!("ended while it was starting ({status})")));
            }
            // Another program on the port could answer as well; then the server itself does not get it and ends.
            if answers(self.port.number()) && self.socket.exists() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(self.start_failed(format!("did not answer within {} s", self.start_time_out.as_secs())));
            }
            std::thread::sleep(process::POLL_INTERVAL);
        }
    }

    fn start_failed(&self, reason: String) -> Error {
        let log = self.folder.error_log();
        Error::StartFailed { flavor: self.flavor(), reason, log_tail: log_tail(&log), log }
    }

    /// Ends the process and removes the folder. Calling it twice is harmless.
    fn end(&self) {
        self.end_locked(&mut self.state());
    }

    fn end_locked(&self, state: &mut State) {
        if std::mem::replace(&mut state.ended, true) {
            return;
        }
        let ended = if self.keep { Self::stop_child(state) } else { Self::kill_child(state) };
        if let Err(error) = ended {
            tracing::warn!(%error, "could not end a private server");
        }
        let _ = std::fs::remove_file(&self.socket);
        if !self.keep {
            self.folder.remove();
        }
    }
}

/// Whether a server greets at a port: it begins with a packet of protocol version 10, even before the log-in.
fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut connection) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
    let mut greeting = [0; 5];
    connection.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && connection.read_exact(&mut greeting).is_ok()
        && greeting[4] == 10
}

fn port_was_taken(log_tail: &str) -> bool {
    log_tail.contains("Bind on TCP/IP port") || log_tail.contains("Address already in use")
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// All servers of this process, for its exit: statics are never dropped.
static SERVERS: Mutex<Option<HashMap<usize, Weak<Inner>>>> = Mutex::new(None);

fn register(inner: &Arc<Inner>) {
    process::at_exit(end_all);
    let mut servers = SERVERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let servers = servers.get_or_insert_default();
    servers.retain(|_, server| server.strong_count() > 0);
    servers.insert(Arc::as_ptr(inner) as usize, Arc::downgrade(inner));
}

fn end_all() {
    // Other threads may still run and hold locks; the kernel kills what they hold when the process is gone.
    let Ok(mut servers) = SERVERS.try_lock() else { return };
    for server in servers.take().unwrap_or_default().into_values().filter_map(|server| server.upgrade()) {
        if let Ok(mut state) = server.state.try_lock() {
            server.end_locked(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::percent_encoded;

    #[test]
    fn passwords_with_signs_survive_in_a_url() {
        assert_eq!(percent_encoded("a-B_9.~"), "a-B_9.~");
        assert_eq!(percent_encoded("p@ss/w:rd%é"), "p%40ss%2Fw%3Ard%25%C3%A9");
    }
}
