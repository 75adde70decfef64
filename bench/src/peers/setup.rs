//! How peers are installed: programs run with their command lines shown, Debian packages unpacked
//! below the peers' directory, never into the system, so that no service is ever started.
//!
//! Laws
//! - What is installed is a version named in the code; a mark is written when all of it is there.
//! - A failure says what was run, and how it ended.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::peer::Reason;

/// Longest that one step of an installation may take: compiling a peer on two cores.
const STEP_BOUND: Duration = Duration::from_secs(1800);
/// Between two signs of life.
const SIGN: Duration = Duration::from_secs(10);
/// For an answer of a helper.
const HTTP_BOUND: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Where programs for administrators are, which `PATH` often leaves out.
const SYSTEM_DIRS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Where peers are installed without another word: `$XDG_CACHE_HOME/storage-bench`.
#[must_use]
pub fn default_home() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = set("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")));
    cache
        .unwrap_or_else(std::env::temp_dir)
        .join("storage-bench")
}

/// The path of a program that can be run.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SYSTEM_DIRS.map(PathBuf::from));
    let mut found = dirs.map(|dir| dir.join(program));
    found.find(|path| path.is_file())
}

/// A program that an installation needs.
///
/// # Errors
/// It is not there; with what brings it.
pub fn need(program: &str, brought_by: &str) -> Result<PathBuf, Reason> {
    find(program).ok_or_else(|| Reason(format!("needs {program} ({brought_by})")))
}

/// What a short command says on both its outputs; `None` when it fails.
pub fn ask<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[S]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Some(text)
}

/// Sends one plain HTTP/1.1 request that ends its connection; returns the answer with its head.
///
/// # Errors
/// No answer within ten seconds.
pub fn http(address: SocketAddr, request: &str) -> Result<String, Reason> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(HTTP_BOUND))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Runs one step: its command line goes to `log`, with a dot for every ten seconds; its output
/// only when it fails.
///
/// # Errors
/// It cannot be started, fails, or takes longer than half an hour.
pub fn step(log: &mut dyn Write, command: &mut Command) -> Result<(), Reason> {
    let shown = shown(command);
    write!(log, "   {shown} ")?;
    log.flush()?;
    let mut output = tempfile::tempfile()?;
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?);
    let started = Instant::now();
    let spawned = command.spawn();
    let mut child = spawned.map_err(|error| Reason(format!("{shown}: {error}")))?;
    let mut signs = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let taken = started.elapsed();
        if STEP_BOUND < taken {
            // Our own child.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Reason(format!("{shown}: took longer than {STEP_BOUND:?}")));
        }
        if signs < taken.as_secs() / SIGN.as_secs() {
            signs += 1;
            write!(log, ".")?;
            log.flush()?;
        }
        std::thread::sleep(LOOK);
    };
    writeln!(log, " {:.1} s", started.elapsed().as_secs_f32())?;
    if status.success() {
        return Ok(());
    }
    let said = last_lines(&mut output)?;
    Err(Reason(format!("{shown}: {status}\n{said}")))
}

fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name();
    let name = name.unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

fn last_lines(output: &mut std::fs::File) -> io::Result<String> {
    use std::io::Seek as _;
    let mut bytes = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(20)..].join("\n"))
}

/// What is installed in a directory, as [`mark`] wrote it.
///
/// # Errors
/// Nothing, or another version.
pub fn marked(dir: &Path, name: &str, version: &str) -> Result<(), Reason> {
    let found = std::fs::read_to_string(dir.join("installed")).unwrap_or_default();
    let hint = format!("storage-bench peers install {name}");
    match found.trim() {
        found if found == version => Ok(()),
        "" => Err(Reason(format!("not installed: {hint}"))),
        other => Err(Reason(format!(
            "{other} is installed, not {version}: {hint}"
        ))),
    }
}

/// Says that all of a version is there.
///
/// # Errors
/// The directory cannot be written.
pub fn mark(dir: &Path, version: &str) -> Result<(), Reason> {
    Ok(std::fs::write(dir.join("installed"), version)?)
}

/// An empty directory to install into.
///
/// # Errors
/// What was there cannot be removed.
pub fn emptied(dir: &Path) -> Result<(), Reason> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    std::fs::create_dir_all(dir)?;
    Ok(())
}

/// Unpacks Debian packages into `dir`, with those libraries they depend on that the system lacks.
/// Nothing of the system changes, no right is needed.
///
/// # Errors
/// No Debian, no such package, or no way to the archive.
pub fn unpack_debian(log: &mut dyn Write, dir: &Path, names: &[&str]) -> Result<(), Reason> {
    let apt = need("apt-get", "Debian, Ubuntu")?;
    let unpack = need("dpkg-deb", "Debian, Ubuntu")?;
    let mut wanted: Vec<String> = names.iter().map(ToString::to_string).collect();
    for name in names {
        let depends = ask("apt-cache", &["depends", name]).unwrap_or_default();
        let libraries = depends
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .filter(|library| library.starts_with("lib") && !installed(library));
        wanted.extend(libraries.map(str::to_owned));
    }
    let packages = tempfile::tempdir()?;
    let mut download = Command::new(&apt);
    download.current_dir(packages.path()).arg("download");
    download.args(&wanted);
    if let Err(first) = step(log, &mut download) {
        writeln!(log, "   the package lists may be old: {}", first.0)?;
        step(log, Command::new(&apt).arg("update"))?;
        step(log, &mut download)?;
    }
    for entry in std::fs::read_dir(packages.path())? {
        let package = entry?.path();
        let mut command = Command::new(&unpack);
        step(log, command.arg("-x").arg(package).arg(dir))?;
    }
    Ok(())
}

fn installed(package: &str) -> bool {
    let state = ask("dpkg-query", &["-W", "-f=${db:Status-Status}", package]);
    state.is_some_and(|state| state.trim() == "installed")
}

/// The environment in which a program from [`unpack_debian`] finds its libraries.
#[must_use]
pub fn library_path(dir: &Path) -> std::ffi::OsString {
    let libraries = dir.join("usr/lib");
    let arch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let dirs = [libraries.join(arch), libraries];
    std::env::join_paths(dirs).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_says_what_was_run_and_how_it_ended() {
        let mut log = Vec::new();
        let mut good = Command::new("sh");
        step(&mut log, good.args(["-c", "echo quiet"])).expect("it works");
        let mut bad = Command::new("sh");
        let reason =
            step(&mut log, bad.args(["-c", "echo why >&2; exit 4"])).expect_err("it fails");
        for part in ["sh -c", "status: 4", "why"] {
            assert!(reason.0.contains(part), "{part}: {reason}");
        }
        let log = String::from_utf8_lossy(&log);
        assert!(
            log.contains("sh -c echo quiet") && !log.contains("\nquiet"),
            "{log}"
        );
    }

    #[test]
    fn only_the_marked_version_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let check = |want: Option<&str>| {
            let found = marked(dir.path(), "x", "1.2").err().map(|reason| reason.0);
            let fits = match (&found, want) {
                (None, None) => true,
                (Some(found), Some(want)) => found.starts_with(want),
                _ => false,
            };
            assert!(fits, "{found:?}");
        };
        check(Some("not installed"));
        mark(dir.path(), "1.1").expect("written");
        check(Some("1.1 is installed, not 1.2"));
        mark(dir.path(), "1.2").expect("written");
        check(None);
        emptied(dir.path()).expect("removed");
        check(Some("not installed"));
    }
}
