//! Volumes of vfolders: one interface, many backends, and the long tasks on whole trees.
//!
//! [`Volumes`] knows the configured volumes by name; a [`Volume`] answers the operations of the
//! Manager; a [`Backend`] is what differs between storage systems. Long work is cancelled and
//! watched through a [`Control`], and registered as background tasks by [`tasks`].
//!
//! Laws
//! - Names become descriptors in `proxy-anchor` only.
//! - Blocking work runs on tokio's blocking threads, in lanes of its volume: a mount that hangs
//!   takes neither the runtime nor the other volumes with it.
//! - Trees of any depth and size are walked without recursion, with bounded descriptors.
//! - No error shows a path of the server.
//! - Whatever is interrupted can be run again.
#![forbid(unsafe_code)]

mod backend;
mod book;
mod bulkhead;
mod capability;
mod cephfs;
mod control;
mod copy;
mod crew;
mod deleting;
mod directory_quota;
mod dot_snapshot;
mod durable;
mod entries;
mod error;
mod exascaler;
mod fetch;
mod folder;
mod gpfs;
mod hammerspace;
mod kept;
mod lately;
mod limits;
mod listing;
mod marks;
mod moving;
mod netapp;
mod noop;
mod onefs;
mod outside;
mod paging;
mod place;
mod privilege;
mod purestorage;
mod remove;
mod restore;
mod snapshot;
mod stamp;
mod sweep;
pub mod tasks;
mod tree;
mod usage;
mod vast;
mod vendor;
mod vfs;
mod volume;
mod volumes;
mod weka;
mod xfs;

pub use backend::{
    Backend, Capacity, Cloned, Deleted, Freshness, HwInfo, HwStatus, Known, Memory, Metric, Mkdir,
    Prepared, Restore, ScopeQuota, Swept, Usage, UsedBytes,
};
pub use capability::{Capability, Kind};
pub use cephfs::CephFs;
pub use control::{Control, Progress};
pub use error::{VolumeError, strerror};
pub use exascaler::Exascaler;
pub use fetch::{Fetch, PIECE_BYTES};
pub use gpfs::Gpfs;
pub use hammerspace::{Hammerspace, HammerspaceBase};
pub use limits::Limits;
pub use listing::{Batch, Entry, EntryType, Listing};
pub use marks::EndedTask;
pub use netapp::NetApp;
pub use noop::Noop;
pub use onefs::OneFs;
pub use outside::{Outside, ProjectIds, ShareMount, ShareMounts};
pub use paging::{Order, PAGE_LEN_MAX, Page, PageWish};
pub use privilege::{OwnRight, ProjectQuota, QuotaPrivilege};
pub use purestorage::PureStorage;
pub use snapshot::{Retained, Retention, Snapshot, SnapshotName, Unit};
pub use stamp::Stamp;
pub use sweep::{CLONE_AGE_MIN, KeepSession};
pub use tree::{LAYOUT_CURRENT, LAYOUT_UNMARKED, Tree};
pub use vast::Vast;
pub use vendor::ledger::{CALL_BUCKETS_S, CallTally, Ledger, VendorStats};
pub use vendor::options::{Absent, BackendOption, OptionKind};
pub use vendor::{Cause, VendorError};
pub use vfs::Vfs;
pub use volume::Volume;
pub use volumes::{Spec, SpecError, Volumes, options_of};
pub use weka::Weka;
pub use xfs::{Xfs, XfsOptions};
