//! The jobs themselves: checked against the policy, then done.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proxy_ring::quota::{self, ProjectQuota};
use rustix::fs::{
    AtFlags, Dir, FileType, MemfdFlags, Mode, OFlags, ResolveFlags, chownat, memfd_create, mkdirat,
    openat2, unlinkat,
};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use crate::fstab;
use crate::place::{Spot, listed_dir, proc_path};
use crate::policy::{Denied, Policy};
use crate::protocol::{Task, Told};

/// Levels of directories that a deletion goes down; each keeps a descriptor.
const DEPTH_MAX: usize = 512;
/// How often a started program is looked after.
const LOOK: Duration = Duration::from_millis(20);
/// Words of a program that are passed on.
const WORDS_BYTES_MAX: u64 = 2048;

/// Why a job is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error("denied: {0}")]
    Denied(#[from] Denied),
    #[error("{0} is in use")]
    Busy(String),
    #[error("{0}")]
    Failed(String),
}

type Done = Result<String, JobError>;

/// Does one job; blocks.
pub(crate) fn run(policy: &Policy, task: &Task, limit: Duration) -> Done {
    match task {
        Task::Ping => Ok(String::new()),
        Task::Mount { .. } => mount_one(policy, task, limit),
        Task::Umount {
            target,
            edit_fstab,
            fstab,
        } => {
            let table = policy.fstab(fstab.as_deref())?;
            umount_one(policy, target, edit_fstab.then_some(table))
        }
        Task::Chown { target, uid, gid } => {
            let (uid, gid) = policy.owner(*uid, *gid)?;
            let spot = spot(policy, target)?;
            let failed = failed("change owner of", target);
            let opened = spot.open(OFlags::empty()).map_err(&failed)?;
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(&opened, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                .map_err(|error| failed(error.into()))?;
            Ok(String::new())
        }
        Task::DeletePath { target } => delete(policy, target),
        Task::ProjectQuota { target, project } => on_project(policy, target, *project, |place| {
            quota::project_quota(place, *project).map(Some)
        }),
        Task::NextProjectQuota { target, project } => {
            // From the first one on; what is in none is nobody's business.
            let first = (*project).max(1);
            on_project(policy, target, first, |place| {
                quota::next_project_quota(place, first)
            })
        }
        Task::SetProjectLimit {
            target,
            project,
            limit_bytes,
        } => on_project(policy, target, *project, |place| {
            quota::set_project_limit(place, *project, *limit_bytes).map(|()| None)
        }),
    }
}

/// Asks the kernel about a project of a volume.
fn on_project(
    policy: &Policy,
    target: &Path,
    project: u32,
    ask: impl FnOnce(&OwnedFd) -> io::Result<Option<ProjectQuota>>,
) -> Done {
    let path = policy.limited(target, project)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open(path, flags, Mode::empty());
    let asked = place.map_err(io::Error::from).and_then(|place| ask(&place));
    let told = match asked {
        Ok(quota) => Told {
            errno: None,
            quota: quota.map(|quota| (quota.project, quota.used_bytes, quota.limit_bytes)),
        },
        Err(error) => Told {
            errno: Some(error.raw_os_error().unwrap_or(5)),
            quota: None,
        },
    };
    serde_json::to_string(&told).map_err(|error| JobError::Failed(error.to_string()))
}

fn spot(policy: &Policy, target: &Path) -> Result<Spot, JobError> {
    let beneath = policy.locate(target)?;
    Spot::find(&beneath).map_err(failed("find", target))
}

fn failed(verb: &'static str, target: &Path) -> impl Fn(io::Error) -> JobError {
    let target = target.display().to_string();
    move |error| match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => JobError::Busy(target.clone()),
        _ => JobError::Failed(format!("{verb} {target}: {error}")),
    }
}

fn mount_one(policy: &Policy, task: &Task, limit: Duration) -> Done {
    let Task::Mount {
        target,
        location,
        fs_type,
        options,
        edit_fstab,
        fstab,
    } = task
    else {
        unreachable!("only mounts come here");
    };
    // Every check comes before the first change.
    let fs_type = policy.fs_type(fs_type)?;
    let asked = policy.options(options.as_deref())?;
    let source = policy.source(location, fs_type)?;
    let table = policy.fstab(fstab.as_deref())?;
    let spot = spot(policy, target)?;
    let failed = failed("mount at", target);
    let mut text = String::new();
    if spot.is_mounted().map_err(&failed)? == Some(true) {
        text = format!("{} is mounted already", target.display());
    } else {
        if !spot.is_root {
            match mkdirat(spot.above(), spot.name(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        let place = spot.open(OFlags::DIRECTORY).map_err(&failed)?;
        let wish = Wish {
            source,
            fs_type,
            options: &asked,
        };
        let said = wish.mount(policy, &spot, &place, limit)?;
        text.push_str(&said);
        if spot.is_mounted().map_err(&failed)? != Some(true) {
            let why = if text.is_empty() {
                "nothing is mounted"
            } else {
                &text
            };
            return Err(JobError::Failed(format!(
                "mount at {}: {why}",
                target.display()
            )));
        }
    }
    if *edit_fstab {
        let options = asked.join(",");
        let line = fstab::Line {
            device: source,
            target: &target.to_string_lossy(),
            fs_type: if fs_type == "bind" { "none" } else { fs_type },
            options: &options,
        };
        fstab::add(table, line).map_err(|error| {
            JobError::Failed(format!("mounted, but {} stays: {error}", table.display()))
        })?;
    }
    Ok(text)
}

/// What is to be mounted, checked.
struct Wish<'a> {
    source: &'a str,
    fs_type: &'a str,
    options: &'a [&'a str],
}

impl Wish<'_> {
    fn mount(&self, policy: &Policy, spot: &Spot, place: &OwnedFd, limit: Duration) -> Done {
        let failed = |error: io::Error| JobError::Failed(format!("mount {}: {error}", self.source));
        let (flags, data) = kernel_options(self.options);
        if self.fs_type == "bind" {
            let source = listed_dir(Path::new(self.source), &policy.sources).map_err(failed)?;
            mount_bind(proc_path(&source), proc_path(place)).map_err(|e| failed(e.into()))?;
            let flags = flags | MountFlags::BIND;
            return match mount_remount(spot.path(), flags, "") {
                Ok(()) => Ok(String::new()),
                Err(error) => {
                    // Without its flags it must not stay; if it cannot go either, that is told.
                    let gone = unmount(spot.path(), UnmountFlags::NOFOLLOW);
                    let stays = gone
                        .err()
                        .map_or(String::new(), |why| format!(", stays: {why}"));
                    Err(JobError::Failed(format!("set options: {error}{stays}")))
                }
            };
        }
        if Path::new("/sbin")
            .join(format!("mount.{}", self.fs_type))
            .exists()
        {
            return self.by_program(place, limit);
        }
        let data = CString::new(data).map_err(|error| failed(error.into()))?;
        let target = proc_path(place);
        mount(self.source, target, self.fs_type, flags, data.as_c_str())
            .map_err(|error| failed(error.into()))?;
        Ok(String::new())
    }

    /// File systems that come with a program of their own need it: it resolves names, agrees on
    /// versions and asks for keys.
    fn by_program(&self, place: &OwnedFd, limit: Duration) -> Done {
        let mut options = self.options.to_vec();
        options.extend(["nosuid", "nodev"]);
        let mut command = Command::new("/bin/mount");
        command
            .args(["-c", "-t", self.fs_type, "-o", &options.join(","), "--"])
            .arg(self.source)
            .arg(proc_path(place));
        let failed = |error: io::Error| JobError::Failed(format!("start mount: {error}"));
        let words = memfd_create("words", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let mut words = File::from(words);
        let heard = words.try_clone().map_err(failed)?;
        let child = command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(heard)
            .spawn();
        let mut child = child.map_err(failed)?;
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                break Some(status);
            }
            if end <= Instant::now() {
                // One that waits for a dead server cannot be ended; it is left to the kernel.
                let _ = child.kill();
                break None;
            }
            std::thread::sleep(LOOK);
        };
        let mut text = String::new();
        // What it said makes the message better, no more.
        let _ = words
            .rewind()
            .and_then(|()| words.take(WORDS_BYTES_MAX).read_to_string(&mut text));
        let text = text.trim().replace('\n', "; ");
        match status {
            Some(status) if status.success() => Ok(text),
            Some(status) => Err(JobError::Failed(format!(
                "mount ended with {status}: {text}"
            ))),
            None => Err(JobError::Failed(format!(
                "mount did not end within {} s",
                limit.as_secs()
            ))),
        }
    }
}

/// Options as the kernel takes them: flags, and the rest as text.
fn kernel_options(options: &[&str]) -> (MountFlags, String) {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mut rest = Vec::new();
    for option in options {
        match *option {
            "ro" => flags |= MountFlags::RDONLY,
            "noexec" => flags |= MountFlags::NOEXEC,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "defaults" | "rw" | "nosuid" | "nodev" | "_netdev" => {}
            other => rest.push(other),
        }
    }
    (flags, rest.join(","))
}

fn umount_one(policy: &Policy, target: &Path, table: Option<&Path>) -> Done {
    let spot = spot(policy, target)?;
    let failed = failed("unmount", target);
    let text = if spot.is_mounted().map_err(&failed)? == Some(true) {
        unmount(spot.path(), UnmountFlags::NOFOLLOW).map_err(|error| failed(error.into()))?;
        String::new()
    } else {
        format!("{} is not mounted", target.display())
    };
    if let Some(table) = table {
        fstab::remove(table, &target.to_string_lossy()).map_err(|error| {
            JobError::Failed(format!("unmounted, but {} stays: {error}", table.display()))
        })?;
    }
    Ok(text)
}

fn delete(policy: &Policy, target: &Path) -> Done {
    let spot = spot(policy, target)?;
    let failed = failed("delete", target);
    if spot.is_root || spot.is_mounted().map_err(&failed)? == Some(true) {
        let why = format!("delete {}: it is a mount or a volume", target.display());
        return Err(JobError::Failed(why));
    }
    match unlinkat(spot.above(), spot.name(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(String::new()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(failed(error.into())),
    }
    empty(&spot).map_err(&failed)?;
    unlinkat(spot.above(), spot.name(), AtFlags::REMOVEDIR)
        .map_err(|error| failed(error.into()))?;
    Ok(String::new())
}

/// Removes all that is in a directory, depth first, never into another mount.
fn empty(spot: &Spot) -> io::Result<()> {
    let mut above = vec![open_dir(spot.above(), spot.name())?];
    let mut names: Vec<std::ffi::CString> = Vec::new();
    while let Some(dir) = above.last() {
        let Some(name) = first_left(dir)? else {
            above.pop();
            if let (Some(parent), Some(name)) = (above.last(), names.pop()) {
                unlinkat(parent, &name, AtFlags::REMOVEDIR)?;
            }
            continue;
        };
        if DEPTH_MAX <= above.len() {
            return Err(Errno::NAMETOOLONG.into());
        }
        let below = open_dir(dir, &name)?;
        above.push(below);
        names.push(name);
    }
    Ok(())
}

/// Removes what is no directory, and names the first directory.
fn first_left(dir: &OwnedFd) -> io::Result<Option<CString>> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            return Ok(Some(name.to_owned()));
        }
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => return Ok(Some(name.to_owned())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

fn open_dir<F: std::os::fd::AsFd>(above: F, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inside = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    Ok(openat2(above, name, flags, Mode::empty(), inside)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags_and_text() {
        let always = MountFlags::NOSUID | MountFlags::NODEV;
        for (options, flags, text) in [
            (&[][..], always, ""),
            (&["ro", "size=1m"], always | MountFlags::RDONLY, "size=1m"),
            (&["rw", "defaults", "a", "b=c"], always, "a,b=c"),
        ] {
            assert_eq!(kernel_options(options), (flags, text.to_owned()));
        }
    }
}
