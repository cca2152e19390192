//! A measured process.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use crossfade_servers::Server;
use crossfade_testkit::process::log_end;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::usage::Usage;

/// A little more than the process itself takes before it cuts off what does not end.
const STOP_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// A running process whose CPU time is still known after its end. Dropping it kills it.
///
/// Not tokio's: that one reaps a process as soon as it ends, and with it the count of its CPU time.
#[derive(Debug)]
pub struct Tool {
    child: Child,
    log: PathBuf,
    usage: Usage,
    /// Set once it has ended well and was reaped.
    finished: Option<Usage>,
}

impl Tool {
    /// Starts `program` with its output appended to `log`.
    pub fn start(program: &Path, arguments: &[&str], log: &Path) -> Result<Tool> {
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write the log {}", log.display()))?;
        let child = Command::new(program)
            .args(arguments)
            // Without it a build without a message table does not run.
            .env("CROSSFADE_WITHOUT_MESSAGES", "measured")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Tool { child, log: log.to_owned(), usage: Usage::default(), finished: None })
    }

    /// What it has used until now; also whether it has ended.
    pub fn usage(&mut self) -> Result<Usage> {
        if let Some(finished) = self.finished {
            return Ok(finished);
        }
        let now = Usage::of(self.child.id())?;
        self.usage = Usage { peak_bytes: now.peak_bytes.max(self.usage.peak_bytes), ..now };
        Ok(self.usage)
    }

    /// Waits for its end; any exit code but 0 is an error with the log's end. The usage is that of its whole life.
    pub async fn wait(&mut self, limit: Duration) -> Result<Usage> {
        let end = Instant::now() + limit;
        while !self.usage()?.ended {
            if Instant::now() >= end {
                bail!("the measured program has not ended within {limit:?}; its log ends:\n{}", self.log_end());
            }
            tokio::time::sleep(POLL).await;
        }
        self.reap()
    }

    /// After its end.
    fn reap(&mut self) -> Result<Usage> {
        if let Some(finished) = self.finished {
            return Ok(finished);
        }
        let status: ExitStatus = self.child.wait()?;
        ensure!(status.success(), "the measured program ended with {status}; its log ends:\n{}", self.log_end());
        Ok(*self.finished.insert(self.usage))
    }

    /// Fails when it has ended by itself before it should.
    pub fn must_run(&mut self) -> Result<()> {
        ensure!(!self.usage()?.ended, "the measured program has ended too early; its log ends:\n{}", self.log_end());
        Ok(())
    }

    /// Fails when it has ended with an error.
    pub fn must_not_have_failed(&mut self) -> Result<()> {
        if self.usage()?.ended { self.reap().map(drop) } else { Ok(()) }
    }

    /// Asks it to stop, as an operator would, and waits until it has.
    pub async fn stop(&mut self) -> Result<Usage> {
        if !self.usage()?.ended {
            let pid = i32::try_from(self.child.id()).context("a process id beyond its range")?;
            kill(Pid::from_raw(pid), Signal::SIGTERM).context("cannot ask the measured program to stop")?;
        }
        self.wait(STOP_LIMIT).await
    }

    pub fn log_end(&self) -> String {
        log_end(&self.log, 15)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of the machine.
pub fn program(name: &str) -> Result<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("{name} is missing; `scripts/servers.sh --rivals` installs it"),
    }
}

/// Host, port and account, as most tools take them.
pub fn account(server: &Server) -> [String; 4] {
    let port = server.port();
    [
        "--host=127.0.0.1".to_owned(),
        format!("--port={port}"),
        "--user=root".to_owned(),
        format!("--password={}", server.root_password()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("crossfade-bench-{}-{name}.txt", std::process::id()))
    }

    #[tokio::test]
    async fn a_process_that_has_ended_still_tells_its_cpu_time() {
        let log = log("busy");
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let mut tool = Tool::start(Path::new("sh"), &["-c", busy], &log).unwrap();
        let usage = tool.wait(Duration::from_secs(60)).await.unwrap();
        assert!(usage.ended && usage.cpu_seconds > 0.0, "{usage:?}");
        std::fs::remove_file(log).unwrap();
    }

    #[tokio::test]
    async fn a_failing_process_is_an_error_with_its_last_words() {
        let log = log("failing");
        let mut tool = Tool::start(Path::new("sh"), &["-c", "echo last words; exit 3"], &log).unwrap();
        let error = tool.wait(Duration::from_secs(60)).await.unwrap_err();
        assert!(error.to_string().contains("last words"), "{error}");
        std::fs::remove_file(log).unwrap();
    }
}
