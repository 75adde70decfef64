//! Project quotas of XFS, ext4 and F2FS: the system calls that no safe crate has.
//!
//! A file carries the number of its project, and a directory hands it on to what is made in it
//! (FS_IOC_FSSETXATTR). The file system counts the blocks of each project and holds it to a limit
//! (quotactl_fd, Linux 5.14). Any descriptor on the file system will do, no device is named.
//!
//! Law: bytes here, whatever unit the kernel counts in.
//!
//! Source: `linux/fs.h`, `linux/dqblk_xfs.h`, quotactl(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What an inode says about its project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectTag {
    /// Number of the project; 0 is none.
    pub project: u32,
    /// What is made in this directory belongs to the project too.
    pub inherited: bool,
}

/// What a project uses and may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectQuota {
    /// Number of the project.
    pub project: u32,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes that may be used; 0 is no limit.
    pub limit_bytes: u64,
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FsXattr {
    xflags: u32,
    extent_bytes: u32,
    extents: u32,
    project: u32,
    cow_extent_bytes: u32,
    pad: [u8; 8],
}
const _: () = assert!(size_of::<FsXattr>() == 28);

const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
const FS_IOC_FSSETXATTR: libc::Ioctl = 0x401c_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

/// `struct fs_disk_quota`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    field_mask: u16,
    id: u32,
    block_hard_limit: u64,
    block_soft_limit: u64,
    inode_hard_limit: u64,
    inode_soft_limit: u64,
    block_count: u64,
    inode_count: u64,
    timers_and_warnings: [u32; 4],
    realtime: [u64; 3],
    realtime_timers: [u32; 2],
    pad: [u8; 8],
}
const _: () = assert!(size_of::<DiskQuota>() == 112);

/// `struct fs_quota_statv`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct QuotaState {
    version: i8,
    pad: u8,
    flags: u16,
    in_core: u32,
    files: [[u64; 3]; 3],
    limits_and_pad: [u64; 10],
}
const _: () = assert!(size_of::<QuotaState>() == 160);

const FS_DQUOT_VERSION: i8 = 1;
const FS_QSTATV_VERSION: i8 = 1;
const FS_PROJ_QUOTA: i8 = 2;
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;
const SOFT_AND_HARD: u16 = (1 << 2) | (1 << 3);
/// `fs_disk_quota` counts in basic blocks, whatever the block size of the file system.
const BASIC_BLOCK_BYTES: u64 = 512;

/// The largest limit. The kernel makes bytes of blocks in 64 bits without a look (`quota_bbtob`):
/// 2^64 would be none at all; and ext4 refuses from 2^63 on. A whole page less, so that no file
/// system rounds it up to that.
pub const LIMIT_BYTES_MAX: u64 = (1 << 63) - 4096;

const PRJQUOTA: u32 = 2;
const Q_XGETQUOTA: u32 = 0x5803;
const Q_XSETQLIM: u32 = 0x5804;
const Q_XGETQSTATV: u32 = 0x5808;
const Q_XGETNEXTQUOTA: u32 = 0x5809;

/// The project of an open file or directory.
///
/// # Errors
/// `ENOTTY` where the file system has no projects, such as over NFS.
pub fn project_tag(file: impl AsFd) -> io::Result<ProjectTag> {
    let attributes = attributes(&file)?;
    Ok(ProjectTag {
        project: attributes.project,
        inherited: attributes.xflags & FS_XFLAG_PROJINHERIT != 0,
    })
}

/// Puts an open file or directory into a project; what lies in it stays where it was. Its other
/// attributes are kept.
///
/// # Errors
/// `EPERM` for an inode of somebody else, `ENOTTY` or `EOPNOTSUPP` without projects.
pub fn set_project_tag(file: impl AsFd, tag: ProjectTag) -> io::Result<()> {
    let mut attributes = attributes(&file)?;
    attributes.project = tag.project;
    attributes.xflags &= !FS_XFLAG_PROJINHERIT;
    if tag.inherited {
        attributes.xflags |= FS_XFLAG_PROJINHERIT;
    }
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the kernel reads one `fsxattr`, which lives until the call returns and has the
    // kernel's layout (its size is part of the request's number). Broken by: another struct.
    let result = unsafe { libc::ioctl(fd, FS_IOC_FSSETXATTR, &raw const attributes) };
    checked(result.into())
}

fn attributes(file: impl AsFd) -> io::Result<FsXattr> {
    let mut attributes = FsXattr::default();
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the kernel writes one `fsxattr`, which lives until the call returns and has the
    // kernel's layout (its size is part of the request's number). Broken by: another struct.
    let result = unsafe { libc::ioctl(fd, FS_IOC_FSGETXATTR, &raw mut attributes) };
    checked(result.into()).map(|()| attributes)
}

/// Whether the file system was mounted with project quotas that are held. Needs no rights.
///
/// # Errors
/// Those of the system, beside `ENOSYS`, `EINVAL` and `ESRCH`, which mean no.
pub fn holds_project_quotas(file: impl AsFd) -> io::Result<bool> {
    let mut state = QuotaState {
        version: FS_QSTATV_VERSION,
        ..QuotaState::default()
    };
    match control(file, Q_XGETQSTATV, 0, &mut state) {
        Ok(()) => Ok(state.flags & FS_QUOTA_PDQ_ENFD != 0),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EINVAL | libc::ESRCH) => Ok(false),
            _ => Err(error),
        },
    }
}

/// What a project uses; an unknown project uses nothing.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENOSYS` without quotas or before Linux 5.14.
pub fn project_quota(file: impl AsFd, project: u32) -> io::Result<ProjectQuota> {
    let mut quota = DiskQuota::default();
    match control(file, Q_XGETQUOTA, project, &mut quota) {
        Ok(()) => Ok(numbers(&quota)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(ProjectQuota {
            project,
            used_bytes: 0,
            limit_bytes: 0,
        }),
        Err(error) => Err(error),
    }
}

/// The first project from `project` on of which the file system knows anything.
///
/// # Errors
/// As [`project_quota`].
pub fn next_project_quota(file: impl AsFd, project: u32) -> io::Result<Option<ProjectQuota>> {
    let mut quota = DiskQuota::default();
    match control(file, Q_XGETNEXTQUOTA, project, &mut quota) {
        Ok(()) => Ok(Some(numbers(&quota))),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Holds a project to so many bytes, rounded up to what the file system counts in; 0 lifts the
/// limit, and more than [`LIMIT_BYTES_MAX`] is that.
///
/// # Errors
/// As [`project_quota`]; `ERANGE` for what an old quota file of ext4 can not hold (4 TiB).
pub fn set_project_limit(file: impl AsFd, project: u32, limit_bytes: u64) -> io::Result<()> {
    let blocks = blocks(limit_bytes);
    let mut quota = DiskQuota {
        version: FS_DQUOT_VERSION,
        flags: FS_PROJ_QUOTA,
        field_mask: SOFT_AND_HARD,
        id: project,
        block_hard_limit: blocks,
        block_soft_limit: blocks,
        ..DiskQuota::default()
    };
    control(file, Q_XSETQLIM, project, &mut quota)
}

/// Basic blocks for a limit, rounded up: never less than what was asked for, never none for some.
const fn blocks(limit_bytes: u64) -> u64 {
    let bounded = if LIMIT_BYTES_MAX < limit_bytes {
        LIMIT_BYTES_MAX
    } else {
        limit_bytes
    };
    bounded.div_ceil(BASIC_BLOCK_BYTES)
}

fn numbers(quota: &DiskQuota) -> ProjectQuota {
    let bytes = |blocks: u64| blocks.saturating_mul(BASIC_BLOCK_BYTES);
    ProjectQuota {
        project: quota.id,
        used_bytes: bytes(quota.block_count),
        limit_bytes: bytes(quota.block_hard_limit),
    }
}

/// What one of the commands here reads or writes.
///
/// Law: plain numbers in the kernel's layout, valid with any bytes.
trait Record {}
impl Record for DiskQuota {}
impl Record for QuotaState {}

fn control<R: Record>(file: impl AsFd, command: u32, id: u32, record: &mut R) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    let command = (command << 8) | PRJQUOTA;
    // SAFETY: for each command used here the kernel reads or writes at most one record of the
    // type that its caller passes, whose sizes are asserted above; it lives until the call
    // returns. Broken by: a command with the other's record.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            fd,
            command,
            id,
            std::ptr::from_mut(record),
        )
    };
    checked(result)
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn limits_become_blocks_that_hold_them() {
        let most = LIMIT_BYTES_MAX / BASIC_BLOCK_BYTES;
        for (bytes, want) in [
            (0, 0),
            (1, 1),
            (511, 1),
            (512, 1),
            (513, 2),
            (1 << 20, 2048),
            ((1 << 20) + 1, 2049),
            (1 << 50, 1 << 41),
            (LIMIT_BYTES_MAX - 1, most),
            (LIMIT_BYTES_MAX, most),
            (LIMIT_BYTES_MAX + 1, most),
            (i64::MAX as u64, most),
            (u64::MAX, most),
        ] {
            assert_eq!(blocks(bytes), want, "{bytes} bytes");
            // What the kernel makes of it.
            let told = blocks(bytes) << 9;
            assert!(
                bytes.min(LIMIT_BYTES_MAX) <= told && told < 1 << 63,
                "{bytes}"
            );
        }
    }

    /// Where there are quotas, the tests on real file systems say more.
    #[test]
    fn a_directory_without_quotas_says_so() {
        let dir = std::fs::File::open("/proc").unwrap();
        assert!(!holds_project_quotas(&dir).unwrap());
        let refusals = [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::ESRCH];
        let refused = |error: io::Error| refusals.contains(&error.raw_os_error().unwrap_or(0));
        assert!(project_quota(&dir, 1).is_err_and(refused));
        assert!(next_project_quota(&dir, 1).is_err_and(refused));
        assert!(set_project_limit(&dir, 1, 4096).is_err_and(refused));
        let tag = project_tag(&dir).map_err(|error| error.raw_os_error());
        assert!(
            matches!(tag, Err(Some(libc::ENOTTY | libc::EOPNOTSUPP))),
            "{tag:?}"
        );
    }
}
