//! Taking away the marks by which a task knows a tree as its own work, once nobody will ask.
//!
//! Laws
//! - A mark goes after the end of its task is on record, never before: until then the task may be
//!   run again and must find it.
//! - Whoever dies in between leaves the mark to the next sweep.

use std::ffi::OsStr;
use std::sync::Arc;

use proxy_anchor::VolumeRoot;
use proxy_core::id::{TaskId, VFolderId};

use crate::control::Control;
use crate::error::VolumeError;
use crate::folder::{MARK, mark_begin, names_in};
use crate::sweep::scopes;

/// Whether the end of a task is on record. `false` where that is not known. May block.
pub type EndedTask = Arc<dyn Fn(TaskId) -> bool + Send + Sync>;

/// Takes the marks of a task in the scope of `vfid` away.
///
/// # Errors
/// Those of the system.
pub(crate) fn remove(root: &VolumeRoot, vfid: VFolderId, task: TaskId) -> Result<(), VolumeError> {
    let begin = mark_begin(task);
    for name in names_in(root, vfid.scope)? {
        if name.as_encoded_bytes().starts_with(begin.as_bytes()) {
            root.open_scope(vfid.scope.as_ref())?.unlink(&name)?;
        }
    }
    Ok(())
}

/// Takes the marks of all ended tasks away; returns how many.
///
/// # Errors
/// [`VolumeError::Cancelled`], and those of the system.
pub(crate) fn sweep(
    root: &VolumeRoot,
    ended: &EndedTask,
    control: &Control,
) -> Result<u64, VolumeError> {
    let mut removed = 0;
    let all = scopes(root)?.into_iter().map(Some).chain([None]);
    for scope in all {
        for name in names_in(root, scope)? {
            control.check()?;
            if task_of(&name).is_some_and(|task| ended(task)) {
                removed += u64::from(root.open_scope(scope.as_ref())?.unlink(&name).is_ok());
            }
        }
    }
    Ok(removed)
}

/// Whose mark a name is.
fn task_of(name: &OsStr) -> Option<TaskId> {
    let (task, _) = name.to_str()?.strip_prefix(MARK)?.split_once('-')?;
    TaskId::parse(task).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn marks_of_ended_tasks_go_and_others_stay() {
        let home = tempfile::tempdir().unwrap();
        let root = VolumeRoot::open(home.path()).unwrap();
        let id = "user:11111111-2222-3333-4444-555555555555/0123456789abcdef0123456789abcdef";
        let vfid = VFolderId::parse(id).unwrap();
        root.create_scope(&vfid.scope.unwrap()).unwrap();
        let scope = home.path().join(vfid.scope.unwrap().dir_name());
        let [ended, running, own] = [(); 3].map(|()| TaskId::random());
        for task in [ended, running, own] {
            std::fs::write(scope.join(format!("{}-1f", mark_begin(task))), "").unwrap();
        }
        std::fs::write(scope.join(".cloned-by-hand"), "").unwrap();
        let is_ended: EndedTask = Arc::new(move |task| task == ended);
        assert_eq!(sweep(&root, &is_ended, &Control::default()), Ok(1));
        remove(&root, vfid, own).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&scope)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut want = [
            format!("{}-1f", mark_begin(running)),
            ".cloned-by-hand".to_owned(),
        ];
        want.sort();
        assert_eq!(left, want);
    }
}
