//! How much room a quota scope has, as the file system under it says.
//!
//! File systems refuse a write past a quota with ENOSPC or EDQUOT, as they like, and the refusal
//! may come late, at the sync. Which limit was hit, the scope's or the volume's, is told from
//! the numbers.
//!
//! Laws
//! - Needs no rights: project quotas show in statvfs(2) of a directory, also over NFS; CephFS
//!   has attributes, btrfs has sysfs.
//! - A quota that the file system does not show is no quota here.

use proxy_core::id::QuotaScopeId;
use rustix::fs::StatVfs;
use rustix::io::Errno;

use crate::error::{AnchorError, Result};
use crate::subvolume;
use crate::sys;
use crate::volume::VolumeRoot;

/// A quota of a scope is at most 63/64 of the volume: file systems that count dynamically differ
/// a little from call to call.
const NOISE_SHIFT: u32 = 6;
/// Text of a CephFS number; 20 digits hold any.
const NUMBER_BYTES_MAX: usize = 32;

/// What a scope may use, and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes that may be used.
    pub limit_bytes: u64,
}

impl Quota {
    /// Bytes that may still come.
    pub const fn left_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes)
    }
}

/// How much can be written into a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The quota, where the file system shows one.
    pub quota: Option<Quota>,
    /// Free bytes of the whole volume.
    pub free_bytes: u64,
}

impl Room {
    /// The quota that stands in the way of `bytes` more.
    pub fn refuses(&self, bytes: u64) -> Option<Quota> {
        self.quota.filter(|quota| quota.left_bytes() < bytes)
    }

    /// Whether the quota is what ends first: then it is why a write was refused for space.
    pub fn ends_with_quota(&self) -> Option<Quota> {
        self.quota
            .filter(|quota| quota.left_bytes() <= self.free_bytes)
    }
}

impl VolumeRoot {
    /// The room of a scope, or of the volume for folders without one.
    pub fn room(&self, scope: Option<&QuotaScopeId>) -> Result<Room> {
        let os = |errno| AnchorError::os("statvfs", errno, b".");
        let volume = sys::retry(|| rustix::fs::fstatvfs(self.handle())).map_err(os)?;
        let mut room = Room {
            quota: None,
            free_bytes: volume.f_frsize.saturating_mul(volume.f_bavail),
        };
        let Some(scope) = scope else {
            return Ok(room);
        };
        let dir = self.open_scope(Some(scope))?;
        room.quota = match ceph_number(&dir, LIMIT).map_err(os)? {
            Some(0) => None,
            Some(limit_bytes) => Some(Quota {
                used_bytes: ceph_number(&dir, USED).map_err(os)?.unwrap_or(0),
                limit_bytes,
            }),
            None => {
                let within = sys::retry(|| rustix::fs::fstatvfs(&dir)).map_err(os)?;
                match narrower(&volume, &within) {
                    None => subvolume::quota(&dir.metadata()?, &within),
                    quota => quota,
                }
            }
        };
        Ok(room)
    }
}

const LIMIT: &std::ffi::CStr = c"ceph.quota.max_bytes";
const USED: &std::ffi::CStr = c"ceph.dir.rbytes";

/// A virtual attribute of CephFS; `None` where there is none, such as on any other file system.
fn ceph_number(
    dir: impl std::os::fd::AsFd,
    name: &std::ffi::CStr,
) -> std::result::Result<Option<u64>, Errno> {
    let mut text = [0_u8; NUMBER_BYTES_MAX];
    match sys::retry(|| rustix::fs::fgetxattr(&dir, name, &mut text[..])) {
        Ok(length) => {
            let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
            Ok(text.trim().parse().ok())
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
            Ok(None)
        }
        Err(errno) => Err(errno),
    }
}

/// The quota that a directory shows when its file system looks smaller from there.
fn narrower(volume: &StatVfs, within: &StatVfs) -> Option<Quota> {
    let bytes = |fs: &StatVfs, blocks: u64| fs.f_frsize.saturating_mul(blocks);
    let whole = bytes(volume, volume.f_blocks);
    let limit_bytes = bytes(within, within.f_blocks);
    (limit_bytes < whole - (whole >> NOISE_SHIFT)).then(|| Quota {
        used_bytes: limit_bytes.saturating_sub(bytes(within, within.f_bavail)),
        limit_bytes,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_limit_that_ends_first_is_the_one_that_was_hit() {
        let quota = Quota {
            used_bytes: 70,
            limit_bytes: 100,
        };
        let room = |free_bytes| Room {
            quota: Some(quota),
            free_bytes,
        };
        for (free_bytes, hit) in [(31, true), (30, true), (29, false), (0, false)] {
            let ends = room(free_bytes).ends_with_quota().is_some();
            assert_eq!(ends, hit, "{free_bytes} bytes free on the volume");
        }
        assert_eq!(room(0).refuses(30), None);
        assert_eq!(room(0).refuses(31), Some(quota));
        let over = Quota {
            used_bytes: 120,
            limit_bytes: 100,
        };
        assert_eq!(over.left_bytes(), 0);
    }

    #[test]
    fn a_directory_without_a_quota_shows_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = VolumeRoot::open(dir.path()).unwrap();
        let scope = QuotaScopeId::parse("user:11111111-2222-3333-4444-555555555555").unwrap();
        assert!(root.room(Some(&scope)).unwrap_err().is_not_found());
        root.create_scope(&scope).unwrap();
        assert_eq!(root.room(Some(&scope)).unwrap().quota, None);
        assert_eq!(root.room(None).unwrap().quota, None);
    }
}
