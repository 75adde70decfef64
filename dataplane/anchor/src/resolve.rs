//! Lookups beneath a base directory: one `openat2` where that decides, a walk where not.
//!
//! Laws
//! - The `openat2` refuses links, and is not asked about paths with `..`. So its answer is
//!   about exactly the names in the path, and nobody has to ask where the descriptor ended.
//! - Everything with a link or a `..` in it is walked, which knows where it ended: the
//!   staging directory cannot be reached that way either.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use proxy_core::relpath::STAGING_DIR;
use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::components::{Links, Made, Missing, Place, walk};
use crate::error::Stop;
use crate::stat::Opened;
use crate::sys;

/// A directory below which names are looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base<'a> {
    /// `O_PATH`.
    pub fd: BorrowedFd<'a>,
    /// Canonical.
    pub host: &'a Path,
    /// Never ask `openat2`.
    pub portable: bool,
    /// A name that is not walked through. Paths are checked for it before they come here.
    pub reserved: Option<&'a str>,
}

/// What a lookup found, and where that is below the base.
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub it: T,
    /// Joined names, free of links and `..`; empty at the base.
    pub location: Vec<u8>,
}

/// A directory that holds, or will hold, an entry to act on.
#[derive(Debug)]
pub(crate) struct Parent<'a> {
    /// `None`: the base.
    owned: Option<OwnedFd>,
    base: BorrowedFd<'a>,
    /// Where the entry is or will be, below the base.
    pub location: Vec<u8>,
    /// The directory itself is not there ([`Missing::Keep`]).
    pub lost: bool,
    made: Made,
}

impl Parent<'_> {
    /// Makes its names durable, and those of the directories that were made to get here.
    /// `EACCES`: one of them cannot be read, and so not be synced by itself.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        let made = self.made.sync();
        sys::sync_handle(self)?;
        made
    }
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.owned.as_ref().map_or(self.base, AsFd::as_fd)
    }
}

/// The last component of a path: what an operation on an entry acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last<'p> {
    /// An entry: path of its directory, own name.
    Entry(&'p [u8], &'p [u8]),
    /// The base, or a path that ends in `..`: a directory without a name to act on.
    Nameless,
}

pub(crate) fn split(path: &[u8]) -> Last<'_> {
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b"."[..], path),
    };
    match name {
        b"" | b"." | b".." => Last::Nameless,
        _ => Last::Entry(parent, name),
    }
}

pub(crate) fn has_parent_refs(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|part| part == b"..")
}

/// A path as it is below the base when nothing was followed.
fn as_named(path: &[u8]) -> Vec<u8> {
    if path == b"." {
        Vec::new()
    } else {
        path.to_vec()
    }
}

impl<'a> Base<'a> {
    /// One `openat2`. `None`: it cannot decide, walk instead.
    fn direct(&self, path: &[u8], flags: OFlags) -> Result<Option<OwnedFd>, Errno> {
        if self.portable || has_parent_refs(path) {
            return Ok(None);
        }
        for _ in 0..sys::RACES_MAX {
            match sys::open_beneath(self.fd, path, flags, ResolveFlags::empty()) {
                Ok(fd) => return Ok(Some(fd)),
                Err(Errno::AGAIN) => {}
                // A link; or no openat2, or (EPERM) a sandbox that says so in its own way.
                Err(Errno::LOOP | Errno::XDEV | Errno::NOSYS | Errno::PERM) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
        Ok(None)
    }

    pub(crate) fn is_reserved(&self, name: &[u8]) -> bool {
        self.reserved
            .is_some_and(|reserved| reserved.as_bytes() == name)
    }

    /// The walk, its end checked.
    pub(crate) fn walk(
        &self,
        path: &[u8],
        links: Links,
        missing: Missing,
    ) -> Result<Place<'a>, Stop> {
        let place = walk(self, path, links, missing)?;
        if place.is_reserved() {
            Err(Stop::Reserved)
        } else {
            Ok(place)
        }
    }

    /// An `O_PATH` descriptor of anything.
    pub(crate) fn handle(&self, path: &[u8], links: Links) -> Result<Found<OwnedFd>, Stop> {
        let flags = match links {
            Links::KeepLast => sys::HANDLE | OFlags::NOFOLLOW,
            Links::Follow | Links::Refuse => sys::HANDLE,
        };
        if let Some(it) = self.direct(path, flags)? {
            return Ok(Found {
                it,
                location: as_named(path),
            });
        }
        let place = self.walk(path, links, Missing::Refuse)?;
        let location = place.location();
        Ok(Found {
            it: place.into_handle()?,
            location,
        })
    }

    /// A directory, with `flags` for [`sys::DIR_HANDLE`] or [`sys::DIR_READ`].
    pub(crate) fn dir(&self, path: &[u8], flags: OFlags) -> Result<Found<OwnedFd>, Stop> {
        if let Some(it) = self.direct(path, flags)? {
            return Ok(Found {
                it,
                location: as_named(path),
            });
        }
        let place = self.walk(path, Links::Follow, Missing::Refuse)?;
        if place.tip.is_some() {
            return Err(Errno::NOTDIR.into());
        }
        let it = sys::reopen_dir(place.chain.top(), flags)?;
        Ok(Found {
            it,
            location: place.location(),
        })
    }

    /// Anything, open for reading as far as [`Opened`] promises.
    pub(crate) fn read(&self, path: &[u8], links: Links) -> Result<Found<Opened>, Stop> {
        match self.direct(path, sys::FILE_READ) {
            Ok(Some(fd)) => {
                return Ok(Found {
                    it: sys::settle(fd)?,
                    location: as_named(path),
                });
            }
            Ok(None) => {}
            Err(errno) if only_a_handle(errno) => {}
            Err(errno) => return Err(errno.into()),
        }
        let Found { it, location } = self.handle(path, links)?;
        Ok(Found {
            it: sys::reopen_pinned(it)?,
            location,
        })
    }

    /// As [`Base::read`] with links refused, for callers that must not wait for a disk.
    /// `None`: waiting would be needed, or the answer is not this simple.
    pub(crate) fn read_cached(&self, path: &[u8]) -> Option<Result<Opened, Errno>> {
        match self.cached(path, sys::FILE_READ)? {
            Ok(fd) => sys::settle(fd).ok().map(Ok),
            Err(errno) => Some(Err(errno)),
        }
    }

    /// A descriptor out of the kernel's caches, or the news that they know of no such name.
    pub(crate) fn cached(&self, path: &[u8], flags: OFlags) -> Option<Result<OwnedFd, Errno>> {
        if self.portable || has_parent_refs(path) {
            return None;
        }
        // NO_XDEV: what is mounted below need not be a local file system.
        let rules = ResolveFlags::CACHED | ResolveFlags::NO_XDEV;
        match sys::open_beneath(self.fd, path, flags, rules) {
            Ok(fd) => Some(Ok(fd)),
            Err(Errno::NOENT) => Some(Err(Errno::NOENT)),
            Err(_) => None,
        }
    }

    /// The directory of an entry. Links on the way are followed; the entry is not looked at.
    pub(crate) fn parent(
        &self,
        parent: &[u8],
        name: &[u8],
        missing: Missing,
    ) -> Result<Parent<'a>, Stop> {
        let known = match self.direct_parent(parent)? {
            Known::Walk => return self.walked_parent(parent, name, missing),
            Known::Missing if missing != Missing::Refuse => {
                return self.walked_parent(parent, name, missing);
            }
            Known::Missing => return Err(Errno::NOENT.into()),
            Known::Base => None,
            Known::Dir(fd) => Some(fd),
        };
        let location = below(as_named(parent), name);
        self.entry(Parent {
            owned: known,
            base: self.fd,
            location,
            lost: false,
            made: Made::default(),
        })
    }

    fn direct_parent(&self, parent: &[u8]) -> Result<Known, Errno> {
        if parent == b"." {
            return Ok(Known::Base);
        }
        match self.direct(parent, sys::DIR_HANDLE) {
            Ok(Some(fd)) => Ok(Known::Dir(fd)),
            Ok(None) => Ok(Known::Walk),
            Err(Errno::NOENT) => Ok(Known::Missing),
            Err(errno) => Err(errno),
        }
    }

    fn walked_parent(
        &self,
        parent: &[u8],
        name: &[u8],
        missing: Missing,
    ) -> Result<Parent<'a>, Stop> {
        let mut place = self.walk(parent, Links::Follow, missing);
        for _ in 0..sys::RACES_MAX {
            match place {
                // Where missing ones are made, only somebody who removes them again is left.
                Err(Stop::Errno(Errno::NOENT)) if missing == Missing::Make => {
                    place = self.walk(parent, Links::Follow, missing);
                }
                _ => break,
            }
        }
        let place = place?;
        if place.tip.is_some() {
            return Err(Errno::NOTDIR.into());
        }
        let location = below(place.location(), name);
        let Place {
            chain, lost, made, ..
        } = place;
        let (owned, lost) = (chain.into_top(), !lost.is_empty());
        self.entry(Parent {
            owned,
            base: self.fd,
            location,
            lost,
            made,
        })
    }

    fn entry(&self, parent: Parent<'a>) -> Result<Parent<'a>, Stop> {
        if parent.location == STAGING_DIR.as_bytes() {
            Err(Stop::Reserved)
        } else {
            Ok(parent)
        }
    }
}

enum Known {
    Base,
    Dir(OwnedFd),
    Missing,
    Walk,
}

fn below(mut dir: Vec<u8>, name: &[u8]) -> Vec<u8> {
    if !dir.is_empty() {
        dir.push(b'/');
    }
    dir.extend_from_slice(name);
    dir
}

/// Opening was refused, but a handle may still tell what the thing is: sockets (`ENXIO`),
/// devices without a driver (`ENODEV`) or on a `nodev` mount (`EACCES`), and files that
/// somebody has a lease on (`EAGAIN`, walked and then waited for).
fn only_a_handle(errno: Errno) -> bool {
    matches!(errno, Errno::NXIO | Errno::NODEV | Errno::ACCESS)
}
