//! The client-facing data plane: threads, listeners, TLS, HTTP/1.1 and HTTP/2, and the bridge to
//! the control plane.
//!
//! One thread per core, each with its own rings, buffers and connections. Handlers decide what to
//! answer; the machines of `transfer` move the bytes; `anchor` opens what has a name.
//!
//! Laws
//! - The planes meet in [`bridge`], nowhere else.
//! - A data-plane thread waits for nothing but readiness, timers and its rings.
//! - Tokens travel in queries, so queries are never logged.

#![forbid(unsafe_code)]

mod archive;
mod body;
pub mod bridge;
mod caught;
mod connection;
mod download;
mod hot;
mod http2;
pub mod metrics;
mod names;
mod reply;
mod respond;
mod route;
mod rt;
mod sink;
pub mod snapshot;
mod socket;
mod span;
mod story;
mod stream;
mod thread;
mod tls;
mod upload;

use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use proxy_core::units::{KIB, MIB};
use proxy_ring::ThreadPool;
pub use proxy_ring::{PoolLimits, RingLimits};
use tokio::sync::{mpsc, watch};

use crate::bridge::Bridge;
use crate::metrics::{Metrics, ThreadMetrics};
use crate::snapshot::Snapshot;
use crate::thread::Setup;

/// Sizes of the engine of each thread.
#[derive(Clone, Copy, Debug)]
pub struct EngineLimits {
    /// Buffers.
    pub pool: PoolLimits,
    /// The ring.
    pub ring: RingLimits,
    /// Threads for calls on names, all data-plane threads together.
    pub name_threads_max: usize,
    /// Archives that are compressed at once, all data-plane threads together.
    pub archives_compressing_max: usize,
    /// Checksums of files that are remembered for archives.
    pub archive_checksums_max: usize,
    /// Downloads that are remembered, token and open file, all data-plane threads together.
    pub hot_entries_max: usize,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            pool: PoolLimits {
                // 256 KiB: fewest cycles per byte of receive and write on loopback; larger ones
                // leave the second-level cache.
                buffer_bytes: (256 * KIB) as usize,
                budget_bytes: (32 * MIB) as usize,
                keep_bytes: (4 * MIB) as usize,
            },
            ring: RingLimits {
                entries: 256,
                workers_max: 64,
            },
            name_threads_max: 64,
            archives_compressing_max: 4,
            archive_checksums_max: 256 * 1024,
            hot_entries_max: 32 * 1024,
        }
    }
}

/// What the data plane is started with.
pub struct ServerConfig {
    /// One listener per thread, on one address.
    pub listeners: Vec<TcpListener>,
    /// Pin thread `n` to core `n`.
    pub pin: bool,
    /// Volumes, secrets, limits.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// To the control plane.
    pub bridge: Bridge,
    /// Certificates, if the client port speaks TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Sizes of the engines.
    pub engine: EngineLimits,
}

/// The running data plane.
pub struct Server {
    /// How each thread ended, when it does.
    ended: mpsc::Receiver<io::Result<()>>,
    running: usize,
    drain: watch::Sender<Option<Drain>>,
    metrics: Metrics,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("threads", &self.running)
            .finish_non_exhaustive()
    }
}

/// How the data plane comes to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    /// What runs then is cut.
    pub(crate) until: Instant,
    /// Connections without a request are closed then.
    pub(crate) idle_until: Instant,
    /// Another process accepts on the same sockets from now on.
    pub(crate) is_handover: bool,
}

/// How long a connection may wait for one more request after its port was handed over: clients
/// that are about to send one learn from its answer, instead of from a reset, to connect anew.
const HANDOVER_IDLE: Duration = Duration::from_secs(1);

/// How long the threads may take to set up their rings.
const READY_WAIT: Duration = Duration::from_secs(20);

/// Starts one thread per listener and waits until each serves.
///
/// # Errors
/// A thread could not be started, or ended before it served.
pub fn start(config: ServerConfig) -> io::Result<Server> {
    let (drain, draining) = watch::channel(None);
    let names = ThreadPool::new("names", config.engine.name_threads_max);
    let connections_max = config.snapshot.load().limits.connections_max;
    let threads = config.listeners.len().max(1);
    let per_thread = connections_max.div_ceil(threads);
    let (report, ended) = mpsc::channel(threads);
    let (ready, served) = std::sync::mpsc::channel();
    let mut server = Server {
        ended,
        running: 0,
        drain,
        metrics: Metrics::default(),
    };
    let archives = archive::Shared::new(&config.engine, &server.metrics.archives);
    let archives = Arc::new(archives);
    for (index, listener) in config.listeners.into_iter().enumerate() {
        // Accepting never waits: readiness is asked for first.
        listener.set_nonblocking(true)?;
        let metrics = Arc::new(ThreadMetrics::default());
        server.metrics.threads.push(Arc::clone(&metrics));
        let setup = Setup {
            snapshot: Arc::clone(&config.snapshot),
            bridge: config.bridge.clone(),
            names: names.clone(),
            archives: Arc::clone(&archives),
            metrics,
            tls: config.tls.clone(),
            drain: draining.clone(),
            pool: config.engine.pool,
            ring: config.engine.ring,
            connections_max: per_thread,
            hot_entries_max: config.engine.hot_entries_max / threads,
            ready: ready.clone(),
        };
        let (pin, report) = (config.pin, report.clone());
        std::thread::Builder::new()
            .name(format!("data-{index}"))
            .spawn(move || {
                if pin && let Err(error) = rt::pin_to_core(index) {
                    tracing::warn!(%error, core = index, "can not pin a data-plane thread");
                }
                let run = AssertUnwindSafe(|| thread::run(listener, setup));
                let panicked = |_| Err(io::Error::other("a data-plane thread panicked"));
                let outcome = catch_unwind(run).unwrap_or_else(panicked);
                // Nobody to tell: the process is on its way out.
                let _ = report.blocking_send(outcome);
            })?;
        server.running += 1;
    }
    drop(ready);
    for _ in 0..server.running {
        let not_ready = |_| io::Error::other("a data-plane thread does not start");
        served.recv_timeout(READY_WAIT).map_err(not_ready)?;
    }
    Ok(server)
}

impl Server {
    /// The counters of all threads.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Takes no new connections and gives the running requests `limit` to end.
    pub fn drain(&self, limit: Duration) {
        let now = Instant::now();
        self.drain.send_replace(Some(Drain {
            until: now + limit,
            idle_until: now,
            is_handover: false,
        }));
    }

    /// As [`Server::drain`], but the sockets go on listening for the process that shares them:
    /// not one connection is refused or lost.
    pub fn hand_over(&self, limit: Duration) {
        let now = Instant::now();
        self.drain.send_replace(Some(Drain {
            until: now + limit,
            idle_until: now + HANDOVER_IDLE.min(limit),
            is_handover: true,
        }));
    }

    /// Waits for a thread to end; before a drain that is a failure.
    ///
    /// # Errors
    /// What ended it.
    pub async fn ended(&mut self) -> io::Result<()> {
        match self.ended.recv().await {
            Some(outcome) => {
                self.running -= 1;
                outcome
            }
            None => Ok(()),
        }
    }

    /// Waits for all threads, which end after [`Server::drain`].
    ///
    /// # Errors
    /// What ended a thread before its time.
    pub async fn join(mut self) -> io::Result<()> {
        let mut first = Ok(());
        while self.running > 0 {
            let outcome = self.ended().await;
            if first.is_ok() {
                first = outcome;
            }
        }
        first
    }
}
