//! Other file systems than the one that the tests lie on: made by the scripts of
//! `tests/testbeds`, taken down with the value.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

    /// Runs a program where it is mounted: in a guest, which sees the same files. The program's
    /// output becomes ours.
    ///
    /// # Errors
    /// How it ended, unless with success.
    pub fn exec(
        &self,
        program: &Path,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<(), String> {
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
            true => Ok(()),
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
