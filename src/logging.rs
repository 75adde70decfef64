//! Log records: from `tracing` to standard error, a rotated file, and log servers.
//!
//! Lines look like the original's, and loggers are called `ai.backend.storage.<area>`, so that
//! existing `pkg-ns` tables and searches keep working.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proxy_api::metrics::{Sample, Source, row};
use proxy_core::config::{Document, Level};
use tokio::task::JoinSet;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::failure::Failure;
use crate::load::Loaded;

mod file;
mod graylog;
mod hub;
mod line;
mod logstash;
mod loki;
mod otlp;
mod record;
mod scrub;
mod secure;
mod setup;
mod ship;

use file::RotatedFile;
use hub::{Hub, Output};
use line::Form;
use record::{Pass, Recorder};
use scrub::Scrub;

/// The places of this process.
static HUB: OnceLock<Hub> = OnceLock::new();

/// How long the end waits for records on their way to other machines.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// Starts logging as configured; `level` is what the command line says. Until [`start`] every
/// record is written at once.
///
/// # Errors
/// The log file cannot be opened.
pub fn init(loaded: &Loaded, level: Option<&str>) -> Result<(), Failure> {
    let document = &loaded.document;
    let drivers = document.texts("logging.drivers");
    let named = |driver: &str| drivers.iter().any(|name| name == driver);
    let mut outputs = Vec::new();
    if named("console") {
        outputs.push(Output {
            form: console_form(document),
            out: Box::new(io::stderr()),
            count: ("console", Default::default()),
        });
    }
    if named("file") {
        outputs.push(Output {
            form: Form::Json,
            out: Box::new(open_file(loaded)?),
            count: ("file", Default::default()),
        });
    }
    let hub = Hub::new(outputs, Scrub::new(document.secrets()));
    let recorder = Recorder(hub.clone()).with_filter(Pass(filter(document, level)));
    // A second subscriber in one process is a mistake of a test, and harmless.
    let _ = tracing_subscriber::registry().with(recorder).try_init();
    let _ = HUB.set(hub);
    Ok(())
}

/// Hides a secret that is not in the configuration.
pub fn hide(secret: &str) {
    if let Some(hub) = HUB.get() {
        hub.hide(secret);
    }
}

/// What ships records to other machines.
#[derive(Debug, Default)]
pub struct Shipping(JoinSet<()>);

/// From now on nobody waits for a log any more. The process is whoever it will be, and this is
/// inside the control plane's runtime.
///
/// # Errors
/// A place that was asked for can not be used as it is configured.
pub fn start(loaded: &Loaded) -> Result<Shipping, Failure> {
    let mut tasks = JoinSet::new();
    if let Some(hub) = HUB.get() {
        let feeds = setup::feeds(loaded, &mut tasks)?;
        hub.start(queue_records(&loaded.document));
        hub.feed(feeds);
    }
    Ok(Shipping(tasks))
}

impl Shipping {
    /// Writes what is left, and gives other machines a moment to take theirs.
    pub async fn end(mut self) {
        flush();
        let ended = async { while self.0.join_next().await.is_some() {} };
        // What could not be delivered until now is lost.
        let _ = tokio::time::timeout(LAST_WAIT, ended).await;
    }
}

/// Writes what was logged so far.
pub fn flush() {
    if let Some(hub) = HUB.get() {
        hub.flush();
    }
}

fn queue_records(document: &Document) -> usize {
    usize::try_from(document.int("logging.queue-records")).unwrap_or(1)
}

/// Records by place and fate, for the metrics page.
pub struct Counts;

impl Source for Counts {
    fn samples(&self) -> Vec<Sample> {
        let counts = HUB.get().map(Hub::counts).unwrap_or_default();
        let mut samples = Vec::new();
        for (sink, count) in counts {
            for (result, count) in [("written", &count.written), ("dropped", &count.dropped)] {
                let count = count.load(Ordering::Relaxed) as f64;
                samples.push(Sample::number(&row::LOG_RECORDS, &[result, sink], count));
            }
        }
        samples
    }
}

fn console_form(document: &Document) -> Form {
    let format = document.text("logging.console.format", &[]);
    let asked = document.flag_if_set("logging.console.colored");
    let colored = asked.unwrap_or_else(|| io::stderr().is_terminal());
    match format.as_deref() {
        Some("json") => Form::Json,
        Some("simple") => Form::Simple { colored },
        _ => Form::Verbose { colored },
    }
}

fn open_file(loaded: &Loaded) -> Result<RotatedFile, Failure> {
    let text = |key: &str| loaded.document.text(key, &[]).unwrap_or_default();
    let path = loaded
        .path(text("logging.file.path"))
        .join(text("logging.file.filename"));
    let backups = usize::try_from(loaded.document.int("logging.file.backup-count")).unwrap_or(0);
    let bytes_max = loaded
        .document
        .size("logging.file.rotation-size")
        .unwrap_or(u64::MAX);
    RotatedFile::open(&path, bytes_max, backups)
        .map_err(|error| Failure::at("open log file", &path, &error))
}

/// What passes: per logger the stricter of its own level and the level of all.
fn filter(document: &Document, flag: Option<&str>) -> Targets {
    let debug = document.flag("debug.enabled").then_some(Level::Debug);
    let over = flag.and_then(|text| text.parse().ok()).or(debug);
    let mut loggers = document.levels("logging.pkg-ns");
    let all = over.unwrap_or_else(|| document.level("logging.level"));
    if let Some(level) = over {
        loggers.insert("ai.backend".into(), level);
    }
    targets(&loggers, all)
}

fn targets(loggers: &BTreeMap<String, Level>, all: Level) -> Targets {
    let stricter = |level: Level| severity(level.max(all));
    let rest = loggers.get("").copied().unwrap_or(Level::Warning);
    let mut targets = Targets::new().with_default(stricter(rest));
    // Shorter names first: the longest match counts, whatever the order.
    for (name, level) in loggers.iter().filter(|(name, _)| !name.is_empty()) {
        for target in modules(name) {
            targets = targets.with_target(target, stricter(*level));
        }
    }
    targets
}

const fn severity(level: Level) -> LevelFilter {
    match level {
        Level::Critical | Level::Error => LevelFilter::ERROR,
        Level::Warning => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace | Level::NotSet => LevelFilter::TRACE,
    }
}

/// Prefixes of Rust module paths that a logger name means.
fn modules(name: &str) -> Vec<String> {
    let ours = ["ai.backend.storage", "ai.backend", "ai"]
        .iter()
        .find_map(|root| {
            let rest = name.strip_prefix(root)?;
            if rest.is_empty() {
                Some("")
            } else {
                rest.strip_prefix('.')
            }
        });
    match ours {
        // Ours as a whole.
        Some("") => vec![name.into(), "proxy_".into(), "storage_proxy".into()],
        Some(area) if name.starts_with("ai.backend.storage") => {
            let area = area.replace('.', "::");
            vec![
                name.into(),
                format!("proxy_{area}"),
                format!("storage_proxy::{area}"),
            ]
        }
        _ => vec![name.replace('.', "::")],
    }
}

/// The logger name of a Rust module path.
fn logger(target: &str) -> String {
    let ours = target
        .strip_prefix("proxy_")
        .or_else(|| target.strip_prefix("storage_proxy::"));
    match ours {
        Some(area) => format!("ai.backend.storage.{}", area.replace("::", ".")),
        None if target == "storage_proxy" => "ai.backend.storage".into(),
        None => target.replace("::", "."),
    }
}

#[cfg(test)]
#[path = "logging_tests.rs"]
mod tests;
