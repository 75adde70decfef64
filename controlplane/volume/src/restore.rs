//! Bringing a kept state of a vfolder back by copying it: in place, or as a new vfolder.
//!
//! Where the state is seen differs between storage systems; from there on all is the same.
//!
//! Laws
//! - The copy is made under a hidden name and put in place as a whole: until then the vfolder
//!   keeps what it has, and whoever fails on the way leaves it so.
//! - Interrupted anywhere, it can be run again with the same task; a copy that was put in place
//!   already is recognised by the mark of its task.
//! - Unfinished uploads are not part of a state.

use std::ffi::OsStr;

use proxy_anchor::{AnchorError, Dir, Hidden, VolumeRoot};
use proxy_core::id::{TaskId, VFolderId};
use rustix::io::Errno;

use crate::backend::{Cloned, Restore};
use crate::control::Control;
use crate::error::VolumeError;
use crate::folder::{
    self, HIDDEN_MODE, discard, fill, give_up, leave_mark, mark, mark_begin, mark_end, measured,
    names_in_scope, of, publish, remove_marks,
};
use crate::limits::Limits;
use crate::snapshot::SnapshotName;

/// Where a state of a vfolder can be seen, as names from a directory that never moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// From the mount point.
    Volume(Vec<String>),
    /// From the directory of the vfolder's quota scope.
    Scope(Vec<String>),
}

/// What is to be brought back, and for whom.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Whose state.
    pub(crate) vfid: VFolderId,
    /// Its name, for errors.
    pub(crate) name: SnapshotName,
    /// Where the state may be seen: the first of these that is there counts.
    pub(crate) places: Vec<Place>,
    pub(crate) to: Restore,
    /// Marks the result, so that a second run of the same task knows its own work.
    pub(crate) task: TaskId,
    /// Free bytes of the volume, if known.
    pub(crate) free_bytes: Option<u64>,
}

impl Job {
    /// The vfolder that gets the state.
    pub(crate) fn target(&self) -> VFolderId {
        match self.to {
            Restore::InPlace => self.vfid,
            Restore::Into(new) => new,
        }
    }
}

/// See the module.
///
/// # Errors
/// [`VolumeError::SnapshotNotFound`] when the state is nowhere to be seen,
/// [`VolumeError::FolderExists`], [`VolumeError::VFolderNotFound`] (in place),
/// [`VolumeError::NoRoom`], [`VolumeError::Cancelled`], and the first refusal of the system.
pub(crate) fn restore(
    root: &VolumeRoot,
    job: &Job,
    limits: &Limits,
    control: &Control,
) -> Result<Cloned, VolumeError> {
    control.check()?;
    let target = job.target();
    if !is_needed(root, job)? {
        return Ok(Cloned::default());
    }
    let from = seen(root, job)?;
    for leftover in root.unfinished_clones(&target)? {
        discard(leftover, limits, control)?;
    }
    let sums = measured(root, target, from.try_clone()?, limits, control)?;
    let hidden = root
        .create_hidden(&target, HIDDEN_MODE)
        .map_err(of(target))?;
    let copied = fill(from, &hidden.dir, sums, job.free_bytes, limits, control);
    let done = copied.and_then(|cloned| {
        match job.to {
            Restore::Into(dst) => {
                let job = folder::Job {
                    src: job.vfid,
                    dst,
                    task: job.task,
                    free_bytes: job.free_bytes,
                };
                publish(root, job, &hidden)?;
            }
            Restore::InPlace => replace(root, job, &hidden, limits)?,
        }
        Ok(cloned)
    });
    if done.is_err() && !control.is_halted() {
        give_up(hidden, limits);
    }
    done
}

/// `false` when an earlier run of this task has put the state in place.
fn is_needed(root: &VolumeRoot, job: &Job) -> Result<bool, VolumeError> {
    let target = job.target();
    let there = match root.vfolder(&target) {
        Ok(folder) => Some(folder.open_whole().map_err(of(target))?),
        Err(AnchorError::VFolderMissing) => None,
        Err(error) => return Err(of(target)(error)),
    };
    if let Some(there) = &there {
        let scope = root.open_scope(target.scope.as_ref())?;
        if scope.stat(&mark(job.task, there)?).is_ok() {
            return Ok(false);
        }
    }
    match job.to {
        Restore::Into(dst) if there.is_some() => Err(VolumeError::FolderExists(dst)),
        Restore::InPlace if there.is_none() && !was_replacing(root, job)? => {
            Err(VolumeError::VFolderNotFound(job.vfid))
        }
        _ => Ok(true),
    }
}

/// Whether an earlier run of this task came so far that the vfolder may be missing for it.
fn was_replacing(root: &VolumeRoot, job: &Job) -> Result<bool, VolumeError> {
    let begin = mark_begin(job.task);
    let names = names_in_scope(root, job.vfid)?;
    Ok(names
        .iter()
        .any(|name| name.as_encoded_bytes().starts_with(begin.as_bytes())))
}

/// The directory that shows the state.
fn seen(root: &VolumeRoot, job: &Job) -> Result<Dir, VolumeError> {
    for place in &job.places {
        let (scope, names) = match place {
            Place::Volume(names) => (None, names),
            Place::Scope(names) => (job.vfid.scope.as_ref(), names),
        };
        let down = |dir: Dir, name: &String| dir.open_dir(OsStr::new(name));
        let found = root
            .open_scope(scope)
            .and_then(|dir| names.iter().try_fold(dir, down));
        match found {
            Ok(dir) => return Ok(dir.as_vfolder()),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(VolumeError::SnapshotNotFound(job.name.clone()))
}

fn is_missing(error: &AnchorError) -> bool {
    let missing = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::STALE];
    missing
        .iter()
        .any(|errno| error.errno() == Some(errno.raw_os_error()))
}

/// Puts the copy in the place of the vfolder, and removes what was there.
fn replace(
    root: &VolumeRoot,
    job: &Job,
    hidden: &Hidden,
    limits: &Limits,
) -> Result<(), VolumeError> {
    let scope = root.open_scope(job.vfid.scope.as_ref())?;
    let mark = leave_mark(&scope, job.task, &hidden.dir)?;
    let old = match root.replace_vfolder(hidden) {
        Ok(old) => old,
        Err(error) => {
            if hidden.is_hidden() {
                let _ = scope.unlink(&mark);
            }
            return Err(of(job.vfid)(error));
        }
    };
    // The state is in place: what is left of the old one is the sweep's, if need be.
    if let Some(old) = old {
        let cleared = mark_end(&old.dir).and_then(|end| {
            discard(old, limits, &Control::default())?;
            remove_marks(root, job.vfid, &end)
        });
        if let Err(error) = cleared {
            tracing::warn!(vfid = %job.vfid, %error, "a replaced tree is left to the sweep");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    const SCOPE: &str = "user:11111111-2222-3333-4444-555555555555";
    const HOME: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    struct Scene {
        home: tempfile::TempDir,
        root: VolumeRoot,
        job: Job,
    }

    impl Scene {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let root = VolumeRoot::open(home.path()).unwrap();
            let vfid = VFolderId::parse(&format!("{SCOPE}/{HOME}")).unwrap();
            root.create_scope(&vfid.scope.unwrap()).unwrap();
            root.create_vfolder(&vfid, 0o755).unwrap();
            let names = |text: &str| text.split('/').map(str::to_owned).collect();
            let places = vec![
                Place::Scope(names("01/23/.snapshot/s")),
                Place::Volume(names(".snapshots/s/x")),
            ];
            let job = Job {
                vfid,
                name: SnapshotName::parse("s").unwrap(),
                places,
                to: Restore::InPlace,
                task: TaskId::random(),
                free_bytes: None,
            };
            let scene = Self { home, root, job };
            scene.write(&scene.folder(vfid), "now");
            scene
        }

        fn folder(&self, vfid: VFolderId) -> PathBuf {
            self.home.path().join(vfid.components().join("/"))
        }

        fn scope(&self) -> PathBuf {
            let scope = self.job.vfid.scope.unwrap();
            self.home.path().join(scope.dir_name())
        }

        fn write(&self, dir: &std::path::Path, text: &str) {
            fs::create_dir_all(dir.join(".upload")).unwrap();
            fs::write(dir.join("f"), text).unwrap();
        }

        fn run(&self) -> Result<Cloned, VolumeError> {
            restore(
                &self.root,
                &self.job,
                &Limits::default(),
                &Control::default(),
            )
        }

        fn hidden(&self) -> usize {
            let names = fs::read_dir(self.scope()).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names
                .filter(|name| name.starts_with(".clone-") || name.starts_with(".trash-"))
                .count()
        }
    }

    #[test]
    fn the_first_place_that_shows_the_state_counts() {
        let scene = Scene::new();
        let lost = VolumeError::SnapshotNotFound(scene.job.name.clone());
        assert_eq!(scene.run(), Err(lost));
        scene.write(&scene.home.path().join(".snapshots/s/x"), "far");
        assert_eq!(scene.run().map(|cloned| cloned.entries), Ok(1));
        let folder = scene.folder(scene.job.vfid);
        assert_eq!(fs::read_to_string(folder.join("f")).unwrap(), "far");
        scene.write(&scene.scope().join("01/23/.snapshot/s"), "near");
        assert_eq!(scene.run(), Ok(Cloned::default()), "the task has done it");
        assert_eq!(fs::read_to_string(folder.join("f")).unwrap(), "far");
        let again = Job {
            task: TaskId::random(),
            ..scene.job.clone()
        };
        let scene = Scene {
            job: again,
            ..scene
        };
        assert!(scene.run().is_ok());
        assert_eq!(fs::read_to_string(folder.join("f")).unwrap(), "near");
        assert!(!folder.join(".upload").exists(), "no part of a state");
        assert_eq!(scene.hidden(), 0);
    }

    #[test]
    fn a_new_folder_gets_the_state_once() {
        let mut scene = Scene::new();
        scene.write(&scene.home.path().join(".snapshots/s/x"), "old");
        let new = VFolderId::parse(&format!("{SCOPE}/{NEW}")).unwrap();
        scene.job.to = Restore::Into(new);
        assert!(scene.run().is_ok());
        let text = fs::read_to_string(scene.folder(new).join("f")).unwrap();
        assert_eq!(text, "old");
        let text = fs::read_to_string(scene.folder(scene.job.vfid).join("f")).unwrap();
        assert_eq!(text, "now", "the vfolder stays as it is");
        assert_eq!(scene.run(), Ok(Cloned::default()), "the task has done it");
        scene.job.task = TaskId::random();
        assert_eq!(scene.run(), Err(VolumeError::FolderExists(new)));
    }

    #[test]
    fn a_run_that_was_ended_between_the_renames_goes_on() {
        let scene = Scene::new();
        scene.write(&scene.home.path().join(".snapshots/s/x"), "old");
        let folder = scene.folder(scene.job.vfid);
        fs::remove_dir_all(&folder).unwrap();
        let lost = VolumeError::VFolderNotFound(scene.job.vfid);
        assert_eq!(scene.run(), Err(lost), "somebody else has removed it");
        let hidden = scene.root.create_hidden(&scene.job.vfid, 0o700).unwrap();
        let mark = mark(scene.job.task, &hidden.dir).unwrap();
        fs::write(scene.scope().join(mark), "").unwrap();
        assert!(scene.run().is_ok());
        assert_eq!(fs::read_to_string(folder.join("f")).unwrap(), "old");
        assert_eq!(scene.hidden(), 0);
    }
}
