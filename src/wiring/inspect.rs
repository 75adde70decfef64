//! What the introspection page shows, and its listener.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use proxy_api::inspect_router;
use proxy_server::Server;
use proxy_server::metrics::{Metrics, ThreadMetrics};
use proxy_state::{EmbeddedStore, Runner};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::settings::Settings;

/// What is looked at.
pub struct Inspected {
    metrics: Metrics,
    store: Arc<EmbeddedStore>,
    runner: Runner,
}

/// Serves the page, if it is asked for, until `end`.
pub async fn spawn(
    settings: &Settings,
    inspected: Inspected,
    mut end: watch::Receiver<bool>,
    planes: &mut JoinSet<()>,
) {
    let Some(listener) = listen(settings.inspect_port).await else {
        return;
    };
    let asked = async move { drop(end.wait_for(|end| *end).await) };
    let router = router(settings, inspected);
    let limits = super::api_limits(settings);
    planes.spawn(proxy_api::serve(listener, router, None, asked, limits));
}

/// The page's listener, if one is asked for. A port that is taken is a warning and nothing else.
async fn listen(port: Option<u16>) -> Option<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port?));
    match TcpListener::bind(address).await {
        Ok(listener) => {
            if let Ok(bound) = listener.local_addr() {
                tracing::info!("introspection page at http://{bound}/");
            }
            Some(listener)
        }
        Err(error) => {
            tracing::warn!(%error, %address, "no introspection page");
            None
        }
    }
}

/// The page's routes.
fn router(settings: &Settings, inspected: Inspected) -> proxy_api::Router {
    let (node, begun) = (settings.node_id.clone(), Instant::now());
    inspect_router(Arc::new(move || inspected.look(&node, begun)))
}

impl Inspected {
    /// Everything that is shown.
    pub fn new(server: &Server, store: &Arc<EmbeddedStore>, runner: &Runner) -> Self {
        Self {
            metrics: server.metrics(),
            store: Arc::clone(store),
            runner: runner.clone(),
        }
    }

    fn look(&self, node: &str, begun: Instant) -> Value {
        let transfers: Vec<Value> = self
            .metrics
            .transfers()
            .into_iter()
            .map(|transfer| {
                let (volume, backend) = proxy_server::metrics::volume_of(transfer.volume);
                json!({
                    "operation": transfer.operation.word(),
                    "volume": volume,
                    "backend": backend,
                    "vfolder_id": transfer.vfid.map(|vfid| vfid.to_string()),
                    "peer": transfer.peer.map(|peer| peer.to_string()),
                    "seconds": transfer.begun.elapsed().as_secs(),
                    "bytes": transfer.bytes,
                })
            })
            .collect();
        let stats = self.store.stats();
        let threads: Vec<Value> = self.metrics.threads.iter().map(|t| thread(t)).collect();
        json!({
            "program": {
                "version": proxy_core::VERSION,
                "node": node,
                "pid": std::process::id(),
                "up_seconds": begun.elapsed().as_secs(),
            },
            "transfers": transfers,
            "tasks": {"running": self.runner.running(), "waiting": self.runner.queued()},
            "data_threads": threads,
            "state": {
                "commits": stats.commits,
                "changes": stats.changes,
                "failures": stats.failures,
                "waiting": stats.queue_len,
                "sessions_held": stats.leases,
            },
        })
    }
}

fn thread(thread: &ThreadMetrics) -> Value {
    let in_flight: Vec<u64> = thread.in_flight.iter().map(|gauge| gauge.value()).collect();
    json!({
        "connections": thread.connections.value(),
        "http2_connections": thread.http2_connections.value(),
        "requests_in_flight": in_flight.iter().sum::<u64>(),
        "file_operations": thread.engine.inflight_operations.value(),
        "buffers": thread.engine.buffers_in_use.value(),
        "buffer_bytes": thread.engine.buffer_bytes_mapped.value(),
        "pipes": thread.engine.pipes_in_use.value(),
        "received_bytes": thread.received_bytes.value(),
        "sent_bytes": thread.sent_bytes.value(),
        "hot_files": thread.hot_files.value(),
        "panics": thread.panics.value(),
    })
}
