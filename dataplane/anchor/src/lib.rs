//! The gate from names to descriptors: everything a client can name is looked up here.
//!
//! A [`VolumeRoot`] is a directory descriptor of a mounted volume, a [`VFolderRoot`] one of a
//! vfolder. Every other name is resolved *beneath* one of them, and what comes out is a
//! descriptor, never a path string to be used again.
//!
//! Laws
//! - Nothing outside the vfolder is opened, made, renamed, removed or revealed, also when
//!   somebody swaps directories and links while we look.
//! - No check-then-use on path strings: a lookup is one `openat2` beneath a descriptor, or a
//!   walk that opens one component at a time with `O_NOFOLLOW`.
//! - `.upload` at the vfolder root belongs to [`staging`] alone.
//! - Opening never blocks on a FIFO or a device, and no error shows a server path.
//! - Every call blocks on the file system, except [`VolumeRoot::vfolder_cached`] and
//!   [`VFolderRoot::open_read_cached`]: run it where waiting is allowed.
//!
//! Kernel: `openat2` (5.6) and `RESOLVE_CACHED` (5.12) are used when they are there. Without
//! the former every lookup takes the walk; without the latter the cached calls answer `None`.
#![forbid(unsafe_code)]

mod abilities;
mod chain;
mod components;
mod dir;
mod error;
mod hidden;
mod listing;
mod resolve;
mod room;
pub mod staging;
mod stat;
mod subvolume;
mod swap;
mod sys;
pub mod tree;
mod vfolder;
mod volume;
pub mod walk;

pub use abilities::Abilities;
pub use dir::{Dir, DirEntry, Entries, FileKind};
pub use error::{AnchorError, Limit, Result};
pub use hidden::{Detached, Hidden};
pub use listing::VFolders;
pub use room::{Quota, Room};
pub use stat::{Opened, Stat};
pub use vfolder::VFolderRoot;
pub use volume::{FsUsage, VolumeRoot};
