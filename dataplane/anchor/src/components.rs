//! A lookup by hand, one component at a time: what `openat2` cannot decide, and everything on
//! kernels without it.
//!
//! Laws
//! - A component is opened with `O_NOFOLLOW` below a descriptor that was reached in the same
//!   way. It holds no `/` and is never `..`, so no step can leave the base, whatever is
//!   renamed meanwhile.
//! - Links are read and their text is walked, at most [`LINKS_MAX`] of them: the kernel's
//!   number, and like there one more is `ELOOP`.
//! - Above the base nothing is opened. An absolute target, or `..` at the base, goes on as
//!   text only, and counts as inside again when it spells the base's own host path.
//!
//! Source: path_resolution(7); Python's `Path.resolve` for what a missing tail means.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Component;

use proxy_core::relpath::STAGING_DIR;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::chain::Chain;
use crate::error::Stop;
use crate::resolve::Base;
use crate::stat::Stat;
use crate::sys;

/// The kernel's limit (`MAXSYMLINKS`).
pub(crate) const LINKS_MAX: u32 = 40;

/// The longest name on every file system that Linux has.
const NAME_BYTES_MAX: usize = 255;

/// What to do with a component that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// `ENOENT`.
    Refuse,
    /// Go on as text.
    Keep,
    /// Make a directory, 0777 through the umask.
    Make,
}

/// What to do with links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// All are followed.
    Follow,
    /// As `Follow`, but a link as the last component is itself the result.
    KeepLast,
    /// `ELOOP`, as with `RESOLVE_NO_SYMLINKS`.
    Refuse,
}

/// Where a walk ended.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub chain: Chain<'a>,
    /// The end, when it is not a directory.
    pub tip: Option<Tip>,
    /// The names below `chain` that are not on disk.
    pub lost: Vec<Vec<u8>>,
    /// What has to be synced for the directories that were made to stay.
    pub made: Made,
}

/// Directories in which names were made.
///
/// They are synced after the names were used, not before: a sync takes long enough for others
/// to remove an empty directory again.
#[derive(Debug, Default)]
pub(crate) struct Made {
    dirs: Vec<OwnedFd>,
    /// One of them cannot be read, and so not be synced by itself.
    unreadable: bool,
}

impl Made {
    /// A deeper new path than this is synced from the top while it is made.
    const HELD_MAX: usize = 32;

    fn note(&mut self, dir: BorrowedFd<'_>) -> Result<(), Errno> {
        if Self::HELD_MAX <= self.dirs.len() {
            sys::sync(self.dirs.remove(0))?;
        }
        match sys::reopen_dir(dir, sys::DIR_READ) {
            Ok(dir) => self.dirs.push(dir),
            Err(Errno::ACCESS) => self.unreadable = true,
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// `EACCES`: one of them cannot be synced by itself, the others have been.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        self.dirs.iter().try_for_each(sys::sync)?;
        if self.unreadable {
            Err(Errno::ACCESS)
        } else {
            Ok(())
        }
    }
}

/// A file, link or special file at the end of a walk.
#[derive(Debug)]
pub(crate) struct Tip {
    pub name: Vec<u8>,
    /// `O_PATH`.
    pub handle: OwnedFd,
}

impl<'a> Place<'a> {
    /// Names from the base to here, joined by `/`; empty at the base.
    pub(crate) fn location(&self) -> Vec<u8> {
        let names: Vec<&[u8]> = self.names().collect();
        names.join(&b'/')
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.names().next() == Some(STAGING_DIR.as_bytes())
    }

    fn names(&self) -> impl Iterator<Item = &[u8]> {
        let tip = self.tip.iter().map(|tip| tip.name.as_slice());
        self.chain
            .names()
            .chain(tip)
            .chain(self.lost.iter().map(Vec::as_slice))
    }

    /// An `O_PATH` descriptor of the end itself.
    pub(crate) fn into_handle(self) -> Result<OwnedFd, Errno> {
        match self.tip {
            Some(tip) => Ok(tip.handle),
            None if self.chain.is_at_base() => sys::reopen_dir(self.chain.top(), sys::HANDLE),
            None => self.chain.into_top().ok_or(Errno::NOENT),
        }
    }
}

/// Walks `path` from `base`.
pub(crate) fn walk<'a>(
    base: &Base<'a>,
    path: &[u8],
    links: Links,
    missing: Missing,
) -> Result<Place<'a>, Stop> {
    let place = Place {
        chain: Chain::new(base.fd),
        tip: None,
        lost: Vec::new(),
        made: Made::default(),
    };
    let host = base.host.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.as_bytes()),
        _ => None,
    });
    let mut walker = Walker {
        place,
        todo: Vec::new(),
        host: host.collect(),
        above: 0,
        followed: 0,
        races: 0,
        base,
        links,
        missing,
    };
    walker.queue(path);
    while let Some(part) = walker.todo.pop() {
        walker.step(part)?;
    }
    if walker.above > 0 {
        return Err(Stop::Escapes);
    }
    Ok(walker.place)
}

struct Walker<'a, 'h> {
    place: Place<'a>,
    /// Components still to go, the next one last.
    todo: Vec<Vec<u8>>,
    host: Vec<&'h [u8]>,
    /// Levels above the base, as text; 0..=host.len(). Above 0, `chain` stands at the base.
    above: usize,
    followed: u32,
    races: u32,
    base: &'h Base<'a>,
    links: Links,
    missing: Missing,
}

impl Walker<'_, '_> {
    fn queue(&mut self, path: &[u8]) {
        if path.ends_with(b"/") {
            // "file/" is not the file: the dot asks for a directory.
            self.todo.push(b".".to_vec());
        }
        let parts = path
            .split(|byte| *byte == b'/')
            .rev()
            .filter(|part| !part.is_empty());
        self.todo.extend(parts.map(<[u8]>::to_vec));
    }

    fn step(&mut self, part: Vec<u8>) -> Result<(), Stop> {
        if self.place.tip.is_some() {
            return Err(Errno::NOTDIR.into());
        }
        match part.as_slice() {
            b"." => Ok(()),
            b".." => self.up(),
            _ if self.above > 0 => self.back_in(&part),
            // A link leads there.
            _ if self.base.is_reserved(&part) => Err(Stop::Reserved),
            _ if !self.place.lost.is_empty() => self.keep(part),
            _ => self.down(part),
        }
    }

    fn up(&mut self) -> Result<(), Stop> {
        if self.above > 0 || (self.place.lost.pop().is_none() && !self.place.chain.pop()?) {
            // "/.." is "/".
            self.above = (self.above + 1).min(self.host.len());
        }
        Ok(())
    }

    fn back_in(&mut self, part: &[u8]) -> Result<(), Stop> {
        assert!(self.place.chain.is_at_base());
        assert!(self.above <= self.host.len());
        if self.host[self.host.len() - self.above] != part {
            return Err(Stop::Escapes);
        }
        self.above -= 1;
        Ok(())
    }

    fn down(&mut self, part: Vec<u8>) -> Result<(), Stop> {
        // As a directory first: it is the common case, and the flag makes the kernel mount
        // what is mounted on demand.
        let flags = sys::DIR_HANDLE | OFlags::NOFOLLOW;
        match sys::open(self.place.chain.top(), &part, flags) {
            Ok(fd) => {
                self.place.chain.push(part, fd);
                Ok(())
            }
            Err(Errno::NOTDIR | Errno::LOOP) => self.down_to_other(part),
            Err(Errno::NOENT) => self.absent(part),
            Err(errno) => Err(errno.into()),
        }
    }

    fn down_to_other(&mut self, part: Vec<u8>) -> Result<(), Stop> {
        let handle = match sys::open(
            self.place.chain.top(),
            &part,
            sys::HANDLE | OFlags::NOFOLLOW,
        ) {
            Err(Errno::NOENT) => return self.absent(part),
            handle => handle?,
        };
        let stat = Stat::of(&handle)?;
        let keep = self.links == Links::KeepLast && self.todo.is_empty();
        match stat.kind() {
            FileType::Directory => self.place.chain.push(part, handle),
            FileType::Symlink if !keep => return self.follow(handle.as_fd()),
            _ => self.place.tip = Some(Tip { name: part, handle }),
        }
        Ok(())
    }

    fn follow(&mut self, link: BorrowedFd<'_>) -> Result<(), Stop> {
        self.followed += 1;
        if self.links == Links::Refuse || LINKS_MAX < self.followed {
            return Err(Errno::LOOP.into());
        }
        let target = sys::readlink(link, b"")?;
        if target.is_empty() {
            return Err(Errno::NOENT.into());
        }
        if target.starts_with(b"/") {
            self.place.chain.clear();
            self.above = self.host.len();
        }
        self.queue(&target);
        Ok(())
    }

    fn absent(&mut self, part: Vec<u8>) -> Result<(), Stop> {
        match self.missing {
            Missing::Refuse => Err(Errno::NOENT.into()),
            Missing::Keep => self.keep(part),
            Missing::Make => self.make(part),
        }
    }

    fn keep(&mut self, part: Vec<u8>) -> Result<(), Stop> {
        if self.missing != Missing::Keep {
            return Err(Errno::NOENT.into());
        }
        if NAME_BYTES_MAX < part.len() {
            return Err(Errno::NAMETOOLONG.into());
        }
        self.place.lost.push(part);
        Ok(())
    }

    /// Makes the directory and walks into it, or into what somebody else made meanwhile.
    fn make(&mut self, part: Vec<u8>) -> Result<(), Stop> {
        let first = self.place.chain.names().next().unwrap_or(&part);
        if first == STAGING_DIR.as_bytes() {
            return Err(Stop::Reserved);
        }
        self.races += 1;
        if sys::RACES_MAX < self.races {
            return Err(Errno::AGAIN.into());
        }
        match sys::mkdir(self.place.chain.top(), &part, 0o777) {
            Ok(()) => self.place.made.note(self.place.chain.top())?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.todo.push(part);
        Ok(())
    }
}
