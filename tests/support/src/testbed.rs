//! Other file systems than the one that the tests lie on: made by the scripts of
//! `tests/testbeds`, taken down with the value.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the mount point to a test that runs again inside a guest.
const INSIDE: &str = "STORAGE_TEST_INSIDE";

/// Runs `test` on the file system of `<tests>/testbeds/<bed>.sh`. Where it is mounted in a guest,
/// this program runs again there, with nothing but the test `name`, which calls this.
///
/// # Panics
/// When the test does.
#[track_caller]
pub fn on(tests: &Path, bed: &str, settings: &[(&str, &str)], name: &str, test: impl Fn(&Path)) {
    if let Some(mount) = std::env::var_os(INSIDE) {
        return test(Path::new(&mount));
    }
    let bed = match Testbed::up(tests, bed, settings) {
        Ok(bed) => bed,
        Err(reason) => return crate::skip(reason),
    };
    if bed.mount().exists() {
        return test(bed.mount());
    }
    let program = std::env::current_exe().expect("this test");
    let mount = bed.mount().to_str().expect("a plain path");
    let args = [name, "--exact", "--nocapture"];
    let ended = bed.exec(&program, &args, &[(INSIDE, mount)]);
    ended.unwrap_or_else(|why| panic!("in the guest: {why}"));
}

/// A mounted file system.
#[derive(Debug)]
pub struct Testbed {
    script: PathBuf,
    dir: tempfile::TempDir,
    mount: PathBuf,
}

impl Testbed {
    /// Mounts a file system by `<tests>/testbeds/<name>.sh`.
    ///
    /// # Errors
    /// The reason why this machine cannot: a test then says "skipped: reason".
    pub fn up(tests: &Path, name: &str, settings: &[(&str, &str)]) -> Result<Self, String> {
        let script = tests.join("testbeds").join(format!("{name}.sh"));
        let dir = tempfile::tempdir().map_err(|err| err.to_string())?;
        let output = Command::new("bash")
            .arg(&script)
            .arg("up")
            .arg(dir.path())
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .output()
            .map_err(|err| err.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!(
                "{name}: {}",
                why.lines().last().unwrap_or("no reason given")
            ));
        }
        let mount = PathBuf::from(said.trim());
        Ok(Self { script, dir, mount })
    }

    /// Runs a program where it is mounted: in a guest, which sees the same files. Gives what the
    /// program printed; what it skipped is said.
    ///
    /// # Errors
    /// How it ended, unless with success.
    pub fn exec(
        &self,
        program: &Path,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<String, String> {
        let mut command = Command::new("bash");
        let command = command.arg(&self.script).arg("exec").arg(self.dir.path());
        let command = command.arg(program).args(args).stdin(Stdio::null());
        let ended = command.envs(environment.iter().copied()).output();
        let ended = ended.map_err(|err| err.to_string())?;
        let said = [ended.stdout, ended.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        for line in said.lines().filter(|line| line.starts_with("skipped: ")) {
            crate::skip(&line["skipped: ".len()..]);
        }
        match ended.status.success() {
            true => Ok(said.into_owned()),
            false => Err(format!("{}\n{said}", ended.status)),
        }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        let _ = Command::new("bash")
            .arg(&self.script)
            .arg("down")
            .arg(self.dir.path())
            .status();
    }
}
