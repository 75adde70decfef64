//! Storage systems' own interfaces, simulated: real state on a real directory, over TLS.
//!
//! A [`Simulator`] serves one vendor on a port of its own. A vendor is a [`Vendor`]: a table of
//! routes over a state behind a lock, and three words about sessions and errors. What all of them
//! need is here: the server, [`fault`]s on demand, what was asked ([`Simulator::requests`]),
//! [`jobs`] that take their time, and sums over the [`disk`].
//!
//! How to add a vendor: a module with a `struct`, `impl Vendor` with its `routes()`, a row in
//! [`TABLE`]. A route is method, pattern and function; `{}` in a pattern matches one segment,
//! `{*}` at its end matches the rest:
//!
//! ```text
//! Route { method: "GET", pattern: "/api/jobs/{}", handle: |sim, ask| sim.job(&ask.params[0]) }
//! ```
//!
//! Laws
//! - A simulator knows nothing of the product; it is right when the vendor's own client passes its
//!   script against it.
//! - Quotas are computed from the directory, never made up.
//! - Handlers do not wait: delays are faults, and jobs count how often they were looked at.

#![forbid(unsafe_code)]

pub mod disk;
pub mod fault;
pub mod gpfs;
pub mod hammerspace;
pub mod jobs;
pub mod netapp;
pub mod onefs;
pub mod purestorage;
pub mod recording;
mod server;
pub mod vast;
pub mod weka;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::Value;

pub use fault::{Fault, What};

use crate::fault::Faults;
use crate::server::{Server, Shared};

/// One request, as a handler sees it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, in capitals.
    pub method: String,
    /// Decoded, without the query.
    pub path: String,
    /// Decoded pairs, in order.
    pub query: Vec<(String, String)>,
    /// Lower-case names and values.
    pub headers: Vec<(String, String)>,
    /// As it came.
    pub body: Vec<u8>,
    /// What the `{}` of the route's pattern matched.
    pub params: Vec<String>,
}

impl Request {
    /// The first value of a key in the query.
    pub fn query(&self, key: &str) -> Option<&str> {
        let found = self.query.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `Null` for anything else.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// User and password of HTTP basic authentication.
    pub fn basic(&self) -> Option<(String, String)> {
        use base64::Engine;
        let text = self.header("authorization")?.strip_prefix("Basic ")?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, password) = text.split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let mut pairs = self.header("cookie")?.split(';');
        pairs.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
    }
}

/// One answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Names and values; the content type of JSON is added if there is none.
    pub headers: Vec<(String, String)>,
    /// `Null` is no body, a text is sent as it is, all else as JSON.
    pub body: Value,
}

impl Reply {
    /// JSON.
    pub fn json(status: u16, body: Value) -> Self {
        let headers = Vec::new();
        Self {
            status,
            headers,
            body,
        }
    }

    /// Nothing but a status.
    pub fn empty(status: u16) -> Self {
        Self::json(status, Value::Null)
    }

    /// With another header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// What answers one kind of request. See [`crate`] for patterns.
pub struct Route<V: 'static> {
    /// `GET`, in capitals.
    pub method: &'static str,
    /// The path.
    pub pattern: &'static str,
    /// Makes the answer.
    pub handle: fn(&V, &Request) -> Reply,
}

/// One vendor's interface.
pub trait Vendor: Send + Sync + Sized + 'static {
    /// The `backend` of the product's configuration.
    const NAME: &'static str;

    /// What is answered, first match wins.
    fn routes() -> &'static [Route<Self>];

    /// Whether the caller may: called before every route.
    ///
    /// # Errors
    /// The answer that refuses it.
    fn admit(&self, request: &Request) -> Result<(), Reply>;

    /// The vendor's envelope for an error that no route made: unknown paths, injected statuses.
    fn error(&self, status: u16, text: &str) -> Reply;

    /// All sessions and tokens are forgotten.
    fn expire(&self) {}

    /// Its jobs, if it has any.
    fn jobs(&self) -> Option<&jobs::Jobs> {
        None
    }

    /// The system was switched off and on again: what it keeps in memory is lost.
    fn restart(&self) {
        self.expire();
    }
}

/// A request and what was answered.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The request.
    pub request: Request,
    /// 0: the connection was dropped.
    pub status: u16,
    /// The answer's.
    pub body: Value,
}

/// A vendor's interface on a port of 127.0.0.1. Ends with its value.
pub struct Simulator<V: Vendor> {
    shared: Arc<Shared<V>>,
    server: Server,
    ca_file: PathBuf,
}

impl<V: Vendor> Simulator<V> {
    /// Serves `vendor` over TLS on a free port. `home` is where its certificate is put, beside
    /// whatever else and other simulators', until this one ends.
    ///
    /// # Panics
    /// When there is no port, or no file can be made: nothing can be tested then.
    pub fn start(vendor: V, home: &Path) -> Self {
        Self::start_on(vendor, home, 0)
    }

    /// As [`Self::start`], on a port that is known.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_on(vendor: V, home: &Path, port: u16) -> Self {
        let shared = Arc::new(Shared {
            vendor,
            faults: Faults::default(),
            recorded: Mutex::default(),
        });
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (process, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let ca_file = home.join(format!("simulator-ca-{process}-{n}.pem"));
        let server = Server::start(&shared, port, &ca_file);
        Self {
            shared,
            server,
            ca_file,
        }
    }

    /// `https://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.server.port())
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The certificate to trust, PEM.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The answer to a request, past the network and past all faults.
    pub fn answer(&self, request: Request) -> Reply {
        server::dispatch(&self.shared.vendor, request)
    }

    /// The state, to arrange it and to look at it.
    pub fn vendor(&self) -> &V {
        &self.shared.vendor
    }

    /// Makes requests to come fail.
    pub fn inject(&self, fault: Fault) {
        self.shared.faults.add(fault);
    }

    /// No further request fails.
    pub fn heal(&self) {
        self.shared.faults.clear();
    }

    /// Everything that was asked so far, oldest first.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.recorded.lock().clone()
    }

    /// How many requests so far had this method (any if empty) and this in their path.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let recorded = self.shared.recorded.lock();
        let ours = |one: &&Recorded| {
            let method_fits = method.is_empty() || one.request.method == method;
            method_fits && one.request.path.contains(path)
        };
        recorded.iter().filter(ours).count()
    }

    /// All sessions end: their tokens are refused from now on.
    pub fn expire(&self) {
        self.shared.vendor.expire();
    }

    /// Nothing listens any more, and all connections break.
    pub fn stop(&self) {
        self.server.power(false);
    }

    /// Listens again on the same port, as after a restart.
    pub fn resume(&self) {
        self.shared.vendor.restart();
        self.server.power(true);
    }
}

impl<V: Vendor> Drop for Simulator<V> {
    fn drop(&mut self) {
        // The directory may be gone already.
        let _ = std::fs::remove_file(&self.ca_file);
    }
}

/// A simulator of any vendor, for those who do not look at its state.
pub trait Running {
    /// `https://127.0.0.1:port`.
    fn url(&self) -> String;
    /// The certificate to trust, PEM.
    fn ca_file(&self) -> &Path;
    /// See [`Simulator::inject`].
    fn inject(&self, fault: Fault);
    /// See [`Simulator::heal`].
    fn heal(&self);
    /// See [`Simulator::count`].
    fn count(&self, method: &str, path: &str) -> usize;
    /// See [`Simulator::requests`].
    fn requests(&self) -> Vec<Recorded>;
    /// See [`Simulator::expire`].
    fn expire(&self);
    /// See [`Simulator::stop`].
    fn stop(&self);
    /// See [`Simulator::resume`].
    fn resume(&self);
    /// Its jobs, if it has any.
    fn jobs(&self) -> Option<&jobs::Jobs>;
}

impl<V: Vendor> Running for Simulator<V> {
    fn url(&self) -> String {
        Self::url(self)
    }

    fn ca_file(&self) -> &Path {
        Self::ca_file(self)
    }

    fn inject(&self, fault: Fault) {
        Self::inject(self, fault);
    }

    fn heal(&self) {
        Self::heal(self);
    }

    fn count(&self, method: &str, path: &str) -> usize {
        Self::count(self, method, path)
    }

    fn requests(&self) -> Vec<Recorded> {
        Self::requests(self)
    }

    fn expire(&self) {
        Self::expire(self);
    }

    fn stop(&self) {
        Self::stop(self);
    }

    fn resume(&self) {
        Self::resume(self);
    }

    fn jobs(&self) -> Option<&jobs::Jobs> {
        self.shared.vendor.jobs()
    }
}

/// Starts a simulator over a directory, with its usual credentials, on a port (0: any).
type Start = fn(&Path, u16) -> Box<dyn Running>;

/// The vendors that can be simulated.
pub const TABLE: &[(&str, Start)] = &[
    (gpfs::Gpfs::NAME, gpfs::start),
    (hammerspace::Hammerspace::NAME, hammerspace::start),
    (netapp::NetApp::NAME, netapp::start),
    (onefs::OneFs::NAME, onefs::start),
    (purestorage::FlashBlade::NAME, purestorage::start),
    (vast::Vast::NAME, vast::start),
    (weka::Weka::NAME, weka::start),
];

/// Starts the simulator of a name of [`TABLE`], or `None`.
pub fn start_named(name: &str, dir: &Path, port: u16) -> Option<Box<dyn Running>> {
    let (_, start) = TABLE.iter().find(|(known, _)| *known == name)?;
    Some(start(dir, port))
}
