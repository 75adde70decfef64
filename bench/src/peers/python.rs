//! Python for peers from PyPI: an interpreter of the right version, and virtual environments.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::Reason;
use crate::peers::setup;

/// Names the interpreter to use, before any that is found.
const NAMED_BY: &str = "STORAGE_BENCH_PYTHON";

/// An interpreter of this version, such as `3.13`: the one that `STORAGE_BENCH_PYTHON` names, one
/// in the `PATH`, one of pyenv's or uv's; else uv is asked to bring one.
///
/// # Errors
/// There is none; with the places that were looked at.
pub fn find(version: &str, log: &mut dyn Write) -> Result<PathBuf, Reason> {
    let all = candidates(version);
    if let Some(python) = all.iter().find(|python| is(python, version)) {
        return Ok(python.clone());
    }
    if let Some(uv) = setup::find("uv") {
        let brought = setup::step(log, Command::new(&uv).args(["python", "install", version]));
        let found = setup::ask(&uv, &["python", "find", version]).unwrap_or_default();
        let found = PathBuf::from(found.trim());
        if brought.is_ok() && is(&found, version) {
            return Ok(found);
        }
    }
    let tried: Vec<_> = all.iter().map(|path| path.to_string_lossy()).collect();
    Err(Reason(format!(
        "needs CPython {version}, looked at {}; {NAMED_BY} can name one",
        tried.join(", ")
    )))
}

fn candidates(version: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::env::var_os(NAMED_BY)
        .map(PathBuf::from)
        .into_iter()
        .collect();
    all.extend(setup::find(&format!("python{version}")));
    all.extend(setup::find("python3"));
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let pyenv = std::env::var_os("PYENV_ROOT").map_or_else(|| home.join(".pyenv"), PathBuf::from);
    for (dir, prefix) in [
        (pyenv.join("versions"), format!("{version}.")),
        (
            home.join(".local/share/uv/python"),
            format!("cpython-{version}."),
        ),
    ] {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let fits = entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix));
        all.extend(fits.map(|entry| entry.path().join("bin/python3")));
    }
    all
}

/// Whether this runs at all, and is that version: wrappers of version managers may be neither.
fn is(python: &Path, version: &str) -> bool {
    let said = setup::ask(python, &["--version"]).unwrap_or_default();
    let found = said.trim().strip_prefix("Python ").unwrap_or_default();
    found
        .strip_prefix(version)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// Makes a virtual environment with these packages.
///
/// # Errors
/// As `venv` and `pip` say.
pub fn environment(
    log: &mut dyn Write,
    python: &Path,
    dir: &Path,
    packages: &[&str],
) -> Result<(), Reason> {
    setup::step(log, Command::new(python).args(["-m", "venv"]).arg(dir))?;
    let mut pip = Command::new(dir.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
    ]);
    setup::step(log, pip.args(packages))
}
