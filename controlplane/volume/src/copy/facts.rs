//! What a file says about itself, taken from one and given to its copy.
//!
//! Laws
//! - `user.*` attributes and POSIX ACLs travel; `security.*` and `trusted.*` are the host's.
//! - An attribute that the destination cannot hold is left out: the original did so too.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use rustix::fs::{
    Mode, Timespec, Timestamps, XattrFlags, fchmod, fgetxattr, flistxattr, flistxattr_query,
    fsetxattr, fstat, futimens,
};
use rustix::io::Errno;

use crate::error::VolumeError;

/// Names and values of all attributes of one file at most; the kernel's limit for each.
const XATTR_BYTES_MAX: usize = 64 * 1024;
/// Set-user and set-group bits.
const SET_ID_BITS: u32 = 0o6000;
const PERMISSION_BITS: u32 = 0o7777;
const ACCESS_BITS: u32 = 0o777;
const OWNER_BITS: u32 = 0o600;

/// Mode, times, owner and attributes.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    mode: u32,
    owner: (u32, u32),
    times: Option<Timestamps>,
    xattrs: Vec<(CString, Vec<u8>)>,
}

impl Facts {
    /// The facts of an open file or directory.
    pub(crate) fn of(file: impl AsFd) -> Result<Self, VolumeError> {
        let file = file.as_fd();
        let stat = fstat(file).map_err(|errno| VolumeError::os("stat", errno))?;
        let time = |tv_sec: i64, tv_nsec: u64| Timespec {
            tv_sec,
            // 0..1_000_000_000 fits every integer.
            tv_nsec: tv_nsec as rustix::fs::Nsecs,
        };
        Ok(Self {
            mode: stat.st_mode & PERMISSION_BITS,
            owner: (stat.st_uid, stat.st_gid),
            times: Some(Timestamps {
                last_access: time(stat.st_atime, stat.st_atime_nsec),
                last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
            }),
            xattrs: xattrs(file)?,
        })
    }

    /// What a copy is created with, so that it most often need not be changed: never less than
    /// its owner needs to fill it, no set-user or set-group bits.
    pub(crate) fn mode_at_first(&self) -> u32 {
        (self.mode & ACCESS_BITS) | OWNER_BITS
    }

    /// Gives the facts to a directory, whose content must have been copied before.
    pub(crate) fn apply(&self, copy: impl AsFd) -> Result<(), VolumeError> {
        self.apply_as(copy.as_fd(), Some(self.mode))
    }

    /// As [`Self::apply`], for files: the right to act as the owner does not go to a new owner.
    pub(crate) fn apply_to_file(&self, copy: impl AsFd) -> Result<(), VolumeError> {
        let copy = copy.as_fd();
        let stat = fstat(copy).map_err(|errno| VolumeError::os("stat", errno))?;
        let same_owner = (stat.st_uid, stat.st_gid) == self.owner;
        let mode = if same_owner {
            self.mode
        } else {
            self.mode & !SET_ID_BITS
        };
        let has_it = self.xattrs.is_empty() && stat.st_mode & PERMISSION_BITS == mode;
        self.apply_as(copy, (!has_it).then_some(mode))
    }

    fn apply_as(&self, copy: impl AsFd, mode: Option<u32>) -> Result<(), VolumeError> {
        let copy = copy.as_fd();
        for (name, value) in &self.xattrs {
            match fsetxattr(copy, name.as_c_str(), value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM | Errno::ACCESS) => {}
                Err(errno) => return Err(VolumeError::os("set attribute", errno)),
            }
        }
        if let Some(mode) = mode {
            fchmod(copy, Mode::from_raw_mode(mode))
                .map_err(|errno| VolumeError::os("chmod", errno))?;
        }
        let Some(times) = &self.times else {
            return Ok(());
        };
        futimens(copy, times).map_err(|errno| VolumeError::os("set times", errno))
    }
}

fn xattrs(file: impl AsFd) -> Result<Vec<(CString, Vec<u8>)>, VolumeError> {
    let file = file.as_fd();
    // Nearly every file has none; asking for the length alone needs no buffer.
    let length = match flistxattr_query(file) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::ACCESS) => {
            return Ok(Vec::new());
        }
        Ok(length) => length.min(XATTR_BYTES_MAX),
        Err(errno) => return Err(VolumeError::os("list attributes", errno)),
    };
    let mut list = vec![0; length];
    let got = match flistxattr(file, &mut list[..]) {
        Ok(got) => got,
        // Somebody added one meanwhile.
        Err(Errno::RANGE) => return Ok(Vec::new()),
        Err(errno) => return Err(VolumeError::os("list attributes", errno)),
    };
    let mut found = Vec::new();
    for name in list[..got].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        if !travels(name.to_bytes()) {
            continue;
        }
        let mut value = vec![0; XATTR_BYTES_MAX];
        match fgetxattr(file, name, &mut value[..]) {
            Ok(bytes) => value.truncate(bytes),
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => continue,
            Err(errno) => return Err(VolumeError::os("read attribute", errno)),
        }
        value.shrink_to_fit();
        found.push((name.to_owned(), value));
    }
    Ok(found)
}

fn travels(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")
}
