//! What a server must be able to tell the bench suite: how it is started, and how its files are
//! read and written.
//!
//! A peer is a value in [`crate::peers::all`]. For each workload the runner asks
//! [`Peer::available`] and [`Peer::supports`], prints the reason when either says no, and else
//! starts the server once, on a fixture that is complete. It then takes turns with the others.
//!
//! Laws
//! - A peer runs at its best: its own recommended settings for many cores, big files and
//!   sendfile; what was chosen stands in its module doc.
//! - [`Running`] ends the processes that it started, by their ids, when it is dropped.
//! - A server writes only below the fixture's folder and its own temporary directory.
//! - Processes run on the cores they are given, see [`crate::process::spawn_on`].

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::call::{Call, Exchange};
use crate::fixture::{FileId, Fixture};
use crate::workload::{ArchiveKind, Workload};

/// Why a peer takes no part: printed as `skipped: reason`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Reason(pub String);

impl Reason {
    /// From any text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// A server that can be measured.
pub trait Peer: Send + Sync {
    /// What `--peers` calls it, such as `nginx`.
    fn name(&self) -> &'static str;

    /// Its version, when it is installed.
    ///
    /// # Errors
    /// Why it cannot be started on this machine.
    fn available(&self) -> Result<String, Reason>;

    /// Installs it below the peers' directory, with progress on `log`; installed already is fine.
    ///
    /// # Errors
    /// Why it cannot be had on this machine.
    fn install(&self, log: &mut dyn io::Write) -> Result<(), Reason>;

    /// Whether it can do what the workload asks: protocol, TLS, kinds of load.
    ///
    /// # Errors
    /// What it cannot do.
    fn supports(&self, workload: &Workload) -> Result<(), Reason>;

    /// Starts it; comes back when it answers.
    ///
    /// # Errors
    /// It does not start, or does not answer in time; with the end of its log.
    fn start(&self, fixture: &Fixture, start: &Start) -> Result<Box<dyn Running>, Reason>;
}

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// The cores it runs on; as many workers as cores.
    pub cores: Vec<usize>,
    /// TLS on the client port, with these files.
    pub tls: Option<TlsFiles>,
    /// HTTP/2 (by ALPN with TLS, by prior knowledge without).
    pub h2: bool,
    /// An empty directory of its own, removed afterwards.
    pub scratch: PathBuf,
}

/// PEM files for TLS 1.3; the name in the certificate is `localhost`.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate chain.
    pub chain: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// An upload to plan.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Where the bytes come from.
    pub source: FileId,
    /// How many: the size of the source.
    pub bytes: u64,
    /// Name of the target in the folder, below [`crate::fixture::UPLOADS`]; new each time.
    pub target: String,
    /// How it is cut up.
    pub way: Way,
}

/// How an upload is cut into requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One request with everything.
    Whole,
    /// Requests of this size, one after the other.
    Chunks {
        /// Size of a chunk.
        bytes: u64,
        /// Each over a new connection.
        fresh: bool,
    },
    /// This many parts at the same time.
    Parts(u32),
}

/// A server that runs.
pub trait Running: Send + Sync {
    /// Its processes at the top: CPU and memory are counted for them, their threads, and all
    /// their descendants.
    fn pids(&self) -> Vec<u32>;

    /// Where clients connect.
    fn address(&self) -> SocketAddr;

    /// Reads one file, whole.
    ///
    /// # Errors
    /// What it cannot do.
    fn get(&self, fixture: &Fixture, file: FileId) -> Result<Call, Reason>;

    /// Writes one file.
    ///
    /// # Errors
    /// A way that it does not know. `supports` should have said so.
    fn put(&self, upload: &Upload) -> Result<Box<dyn Exchange>, Reason>;

    /// Reads a directory of the folder (`4kib-1000`) as one archive.
    ///
    /// # Errors
    /// What it cannot do.
    fn archive(&self, dir: &str, bytes: u64, kind: ArchiveKind) -> Result<Call, Reason>;

    /// Where the bytes of an upload are on disk when it is done: for verifying and cleaning up.
    fn landed(&self, fixture: &Fixture, target: &str) -> PathBuf {
        fixture.folder().join(target)
    }

    /// Waits until nothing is in flight inside, where the server tells; `Ok` where it does not.
    ///
    /// # Errors
    /// What did not come back to rest.
    fn at_rest(&self) -> Result<(), Reason> {
        Ok(())
    }

    /// The end of its log, for the report of a failure.
    fn log_tail(&self) -> String {
        String::new()
    }
}

/// The last lines of a log file.
#[must_use]
pub fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
