//! Real clients, unmodified: environments with pinned versions, and their scripts in
//! `tests/clients`, run against a server.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::folder::Folder;
use crate::server::{MANAGER_SECRET, Server, VOLUME};
use crate::wait;

/// The exit status by which setup.sh says that something cannot be had here.
const UNAVAILABLE: i32 = 75;
/// No client takes longer for all that its script asks of it.
const CLIENT_BOUND: Duration = Duration::from_secs(240);

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients")
}

/// Makes a client's environment and gives what runs it.
///
/// Environments lie under the build's own directory, `env!("CARGO_TARGET_TMPDIR")`, so they
/// survive between runs and go with `cargo clean`.
///
/// # Errors
/// The reason why it cannot be had here.
///
/// # Panics
/// When the script that makes it is broken.
#[track_caller]
pub fn environment(target_tmpdir: &str, name: &str) -> Result<PathBuf, String> {
    let dir = Path::new(target_tmpdir).join("clients");
    let output = Command::new("bash")
        .arg(scripts().join("setup.sh"))
        .arg(name)
        .arg(&dir)
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(PathBuf::from(text.lines().last().unwrap_or_default()))
        }
        Some(UNAVAILABLE) => Err(said.lines().last().unwrap_or("no reason given").to_owned()),
        _ => panic!("setup of {name}: {said}"),
    }
}

/// A script at work. Dropping it kills the process.
#[derive(Debug)]
pub struct Script {
    name: String,
    child: Child,
    scratch: TempDir,
}

impl Script {
    /// Runs a script on a new folder of a server.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    #[track_caller]
    pub fn start(server: &Server, program: &Path, name: &str, more: &[(&str, &Path)]) -> Self {
        let folder = Folder::empty(server);
        let scratch = TempDir::with_prefix("storage-client-").expect("a directory");
        let file = |name: &str| File::create(scratch.path().join(name)).expect("a file");
        let child = Command::new(program)
            .arg(scripts().join(name))
            .current_dir(scratch.path())
            .env("STORAGE_CLIENT", format!("http://{}", server.client()))
            .env("STORAGE_MANAGER", format!("http://{}", server.manager()))
            .env("STORAGE_SECRET", MANAGER_SECRET)
            .env("STORAGE_VOLUME", VOLUME)
            .env("STORAGE_VFID", &folder.vfid)
            .env("STORAGE_FOLDER", &folder.path)
            .env("STORAGE_SCRATCH", scratch.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("the client runs");
        let name = name.to_owned();
        Self {
            name,
            child,
            scratch,
        }
    }

    /// The directory that it may use.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// What it printed, errors last.
    #[must_use]
    pub fn said(&self) -> String {
        let read = |name| std::fs::read_to_string(self.scratch.path().join(name));
        let read = |name| read(name).unwrap_or_default();
        [read("stdout"), read("stderr")].join("\n")
    }

    /// Whether it has not ended.
    ///
    /// # Panics
    /// When the system does not know our own child.
    #[must_use]
    pub fn is_at_work(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Waits for its end, which must be a good one, and shows its last line.
    ///
    /// # Panics
    /// When a check failed, or it does not end within the bound.
    #[track_caller]
    #[allow(clippy::print_stdout)]
    pub fn end(mut self) {
        let ended = wait::within(CLIENT_BOUND, || {
            self.child.try_wait().expect("our own child")
        });
        let out = std::fs::read_to_string(self.scratch.path().join("stdout")).unwrap_or_default();
        let last = out.lines().last().unwrap_or_default();
        let name = &self.name;
        println!("{name}: {last}");
        let good = ended.is_some_and(|status| status.success());
        assert!(good, "{name}: {ended:?}\n{}", self.said());
        assert!(last.ends_with(" passed, 0 failed"), "{name}: {last}");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
