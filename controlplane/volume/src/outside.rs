//! What volumes need of others, who may come up after them: numbers that all servers share, and
//! mounts on all nodes.
//!
//! Laws
//! - Whoever is not there yet, or never, is done without: each backend says how.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use proxy_core::id::QuotaScopeId;

/// Gives numbers of projects, each to one scope only, for all servers of a file system.
#[async_trait]
pub trait ProjectIds: Send + Sync {
    /// A number that nobody has.
    ///
    /// # Errors
    /// Why there is none now, for people.
    async fn next(&self) -> Result<u32, String>;
}

/// Something of a storage system that all nodes are to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareMount {
    /// The volume, by its configured name.
    pub volume: String,
    /// Where, below the volume's path.
    pub dir_name: String,
    /// Whom it is for.
    pub scope: QuotaScopeId,
    /// What to mount: host and path.
    pub location: String,
}

/// Asks all nodes, this one among them, to mount and unmount.
pub trait ShareMounts: Send + Sync {
    /// Asks. Does not wait for it.
    fn mount(&self, wanted: ShareMount);

    /// Asks all nodes to unmount it. Does not wait for it.
    fn unmount(&self, wanted: ShareMount);
}

/// See the module. Each is set once.
#[derive(Default)]
pub struct Outside {
    /// Who gives numbers of projects.
    pub project_ids: OnceLock<Arc<dyn ProjectIds>>,
    /// Who has shares mounted.
    pub mounts: OnceLock<Arc<dyn ShareMounts>>,
}
