//! What the data plane counts: per thread, summed when somebody looks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use proxy_core::id::VFolderId;
use proxy_ring::{Gauge, Gauges};

/// Upper bounds of the duration histogram, seconds.
pub const BUCKETS_S: [f64; 10] = [0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

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
    /// What the rest does not tell.
    pub cause: Cause,
}

/// Why a request failed, where its status and code leave that open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cause {
    /// They say it all.
    #[default]
    Plain,
    /// Its token was refused.
    Token,
    /// A quota is used up.
    Quota,
    /// The volume did not answer in time.
    Timeout,
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

impl Series {
    fn count(&mut self, seconds: f64) {
        let bucket = BUCKETS_S.iter().position(|bound| seconds <= *bound);
        self.count += 1;
        self.seconds += seconds;
        self.buckets[bucket.unwrap_or(BUCKETS_S.len())] += 1;
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.seconds += other.seconds;
        for (into, from) in self.buckets.iter_mut().zip(other.buckets) {
            *into += from;
        }
    }
}

/// What clients do with file content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Bytes come.
    Upload,
    /// A file, or parts of it, goes.
    Download,
    /// Many files go as one.
    Archive,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Upload, Self::Download, Self::Archive];

    /// The word of metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Archive => "download-archive",
        }
    }
}

/// A large transfer at work.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// What is done.
    pub operation: Operation,
    /// A number of [`volume_number`]; 0 while it is not known.
    pub volume: u16,
    /// The folder, once it is known.
    pub vfid: Option<VFolderId>,
    /// Who does it.
    pub peer: Option<SocketAddr>,
    /// Bytes that it will have in the end, if that was said.
    pub bytes: Option<u64>,
    /// When it began.
    pub begun: Instant,
}

/// Where work is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkKey {
    /// What was done.
    pub operation: Operation,
    /// A number of [`volume_number`].
    pub volume: u16,
    /// Whether it came to its end.
    pub success: bool,
}

impl WorkKey {
    const fn place(self) -> usize {
        let of_volume = self.volume as usize * Operation::ALL.len();
        2 * (of_volume + self.operation as usize) + self.success as usize
    }

    fn of(place: usize) -> Self {
        let (rest, operations) = (place / 2, Operation::ALL.len());
        Self {
            operation: Operation::ALL[rest % operations],
            volume: u16::try_from(rest / operations).unwrap_or(0),
            success: place % 2 == 1,
        }
    }
}

/// Requests of one operation on one volume.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// How many, and how long they took.
    pub durations: Series,
    /// Bytes of bodies received, and of answers sent.
    pub bytes: [u64; 2],
}

/// Name and backend of every volume that was ever served, in the order of their numbers. Number 0
/// is no volume.
static VOLUMES: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// The number of a volume in the counters: given once, never to another.
pub fn volume_number(name: &str, backend: &str) -> u16 {
    let mut volumes = VOLUMES.lock();
    let same = |(known, of): &(String, String)| known == name && of == backend;
    let place = volumes.iter().position(same).unwrap_or_else(|| {
        volumes.push((name.to_owned(), backend.to_owned()));
        volumes.len() - 1
    });
    u16::try_from(place + 1).unwrap_or(0)
}

/// Name and backend of a volume's number; empty for no volume.
pub fn volume_of(number: u16) -> (String, String) {
    let place = usize::from(number).checked_sub(1);
    place
        .and_then(|place| VOLUMES.lock().get(place).cloned())
        .unwrap_or_default()
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
    /// Requests at work, by [`Operation`].
    pub in_flight: [Gauge; Operation::ALL.len()],
    /// The file engine.
    pub engine: Arc<Gauges>,
    /// Large transfers at work, by a number of their own.
    pub(crate) transfers: Mutex<HashMap<u64, Transfer>>,
    requests: Mutex<Requests>,
}

/// Series by their key. Requests of one kind come in rows: the last key is looked at first.
#[derive(Debug, Default)]
struct Requests {
    places: HashMap<Key, usize>,
    series: Vec<Series>,
    /// Of operation `o` on volume `v` with success `s` at `2 * (v * OPERATIONS + o) + s`.
    work: Vec<Work>,
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
        self.requests.lock().series(key).count(took.as_secs_f64());
    }

    /// Counts one request that had work to do on a volume: the body bytes received, and sent.
    pub fn record_work(&self, key: Key, took: Duration, at: WorkKey, bytes: [u64; 2]) {
        let seconds = took.as_secs_f64();
        let place = at.place();
        let mut requests = self.requests.lock();
        requests.series(key).count(seconds);
        if requests.work.len() <= place {
            requests.work.resize_with(place + 1, Work::default);
        }
        let work = &mut requests.work[place];
        work.durations.count(seconds);
        for (sum, bytes) in work.bytes.iter_mut().zip(bytes) {
            *sum += bytes;
        }
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
                total.add(series);
            }
        }
        sum
    }

    /// What was done with file content, summed over the threads.
    pub fn work(&self) -> Vec<(WorkKey, Work)> {
        let mut sum: Vec<Work> = Vec::new();
        for thread in &self.threads {
            let requests = thread.requests.lock();
            if sum.len() < requests.work.len() {
                sum.resize_with(requests.work.len(), Work::default);
            }
            for (into, from) in sum.iter_mut().zip(&requests.work) {
                into.durations.add(&from.durations);
                for (into, from) in into.bytes.iter_mut().zip(from.bytes) {
                    *into += from;
                }
            }
        }
        let all = sum.into_iter().enumerate();
        all.filter(|(_, work)| 0 < work.durations.count)
            .map(|(place, work)| (WorkKey::of(place), work))
            .collect()
    }

    /// Large transfers at work.
    pub fn transfers(&self) -> Vec<Transfer> {
        let mut all = Vec::new();
        for thread in &self.threads {
            all.extend(thread.transfers.lock().values().cloned());
        }
        all.sort_by_key(|transfer| transfer.begun);
        all
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
            cause: Cause::Plain,
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
