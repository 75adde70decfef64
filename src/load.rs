//! Finding and reading the configuration.
//!
//! Order of the original: `-f`, else `BACKEND_CONFIG_FILE`, else the first file that exists of a
//! few usual places. Without any, the built-in defaults apply.

use std::env;
use std::path::{Path, PathBuf};

use proxy_core::config::{self, Document, Issue, Origin, Override};

use crate::cli::Place;
use crate::failure::Failure;

/// Name of the file in every usual place.
const FILE_NAME: &str = "storage-proxy.toml";

/// A configuration, and where it came from.
pub struct Loaded {
    /// What it says.
    pub document: Document,
    /// The file, absolute; `None` for built-in defaults.
    pub file: Option<PathBuf>,
    /// What relative paths count from.
    pub base: PathBuf,
    /// Home of secrets and state, absolute.
    pub data_dir: PathBuf,
    /// What other commands need to find the same configuration and data.
    pub flags: Vec<String>,
}

impl Loaded {
    /// A path of the configuration, absolute.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        normal(&self.base.join(path))
    }
}

/// Why there is no configuration.
pub enum Unloadable {
    /// It could not be read at all.
    Failed(Failure),
    /// It was read, and is wrong.
    Wrong(Option<PathBuf>, Vec<Issue>),
}

impl From<Failure> for Unloadable {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Reads the configuration that `place`, the environment and `flags` mean.
///
/// # Errors
/// Code 2 when a file that was asked for is not there; code 1 with all problems otherwise.
pub fn load(place: &Place, flags: Vec<Override>) -> Result<Loaded, Failure> {
    read(place, flags).map_err(|why| match why {
        Unloadable::Failed(failure) => failure,
        Unloadable::Wrong(file, issues) => problems(file.as_deref(), &issues),
    })
}

/// As [`load`], with the problems one by one.
pub fn read(place: &Place, flags: Vec<Override>) -> Result<Loaded, Unloadable> {
    let cwd = env::current_dir().map_err(|error| Failure::new(format!("cwd: {error}")))?;
    let asked = place.config.as_ref().map(|file| normal(&cwd.join(file)));
    if let Some(file) = asked.as_ref().filter(|file| !file.is_file()) {
        let text = format!("there is no configuration file {}", file.display());
        return Err(Failure::usage(text).into());
    }
    let fixed = fixed_places();
    let file = asked.or_else(|| {
        let near = near_places(&cwd);
        near.into_iter()
            .chain(fixed.iter().cloned())
            .find(|file| file.is_file())
    });
    let text = match &file {
        Some(file) => {
            std::fs::read_to_string(file).map_err(|error| Failure::at("read", file, &error))?
        }
        None => String::new(),
    };
    let given_dir = place.data_dir.as_ref().map(|dir| normal(&cwd.join(dir)));
    let document = config::parse(&text, &overrides(given_dir.as_deref(), flags)?)
        .map_err(|issues| Unloadable::Wrong(file.clone(), issues))?;
    let base = match file.as_ref().and_then(|file| file.parent()) {
        Some(directory) => directory.to_owned(),
        None => cwd,
    };
    let data_dir = match document.text("server.data-dir", &[]) {
        Some(dir) => normal(&base.join(dir)),
        None => default_data_dir()?,
    };
    let far = file.as_ref().filter(|file| !fixed.contains(file));
    let moved = document
        .entry("server.data-dir", &[])
        .map(|entry| &entry.origin);
    let mut flags = Vec::new();
    flags.extend(far.map(|file| format!("--config {}", quoted(file))));
    if matches!(moved, Some(Origin::Override(_))) {
        flags.push(format!("--data-dir {}", quoted(&data_dir)));
    }
    Ok(Loaded {
        document,
        file,
        base,
        data_dir,
        flags,
    })
}

/// Environment first, then flags: what comes later wins.
fn overrides(data_dir: Option<&Path>, flags: Vec<Override>) -> Result<Vec<Override>, Failure> {
    let mut found = Vec::new();
    for (name, value) in env::vars_os() {
        // Other people's variables may hold anything; only ours must be text.
        if let (Some(name), Some(value)) = (name.to_str(), value.to_str()) {
            found.extend(Override::from_env(name, value));
        }
    }
    // An address opens the section that the other variables of etcd need.
    found.sort_by_key(|one| (one.path != "etcd.addr", one.by.clone()));
    if let Some(dir) = data_dir {
        let text = dir.to_str().ok_or_else(|| {
            Failure::usage(format!("the data directory {} is not UTF-8", dir.display()))
        })?;
        found.push(Override::flag("server.data-dir", text, "--data-dir"));
    }
    found.extend(flags);
    Ok(found)
}

/// Places that depend on where the command is run.
fn near_places(cwd: &Path) -> Vec<PathBuf> {
    let mut places = vec![cwd.join(FILE_NAME)];
    let home = home();
    let inside_home = |dir: &&Path| home.as_ref().is_some_and(|home| dir.starts_with(home));
    let above = cwd.ancestors().take_while(inside_home);
    places.extend(
        above
            .filter(|dir| dir.join("BUILD_ROOT").is_file())
            .map(|d| d.join(FILE_NAME)),
    );
    places
}

/// Places that are the same for every command.
fn fixed_places() -> Vec<PathBuf> {
    let home = home().map(|home| home.join(".config/backend.ai").join(FILE_NAME));
    home.into_iter()
        .chain([Path::new("/etc/backend.ai").join(FILE_NAME)])
        .collect()
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
}

/// `$XDG_DATA_HOME/storage-proxy`, else `~/.local/share/storage-proxy`, else under `/var/lib`.
fn default_data_dir() -> Result<PathBuf, Failure> {
    let xdg = env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let parent = xdg.or_else(|| home().map(|home| home.join(".local/share")));
    let dir = parent
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("storage-proxy");
    if dir.is_absolute() {
        Ok(dir)
    } else {
        Err(Failure::new(
            "HOME is not an absolute path; say --data-dir DIR",
        ))
    }
}

/// All problems of a configuration in one text.
pub fn problems(file: Option<&Path>, issues: &[Issue]) -> Failure {
    let place = file.map_or("built-in defaults".into(), |file| {
        file.display().to_string()
    });
    let count = match issues.len() {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    let lines: String = issues.iter().map(|issue| format!("\n  {issue}")).collect();
    Failure::new(format!("configuration {place} has {count}:{lines}"))
}

/// Lexically: no `.`, no doubled slash. `..` stays, because links may stand before it.
fn normal(path: &Path) -> PathBuf {
    path.components().collect()
}

/// A path as one word of a shell.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_a_shell() {
        for (path, want) in [
            ("/a/b-c.d", "/a/b-c.d"),
            ("/a b", "'/a b'"),
            ("/it's", "'/it'\\''s'"),
            ("/$x", "'/$x'"),
        ] {
            assert_eq!(quoted(Path::new(path)), want);
        }
    }

    #[test]
    fn relative_paths_lose_their_dots() {
        assert_eq!(normal(Path::new("/a/./b//c")), Path::new("/a/b/c"));
        assert_eq!(normal(Path::new("/a/../b")), Path::new("/a/../b"));
    }
}
