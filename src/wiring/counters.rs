//! What the parts of the program count, for the page that all of them share.

use std::sync::Arc;

use proxy_api::metrics::{
    Cause, DURATION_BUCKETS_S, Durations, RequestSeries, Sample, Source, row,
};
use proxy_server::bridge;
use proxy_server::metrics::{self, BUCKETS_S, Metrics, Operation};
use proxy_state::{EmbeddedStore, Runner};

/// Both planes fill the same buckets.
const _: () = assert!(BUCKETS_S.len() == DURATION_BUCKETS_S.len());

/// The data plane's counters as the metrics page wants them.
pub struct DataPlane(Metrics);

impl DataPlane {
    /// Reads `metrics` when asked.
    pub fn new(metrics: Metrics) -> Self {
        Self(metrics)
    }

    fn work(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for operation in Operation::ALL {
            let now = self.0.sum(|thread| &thread.in_flight[operation as usize]);
            let labels = [operation.word()];
            samples.push(Sample::number(&row::OPERATIONS_NOW, &labels, now as f64));
        }
        for (key, work) in self.0.work() {
            let (volume, backend) = metrics::volume_of(key.volume);
            let success = if key.success { "true" } else { "false" };
            let operation = key.operation.word();
            let labels = [backend.as_str(), operation, success, &volume];
            let durations = durations(&work.durations);
            let row = &row::OPERATION_DURATION;
            samples.push(Sample::durations(
                row,
                &labels,
                durations,
                DURATION_BUCKETS_S,
            ));
            let labels = [backend.as_str(), operation, &volume];
            for (row, bytes) in [&row::RECEIVED, &row::SENT].into_iter().zip(work.bytes) {
                samples.push(Sample::number(row, &labels, bytes as f64));
            }
        }
        samples
    }
}

fn durations(series: &metrics::Series) -> Durations {
    Durations {
        count: series.count,
        seconds: series.seconds,
        buckets: series.buckets.to_vec(),
    }
}

const fn cause(cause: metrics::Cause) -> Cause {
    match cause {
        metrics::Cause::Plain => Cause::Plain,
        metrics::Cause::Token => Cause::Token,
        metrics::Cause::Quota => Cause::Quota,
        metrics::Cause::Timeout => Cause::Timeout,
    }
}

impl Source for DataPlane {
    fn requests(&self) -> Vec<RequestSeries> {
        let series = self.0.requests();
        series
            .into_iter()
            .map(|(key, series)| RequestSeries {
                endpoint: key.endpoint,
                method: key.method,
                status: key.status,
                error: key.labels,
                cause: cause(key.cause),
                durations: durations(&series),
            })
            .collect()
    }

    fn samples(&self) -> Vec<Sample> {
        let metrics = &self.0;
        let threads = metrics.threads.len() as u64;
        let mut samples = self.work();
        samples.extend([
            Sample::plain(&row::THREADS, threads),
            Sample::plain(&row::CONNECTIONS, metrics.sum(|t| &t.connections)),
            Sample::plain(&row::ACCEPTED, metrics.sum(|t| &t.accepted)),
            Sample::plain(
                &row::HTTP2_CONNECTIONS,
                metrics.sum(|t| &t.http2_connections),
            ),
            Sample::plain(&row::HTTP2_STREAMS, metrics.sum(|t| &t.http2_streams)),
            Sample::plain(&row::TLS_HANDSHAKES, metrics.sum(|t| &t.tls_handshakes)),
            Sample::plain(&row::TLS_RESUMPTIONS, metrics.sum(|t| &t.tls_resumed)),
            Sample::plain(&row::ALL_RECEIVED, metrics.sum(|t| &t.received_bytes)),
            Sample::plain(&row::ALL_SENT, metrics.sum(|t| &t.sent_bytes)),
            Sample::plain(&row::PANICS, metrics.sum(|t| &t.panics)),
            Sample::plain(&row::BUFFERS, metrics.sum(|t| &t.engine.buffers_in_use)),
            Sample::plain(
                &row::BUFFER_BYTES,
                metrics.sum(|t| &t.engine.buffer_bytes_mapped),
            ),
            Sample::plain(
                &row::RING_NOW,
                metrics.sum(|t| &t.engine.inflight_operations),
            ),
            Sample::plain(&row::PIPES, metrics.sum(|t| &t.engine.pipes_in_use)),
            Sample::plain(&row::COMPRESSING, metrics.sum(|t| &t.compressing)),
            Sample::plain(&row::CHECKSUMS, metrics.archives.sums_kept.value()),
            Sample::plain(&row::CHECKSUMS_FOUND, metrics.archives.sums_found.value()),
            Sample::plain(&row::HOT_FILES, metrics.sum(|t| &t.hot_files)),
            Sample::plain(&row::HOT_HITS, metrics.sum(|t| &t.hot_hits)),
        ]);
        samples
    }
}

/// Calls between the planes.
pub struct Queue(pub bridge::Queue);

impl Source for Queue {
    fn samples(&self) -> Vec<Sample> {
        vec![Sample::plain(&row::BRIDGE_QUEUE, self.0.len() as u64)]
    }
}

/// What the state file, its sessions and the tasks are at.
pub struct ControlPlane {
    /// The state file.
    pub store: Arc<EmbeddedStore>,
    /// The tasks.
    pub runner: Runner,
    /// The findings of the probes.
    pub health: Arc<proxy_api::Health>,
}

impl Source for ControlPlane {
    fn samples(&self) -> Vec<Sample> {
        let stats = self.store.stats();
        let mut samples = self.health.samples();
        samples.extend([
            Sample::plain(&row::STATE_COMMITS, stats.commits),
            Sample::plain(&row::STATE_CHANGES, stats.changes),
            Sample::plain(&row::STATE_FAILURES, stats.failures),
            Sample::plain(
                &row::STATE_QUEUE,
                (stats.queue_len + stats.created_len) as u64,
            ),
            Sample::plain(&row::LEASES, stats.leases as u64),
            Sample::plain(&row::TASKS_QUEUED, self.runner.queued() as u64),
        ]);
        samples
    }
}
