//! Where servers, templates and temporary folders are on this machine.

use std::ffi::OsStr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::{Error, Flavor};

/// The release that is taken first where several were unpacked: the one crossfade is tested with.
fn tested_folder(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MySql => "mysql-9.7",
        Flavor::MariaDb => "mariadb-10.11",
    }
}

/// The folder that `scripts/servers.sh` fills: `CROSSFADE_SERVERS_DIR`, else `target/servers` above the running program or
/// above the current folder, else in the workspace this crate was built in. `None` if there is none yet.
pub(crate) fn servers_folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("CROSSFADE_SERVERS_DIR").filter(|folder| !folder.is_empty()) {
        return Some(PathBuf::from(folder));
    }
    let program = std::env::current_exe().ok();
    let current = std::env::current_dir().ok();
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    [program.as_deref(), current.as_deref(), Some(built_in)]
        .into_iter()
        .flatten()
        .flat_map(Path::ancestors)
        .map(|folder| folder.join("target/servers"))
        .find(|folder| folder.is_dir())
}

/// Paths where a server program of a brand may be, the best first. They need not exist.
pub(crate) fn candidates(flavor: Flavor, names: &[&str]) -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    if let Some(folder) = servers_folder() {
        for unpacked in unpacked_servers(&folder, flavor) {
            candidates.extend(names.iter().map(|name| unpacked.join("bin").join(name)).filter(|path| path.is_file()));
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from));
    let on_path = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let mut on_path: Vec<PathBuf> = on_path.filter(|path| path.is_file()).collect();
    on_path.dedup();
    if candidates.is_empty() && on_path.is_empty() {
        // For the error text: say where one was expected.
        candidates.push(Path::new("target/servers").join(tested_folder(flavor)).join("bin").join(names[0]));
        candidates.push(Path::new("PATH").join(names[0]));
    }
    candidates.extend(on_path);
    candidates
}

/// Unpacked servers of a brand: the tested release first, then the others, newest name first.
fn unpacked_servers(folder: &Path, flavor: Flavor) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let name_of = |path: &PathBuf| path.file_name().map(OsStr::to_os_string).unwrap_or_default();
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| name_of(path).to_string_lossy().starts_with(flavor.folder_prefix()))
        .collect();
    found.sort_by_key(|path| (name_of(path) == tested_folder(flavor), name_of(path)));
    found.reverse();
    found
}

/// The folder of data directory templates, made if missing: beside the unpacked servers, or, where that cannot be written,
/// among the temporary folders.
pub(crate) fn templates_folder() -> Result<PathBuf, Error> {
    if let Some(folder) = servers_folder().map(|folder| folder.join("templates")) {
        let probe = folder.join(".lock");
        if std::fs::create_dir_all(&folder).is_ok()
            && std::fs::File::options().create(true).append(true).open(probe).is_ok()
        {
            return Ok(folder);
        }
    }
    let folder = temporary_folder()?.join("templates");
    std::fs::create_dir_all(&folder).map_err(Error::system(format!("create {}", folder.display())))?;
    Ok(folder)
}

/// The folder under which this user's private servers have theirs. Made if missing; refused if another user made it, since
/// that user could read and replace what is in it.
pub(crate) fn temporary_folder() -> Result<PathBuf, Error> {
    let user = nix::unistd::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("crossfade-servers-{user}"));
    let explain = || format!("use the temporary folder {}", folder.display());
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&folder).map_err(Error::system(explain()))?;
    let owner = std::fs::symlink_metadata(&folder).map_err(Error::system(explain()))?;
    if !owner.is_dir() || owner.uid() != user {
        return Err(Error::system(explain())(std::io::Error::other("it belongs to another user")));
    }
    Ok(folder)
}
