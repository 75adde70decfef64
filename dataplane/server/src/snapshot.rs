//! What every data-plane thread must know, as one immutable value that is swapped as a whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proxy_anchor::VolumeRoot;
use proxy_core::token::Secret;
use proxy_core::units::{ByteLen, KIB, MIB};
use proxy_wire::limits::{ChunkLimits, HeadLimits, RangeLimits};
use tokio::sync::Semaphore;

/// Volumes, secrets and limits.
#[derive(Debug)]
pub struct Snapshot {
    /// Volumes by the name that tokens carry.
    pub volumes: HashMap<String, Arc<VolumeEntry>>,
    /// Signs and verifies tokens.
    pub secret: Secret,
    /// Announced and enforced size of one upload.
    pub upload_size_max: ByteLen,
    /// Archives that may be made at once: each lists a tree and holds its names.
    pub archives: Arc<Semaphore>,
    /// Everything else that has a limit.
    pub limits: Limits,
}

/// One volume, as the data plane sees it.
#[derive(Debug)]
pub struct VolumeEntry {
    /// Its name.
    pub name: String,
    /// The backend's name, for logs.
    pub backend: String,
    /// Its root; `None` while the mount is not there.
    pub root: Option<VolumeRoot>,
    /// Laying out blocks ahead makes uploads faster here. On tmpfs it makes them slower.
    pub reserves: bool,
    /// Large uploads can be written past the page cache.
    pub direct: bool,
    /// Quotas here stop a writer late or not at all: what is known to be too much is refused.
    pub late_quota: bool,
    /// How many calls on names may wait on this volume at a time: a hung mount must not take the
    /// threads of the others.
    pub names: Arc<Semaphore>,
}

/// Limits of the data plane. Each has its key in the configuration.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of request heads.
    pub head: HeadLimits,
    /// Of chunked bodies.
    pub chunk: ChunkLimits,
    /// Of ranges.
    pub range: RangeLimits,
    /// Connections of all threads together.
    pub connections_max: usize,
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Between two requests on one connection.
    pub idle_timeout: Duration,
    /// Without any byte moving, in a body of either direction.
    pub progress_timeout: Duration,
    /// For a call on names to be answered.
    pub names_timeout: Duration,
    /// Bytes of an unwanted request body that are thrown away to keep a connection. 32 MiB: a
    /// client that sends chunks of 16 MiB reads its refusal only after the last byte.
    pub discard_bytes_max: u64,
    /// Entries of one archive.
    pub archive_entries_max: u64,
    /// Levels of directories in one archive.
    pub archive_depth_max: u64,
    /// Bytes of all names in one archive, held in memory while it is sent.
    pub archive_name_bytes_max: u64,
    /// Of HTTP/2.
    pub http2: Http2Limits,
    /// Files up to this size are sent together with their head, from one read.
    pub inline_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: HeadLimits::default(),
            chunk: ChunkLimits::default(),
            range: RangeLimits::default(),
            connections_max: 10_000,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            progress_timeout: Duration::from_secs(60),
            names_timeout: Duration::from_secs(30),
            discard_bytes_max: 32 * MIB,
            archive_entries_max: 2_000_000,
            archive_depth_max: 4096,
            archive_name_bytes_max: 256 * MIB,
            http2: Http2Limits::default(),
            inline_bytes_max: 64 * KIB,
        }
    }
}

/// Limits of one HTTP/2 connection.
#[derive(Clone, Copy, Debug)]
pub struct Http2Limits {
    /// Clients that know HTTP/2 may speak it without TLS.
    pub enabled: bool,
    /// Requests at once.
    pub streams_max: usize,
    /// Bytes of one request body that may be on their way before they are wanted.
    pub stream_window_bytes: u32,
    /// The same for all request bodies of a connection.
    pub connection_window_bytes: u32,
    /// Bytes of answers that are read and not yet in the socket. 512 KiB: two buffers, so that
    /// one is read while the other leaves.
    pub send_bytes_max: usize,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            enabled: true,
            streams_max: 128,
            stream_window_bytes: MIB as u32,
            connection_window_bytes: 4 * MIB as u32,
            send_bytes_max: 512 * KIB as usize,
        }
    }
}
