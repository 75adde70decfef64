//! What the data plane counts: per thread, summed when somebody looks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proxy_ring::{Gauge, Gauges};

/// Upper bounds of the duration histogram, seconds.
pub const BUCKETS_S: [f64; 9] = [0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// What tells one series from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The method, or `other`.
    pub method: &'static str,
    /// The route, or `unmatched`.
    pub endpoint: &'static str,
    /// The status of the answer.
    pub status: u16,
    /// `domain`, `operation`, `error_detail`; empty on success.
    pub labels: [&'static str; 3],
}

/// Requests of one series.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// How many.
    pub count: u64,
    /// Seconds, all together.
    pub seconds: f64,
    /// How many took at most [`BUCKETS_S`]; not cumulative, the last is beyond all of them.
    pub buckets: [u64; BUCKETS_S.len() + 1],
}

/// Counters of one thread.
#[derive(Debug, Default)]
pub struct ThreadMetrics {
    /// Open connections.
    pub connections: Gauge,
    /// Connections accepted so far.
    pub accepted: Gauge,
    /// Open connections that speak HTTP/2.
    pub http2_connections: Gauge,
    /// Requests that came over HTTP/2 so far.
    pub http2_streams: Gauge,
    /// TLS handshakes so far.
    pub tls_handshakes: Gauge,
    /// Handshakes that resumed a session.
    pub tls_resumed: Gauge,
    /// Body bytes received so far.
    pub received_bytes: Gauge,
    /// Body bytes sent so far.
    pub sent_bytes: Gauge,
    /// Downloads that are remembered.
    pub hot_files: Gauge,
    /// Downloads answered from what is remembered so far.
    pub hot_hits: Gauge,
    /// Panics that ended a connection.
    pub panics: Gauge,
    /// Archives that are being compressed.
    pub compressing: Gauge,
    /// The file engine.
    pub engine: Arc<Gauges>,
    requests: Mutex<Requests>,
}

/// Series by their key. Requests of one kind come in rows: the last key is looked at first.
#[derive(Debug, Default)]
struct Requests {
    places: HashMap<Key, usize>,
    series: Vec<Series>,
    last: Option<(Key, usize)>,
}

impl Requests {
    fn series(&mut self, key: Key) -> &mut Series {
        let place = match self.last {
            Some((last, place)) if last == key => place,
            _ => *self.places.entry(key).or_insert_with(|| {
                self.series.push(Series::default());
                self.series.len() - 1
            }),
        };
        self.last = Some((key, place));
        &mut self.series[place]
    }
}

impl ThreadMetrics {
    /// Counts one request.
    pub fn record(&self, key: Key, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS_S.iter().position(|bound| seconds <= *bound);
        let mut requests = self.requests.lock();
        let series = requests.series(key);
        series.count += 1;
        series.seconds += seconds;
        series.buckets[bucket.unwrap_or(BUCKETS_S.len())] += 1;
    }
}

/// What the archives of all threads share.
#[derive(Debug, Default)]
pub struct ArchiveGauges {
    /// Checksums of files that are remembered.
    pub sums_kept: Gauge,
    /// Files that were not read for their checksum, because it was.
    pub sums_found: Gauge,
}

/// Counters of all threads.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// One entry per data-plane thread.
    pub threads: Vec<Arc<ThreadMetrics>>,
    /// Of archives.
    pub archives: Arc<ArchiveGauges>,
}

impl Metrics {
    /// All series, summed over the threads.
    pub fn requests(&self) -> HashMap<Key, Series> {
        let mut sum: HashMap<Key, Series> = HashMap::new();
        for thread in &self.threads {
            let requests = thread.requests.lock();
            for (key, place) in &requests.places {
                let series = &requests.series[*place];
                let total = sum.entry(*key).or_default();
                total.count += series.count;
                total.seconds += series.seconds;
                for (into, from) in total.buckets.iter_mut().zip(series.buckets) {
                    *into += from;
                }
            }
        }
        sum
    }

    /// One gauge, summed over the threads.
    pub fn sum(&self, gauge: impl Fn(&ThreadMetrics) -> &Gauge) -> u64 {
        self.threads
            .iter()
            .map(|thread| gauge(thread).value())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_counts_its_own() {
        let key = |status| Key {
            method: "GET",
            endpoint: "/download",
            status,
            labels: [""; 3],
        };
        let metrics = Metrics {
            threads: vec![Arc::default(), Arc::default()],
            ..Metrics::default()
        };
        for (thread, status) in [(0, 200), (0, 200), (0, 404), (0, 200), (1, 404), (1, 206)] {
            metrics.threads[thread].record(key(status), Duration::from_millis(5));
        }
        let requests = metrics.requests();
        for (status, count) in [(200, 3), (404, 2), (206, 1)] {
            let series = &requests[&key(status)];
            assert_eq!(series.count, count, "{status}");
            assert_eq!(series.buckets[1], count, "{status}");
        }
        assert_eq!(requests.len(), 3);
    }
}
