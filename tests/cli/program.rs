//! Running the program in a clean surrounding.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use proxy_testkit::wait;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// No command of these tests takes longer, also on a busy machine.
pub const BOUND: Duration = Duration::from_secs(60);

/// A home of its own: nothing of the machine's user is seen or touched.
pub struct Home(TempDir);

/// How a command ended.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A file as secrets are kept.
    pub fn private_file(&self, name: &str, content: &[u8]) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .unwrap();
        std::io::Write::write_all(&mut file, content).unwrap();
    }

    /// The program, run from this home.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_storage-proxy"));
        command.env_clear().current_dir(self.path());
        command
            .env("HOME", self.path())
            .env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ended {
        ended(self.command().args(args).output().unwrap())
    }
}

pub fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ended {
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let text = self.good();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// It failed with this code, and said this on standard error.
    #[track_caller]
    pub fn failed(self, code: i32, says: &str) {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        assert!(self.err.contains(says), "want {says}\ngot {}", self.err);
    }
}

/// A program that runs, with its output in files; killed when dropped.
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    pub fn start(home: &Home, args: &[&str]) -> Self {
        Self::start_command(home, home.command().args(args))
    }

    pub fn start_command(home: &Home, command: &mut Command) -> Self {
        let out = home.path().join("stdout.txt");
        let err = home.path().join("stderr.txt");
        let file = |path: &PathBuf| Stdio::from(fs::File::create(path).unwrap());
        let child = command.stdout(file(&out)).stderr(file(&err)).spawn();
        let child = child.unwrap();
        Self { child, out, err }
    }

    pub fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap()
    }

    pub fn err(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    /// Waits until standard output has this.
    #[track_caller]
    pub fn says(&mut self, what: &str) -> String {
        wait::until(what, BOUND, || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended: {}", self.err());
            Some(self.out()).filter(|text| text.contains(what))
        })
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[track_caller]
    pub fn wait(&mut self) -> std::process::ExitStatus {
        wait::until("the end of the program", BOUND, || {
            self.child.try_wait().unwrap()
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
