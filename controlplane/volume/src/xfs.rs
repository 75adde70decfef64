//! XFS, ext4 and F2FS with project quotas: a scope is a project.
//!
//! The scope's directory carries the number of its project, in the file system itself; the kernel
//! counts and limits. No program is run, and `/etc/projects` is kept for people only.
//!
//! Laws
//! - A scope that was made is whole: its directory inherits a project that has a limit. What a
//!   crash left halfway, and what another backend made, the next call adopts by one walk.
//! - Numbers are given out under a lock, and never one that the file system, a directory of the
//!   volume or the project files know.
//! - The limit is one number: soft and hard.
//!
//! Source: xfs(5), quotactl(2); the original's commands of `xfs_quota`.

mod adopt;
mod files;
mod projects;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use proxy_anchor::VolumeRoot;
use proxy_core::id::QuotaScopeId;
use rustix::io::Errno;
use tokio::sync::OnceCell;

use crate::backend::{Backend, ScopeQuota};
use crate::capability::Kind;
use crate::control::Control;
use crate::error::VolumeError;
use crate::limits::Limits;
use crate::privilege::QuotaPrivilege;
use crate::tree::Tree;
use crate::vendor::options::{BackendOption, OptionKind, Options, optional};
use crate::vfs::Vfs;
use crate::volumes::{Spec, SpecError};

use files::ProjectFiles;
use projects::{Found, Projects};

/// What is the name of a volume's quotas in errors.
const SYSTEM: &str = "project quota";

/// How a volume with project quotas is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XfsOptions {
    /// Held while numbers of projects are given out, by all processes of this host.
    pub lock_file: PathBuf,
    /// The smallest number to give out.
    pub project_min: u32,
    /// Where `projects` and `projid` lie; `None`: they are neither read nor written.
    pub project_files: Option<PathBuf>,
}

/// See the module.
pub struct Xfs {
    name: String,
    vfs: Vfs,
    projects: Arc<Projects>,
    checked: OnceCell<()>,
}

/// Where the original keeps its lock, which is ours too while both run on one host.
const LOCK_FILE: &str = "lock_file_path";
const PROJECT_MIN: &str = "project-id-base";
const KEEP_FILES: &str = "maintain-project-files";
const FILES_DIR: &str = "project-files-dir";

/// The options of this backend.
pub(crate) const OPTIONS: &[BackendOption] = &[
    optional(
        LOCK_FILE,
        OptionKind::Path,
        "/tmp/backendai-xfs-file-lock",
        "held while numbers of projects are given out on this host, as by the original",
    ),
    optional(
        PROJECT_MIN,
        OptionKind::Number,
        "1",
        "the smallest number of a project to give out",
    ),
    optional(
        KEEP_FILES,
        OptionKind::Flag,
        "true",
        "whether a line per scope is kept in `projects` and `projid`, so that tools show names",
    ),
    optional(
        FILES_DIR,
        OptionKind::Path,
        "/etc",
        "where these two files lie",
    ),
];

impl XfsOptions {
    /// What a configuration says.
    ///
    /// # Errors
    /// [`SpecError::Option`].
    pub(crate) fn read(spec: &Spec) -> Result<Self, SpecError> {
        let tables = [OPTIONS];
        let options = Options::of(spec, &tables)?;
        let files_dir = options.path(FILES_DIR);
        Ok(Self {
            lock_file: options.need(LOCK_FILE)?.into(),
            project_min: options.number(PROJECT_MIN)?,
            project_files: files_dir.filter(|_| options.flag(KEEP_FILES)),
        })
    }
}

impl Xfs {
    /// A volume on the directory `path`, which is not opened yet.
    pub fn new(
        name: &str,
        path: PathBuf,
        limits: &Limits,
        options: XfsOptions,
        privilege: Arc<dyn QuotaPrivilege>,
    ) -> Self {
        let projects = Projects {
            lock_file: options.lock_file,
            project_min: options.project_min,
            files: options.project_files.map(ProjectFiles::new),
            privilege,
        };
        Self {
            name: name.to_owned(),
            vfs: Vfs::new(name, path, limits),
            projects: Arc::new(projects),
            checked: OnceCell::new(),
        }
    }

    async fn on_volume<T: Send + 'static>(
        &self,
        work: impl FnOnce(&VolumeRoot, &Projects) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, VolumeError> {
        let projects = Arc::clone(&self.projects);
        let tree = self.tree().await?;
        tree.on_volume(move |root| work(root, &projects)).await
    }

    /// Makes a project of a scope whose directory is there.
    async fn adopt(
        &self,
        scope: QuotaScopeId,
        limit_bytes: Option<u64>,
    ) -> Result<(), VolumeError> {
        tracing::info!(volume = self.name, %scope, "a scope without a project is given one");
        let projects = Arc::clone(&self.projects);
        let control = Arc::new(Control::default());
        let work = move |root: &VolumeRoot, limits: &Limits, control: &Control| {
            projects.adopt(root, scope, limit_bytes, limits, control)
        };
        self.tree().await?.long(control, work).await
    }

    async fn check(&self, tree: &Tree) -> Result<(), VolumeError> {
        let (volume, projects) = (self.name.clone(), Arc::clone(&self.projects));
        let checked = tree.on_volume(move |root| {
            let cause = projects.unfit(root)?;
            match cause {
                None => Ok(()),
                Some(cause) => Err(VolumeError::Unavailable { volume, cause }),
            }
        });
        checked.await
    }
}

#[async_trait]
impl Backend for Xfs {
    fn kind(&self) -> Kind {
        Kind::Xfs
    }

    fn mounted(&self) -> Option<&Vfs> {
        Some(&self.vfs)
    }

    async fn tree(&self) -> Result<Arc<Tree>, VolumeError> {
        let tree = self.vfs.tree().await?;
        self.checked
            .get_or_try_init(|| self.check(&tree))
            .await
            .map(|()| tree)
    }

    fn root(&self) -> Option<VolumeRoot> {
        self.checked.get().and_then(|()| self.vfs.root())
    }

    async fn create_scope(
        &self,
        scope: QuotaScopeId,
        limit_bytes: Option<u64>,
    ) -> Result<(), VolumeError> {
        let made = self
            .on_volume(move |root, projects| projects.create(root, scope, limit_bytes))
            .await?;
        match made {
            Found::Missing => Ok(()),
            Found::Project(_) => Err(VolumeError::ScopeExists(scope)),
            Found::Plain => self.adopt(scope, limit_bytes).await,
        }
    }

    async fn describe_scope(&self, scope: QuotaScopeId) -> Result<Option<ScopeQuota>, VolumeError> {
        self.on_volume(move |root, projects| projects.describe(root, scope))
            .await
    }

    async fn update_scope(&self, scope: QuotaScopeId, limit_bytes: u64) -> Result<(), VolumeError> {
        let found = self
            .on_volume(move |root, projects| projects.limit(root, scope, limit_bytes))
            .await?;
        match found {
            Found::Missing => Err(VolumeError::ScopeNotFound(scope)),
            Found::Project(_) => Ok(()),
            Found::Plain => self.adopt(scope, Some(limit_bytes)).await,
        }
    }

    async fn unset_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        // A directory that is no project has no limit to lift.
        self.on_volume(move |root, projects| projects.limit(root, scope, 0).map(drop))
            .await
    }

    async fn delete_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        self.on_volume(move |root, projects| projects.delete(root, scope))
            .await
    }
}

/// The error of a system call about quotas.
fn refused(operation: &'static str, error: &std::io::Error) -> VolumeError {
    use crate::vendor::{Cause, VendorError};
    let errno = Errno::from_io_error(error);
    if !matches!(errno, Some(Errno::PERM | Errno::ACCESS)) {
        let errno = errno.unwrap_or(Errno::IO);
        return VolumeError::os(operation, errno);
    }
    let text = "the server needs CAP_SYS_ADMIN or its privileged helper for limits of projects";
    VolumeError::from(VendorError {
        system: SYSTEM,
        operation,
        cause: Cause::Forbidden,
        code: None,
        text: text.to_owned(),
    })
}
