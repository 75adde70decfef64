//! A server of somebody else's as a child process: started, awaited, ended with all it started.
//!
//! Laws
//! - A daemon has a process group of its own: some servers signal their whole group.
//! - It ends with this value, and also when this program is killed: a guard, one sleeping shell,
//!   reads a pipe that only this program holds open.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::peer::{Reason, tail};
use crate::process;

/// From start to the first answer: Python imports for seconds on a busy machine.
const START_BOUND: Duration = Duration::from_secs(60);
/// From the polite signal to the other one.
const STOP_BOUND: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// What the guard runs, with the group as its argument. With `-s`: dash takes no `-KILL --`.
const GUARD: &str = "trap '' INT TERM HUP; read -r _; kill -s KILL -- \"-$1\"";

/// A process group that runs until it is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    guard: Option<Child>,
    log: PathBuf,
}

impl Daemon {
    /// Starts it on these cores; both its outputs go to `log`.
    ///
    /// # Errors
    /// The program or the log cannot be opened.
    pub fn start(command: &mut Command, cores: &[usize], log: &Path) -> Result<Self, Reason> {
        let out = File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0);
        let child = process::spawn_on(command, cores).map_err(|error| {
            Reason(format!(
                "{}: {error}",
                command.get_program().to_string_lossy()
            ))
        })?;
        let mut daemon = Self {
            child,
            guard: None,
            log: log.to_owned(),
        };
        daemon.guard = Some(guard(daemon.pid())?);
        Ok(daemon)
    }

    /// The process that was started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// Comes back when `ready` says so.
    ///
    /// # Errors
    /// It ended, or it took too long; with the end of its log.
    pub fn until(&mut self, mut ready: impl FnMut() -> bool) -> Result<(), Reason> {
        let end = Instant::now() + START_BOUND;
        loop {
            if ready() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(Reason(format!("ended with {status}\n{}", self.log_tail())));
            }
            if end < Instant::now() {
                return Err(Reason(format!("not ready in time\n{}", self.log_tail())));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Comes back when something listens there.
    ///
    /// # Errors
    /// As [`Daemon::until`].
    pub fn until_listening(&mut self, address: SocketAddr) -> Result<(), Reason> {
        self.until(|| TcpStream::connect(address).is_ok())
    }

    /// Comes back when a plain HTTP/1.1 request gets any answer.
    ///
    /// # Errors
    /// As [`Daemon::until`].
    pub fn until_answering(&mut self, address: SocketAddr) -> Result<(), Reason> {
        self.until(|| answers(address).unwrap_or(false))
    }
}

fn answers(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(START_BOUND))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut start = [0; 8];
    stream.read_exact(&mut start)?;
    Ok(&start == b"HTTP/1.1")
}

fn guard(group: u32) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", GUARD, "guard", &group.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        // The group is ours and its leader not yet reaped, so its number is nobody else's. That
        // it may be empty already does not matter.
        let _ = kill_process_group(pid, Signal::TERM);
        let end = Instant::now() + STOP_BOUND;
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while Instant::now() < end && matches!(waitid(WaitId::Pid(pid), look), Ok(None)) {
            std::thread::sleep(LOOK);
        }
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = self.child.wait();
        if let Some(guard) = &mut self.guard {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }
}

/// A loopback address that was free a moment ago, for servers that cannot say which port the
/// kernel gave them.
///
/// # Errors
/// No port is left.
pub fn free_address() -> Result<SocketAddr, Reason> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    #[test]
    fn a_daemon_takes_its_children_along() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let mut command = Command::new("sh");
        // The child ignores the polite signal, as a worker in the middle of a request does.
        command.args(["-c", "(trap '' TERM; sleep 600) & echo $!; wait"]);
        let mut daemon = Daemon::start(&mut command, &[], &log).expect("a shell");
        let child = || std::fs::read_to_string(&log).unwrap_or_default();
        daemon.until(|| child().ends_with('\n')).expect("its child");
        let child = child().trim().to_owned();
        assert!(lives(&child));
        drop(daemon);
        let end = Instant::now() + STOP_BOUND;
        while lives(&child) && Instant::now() < end {
            std::thread::sleep(LOOK);
        }
        assert!(!lives(&child), "{child}");
    }

    #[test]
    fn a_daemon_ends_when_nobody_holds_its_guard() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("sleep");
        command.arg("600");
        let log = dir.path().join("log");
        let mut daemon = Daemon::start(&mut command, &[], &log).expect("a process");
        // What happens to the pipe when this program is killed.
        drop(daemon.guard.as_mut().and_then(|guard| guard.stdin.take()));
        let reason = daemon.until(|| false).expect_err("it ends").0;
        assert!(reason.contains("signal: 9"), "{reason}");
    }

    #[test]
    fn a_daemon_that_ends_says_why() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such option >&2; exit 3"]);
        let log = dir.path().join("log");
        let mut daemon = Daemon::start(&mut command, &[], &log).expect("a shell");
        let reason = daemon.until(|| false).expect_err("it ends").0;
        assert!(
            reason.contains("status: 3") && reason.contains("no such option"),
            "{reason}"
        );
    }
}
