//! Numbers of projects without a fleet: claims in a directory of the volume.
//!
//! Laws
//! - A number is claimed by making a file of its name, which only one can do; it counts if no
//!   higher one is there by then. The highest claim always stays, so no number comes twice.
//! - Locks are not used: not every mount of Lustre has them.

use std::ffi::{OsStr, OsString};

use proxy_anchor::{Dir, VolumeRoot};
use rustix::io::Errno;

use super::NOTE;
use crate::error::VolumeError;

/// Holds the claims, at the mount point.
const CLAIMS: &str = ".project-ids";
/// The first number of all, as with the original's counter.
const FIRST: u32 = 101;
/// How often others may be faster.
const TRIES_MAX: usize = 1000;

/// A number that nobody has.
///
/// # Errors
/// Those of the system.
pub(super) fn draw(root: &VolumeRoot) -> Result<u32, VolumeError> {
    let top = root.open_scope(None)?;
    match top.mkdir(OsStr::new(CLAIMS), 0o755) {
        Err(error) if error.errno() != Some(Errno::EXIST.raw_os_error()) => {
            return Err(error.into());
        }
        _ => {}
    }
    let mut claims = top.open_dir(OsStr::new(CLAIMS))?;
    for _ in 0..TRIES_MAX {
        let highest = match claimed(&mut claims)?.into_iter().max() {
            Some(highest) => highest,
            None => noted(root)?,
        };
        let mine = highest.saturating_add(1).max(FIRST);
        let name = OsString::from(mine.to_string());
        match claims.create_file(&name, 0o644) {
            Err(error) if error.errno() == Some(Errno::EXIST.raw_os_error()) => continue,
            made => drop(made?),
        }
        let all = claimed(&mut claims)?;
        if all.iter().any(|other| *other > mine) {
            continue;
        }
        claims.sync()?;
        for old in all.into_iter().filter(|old| *old < mine) {
            // Whoever is faster removes it.
            let _ = claims.unlink(OsStr::new(&old.to_string()));
        }
        return Ok(mine);
    }
    Err(VolumeError::Busy)
}

fn claimed(claims: &mut Dir) -> Result<Vec<u32>, VolumeError> {
    let mut all = Vec::new();
    for entry in claims.entries() {
        all.extend(
            entry?
                .name
                .to_str()
                .and_then(|name| name.parse::<u32>().ok()),
        );
    }
    Ok(all)
}

/// The highest number that any scope has: scopes may be older than the claims.
fn noted(root: &VolumeRoot) -> Result<u32, VolumeError> {
    let mut highest = 0;
    let mut top = root.open_scope(None)?;
    let mut names = Vec::new();
    for entry in top.entries() {
        names.push(entry?.name);
    }
    for name in names {
        let opened = top
            .open_dir(&name)
            .and_then(|scope| scope.open_file(OsStr::new(NOTE)));
        let Ok(opened) = opened else { continue };
        let mut text = [0; 16];
        let got = rustix::io::pread(&opened.fd, &mut text, 0).unwrap_or(0);
        let text = std::str::from_utf8(&text[..got]).unwrap_or_default();
        highest = highest.max(text.trim().parse().unwrap_or(0));
    }
    Ok(highest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_come_once_and_begin_above_those_of_old_scopes() {
        let dir = tempfile::tempdir().unwrap();
        let root = VolumeRoot::open(dir.path()).unwrap();
        let takers: Vec<_> = (0..8)
            .map(|_| {
                let root = root.clone();
                let draw = move || (0..20).map(|_| draw(&root).unwrap()).collect::<Vec<_>>();
                std::thread::spawn(draw)
            })
            .collect();
        let taken = takers.into_iter().map(|taker| taker.join().unwrap());
        let mut taken = taken.flatten().collect::<Vec<_>>();
        taken.sort_unstable();
        let all = taken.len();
        taken.dedup();
        assert_eq!((taken.len(), taken[0]), (all, FIRST));

        let dir = tempfile::tempdir().unwrap();
        let scope = dir.path().join("11111111222233334444555555555555");
        std::fs::create_dir(&scope).unwrap();
        std::fs::write(scope.join(NOTE), "512\n").unwrap();
        let root = VolumeRoot::open(dir.path()).unwrap();
        let drawn = [draw(&root).unwrap(), draw(&root).unwrap()];
        assert_eq!(drawn, [513, 514]);
    }
}
