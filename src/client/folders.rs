//! Names of folders: what people type, and what the server calls them.
//!
//! The Manager keeps names in its database. Without a Manager this file in the data directory does:
//! `mkdir NAME` writes it, every other command reads it. Whoever knows a folder's identifier can
//! use that instead of a name.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use proxy_core::id::VFolderId;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::Access;
use crate::datadir::{DataDir, private_dir, write_private};
use crate::failure::Failure;
use crate::settings::LOCAL_VOLUME;

/// Longest name of a folder.
const NAME_CHARS_MAX: usize = 64;

/// Where a folder is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Its volume.
    pub volume: String,
    /// Its identifier, in canonical text.
    pub vfid: String,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Registry {
    /// The quota scope of everything made here: one user, this data directory.
    scope: String,
    folders: BTreeMap<String, Folder>,
}

impl Registry {
    fn new() -> Self {
        Self {
            scope: format!("user:{}", Uuid::new_v4()),
            folders: BTreeMap::new(),
        }
    }
}

/// `NAME` or `NAME:PATH`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or identifier.
    pub folder: String,
    /// What stands behind the colon; `None` without a colon.
    pub path: Option<String>,
}

impl Target {
    /// Takes a text apart.
    ///
    /// # Errors
    /// There is no name.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let scoped = ["user:", "project:"]
            .iter()
            .find(|kind| text.starts_with(**kind));
        // A scoped identifier has a colon of its own, before its slash.
        let skip = match scoped {
            Some(kind) => text.find('/').unwrap_or(kind.len()),
            None => 0,
        };
        let (folder, path) = match text[skip..].find(':') {
            Some(at) => (&text[..skip + at], Some(text[skip + at + 1..].to_owned())),
            None => (text, None),
        };
        if folder.is_empty() {
            return Err(Failure::usage(format!(
                "{text:?} has no folder; say NAME:PATH"
            )));
        }
        Ok(Self {
            folder: folder.to_owned(),
            path,
        })
    }

    /// The path, which must be there.
    ///
    /// # Errors
    /// There is none.
    pub fn path(&self) -> Result<&str, Failure> {
        self.path
            .as_deref()
            .ok_or_else(|| Failure::usage(format!("say where in the folder: {}:PATH", self.folder)))
    }
}

/// The folder that a name or an identifier means.
///
/// # Errors
/// Neither.
pub fn find(access: &Access, name: &str, volume: Option<&str>) -> Result<Folder, Failure> {
    if let Some(folder) = read(&access.data)?.folders.remove(name) {
        return Ok(folder);
    }
    match VFolderId::parse(name) {
        Ok(vfid) => {
            let volume = choose_volume(access, volume)?;
            Ok(Folder {
                volume,
                vfid: vfid.to_string(),
            })
        }
        Err(_) => Err(Failure::new(format!(
            "there is no folder {name}; create it with: storage-proxy mkdir {name}"
        ))),
    }
}

/// All names.
///
/// # Errors
/// The file is unreadable.
pub fn all(data: &DataDir) -> Result<BTreeMap<String, Folder>, Failure> {
    Ok(read(data)?.folders)
}

/// The volume that was asked for, else `local`, else the only one.
///
/// # Errors
/// It has to be said.
pub fn choose_volume(access: &Access, asked: Option<&str>) -> Result<String, Failure> {
    let names: Vec<&str> = access
        .volumes
        .iter()
        .map(|volume| volume.name.as_str())
        .collect();
    match (asked, names.as_slice()) {
        (Some(name), _) => Ok(name.to_owned()),
        (None, names) if names.contains(&LOCAL_VOLUME) => Ok(LOCAL_VOLUME.to_owned()),
        (None, [only]) => Ok((*only).to_owned()),
        (None, _) => Err(Failure::usage(format!(
            "say which --volume; there are: {}",
            names.join(", ")
        ))),
    }
}

/// A new identifier for `name`, in the scope of this data directory.
///
/// # Errors
/// The name cannot be used.
pub fn plan(data: &DataDir, name: &str) -> Result<String, Failure> {
    check_name(name)?;
    let _lock = lock(data)?;
    let registry = read(data)?;
    // The scope is written down before it is used, so that all folders share it.
    write(data, &registry)?;
    Ok(format!("{}/{}", registry.scope, Uuid::new_v4().simple()))
}

/// Remembers a folder.
///
/// # Errors
/// The file cannot be written.
pub fn remember(data: &DataDir, name: &str, folder: Folder) -> Result<(), Failure> {
    let _lock = lock(data)?;
    let mut registry = read(data)?;
    registry.folders.insert(name.to_owned(), folder);
    write(data, &registry)
}

/// Forgets a folder.
///
/// # Errors
/// The file cannot be written.
pub fn forget(data: &DataDir, folder: &Folder) -> Result<(), Failure> {
    let _lock = lock(data)?;
    let mut registry = read(data)?;
    registry.folders.retain(|_, known| known != folder);
    write(data, &registry)
}

/// Names stand before a colon on command lines, so they are plain.
fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = !name.is_empty()
        && name.len() <= NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
        && !["user", "project"].contains(&name)
        && VFolderId::parse(name).is_err();
    if good {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{name:?} is no name for a folder: up to {NAME_CHARS_MAX} letters, digits, dashes, \
         underscores and dots, beginning with a letter or digit, and no identifier"
    )))
}

const FILE: &str = "client/folders.json";

fn read(data: &DataDir) -> Result<Registry, Failure> {
    let path = data.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Registry::new()),
        Err(error) => Err(Failure::at("read", &path, &error)),
    }
}

fn write(data: &DataDir, registry: &Registry) -> Result<(), Failure> {
    let bytes = serde_json::to_vec_pretty(registry)
        .map_err(|error| Failure::new(format!("{FILE}: {error}")))?;
    write_private(&data.join(FILE), &bytes)
}

/// Held while the file is read and written again.
fn lock(data: &DataDir) -> Result<File, Failure> {
    private_dir(&data.join("client"))?;
    let path = data.join("client/lock");
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let file = file.map_err(|error| Failure::at("open", &path, &error))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|error| Failure::at("lock", &path, &error.into()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn targets_are_taken_apart_at_the_right_colon() {
        let scoped = "user:11111111-2222-3333-4444-555555555555/aabbccddeeff00112233445566778899";
        for (text, folder, path) in [
            ("demo", "demo", None),
            ("demo:", "demo", Some("")),
            ("demo:a/b:c", "demo", Some("a/b:c")),
            (scoped, scoped, None),
            (&format!("{scoped}:x"), scoped, Some("x")),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!(
                (target.folder.as_str(), target.path.as_deref()),
                (folder, path),
                "{text}"
            );
        }
        assert_eq!(Target::parse(":x").unwrap_err().code, 2);
        assert_eq!(Target::parse("").unwrap_err().code, 2);
    }

    #[test]
    fn names_are_plain() {
        for (name, good) in [
            ("demo", true),
            ("a.b-c_1", true),
            ("", false),
            (".hidden", false),
            ("-x", false),
            ("a b", false),
            ("a/b", false),
            ("ü", false),
            ("user", false),
            ("aabbccddeeff00112233445566778899", false),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name:?}");
        }
    }

    #[test]
    fn folders_are_remembered_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let first = plan(&data, "a").unwrap();
        let second = plan(&data, "b").unwrap();
        assert_ne!(first, second);
        assert_eq!(
            first.split_once('/').unwrap().0,
            second.split_once('/').unwrap().0
        );
        VFolderId::parse(&first).unwrap();
        let folder = Folder {
            volume: "local".into(),
            vfid: first,
        };
        remember(&data, "a", folder.clone()).unwrap();
        assert_eq!(all(&data).unwrap().get("a"), Some(&folder));
        forget(&data, &folder).unwrap();
        assert_eq!(all(&data).unwrap().len(), 0);
    }
}
