//! The folder of one server (data directory, socket, error log), and the reservation of its port.
//!
//! Both are held by a lock on a file, which the kernel lets go when the process ends, however it ends. So whoever comes
//! next can tell what is in use from what was left behind.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::Rng;

use crate::{Error, place};

/// Ports for private servers: below the range from which the kernel takes ports for outgoing connections (32768 up), so that
/// no such connection sits on a server's port while it restarts.
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 31_999;

/// A folder with everything one server writes.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Held while the owner lives; the file lies beside the folder. `None` for a folder the caller chose.
    _lock: Option<LockFile>,
}

/// A locked file. Unlocked when dropped.
#[derive(Debug)]
struct LockFile {
    _file: File,
}

impl LockFile {
    /// `None` if somebody else holds it.
    fn try_acquire(path: &Path) -> Result<Option<LockFile>, Error> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(Error::system(format!("open {}", path.display())))?;
        Ok(file.try_lock().is_ok().then_some(LockFile { _file: file }))
    }
}

impl Folder {
    /// A new temporary folder. The first call of a process removes what processes that were killed left behind.
    pub(crate) fn temporary() -> Result<Folder, Error> {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = place::temporary_folder()?;
        SWEEP.call_once(|| sweep(&base));
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("server-{}-{number}", std::process::id()));
            // Locked before the folder exists, so that a sweep never sees a folder that nobody seems to own.
            let Some(lock) = LockFile::try_acquire(&lock_path(&path))? else { continue };
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Folder { path, _lock: Some(lock) }),
                // An older process of the same id asked to keep it.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(Error::system(format!("create {}", path.display()))(source)),
            }
        }
    }

    /// The folder a caller chose; made if missing.
    pub(crate) fn chosen(path: &Path) -> Result<Folder, Error> {
        std::fs::create_dir_all(path).map_err(Error::system(format!("create {}", path.display())))?;
        let path = path.canonicalize().map_err(Error::system(format!("resolve {}", path.display())))?;
        Ok(Folder { path, _lock: None })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(crate) fn error_log(&self) -> PathBuf {
        self.path.join("error.log")
    }

    /// Each server needs a folder for temporary tables of its own: a server that starts removes all that look left
    /// behind there, also those that another server is using.
    pub(crate) fn temporary_tables(&self) -> Result<PathBuf, Error> {
        temporary_tables_in(&self.path)
    }

    /// The socket lies in the folder, unless its path would be longer than the 107 bytes a socket address can hold.
    pub(crate) fn socket(&self) -> PathBuf {
        let socket = self.path.join("server.sock");
        if socket.as_os_str().len() <= 100 {
            return socket;
        }
        let mark: u64 = rand::rng().random();
        PathBuf::from(format!("/tmp/crossfade-{mark:016x}.sock"))
    }

    /// Tells sweeps to leave the folder alone after this process.
    pub(crate) fn keep(&self) {
        let _ = std::fs::remove_file(lock_path(&self.path));
    }

    /// Removes the folder with everything in it. The server must have ended.
    pub(crate) fn remove(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %self.path.display(), %error, "could not remove the folder of a private server");
        }
        let _ = std::fs::remove_file(lock_path(&self.path));
    }
}

/// The folder for temporary tables within a server's folder; made if missing.
pub(crate) fn temporary_tables_in(folder: &Path) -> Result<PathBuf, Error> {
    let path = folder.join("tmp");
    std::fs::create_dir_all(&path).map_err(Error::system(format!("create {}", path.display())))?;
    Ok(path)
}

fn lock_path(folder: &Path) -> PathBuf {
    folder.with_extension("lock")
}

/// Removes the folders whose owner is gone: their lock file can be locked.
fn sweep(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_server = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("server-"));
        if is_server
            && path.extension().is_some_and(|extension| extension == "lock")
            && let Ok(Some(_lock)) = LockFile::try_acquire(&path)
        {
            let _ = std::fs::remove_dir_all(path.with_extension(""));
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// A loopback port that no other private server of this user takes while this value lives, also between its server's stop
/// and restart.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: Option<LockFile>,
}

impl Port {
    /// Takes a free port at random.
    pub(crate) fn reserve() -> Result<Port, Error> {
        let base = place::temporary_folder()?;
        for _ in 0..1_000 {
            let number = rand::rng().random_range(FIRST_PORT..=LAST_PORT);
            let Some(lock) = LockFile::try_acquire(&base.join(format!("port-{number}.lock")))? else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Port { number, _lock: Some(lock) });
            }
        }
        Err(Error::NoFreePort { first: FIRST_PORT, last: LAST_PORT })
    }

    /// The port a caller chose. Whether it is free shows when the server starts.
    pub(crate) fn chosen(number: u16) -> Port {
        Port { number, _lock: None }
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
