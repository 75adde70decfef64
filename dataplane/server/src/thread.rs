//! One data-plane thread: its rings, its buffers, its connections.
//!
//! Law: shared nothing. What crosses to other threads is the snapshot (swapped as a whole), the
//! bridge, and counters that only grow or shrink.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use proxy_ring::{Files, Pipes, Pool, PoolLimits, Ring, RingLimits, Staging, ThreadPool, memory};
use rustix::net::SocketFlags;
use tokio::sync::watch;

use crate::Drain;
use crate::archive;
use crate::bridge::Bridge;
use crate::connection;
use crate::hot::{self, Entry, Hot};
use crate::metrics::ThreadMetrics;
use crate::rt;
use crate::snapshot::Snapshot;
use crate::socket::Socket;
use crate::stream::Stream;
use crate::tls::TlsStream;

/// Connections whose memory is worth giving back when all of them are gone.
const CROWD: usize = 256;

/// What a thread is started with.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) bridge: Bridge,
    pub(crate) names: ThreadPool,
    pub(crate) archives: Arc<archive::Shared>,
    pub(crate) metrics: Arc<ThreadMetrics>,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) drain: watch::Receiver<Option<Drain>>,
    pub(crate) pool: PoolLimits,
    pub(crate) ring: RingLimits,
    pub(crate) connections_max: usize,
    /// Downloads that a thread remembers.
    pub(crate) hot_entries_max: usize,
    /// Told when the thread serves.
    pub(crate) ready: mpsc::Sender<()>,
}

/// What every connection of a thread shares.
pub(crate) struct Thread {
    pub(crate) setup: Setup,
    pub(crate) files: Files,
    pub(crate) staging: Staging,
    pub(crate) pipes: Pipes,
    pub(crate) hot: Hot,
    connections: Cell<usize>,
    /// Answers that are being sent.
    pub(crate) senders: Cell<usize>,
    date: RefCell<(u64, Rc<str>)>,
}

impl Thread {
    /// Volumes, secrets and limits as of now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.setup.snapshot.load_full()
    }

    /// Remembers a download, unless the snapshot it was answered by is outdated already.
    pub(crate) fn keep_hot(&self, snapshot: &Snapshot, entry: Rc<Entry>) {
        let current = self.setup.snapshot.load();
        if std::ptr::eq(&**current, snapshot) {
            self.hot.keep(&current, entry);
        }
    }

    /// `Date` for an answer sent now; made once a second.
    pub(crate) fn date(&self) -> Rc<str> {
        let now = unix_now_s();
        let mut cached = self.date.borrow_mut();
        if cached.0 != now {
            let text = proxy_wire::date::format(i64::try_from(now).unwrap_or(i64::MAX));
            *cached = (now, Rc::from(text));
        }
        Rc::clone(&cached.1)
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Serves `listener` until a drain ends; then returns with what is left of the connections cut.
pub(crate) fn run(listener: TcpListener, setup: Setup) -> io::Result<()> {
    rt::run(serve(listener, setup))?
}

async fn serve(listener: TcpListener, setup: Setup) -> io::Result<()> {
    let engine = Arc::clone(&setup.metrics.engine);
    let ring = Ring::start(setup.ring, &setup.names, Arc::clone(&engine));
    let pool = Pool::new(setup.pool, Arc::clone(&engine));
    // 16 idle pipes: as many spans as one thread sends at a time without making new ones.
    let pipes = Pipes::new(16, engine);
    let files = Files { ring, pool };
    let thread = Rc::new(Thread {
        staging: Staging(files.clone()),
        files,
        pipes,
        hot: Hot::new(setup.hot_entries_max, Arc::clone(&setup.metrics)),
        connections: Cell::new(0),
        senders: Cell::new(0),
        date: RefCell::new((0, Rc::from(""))),
        setup,
    });
    // Whoever started us may have given up waiting.
    let _ = thread.setup.ready.send(());
    let aging = Rc::downgrade(&thread);
    rt::spawn(async move {
        let mut had_most = 0;
        while let Some(thread) = aging.upgrade() {
            thread.hot.age();
            let connections = thread.connections.get();
            had_most = connections.max(had_most);
            if connections == 0 && had_most >= CROWD {
                memory::give_back();
                had_most = 0;
            }
            drop(thread);
            rt::sleep(hot::AGE_PERIOD).await;
        }
    });
    let mut drain = thread.setup.drain.clone();
    {
        let accepting = accept(&listener, &thread);
        let draining = drain.wait_for(Option::is_some);
        rt::first(accepting, draining).await;
    }
    // Not left to closing: the executor closes its copy some time later, and a socket that listens
    // while nobody accepts swallows connections.
    // Where another process accepts, it would be that one's end as well.
    let order = *drain.borrow();
    let is_handover = order.is_some_and(|order| order.is_handover);
    if !is_handover
        && let Err(error) = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both)
    {
        tracing::warn!(%error, "can not stop listening");
    }
    drop(listener);
    let deadline = order.map_or_else(Instant::now, |order| order.until);
    while thread.connections.get() > 0 && Instant::now() < deadline {
        rt::sleep(Duration::from_millis(20)).await;
    }
    let left = thread.connections.get();
    if left > 0 {
        tracing::warn!(
            connections = left,
            "the time to drain is over, connections are cut"
        );
    }
    Ok(())
}

/// Accepts for ever. Only its waits may be dropped.
async fn accept(listener: &TcpListener, thread: &Rc<Thread>) {
    let readiness = match listener
        .try_clone()
        .and_then(monoio::net::TcpListener::from_std)
    {
        Ok(readiness) => readiness,
        Err(error) => {
            tracing::error!(%error, "can not watch the listener");
            return;
        }
    };
    loop {
        if thread.connections.get() >= thread.setup.connections_max {
            // The backlog holds the others; the kernel refuses beyond it.
            rt::sleep(Duration::from_millis(10)).await;
            continue;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::accept_with(listener, flags) {
            Ok(socket) => start(TcpStream::from(socket), thread),
            Err(rustix::io::Errno::AGAIN) => {
                if readiness.readable(false).await.is_err() {
                    rt::sleep(Duration::from_millis(50)).await;
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
            Err(errno) => {
                // Out of descriptors or memory: what is only kept goes, others must end.
                thread.hot.clear();
                tracing::warn!(error = %errno, "can not accept");
                rt::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Counts a connection for as long as it lives.
struct Counted(Rc<Thread>);

impl Counted {
    fn new(thread: &Rc<Thread>) -> Self {
        thread.connections.set(thread.connections.get() + 1);
        thread.setup.metrics.connections.add(1);
        thread.setup.metrics.accepted.add(1);
        Self(Rc::clone(thread))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.setup.metrics.connections.sub(1);
    }
}

fn start(stream: TcpStream, thread: &Rc<Thread>) {
    let counted = Counted::new(thread);
    let Ok(socket) = Socket::new(stream) else {
        return;
    };
    rt::spawn(async move {
        let thread = Rc::clone(&counted.0);
        let stream = match &thread.setup.tls {
            None => Stream::Plain(socket),
            Some(config) => {
                let limit = thread.snapshot().limits.head_timeout;
                let shaking = Box::pin(TlsStream::accept(socket, Arc::clone(config), limit));
                match rt::within(limit, shaking).await {
                    Ok(Ok(tls)) => {
                        thread.setup.metrics.tls_handshakes.add(1);
                        thread
                            .setup
                            .metrics
                            .tls_resumed
                            .add(u64::from(tls.is_resumed()));
                        Stream::Tls(Box::new(tls))
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(?error, "no TLS handshake");
                        return;
                    }
                    Err(rt::Elapsed) => return,
                }
            }
        };
        connection::serve(stream, &thread).await;
        drop(counted);
    });
}
