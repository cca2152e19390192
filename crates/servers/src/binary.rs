//! Which server program to start, and what it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, place};

/// The brand of a server. The two differ in GTIDs, in their binary log, and in how a data directory is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    MySql,
    MariaDb,
}

impl Flavor {
    /// Both brands, for tests that run on each.
    pub const ALL: [Flavor; 2] = [Flavor::MySql, Flavor::MariaDb];

    /// The environment variable that names the program to start.
    pub fn variable(self) -> &'static str {
        match self {
            Flavor::MySql => "CROSSFADE_MYSQLD",
            Flavor::MariaDb => "CROSSFADE_MARIADBD",
        }
    }

    /// The command, relative to the workspace, that installs a server of this brand.
    pub fn install_command(self) -> &'static str {
        match self {
            Flavor::MySql => "scripts/servers.sh --mysql",
            Flavor::MariaDb => "scripts/servers.sh --mariadb",
        }
    }

    /// Names of the program on a path. MariaDB leaves a `mysqld` link, so the name alone proves nothing.
    fn program_names(self) -> &'static [&'static str] {
        match self {
            Flavor::MySql => &["mysqld"],
            Flavor::MariaDb => &["mariadbd", "mysqld"],
        }
    }

    /// Folders under `target/servers` start with this.
    pub(crate) fn folder_prefix(self) -> &'static str {
        match self {
            Flavor::MySql => "mysql-",
            Flavor::MariaDb => "mariadb-",
        }
    }
}

impl fmt::Display for Flavor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Flavor::MySql => "MySQL",
            Flavor::MariaDb => "MariaDB",
        })
    }
}

/// What a server program says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub flavor: Flavor,
    pub major: u16,
    pub minor: u16,
    pub patch: u16,
    /// As the program prints it, with the packager's suffix: `9.7.4-2`, `10.11.14-MariaDB-0+deb12u2`.
    pub text: String,
}

impl Version {
    /// Reads what `--version` prints: `… Ver 10.11.14-MariaDB-0+deb12u2 for debian-linux-gnu on x86_64 (Debian 12)`.
    fn parse(printed: &str) -> Option<Version> {
        // The program's own path comes first and may hold anything; the version follows the last " Ver ".
        let (_, after) = printed.rsplit_once(" Ver ")?;
        let text = after.split_whitespace().next()?;
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u16>().ok());
        let flavor = if text.contains("MariaDB") { Flavor::MariaDb } else { Flavor::MySql };
        Some(Version {
            flavor,
            major: numbers.next()??,
            minor: numbers.next()??,
            patch: numbers.next()??,
            text: text.to_owned(),
        })
    }

    /// Whether the release is `(major, minor)` or newer.
    pub fn at_least(&self, major: u16, minor: u16) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}.{}.{}", self.flavor, self.major, self.minor, self.patch)
    }
}

/// A server program on this machine that has been asked what it is.
#[derive(Debug, Clone)]
pub struct ServerBinary {
    path: PathBuf,
    version: Version,
}

impl ServerBinary {
    /// Looks for a server of a brand: at the path in `CROSSFADE_MYSQLD` or `CROSSFADE_MARIADBD`, else at what
    /// `scripts/servers.sh` put down, else on `PATH` and in the `sbin` folders (which not every user's `PATH` holds).
    ///
    /// # Errors
    ///
    /// [`Error::Unusable`] if the variable is set and leads nowhere, [`Error::Missing`] if there is none at all.
    pub fn find(flavor: Flavor) -> Result<ServerBinary, Error> {
        let variable = flavor.variable();
        if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) {
            let unusable = |reason| Error::Unusable { flavor, variable, path: path.clone(), reason };
            let binary = ServerBinary::ask(&path).map_err(unusable)?;
            if binary.version.flavor != flavor {
                return Err(unusable(format!("that is {}, not {flavor}", binary.version)));
            }
            return Ok(binary);
        }
        Self::among(flavor, place::candidates(flavor, flavor.program_names()))
    }

    fn among(flavor: Flavor, candidates: Vec<PathBuf>) -> Result<ServerBinary, Error> {
        let mut looked = vec![flavor.variable().to_owned()];
        for path in candidates {
            if path.is_file() {
                match ServerBinary::ask(&path) {
                    Ok(binary) if binary.version.flavor == flavor => return Ok(binary),
                    Ok(binary) => looked.push(format!("{} (that is {})", path.display(), binary.version)),
                    Err(reason) => looked.push(format!("{} ({reason})", path.display())),
                }
            } else {
                looked.push(path.display().to_string());
            }
        }
        Err(Error::Missing { flavor, looked })
    }

    /// Takes the program at `path`, whatever its brand.
    ///
    /// # Errors
    ///
    /// A fragment that says why it is no server.
    fn ask(path: &Path) -> Result<ServerBinary, String> {
        let output = Command::new(path)
            .args(["--no-defaults", "--version"])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("it does not start: {error}"))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let version = Version::parse(&printed).ok_or("it prints no server version")?;
        Ok(ServerBinary { path: path.to_owned(), version })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn version(&self) -> &Version {
        &self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_says_the_brand_whatever_the_program_is_called() {
        let version = Version::parse(
            "/usr/sbin/mysqld  Ver 10.11.14-MariaDB-0+deb12u2 for debian-linux-gnu on x86_64 (Debian 12)\n",
        );
        let version = version.expect("a version");
        assert_eq!((version.flavor, version.major, version.minor, version.patch), (Flavor::MariaDb, 10, 11, 14));
        assert_eq!(version.text, "10.11.14-MariaDB-0+deb12u2");

        let version =
            Version::parse("/opt/mariadb Ver 1/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))").expect("a version");
        assert_eq!((version.flavor, version.major, version.minor, version.patch), (Flavor::MySql, 9, 7, 4));
        assert!(version.at_least(8, 4) && version.at_least(9, 7) && !version.at_least(9, 8));

        assert_eq!(Version::parse("hello"), None);
        assert_eq!(Version::parse("mysqld  Ver nine"), None);
    }

    #[test]
    fn a_missing_server_names_the_command_that_installs_it() {
        let nowhere = vec![PathBuf::from("/nonexistent/mysqld")];
        let text = ServerBinary::among(Flavor::MySql, nowhere).expect_err("there is none").to_string();
        assert!(text.contains("no MySQL server found"), "{text}");
        assert!(text.contains("/nonexistent/mysqld"), "{text}");
        assert!(text.contains("scripts/servers.sh --mysql"), "{text}");
    }

    #[test]
    fn a_program_that_is_no_server_is_said_to_be_none() {
        let other = vec![PathBuf::from("/bin/true")];
        let text = ServerBinary::among(Flavor::MariaDb, other).expect_err("no server").to_string();
        assert!(text.contains("/bin/true (it prints no server version)"), "{text}");
        assert!(text.contains("scripts/servers.sh --mariadb"), "{text}");
    }
}
