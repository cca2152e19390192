//! Data directories: made once per server release, then copied.
//!
//! Making one takes MySQL three to five seconds, copying one a tenth of a second. A template appears by a rename, so that
//! nobody ever copies half of one, and is made under a lock, so that two processes do not make it twice.

use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::folder::temporary_tables_in;
use crate::options::Options;
use crate::{Error, Flavor, ServerBinary, place, process};

/// Part of a template's name; raise it when what is in a template changes.
const TEMPLATE_FORMAT: u32 = 1;

/// Makes the data directory `data`, which must not exist, by copying the template for this program and these options.
///
/// Accounts in it: `root@localhost` and `root@127.0.0.1`, all rights, no password.
pub(crate) fn create_data_directory(binary: &ServerBinary, options: &Options, data: &Path) -> Result<(), Error> {
    let template = template(binary, &options.for_initialise())?;
    // cp knows more than the standard library: shared extents where the file system can, holes stay holes.
    let output = Command::new("cp")
        .args(["--archive", "--reflink=auto", "--sparse=auto", "--"])
        .args([&template, data])
        .stdin(Stdio::null())
        .output()
        .map_err(Error::system("run cp"))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::system(format!("copy {} to {}", template.display(), data.display()))(std::io::Error::other(reason)))
}

/// The template's folder; made if it is not there.
fn template(binary: &ServerBinary, options: &Options) -> Result<PathBuf, Error> {
    let folder = place::templates_folder()?;
    let template = folder.join(template_name(binary, options));
    if template.is_dir() {
        return Ok(template);
    }
    let lock = folder.join(".lock");
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&lock)
        .and_then(|file| file.lock().map(|()| file))
        .map_err(Error::system(format!("lock {}", lock.display())))?;
    if !template.is_dir() {
        let making = folder.join(format!("{}.making", template_name(binary, options)));
        // Of a process that was killed: the lock is ours now.
        let _ = std::fs::remove_dir_all(&making);
        std::fs::create_dir_all(&making).map_err(Error::system(format!("create {}", making.display())))?;
        match binary.version().flavor {
            Flavor::MySql => initialise_mysql(binary, options, &making)?,
            Flavor::MariaDb => initialise_mariadb(binary, options, &making)?,
        }
        let made = making.join("data");
        std::fs::rename(&made, &template).map_err(Error::system(format!("rename {}", made.display())))?;
        let _ = std::fs::remove_dir_all(&making);
    }
    drop(lock);
    Ok(template)
}

/// Release, packager's suffix and options: `mysql-9.7.4-2-format1-9f86d081884c7d65`.
fn template_name(binary: &ServerBinary, options: &Options) -> String {
    let mut hasher = DefaultHasher::new();
    binary.path().hash(&mut hasher);
    options.arguments().for_each(|argument| argument.hash(&mut hasher));
    let version = binary.version();
    let text: String =
        version.text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    format!("{}{text}-format{TEMPLATE_FORMAT}-{:016x}", version.flavor.folder_prefix(), hasher.finish())
}

fn initialise_mysql(binary: &ServerBinary, options: &Options, making: &Path) -> Result<(), Error> {
    let accounts = making.join("accounts.sql");
    // Connections over TCP come from 127.0.0.1: with skip_name_resolve that is not `localhost`.
    write(
        &accounts,
        "CREATE USER root@'127.0.0.1' IDENTIFIED BY '';\n\
         GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n\
         GRANT PROXY ON ''@'' TO root@'127.0.0.1' WITH GRANT OPTION;\n",
    )?;
    let mut command = initialise_command(binary, options, making)?;
    command
        .args(["--initialize-insecure", "--skip-log-bin"])
        // The smallest: less to copy. The server grows it when it starts.
        .arg("--loose-innodb-redo-log-capacity=8M")
        .arg(format!("--init-file={}", accounts.display()))
        .stdin(Stdio::null());
    run(binary, command, making)?;
    // Each server shall make up a uuid of its own.
    std::fs::remove_file(making.join("data/auto.cnf"))
        .map_err(Error::system("remove auto.cnf from a new data directory"))
}

/// Does what `mariadb-install-db` does, without that script: it cannot start a program through a wrapper.
fn initialise_mariadb(binary: &ServerBinary, options: &Options, making: &Path) -> Result<(), Error> {
    let share = mariadb_share_folder(binary)?;
    let mut script =
        String::from("create database mysql;\nuse mysql;\nset @auth_root_socket=NULL;\nset @skip_auth_anonymous=1;\n");
    for name in [
        "mysql_system_tables.sql",
        // From 10.6 on some of it is in files of its own.
        "mysql_performance_tables.sql",
        "mysql_system_tables_data.sql",
        "maria_add_gis_sp_bootstrap.sql",
        "mysql_sys_schema.sql",
    ] {
        let path = share.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => script.push_str(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && name != "mysql_system_tables.sql" => continue,
            Err(source) => return Err(Error::system(format!("read {}", path.display()))(source)),
        }
        script.push('\n');
    }
    let path = making.join("bootstrap.sql");
    write(&path, &script)?;
    std::fs::create_dir(making.join("data")).map_err(Error::system("create a data directory"))?;
    let mut command = initialise_command(binary, options, making)?;
    let script = std::fs::File::open(&path).map_err(Error::system(format!("open {}", path.display())))?;
    command
        .args(["--bootstrap", "--log-warnings=0", "--enforce-storage-engine=", "--max-allowed-packet=8M"])
        .args(["--skip-log-bin", "--innodb-log-file-size=8M"])
        .stdin(script);
    run(binary, command, making)
}

/// The folder with MariaDB's SQL files: the one above its character sets.
fn mariadb_share_folder(binary: &ServerBinary) -> Result<PathBuf, Error> {
    let output = Command::new(binary.path())
        .args(["--no-defaults", "--verbose", "--help"])
        .stdin(Stdio::null())
        .output()
        .map_err(Error::system(format!("start {}", binary.path().display())))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let character_sets = printed
        .lines()
        .filter_map(|line| line.strip_prefix("character-sets-dir"))
        .map(str::trim)
        .find(|folder| folder.starts_with('/'))
        .ok_or_else(|| {
            Error::system("learn from mariadbd where its SQL files are")(std::io::Error::other("it does not say"))
        })?;
    let share = Path::new(character_sets).parent().unwrap_or(Path::new("/usr/share/mysql"));
    Ok(share.to_owned())
}

fn initialise_command(binary: &ServerBinary, options: &Options, making: &Path) -> Result<Command, Error> {
    let log = making.join("initialise.log");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(Error::system(format!("open {}", log.display())))?;
    let mut command = Command::new(binary.path());
    command.arg("--no-defaults").arg(format!("--datadir={}", making.join("data").display())).args(options.arguments());
    command.arg(format!("--tmpdir={}", temporary_tables_in(making)?.display()));
    // Both refuse to run as root unless told to.
    if nix::unistd::geteuid().is_root() {
        command.arg("--user=root");
    }
    command.stdout(log.try_clone().map_err(Error::system("share a log file"))?).stderr(log);
    Ok(command)
}

fn run(binary: &ServerBinary, command: Command, making: &Path) -> Result<(), Error> {
    let mut child = process::spawn(command)?;
    let status = child.wait().map_err(Error::system(format!("wait for process {}", child.id())))?;
    if status.success() {
        return Ok(());
    }
    let log = making.join("initialise.log");
    Err(Error::InitialiseFailed { flavor: binary.version().flavor, log_tail: log_tail(&log), log })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(Error::system(format!("write {}", path.display())))
}

/// The last lines of a log, for an error text.
pub(crate) fn log_tail(log: &Path) -> String {
    const LINES: usize = 20;
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return "(the log is empty)".to_owned();
    }
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
