//! What simulators read from and do to the directory they stand on.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes and entries of a tree, the top not counted; names that begin with one of `but` at the
/// top are left out. What vanishes meanwhile is not counted.
pub fn sums(dir: &Path, but: &[&str]) -> (u64, u64) {
    let (mut bytes, mut entries) = (0, 0);
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let left_out = but
                .iter()
                .any(|but| name.to_string_lossy().starts_with(but));
            if at == dir && left_out {
                continue;
            }
            let Ok(meta) = entry.metadata() else {
                continue;
            };
            entries += 1;
            if meta.is_dir() {
                todo.push(entry.path());
            } else {
                bytes += meta.len();
            }
        }
    }
    (bytes, entries)
}

/// Copies a tree: files, links and directories with their modes; `but` names at the top are left
/// out.
///
/// # Errors
/// The first of the system.
pub fn copy(from: &Path, to: &Path, but: &[&str]) -> io::Result<()> {
    let mut todo = vec![(from.to_owned(), to.to_owned())];
    while let Some((source, target)) = todo.pop() {
        fs::create_dir_all(&target)?;
        for entry in fs::read_dir(&source)? {
            let entry = entry?;
            let name = entry.file_name();
            if source == from && but.iter().any(|but| name == *but) {
                continue;
            }
            let (source, target) = (entry.path(), target.join(&name));
            let meta = entry.metadata()?;
            if meta.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
            } else if meta.is_dir() {
                todo.push((source, target));
            } else {
                fs::copy(&source, &target)?;
            }
        }
        fs::set_permissions(&target, fs::metadata(&source)?.permissions())?;
    }
    Ok(())
}

/// Removes a copy that stood for a snapshot, and the directories above it that only it kept: real
/// systems do not list theirs, so that whoever removed the rest removed those as well.
pub fn drop_copy(copy: &Path) {
    let _ = fs::remove_dir_all(copy);
    // The directory of snapshots, and two levels of a folder's number.
    for above in copy.ancestors().skip(1).take(3) {
        if fs::remove_dir(above).is_err() {
            break;
        }
    }
}

/// The inode number of an entry itself, if it is there.
pub fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|meta| meta.ino())
}
