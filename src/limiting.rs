//! The right to limit projects, by way of the keeper: for a server that has given up root's rights.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proxy_mount::protocol::{Task, Told};
use proxy_mount::{Client, ClientError};
use proxy_volume::{OwnRight, ProjectQuota, QuotaPrivilege, Spec};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};
use tokio::runtime::Handle;

/// How long the keeper may take for one call of the kernel.
const LIMIT: Duration = Duration::from_secs(10);

/// The way to the keeper, once there is one.
#[derive(Clone, Default)]
pub struct Way(Arc<OnceLock<(Client, Handle)>>);

impl Way {
    /// Lets everybody who waits for it use the keeper; called inside a runtime.
    pub fn open(&self, keeper: &Client) {
        let _ = self.0.set((keeper.clone(), Handle::current()));
    }

    /// What asks for the limits of a volume: this process, if it has the right.
    pub fn right(&self, spec: &Spec, keeper_comes: bool) -> Arc<dyn QuotaPrivilege> {
        let sets = capabilities(None);
        let own = sets.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
        if own || !keeper_comes {
            return Arc::new(OwnRight);
        }
        Arc::new(Kept {
            way: self.clone(),
            volume: spec.path.clone(),
        })
    }
}

/// The keeper's right, for one volume.
struct Kept {
    way: Way,
    volume: PathBuf,
}

impl Kept {
    /// Blocks, on a thread that may.
    fn ask(&self, task: Task) -> io::Result<Option<ProjectQuota>> {
        let Some((keeper, runtime)) = self.way.0.get() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let text = runtime.block_on(keeper.run(task, LIMIT)).map_err(|error| {
            tracing::error!(%error, "the keeper does not limit projects");
            match error {
                ClientError::Busy(_) | ClientError::Late => Errno::AGAIN.into(),
                _ => io::Error::from(Errno::PERM),
            }
        })?;
        let told: Told = serde_json::from_str(&text)?;
        match told.errno {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(told
                .quota
                .map(|(project, used_bytes, limit_bytes)| ProjectQuota {
                    project,
                    used_bytes,
                    limit_bytes,
                })),
        }
    }
}

impl QuotaPrivilege for Kept {
    fn project_quota(&self, _: BorrowedFd<'_>, project: u32) -> io::Result<ProjectQuota> {
        let target = self.volume.clone();
        let told = self.ask(Task::ProjectQuota { target, project })?;
        told.ok_or_else(|| Errno::IO.into())
    }

    fn next_project_quota(
        &self,
        _: BorrowedFd<'_>,
        project: u32,
    ) -> io::Result<Option<ProjectQuota>> {
        let target = self.volume.clone();
        self.ask(Task::NextProjectQuota { target, project })
    }

    fn set_project_limit(
        &self,
        _: BorrowedFd<'_>,
        project: u32,
        limit_bytes: u64,
    ) -> io::Result<()> {
        let target = self.volume.clone();
        let task = Task::SetProjectLimit {
            target,
            project,
            limit_bytes,
        };
        self.ask(task).map(drop)
    }
}
