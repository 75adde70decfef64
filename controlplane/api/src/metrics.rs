//! Metrics of this plane, and the registry that both planes are scraped from.
//!
//! Laws
//! - Names and labels are the original's, so that its dashboards keep working.
//! - Every label has a closed set of values: no path, method or text of a client becomes a series.
//! - What the page shows of the process is read when the page is asked for.
//!
//! Source: contract 7.2.

mod process;
mod source;

use std::time::Duration;

use parking_lot::RwLock;

pub use source::{Gauge, RequestSeries, Source};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

/// Whether a name may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Dashboards rely on it.
    Stable,
    /// It follows the inside of the program.
    Internal,
}

/// One metric as the reference page lists it.
#[derive(Clone, Copy, Debug)]
pub struct MetricRow {
    /// Name on the page.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Unit of its value.
    pub unit: &'static str,
    /// Labels, in the order of the page.
    pub labels: &'static [&'static str],
    /// What it counts; also the help text on the page.
    pub help: &'static str,
    /// Whether the name may still change.
    pub stability: Stability,
}

/// Labels of the request metrics, in the order of [`Request::labels`].
const REQUEST_LABELS: &[&str] = &[
    "domain",
    "endpoint",
    "error_detail",
    "method",
    "operation",
    "status_code",
];

/// Upper bounds of the request durations in seconds; the original's.
const DURATION_BUCKETS_S: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

const REQUEST_COUNT: MetricRow = MetricRow {
    name: "backendai_api_request_count_total",
    kind: "counter",
    unit: "requests",
    labels: REQUEST_LABELS,
    help: "Requests answered, by route and outcome",
    stability: Stability::Stable,
};

const REQUEST_DURATION: MetricRow = MetricRow {
    name: "backendai_api_request_duration_sec",
    kind: "histogram",
    unit: "seconds",
    labels: REQUEST_LABELS,
    help: "Seconds from the request's head to the answer's head, by route and outcome",
    stability: Stability::Stable,
};

const CPU_PERCENT: MetricRow = MetricRow {
    name: "backendai_cpu_usage_percent",
    kind: "gauge",
    unit: "percent of one core",
    labels: &[],
    help: "Processor use of the process since the previous scrape",
    stability: Stability::Stable,
};

const MEMORY_RSS: MetricRow = MetricRow {
    name: "backendai_memory_used_rss",
    kind: "gauge",
    unit: "bytes",
    labels: &[],
    help: "Resident memory of the process",
    stability: Stability::Stable,
};

const MEMORY_VMS: MetricRow = MetricRow {
    name: "backendai_memory_used_vms",
    kind: "gauge",
    unit: "bytes",
    labels: &[],
    help: "Address space of the process",
    stability: Stability::Stable,
};

const ASYNC_TASKS: MetricRow = MetricRow {
    name: "backendai_async_task_count",
    kind: "gauge",
    unit: "tasks",
    labels: &[],
    help: "Tasks alive on the control plane's runtime",
    stability: Stability::Internal,
};

/// Every metric of this plane.
pub const TABLE: &[MetricRow] = &[
    REQUEST_COUNT,
    REQUEST_DURATION,
    CPU_PERCENT,
    MEMORY_RSS,
    MEMORY_VMS,
    ASYNC_TASKS,
];

/// What one answered request adds.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Route pattern, or one fixed word for what no route matches.
    pub endpoint: &'a str,
    /// A method of the closed set in [`method_label`].
    pub method: &'a str,
    /// HTTP status.
    pub status: u16,
    /// `domain`, `operation`, `error_detail`; empty for a success.
    pub error: [&'a str; 3],
    /// From the request's head to the answer's head.
    pub duration: Duration,
}

/// The registry, and the metrics that requests feed.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    sources: RwLock<Vec<Box<dyn Source>>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// An empty registry with this plane's metrics in it.
    pub fn new() -> Self {
        let registry = Registry::new();
        let row = REQUEST_COUNT;
        let requests = IntCounterVec::new(Opts::new(row.name, row.help), row.labels)
            .expect("the table holds valid names");
        let row = REQUEST_DURATION;
        let buckets = HistogramOpts::new(row.name, row.help).buckets(DURATION_BUCKETS_S.to_vec());
        let durations =
            HistogramVec::new(buckets, row.labels).expect("the table holds valid names");
        let process = process::Process::new([CPU_PERCENT, MEMORY_RSS, MEMORY_VMS, ASYNC_TASKS]);
        let collectors: [Box<dyn prometheus::core::Collector>; 3] = [
            Box::new(requests.clone()),
            Box::new(durations.clone()),
            Box::new(process),
        ];
        for collector in collectors {
            registry
                .register(collector)
                .expect("no name is in the table twice");
        }
        Self {
            registry,
            requests,
            durations,
            sources: RwLock::default(),
        }
    }

    /// Where other parts of the program register their collectors.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Lets another part of the program show what it counts.
    pub fn add_source(&self, source: Box<dyn Source>) {
        self.sources.write().push(source);
    }

    /// Counts one answered request.
    pub fn answered(&self, request: &Request<'_>) {
        let status = request.status.to_string();
        let [domain, operation, detail] = request.error;
        let labels = [
            domain,
            request.endpoint,
            detail,
            request.method,
            operation,
            status.as_str(),
        ];
        self.requests.with_label_values(&labels).inc();
        self.durations
            .with_label_values(&labels)
            .observe(request.duration.as_secs_f64());
    }

    /// The page for Prometheus, in the classic text format.
    pub fn page(&self) -> String {
        // An error here means that two collectors disagree about a name; the rest of the page
        // would be lost with it, so the operator is told on the page itself.
        let mut families = self.registry.gather();
        for source in self.sources.read().iter() {
            source::add(&mut families, &**source);
        }
        TextEncoder::new()
            .encode_to_string(&families)
            .unwrap_or_else(|error| format!("# {error}\n"))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The label of a method: itself, or `OTHER` for what no API uses.
pub fn method_label(method: &str) -> &'static str {
    const KNOWN: &[&str] = &[
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
    ];
    KNOWN
        .iter()
        .find(|known| **known == method)
        .unwrap_or(&"OTHER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_originals_series() {
        let metrics = Metrics::new();
        for (endpoint, status, error) in [
            ("/folder/create", 204, ["", "", ""]),
            ("/folder/usage", 404, ["vfolder", "read", "not-found"]),
            ("unmatched", 404, ["backendai", "generic", "internal-error"]),
        ] {
            let duration = Duration::from_millis(20);
            metrics.answered(&Request {
                endpoint,
                method: "POST",
                status,
                error,
                duration,
            });
        }
        let page = metrics.page();
        for line in [
            "backendai_api_request_count_total{domain=\"\",endpoint=\"/folder/create\",\
             error_detail=\"\",method=\"POST\",operation=\"\",status_code=\"204\"} 1",
            "backendai_api_request_count_total{domain=\"vfolder\",endpoint=\"/folder/usage\",\
             error_detail=\"not-found\",method=\"POST\",operation=\"read\",status_code=\"404\"} 1",
            "backendai_api_request_duration_sec_bucket{domain=\"\",endpoint=\"/folder/create\",\
             error_detail=\"\",method=\"POST\",operation=\"\",status_code=\"204\",le=\"0.01\"} 0",
            "backendai_api_request_duration_sec_bucket{domain=\"\",endpoint=\"/folder/create\",\
             error_detail=\"\",method=\"POST\",operation=\"\",status_code=\"204\",le=\"0.1\"} 1",
        ] {
            assert!(page.contains(line), "{line}\nis not on\n{page}");
        }
        for row in TABLE {
            assert!(page.contains(row.name), "{} is not on the page", row.name);
            assert!(page.contains(&format!("# TYPE {} {}", row.name, row.kind)));
        }
    }

    #[test]
    fn methods_are_a_closed_set() {
        for (method, want) in [("GET", "GET"), ("get", "OTHER"), ("PROPFIND", "OTHER")] {
            assert_eq!(method_label(method), want);
        }
    }
}
