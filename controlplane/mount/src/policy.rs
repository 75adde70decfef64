//! What may be asked for: rules, without a look at the disk.
//!
//! Laws
//! - Everything that is allowed is in the [`Policy`]; what it does not name is refused.
//! - Texts with control characters are refused: they end lines in the mount table.

use std::path::{Component, Path, PathBuf};

use thiserror::Error;

/// Longest path and longest list of options.
const TEXT_BYTES_MAX: usize = 4095;

/// What the configuration allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Paths of volumes, and further directories: jobs are at them or below them. Absolute.
    pub roots: Vec<PathBuf>,
    /// Paths of volumes whose projects may be limited.
    pub limited: Vec<PathBuf>,
    /// Types of file systems that may be mounted.
    pub fs_types: Vec<String>,
    /// Names of mount options, without their values.
    pub options: Vec<String>,
    /// Beginnings of what may be mounted. Empty: any `host:/path`, and nothing local.
    pub sources: Vec<String>,
    /// The mount table.
    pub fstab: PathBuf,
    /// The service's user and group.
    pub owner: (u32, u32),
}

/// Why a job is refused. The texts reach the Manager's side; they name what to change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Denied {
    /// Not an absolute, plain path.
    #[error("not a plain absolute path: {0}")]
    Path(String),
    /// Outside of every configured directory.
    #[error("not below a volume's path or server.helper.roots: {0}")]
    Outside(String),
    /// Not the path of such a volume, or no project.
    #[error("not a volume with project quotas, or no project of one: {0}")]
    Project(String),
    /// Not in the list.
    #[error("file system type {0} is not in server.helper.fs-types")]
    FsType(String),
    /// Not in the list.
    #[error("mount option {0} is not in server.helper.mount-options")]
    Option(String),
    /// Not in the list.
    #[error("location {0} is not in server.helper.sources")]
    Source(String),
    /// Not the configured one.
    #[error("mount table {0} is not server.helper.fstab")]
    Fstab(String),
    /// Somebody else.
    #[error("owner {0}:{1} is not the service's")]
    Owner(u32, u32),
}

/// A path beneath a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beneath<'a> {
    /// The configured directory.
    pub root: &'a Path,
    /// The rest; empty for the directory itself.
    pub rest: PathBuf,
}

impl Policy {
    /// Where a path lies; the longest root wins, so that its own links do not matter.
    ///
    /// # Errors
    /// [`Denied::Path`], [`Denied::Outside`].
    pub fn locate(&self, target: &Path) -> Result<Beneath<'_>, Denied> {
        let plain = target.is_absolute()
            && target.as_os_str().len() <= TEXT_BYTES_MAX
            && target.to_str().is_some_and(is_printable)
            && target
                .components()
                .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !plain {
            return Err(Denied::Path(target.display().to_string()));
        }
        let mut best: Option<Beneath<'_>> = None;
        for root in self.roots.iter().filter(|root| root.parent().is_some()) {
            let Ok(rest) = target.strip_prefix(root) else {
                continue;
            };
            let longer =
                |found: &Beneath<'_>| found.root.as_os_str().len() < root.as_os_str().len();
            if best.as_ref().is_none_or(longer) {
                let rest = rest.to_owned();
                best = Some(Beneath { root, rest });
            }
        }
        best.ok_or_else(|| Denied::Outside(target.display().to_string()))
    }

    /// The volume whose project it is.
    ///
    /// # Errors
    /// [`Denied::Project`].
    pub fn limited(&self, target: &Path, project: u32) -> Result<&Path, Denied> {
        let found = self.limited.iter().find(|path| *path == target);
        let found = found.filter(|_| project != 0);
        let denied = || Denied::Project(format!("{} {project}", target.display()));
        found.map(PathBuf::as_path).ok_or_else(denied)
    }

    /// The type, if it may be mounted.
    ///
    /// # Errors
    /// [`Denied::FsType`].
    pub fn fs_type<'a>(&self, fs_type: &'a str) -> Result<&'a str, Denied> {
        let known = self.fs_types.iter().any(|one| one == fs_type);
        if known && is_word(fs_type) {
            Ok(fs_type)
        } else {
            Err(Denied::FsType(fs_type.to_owned()))
        }
    }

    /// The options one by one, all of them allowed.
    ///
    /// # Errors
    /// [`Denied::Option`] names the first that is not.
    pub fn options<'a>(&self, options: Option<&'a str>) -> Result<Vec<&'a str>, Denied> {
        let options = options.unwrap_or_default();
        let denied = |option: &str| Denied::Option(option.to_owned());
        if TEXT_BYTES_MAX < options.len() || !is_printable(options) || options.contains('"') {
            return Err(denied(&options.chars().take(40).collect::<String>()));
        }
        let given = options.split(',').filter(|option| !option.is_empty());
        let checked = given.map(|option| {
            let name = option.split('=').next().unwrap_or_default();
            let known = self.options.iter().any(|one| one == name) || name == "defaults";
            if known { Ok(option) } else { Err(denied(name)) }
        });
        checked.collect()
    }

    /// What is to be mounted.
    ///
    /// # Errors
    /// [`Denied::Source`].
    pub fn source<'a>(&self, location: &'a str, fs_type: &str) -> Result<&'a str, Denied> {
        let denied = || Denied::Source(location.to_owned());
        let climbs = location.split('/').any(|part| part == "..");
        let too_long = TEXT_BYTES_MAX < location.len();
        let plain = !location.is_empty() && !location.starts_with('-') && is_printable(location);
        if climbs || too_long || !plain {
            return Err(denied());
        }
        // A file system in memory has no source that could be misused.
        if fs_type == "tmpfs" {
            return Ok(location);
        }
        if self.sources.is_empty() {
            let is_remote = location
                .split_once(":/")
                .is_some_and(|(host, _)| !host.is_empty() && !host.contains('/'));
            return if is_remote {
                Ok(location)
            } else {
                Err(denied())
            };
        }
        let begins = |source: &String| {
            let rest = location.strip_prefix(source.as_str());
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || source.ends_with(['/', ':'])
            })
        };
        if self.sources.iter().any(begins) {
            Ok(location)
        } else {
            Err(denied())
        }
    }

    /// The mount table, if the one that is asked for is the configured one.
    ///
    /// # Errors
    /// [`Denied::Fstab`].
    pub fn fstab(&self, asked: Option<&Path>) -> Result<&Path, Denied> {
        match asked {
            Some(path) if path != self.fstab => Err(Denied::Fstab(path.display().to_string())),
            _ => Ok(&self.fstab),
        }
    }

    /// The service's user and group, if they are meant.
    ///
    /// # Errors
    /// [`Denied::Owner`].
    pub fn owner(&self, uid: u32, gid: u32) -> Result<(u32, u32), Denied> {
        if (uid, gid) == self.owner {
            Ok(self.owner)
        } else {
            Err(Denied::Owner(uid, gid))
        }
    }
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !text.is_empty() && !text.starts_with('-') && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let texts = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        Policy {
            roots: vec!["/mnt/v".into(), "/mnt/v/deep".into(), "/".into()],
            limited: vec!["/mnt/v".into()],
            fs_types: texts(&["nfs", "tmpfs", "bind"]),
            options: texts(&["ro", "vers", "soft"]),
            sources: Vec::new(),
            fstab: "/etc/fstab".into(),
            owner: (1000, 1001),
        }
    }

    #[test]
    fn paths_stay_below_what_is_configured() {
        for (path, want) in [
            ("/mnt/v", Some(("/mnt/v", ""))),
            ("/mnt/v/a", Some(("/mnt/v", "a"))),
            ("/mnt/v//a/", Some(("/mnt/v", "a"))),
            ("/mnt/v/deep/b", Some(("/mnt/v/deep", "b"))),
            ("/mnt/v/../etc", None),
            ("/mnt/vv", None),
            ("/mnt", None),
            ("/", None),
            ("mnt/v", None),
            ("", None),
            ("/mnt/v/a\nb", None),
        ] {
            let policy = policy();
            let found = policy.locate(Path::new(path)).ok();
            let found = found.as_ref().map(|b| (b.root, b.rest.as_path()));
            let want = want.map(|(root, rest)| (Path::new(root), Path::new(rest)));
            assert_eq!(found, want, "{path}");
        }
        let long = format!("/mnt/v/{}", "a".repeat(5000));
        assert!(policy().locate(Path::new(&long)).is_err());
    }

    #[test]
    fn projects_are_those_of_the_volumes_that_are_named() {
        for (path, project, allowed) in [
            ("/mnt/v", 1, true),
            ("/mnt/v", 0, false),
            ("/mnt/v/a", 1, false),
            ("/mnt", 1, false),
            ("/", 1, false),
        ] {
            let found = policy().limited(Path::new(path), project).is_ok();
            assert_eq!(found, allowed, "{path} {project}");
        }
    }

    #[test]
    fn options_and_types_are_those_of_the_lists() {
        for (options, want) in [
            (None, Some(vec![])),
            (Some(""), Some(vec![])),
            (Some("ro,vers=4.2"), Some(vec!["ro", "vers=4.2"])),
            (Some("defaults"), Some(vec!["defaults"])),
            (Some("ro,suid"), None),
            (Some("ro, soft"), None),
            (Some("ro\nsoft"), None),
            (Some("vers=\"4,suid\""), None),
        ] {
            assert_eq!(policy().options(options).ok(), want, "{options:?}");
        }
        for (fs_type, want) in [("nfs", true), ("ext4", false), ("", false), ("-t", false)] {
            assert_eq!(policy().fs_type(fs_type).is_ok(), want, "{fs_type}");
        }
    }

    #[test]
    fn sources_are_remote_or_listed() {
        let listed = Policy {
            sources: vec!["nas:/export".into(), "/srv/shared".into()],
            ..policy()
        };
        for (location, fs_type, open, narrow) in [
            ("nas:/export", "nfs", true, true),
            ("nas:/export/a", "nfs", true, true),
            ("nas:/exported", "nfs", true, false),
            ("other:/export", "nfs", true, false),
            ("/srv/shared/a", "bind", false, true),
            ("/srv/shared/../x", "bind", false, false),
            ("/dev/sda1", "nfs", false, false),
            ("/etc:/x", "nfs", false, false),
            ("-o:/x", "nfs", false, false),
            ("memory", "tmpfs", true, true),
            ("", "tmpfs", false, false),
        ] {
            assert_eq!(
                policy().source(location, fs_type).is_ok(),
                open,
                "{location}"
            );
            assert_eq!(
                listed.source(location, fs_type).is_ok(),
                narrow,
                "{location}"
            );
        }
    }

    #[test]
    fn owner_and_mount_table_are_the_configured_ones() {
        assert!(policy().owner(1000, 1001).is_ok());
        assert!(policy().owner(0, 0).is_err());
        assert!(policy().fstab(None).is_ok());
        assert!(policy().fstab(Some(Path::new("/etc/fstab"))).is_ok());
        assert!(policy().fstab(Some(Path::new("/etc/passwd"))).is_err());
    }
}
