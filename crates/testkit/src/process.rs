//! The product's processes: started, watched and mistreated.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::quiet::{Progress, until};

/// A running `crossfade`. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `binary` with `arguments` and `environment`; standard output and standard error are appended to `log`.
    pub fn start<A: AsRef<OsStr>>(
        binary: &Path,
        arguments: &[A],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Result<Process> {
        let output = open_log(log)?;
        let errors = output.try_clone()?;
        let child = Command::new(binary)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let pid = child.id().context("the process ended before it had an id")?;
        Ok(Process { child, pid, log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The most memory that it has ever had resident, as the kernel counts it.
    pub fn peak_memory_bytes(&self) -> Result<u64> {
        self.memory_bytes("VmHWM")
    }

    /// The memory that it has resident now.
    pub fn resident_memory_bytes(&self) -> Result<u64> {
        self.memory_bytes("VmRSS")
    }

    fn memory_bytes(&self, field: &str) -> Result<u64> {
        let file = format!("/proc/{}/status", self.pid);
        let status = std::fs::read_to_string(&file).with_context(|| format!("{file} cannot be read"))?;
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let value = value.with_context(|| format!("the process has no {field}"))?;
        let kibibytes: u64 = value.trim().trim_end_matches("kB").trim().parse().context("memory that is no number")?;
        Ok(kibibytes << 10)
    }

    /// How many files and connections it has open.
    pub fn open_files(&self) -> Result<u64> {
        let folder = format!("/proc/{}/fd", self.pid);
        Ok(std::fs::read_dir(&folder).with_context(|| format!("{folder} cannot be read"))?.count() as u64)
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// `None` while it runs.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills it, as a crash would, and waits until it is gone. A process that is gone already is fine.
    pub async fn kill9(&mut self) -> Result<ExitStatus> {
        self.child.start_kill().ok();
        Ok(self.child.wait().await?)
    }

    /// Asks it to drain and stop.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Freezes it: to everybody else it looks like a process that hangs.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Waits until it has frozen at a fail point.
    pub async fn until_frozen(&self, limit: Duration) -> Result<()> {
        let file = format!("/proc/{}/stat", self.pid);
        until("a frozen process", limit, || async {
            let stat = std::fs::read_to_string(&file)?;
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            Ok(if state == Some('T') { Progress::Reached(()) } else { Progress::NotYet(format!("{state:?}")) })
        })
        .await
        .with_context(|| self.log_end())
    }

    /// Waits until its log has a text.
    pub async fn until_logged(&self, text: &str, limit: Duration) -> Result<()> {
        until(text, limit, || async {
            let has_it = std::fs::read_to_string(&self.log)?.contains(text);
            Ok(if has_it { Progress::Reached(()) } else { Progress::NotYet(self.log_end()) })
        })
        .await
    }

    /// Waits for its end; running longer than `limit` is an error that shows the log's end.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("process {} still runs after {limit:?}; its log ends:\n{}", self.pid, self.log_end()),
        }
    }

    /// The last lines of the log, for messages.
    pub fn log_end(&self) -> String {
        log_end(&self.log, 30)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        // A process that has been waited for may have passed its id on to another.
        if let Some(status) = self.exit_status()? {
            bail!("process {} has already ended with {status}; its log ends:\n{}", self.pid, self.log_end());
        }
        let pid = i32::try_from(self.pid).context("a process id beyond its range")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to process {pid}"))
    }
}

/// Runs `binary` to its end and returns its standard output. Any exit code but 0 is an error with what it wrote.
pub async fn run<A: AsRef<OsStr>>(
    binary: &Path,
    arguments: &[A],
    environment: &[(&str, &str)],
    limit: Duration,
) -> Result<String> {
    let (code, output, errors) = run_any(binary, arguments, environment, limit).await?;
    let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    if code != Some(0) {
        bail!("`crossfade {}` ended with {code:?}\n{output}{errors}", words.join(" "));
    }
    Ok(output)
}

/// As [`run`], whatever the exit code: code (`None` after a signal), standard output, standard error.
pub async fn run_any<A: AsRef<OsStr>>(
    binary: &Path,
    arguments: &[A],
    environment: &[(&str, &str)],
    limit: Duration,
) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(binary);
    command.args(arguments).envs(environment.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", binary.display()))?;
    let (output, errors) = child.stdout.take().zip(child.stderr.take()).context("no outputs")?;
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let read = async { tokio::try_join!(read_all(output, &mut said), read_all(errors, &mut complained), child.wait()) };
    let ended = tokio::time::timeout(limit, read).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match ended {
        Ok(ended) => Ok((ended?.2.code(), text(&said), text(&complained))),
        Err(_) => {
            let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
            let words = words.join(" ");
            bail!("`{words}` was not done within {limit:?}; it said:\n{}{}", text(&said), text(&complained))
        }
    }
}

async fn read_all(mut from: impl AsyncRead + Unpin, into: &mut Vec<u8>) -> std::io::Result<usize> {
    from.read_to_end(into).await
}

/// The last `lines` lines of a file, or why they cannot be read.
pub fn log_end(path: &Path, lines: usize) -> String {
    match std::fs::read(path) {
        Err(error) => format!("({} cannot be read: {error})", path.display()),
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
    }
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write the log {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("crossfade-testkit-{}-{name}.txt", std::process::id()))
    }

    #[tokio::test]
    async fn a_process_can_be_frozen_resumed_and_killed() {
        let log = log("frozen");
        let mut process = Process::start(Path::new("sleep"), &["60"], &[], &log).unwrap();
        process.pause().unwrap();
        process.resume().unwrap();
        assert!(process.exit_status().unwrap().is_none());
        assert!(process.wait(Duration::from_millis(20)).await.is_err());
        assert_eq!(process.kill9().await.unwrap().signal(), Some(9));
        assert!(process.terminate().is_err());
        std::fs::remove_file(log).unwrap();
    }

    #[tokio::test]
    async fn output_and_exit_code_come_back() {
        let script = ["-c", "echo out; echo err >&2; exit 3"];
        let limit = Duration::from_secs(10);
        let seen = run_any(Path::new("sh"), &script, &[], limit).await.unwrap();
        assert_eq!(seen, (Some(3), "out\n".into(), "err\n".into()));
        assert!(run(Path::new("sh"), &script, &[], limit).await.is_err());
    }
}
