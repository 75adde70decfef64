//! Metrics of this plane, and the page that both planes are scraped from.
//!
//! Laws
//! - Names and labels are the original's, so that its dashboards keep working.
//! - Every label has a closed set of values: no path, method or text of a client becomes a series.
//! - What the page shows of the process is read when the page is asked for.
//!
//! Source: contract 7.2; the specification's section on metrics.

mod process;
mod scopes;
mod source;
mod table;
mod vendors;
mod view;
mod work;

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use prometheus::{Registry, TextEncoder};

pub use source::{Durations, RequestSeries, Sample, Source, Value};
pub use table::{
    DURATION_BUCKETS_S, LOOK_BUCKETS_S, MetricRow, Stability, TABLE, TASK_BUCKETS_S, reference, row,
};
pub use vendors::Vendors;
pub use view::{Cause, Endpoints};

use scopes::Scopes;
use work::Work;

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
    pub error: [&'static str; 3],
    /// From the request's head to the end of its answer.
    pub duration: Duration,
}

/// Labels of a request, owned where they are not of the program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Series {
    endpoint: String,
    method: String,
    status: u16,
    error: [&'static str; 3],
}

/// What this plane counts, and whom else to ask.
pub struct Metrics {
    registry: Registry,
    endpoints: RwLock<Endpoints>,
    requests: Mutex<HashMap<Series, Durations>>,
    sources: RwLock<Vec<Box<dyn Source>>>,
    /// Operations on volumes.
    pub(crate) work: Work,
    /// Quota scopes that were asked for.
    pub(crate) scopes: Scopes,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let registry = Registry::new();
        let rows = [
            row::CPU_PERCENT,
            row::MEMORY_RSS,
            row::MEMORY_VMS,
            row::ASYNC_TASKS,
        ];
        registry
            .register(Box::new(process::Process::new(rows)))
            .expect("no name is in the table twice");
        Self {
            registry,
            endpoints: RwLock::default(),
            requests: Mutex::default(),
            sources: RwLock::default(),
            work: Work::default(),
            scopes: Scopes::default(),
        }
    }

    /// Where other parts of the program register their collectors.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Which names of endpoints are on the page.
    pub fn set_endpoints(&self, endpoints: Endpoints) {
        *self.endpoints.write() = endpoints;
    }

    /// Lets another part of the program show what it counts.
    pub fn add_source(&self, source: Box<dyn Source>) {
        self.sources.write().push(source);
    }

    /// Counts one answered request.
    pub fn answered(&self, request: &Request<'_>) {
        let series = Series {
            endpoint: request.endpoint.to_owned(),
            method: request.method.to_owned(),
            status: request.status,
            error: request.error,
        };
        let seconds = request.duration.as_secs_f64();
        let mut requests = self.requests.lock();
        let durations = requests.entry(series).or_default();
        durations.count(seconds, DURATION_BUCKETS_S);
    }

    /// The page for Prometheus, in the classic text format.
    pub fn page(&self) -> String {
        let mut families = self.registry.gather();
        let endpoints = *self.endpoints.read();
        self.add_requests(&mut families, endpoints);
        for sample in self.work.samples().iter().chain(&self.scopes.samples()) {
            source::add_sample(&mut families, sample);
        }
        for source in self.sources.read().iter() {
            source::add(&mut families, &**source, endpoints);
        }
        families.sort_by(|a, b| a.name().cmp(b.name()));
        // An error here means that a family is empty or without a name; the rest of the page would
        // be lost with it, so the operator is told on the page itself.
        TextEncoder::new()
            .encode_to_string(&families)
            .unwrap_or_else(|error| format!("# {error}\n"))
    }

    fn add_requests(&self, families: &mut Vec<prometheus::proto::MetricFamily>, names: Endpoints) {
        if names != Endpoints::Routes {
            let none = Durations::default();
            for (endpoint, method, outcomes) in view::FROM_START {
                for told in *outcomes {
                    source::put_request(families, (endpoint, method), *told, &none);
                }
            }
        }
        for (series, durations) in &*self.requests.lock() {
            let told = (series.status, series.error);
            let of = (series.endpoint.as_str(), series.method.as_str());
            source::add_request(families, of, told, view::cause(told), durations, names);
        }
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
#[path = "metrics/tests.rs"]
mod tests;
