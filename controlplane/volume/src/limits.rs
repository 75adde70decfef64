//! Every bound of this crate, by name, with the reason for its default.
//!
//! Laws
//! - A volume that hangs keeps at most the sum of its lanes in threads; other volumes go on.
//! - Memory and descriptors of a tree operation do not depend on the size of the tree.
//!
//! Source: design of the control plane; `ARCHITECTURE.md`.

use std::time::Duration;

/// Bounds of one volume. The same values serve all volumes unless configured otherwise.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Short operations (listing, mkdir, move, stat) at work at once. A thread each.
    pub ops_in_flight_max: usize,
    /// Usage scans at work at once. A scan uses up to `tree_threads_max` threads.
    pub scans_in_flight_max: usize,
    /// Clones and deletions at work at once. Each uses up to `tree_threads_max` threads.
    pub tree_ops_in_flight_max: usize,
    /// How long a request waits for its turn before it is told that the volume is busy.
    pub turn_wait_max: Duration,
    /// How long a request waits for a short operation. The operation itself cannot be ended: it
    /// keeps its place in the lane until the kernel answers.
    pub answer_wait_max: Duration,
    /// How long a usage scan may take before it answers with what it has seen.
    /// 30 s: the original gives up then, and the Manager waits at most 300 s.
    pub scan_time_max: Duration,
    /// A directory that looks unchanged is read again at the latest in so many scans of a folder
    /// whose directories are remembered. 8: a scan reads an eighth of them, more or less.
    pub usage_recount_scans: u32,
    /// How long a directory must have been left alone before its times are relied on. 3 s: more
    /// than the steps in which any file system tells times, and than clocks usually differ.
    pub usage_settle_time: Duration,
    /// Threads that walk one tree. 4: local disks gain little more, network mounts a lot less each.
    pub tree_threads_max: usize,
    /// Directories held open per tree for the way back up; more are opened again when needed.
    pub dirs_open_max: usize,
    /// Files with several names remembered per tree, at most 100 bytes each. Beyond it, further
    /// names count, and are copied, as files of their own.
    pub hard_links_max: usize,
    /// What CephFS calls the place of a directory's snapshots: its mount option `snapdirname`.
    pub snapshot_dir: String,
    /// A name that clients' paths may not have: the storage system shows snapshots there.
    pub reserved_name: Option<String>,
    /// Special files and other entries left out that a clone names in its report.
    pub skipped_named_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ops_in_flight_max: 32,
            scans_in_flight_max: 4,
            tree_ops_in_flight_max: 4,
            turn_wait_max: Duration::from_secs(10),
            answer_wait_max: Duration::from_secs(120),
            scan_time_max: Duration::from_secs(30),
            usage_recount_scans: 8,
            usage_settle_time: Duration::from_secs(3),
            tree_threads_max: 4,
            dirs_open_max: 64,
            hard_links_max: 1 << 20,
            snapshot_dir: ".snap".to_owned(),
            reserved_name: None,
            skipped_named_max: 8,
        }
    }
}
