//! The data plane's counters, for the page that both planes share.

use proxy_api::metrics::{Gauge, RequestSeries, Source};
use proxy_server::metrics::Metrics;

/// The data plane's counters as the metrics page wants them.
pub struct DataPlane(Metrics);

impl DataPlane {
    /// Reads `metrics` when asked.
    pub fn new(metrics: Metrics) -> Self {
        Self(metrics)
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
                count: series.count,
                seconds: series.seconds,
                buckets: series.buckets.to_vec(),
            })
            .collect()
    }

    fn gauges(&self) -> Vec<Gauge> {
        let sum = |name, help, value| Gauge { name, help, value };
        let metrics = &self.0;
        vec![
            sum(
                "storage_proxy_connections",
                "Open client connections",
                metrics.sum(|thread| &thread.connections),
            ),
            sum(
                "storage_proxy_http2_connections",
                "Open client connections that speak HTTP/2",
                metrics.sum(|thread| &thread.http2_connections),
            ),
            sum(
                "storage_proxy_buffers_in_use",
                "Transfer buffers that hold bytes on their way",
                metrics.sum(|thread| &thread.engine.buffers_in_use),
            ),
            sum(
                "storage_proxy_buffer_bytes_mapped",
                "Memory of all transfer buffers, in use or kept",
                metrics.sum(|thread| &thread.engine.buffer_bytes_mapped),
            ),
            sum(
                "storage_proxy_inflight_operations",
                "File operations that are not answered yet",
                metrics.sum(|thread| &thread.engine.inflight_operations),
            ),
            sum(
                "storage_proxy_pipes_in_use",
                "Pipes that carry a download",
                metrics.sum(|thread| &thread.engine.pipes_in_use),
            ),
            sum(
                "storage_proxy_archives_compressing",
                "Archives that are being compressed",
                metrics.sum(|thread| &thread.compressing),
            ),
            sum(
                "storage_proxy_archive_checksums",
                "Checksums of files that are remembered for archives",
                metrics.archives.sums_kept.value(),
            ),
            sum(
                "storage_proxy_hot_files",
                "Downloads remembered with their open file",
                metrics.sum(|thread| &thread.hot_files),
            ),
        ]
    }

    fn counters(&self) -> Vec<Gauge> {
        let sum = |name, help, value| Gauge { name, help, value };
        let metrics = &self.0;
        vec![
            sum(
                "storage_proxy_connections_accepted_total",
                "Client connections accepted",
                metrics.sum(|thread| &thread.accepted),
            ),
            sum(
                "storage_proxy_http2_streams_total",
                "Requests that came over HTTP/2",
                metrics.sum(|thread| &thread.http2_streams),
            ),
            sum(
                "storage_proxy_tls_handshakes_total",
                "TLS handshakes of clients",
                metrics.sum(|thread| &thread.tls_handshakes),
            ),
            sum(
                "storage_proxy_tls_resumptions_total",
                "TLS handshakes that resumed a session",
                metrics.sum(|thread| &thread.tls_resumed),
            ),
            sum(
                "storage_proxy_received_bytes_total",
                "Bytes of request bodies received",
                metrics.sum(|thread| &thread.received_bytes),
            ),
            sum(
                "storage_proxy_sent_bytes_total",
                "Bytes of answers sent",
                metrics.sum(|thread| &thread.sent_bytes),
            ),
            sum(
                "storage_proxy_archive_checksums_found_total",
                "Files that an archive did not read for their checksum, because it was remembered",
                metrics.archives.sums_found.value(),
            ),
            sum(
                "storage_proxy_hot_hits_total",
                "Downloads answered from what was remembered",
                metrics.sum(|thread| &thread.hot_hits),
            ),
            sum(
                "storage_proxy_panics_total",
                "Requests that panicked",
                metrics.sum(|thread| &thread.panics),
            ),
        ]
    }
}
