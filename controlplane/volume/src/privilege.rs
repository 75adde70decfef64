//! The right to read and set limits of projects, which the kernel gives to CAP_SYS_ADMIN alone.
//!
//! A server that has the capability asks the kernel itself; one that gave it up asks a helper
//! process that kept it.

use std::io;
use std::os::fd::BorrowedFd;

use proxy_ring::quota;
pub use proxy_ring::quota::ProjectQuota;

/// Who asks the kernel about limits of projects. Every call blocks.
pub trait QuotaPrivilege: Send + Sync {
    /// What a project uses and may use, on the file system of `place`.
    ///
    /// # Errors
    /// `EPERM` without the right, and those of the system.
    fn project_quota(&self, place: BorrowedFd<'_>, project: u32) -> io::Result<ProjectQuota>;

    /// The first project from `project` on of which the file system knows anything.
    ///
    /// # Errors
    /// As [`Self::project_quota`].
    fn next_project_quota(
        &self,
        place: BorrowedFd<'_>,
        project: u32,
    ) -> io::Result<Option<ProjectQuota>>;

    /// Holds a project to so many bytes; 0 lifts the limit.
    ///
    /// # Errors
    /// As [`Self::project_quota`].
    fn set_project_limit(
        &self,
        place: BorrowedFd<'_>,
        project: u32,
        limit_bytes: u64,
    ) -> io::Result<()>;
}

/// This process, by its own capability.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnRight;

impl QuotaPrivilege for OwnRight {
    fn project_quota(&self, place: BorrowedFd<'_>, project: u32) -> io::Result<ProjectQuota> {
        quota::project_quota(place, project)
    }

    fn next_project_quota(
        &self,
        place: BorrowedFd<'_>,
        project: u32,
    ) -> io::Result<Option<ProjectQuota>> {
        quota::next_project_quota(place, project)
    }

    fn set_project_limit(
        &self,
        place: BorrowedFd<'_>,
        project: u32,
        limit_bytes: u64,
    ) -> io::Result<()> {
        quota::set_project_limit(place, project, limit_bytes)
    }
}
