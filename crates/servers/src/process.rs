//! Server processes: started so that they end with this process, ended by their id.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;

/// How often a waiting thread looks again.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(10);

struct SpawnRequest {
    command: Command,
    reply: mpsc::Sender<std::io::Result<Child>>,
}

/// Starts a program that the kernel kills when this process ends, also when this process is killed with -9.
///
/// The kernel ties that wish (`PR_SET_PDEATHSIG`) to the *thread* that started the program. Threads of a test or of an async
/// runtime come and go, so all programs are started by one thread that never ends.
pub(crate) fn spawn(command: Command) -> Result<Child, Error> {
    static STARTER: OnceLock<Mutex<mpsc::Sender<SpawnRequest>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<SpawnRequest>();
        std::thread::Builder::new()
            .name("server-starter".to_owned())
            .spawn(move || {
                for SpawnRequest { command, reply } in requests {
                    // The asker waits for the answer, so the channel is open.
                    let _ = reply.send(tie_to_this_thread(command).spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(sender)
    });
    let program = command.get_program().to_string_lossy().into_owned();
    let (reply, answer) = mpsc::channel();
    let sender = starter.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    let gone = || std::io::Error::other("the thread that starts servers is gone");
    sender
        .send(SpawnRequest { command, reply })
        .map_err(|_| gone())
        .and_then(|()| answer.recv().map_err(|_| gone()).flatten())
        .map_err(Error::system(format!("start {program}")))
}

#[allow(unsafe_code)]
fn tie_to_this_thread(mut command: Command) -> Command {
    let parent = Pid::this();
    // A group of its own: Ctrl-C at the terminal is for this process, which then ends its servers.
    command.process_group(0);
    // SAFETY: the closure runs between fork and exec and calls only prctl and getppid, which are async-signal-safe; it allocates
    // nothing.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // This process may have ended just before the line above.
            if nix::unistd::getppid() == parent { Ok(()) } else { Err(std::io::ErrorKind::NotFound.into()) }
        });
    }
    command
}

/// Runs `action` when this process exits, also after a panic in a test; not when it is killed.
pub(crate) fn at_exit(action: fn()) {
    static ACTION: OnceLock<fn()> = OnceLock::new();
    extern "C" fn run() {
        if let Some(action) = ACTION.get() {
            // Nothing may unwind into the C library.
            let _ = std::panic::catch_unwind(action);
        }
    }
    ACTION.get_or_init(|| {
        #[allow(unsafe_code)]
        // SAFETY: `run` is a plain function that does not unwind.
        unsafe {
            libc::atexit(run);
        }
        action
    });
}

/// Sends a signal. A process that has ended meanwhile is no error: its `Child` was not waited for, so the id is still its own.
pub(crate) fn signal(child: &Child, signal: Signal) -> Result<(), Error> {
    match kill(Pid::from_raw(child.id().cast_signed()), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::system(format!("send {signal} to process {}", child.id()))(errno.into())),
    }
}

/// Halts a process. The signal is taken up thread by thread, so this waits until all stand still (or have ended).
pub(crate) fn freeze(child: &Child) -> Result<(), Error> {
    signal(child, Signal::SIGSTOP)?;
    let threads = format!("/proc/{}/task", child.id());
    let all_stand_still = || {
        std::fs::read_dir(&threads).into_iter().flatten().flatten().all(|thread| {
            // `id (name) state …`; a thread that is gone has no such file any more.
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['T', 't', 'Z', 'X']))
        })
    };
    while !all_stand_still() {
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Waits for the end of a process; `None` if it still runs when the time is over.
pub(crate) fn wait(child: &mut Child, time_out: Duration) -> Result<Option<ExitStatus>, Error> {
    let end = Instant::now() + time_out;
    loop {
        let status = child.try_wait().map_err(Error::system(format!("wait for process {}", child.id())))?;
        if status.is_some() || Instant::now() >= end {
            return Ok(status);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Kills a process and waits until it is gone.
pub(crate) fn kill9(child: &mut Child) -> Result<(), Error> {
    child.kill().map_err(Error::system(format!("kill process {}", child.id())))?;
    child.wait().map(|_| ()).map_err(Error::system(format!("wait for process {}", child.id())))
}

/// Asks a process to end (SIGTERM), and kills it when it has not done so in time.
pub(crate) fn terminate(child: &mut Child, time_out: Duration) -> Result<(), Error> {
    signal(child, Signal::SIGTERM)?;
    // A process that was frozen takes the signal only when it runs again.
    signal(child, Signal::SIGCONT)?;
    if wait(child, time_out)?.is_none() {
        tracing::warn!(pid = child.id(), ?time_out, "a private server did not stop in time and is killed");
        kill9(child)?;
    }
    Ok(())
}
