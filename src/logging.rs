//! Log records: from `tracing` to standard error and to a rotated file.
//!
//! Lines look like the original's, and loggers are called `ai.backend.storage.<area>`, so that
//! existing `pkg-ns` tables and searches keep working.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};

use proxy_core::config::{Document, Level};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::failure::Failure;
use crate::load::Loaded;

mod file;
mod line;

use file::RotatedFile;
use line::{Form, Record, write_line};

/// One place that log lines go to.
struct Sink<W> {
    form: Form,
    out: Mutex<W>,
}

impl<S: Subscriber, W: Write + Send + 'static> Layer<S> for Sink<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = String::new();
        write_line(&Record::of(event), self.form, &mut text);
        // A panic elsewhere while the lock was held left whole lines behind. A log that cannot be
        // written has nowhere to say so.
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// Starts logging as configured; `level` is what the command line says.
///
/// # Errors
/// The log file cannot be opened.
pub fn init(loaded: &Loaded, level: Option<&str>) -> Result<(), Failure> {
    let document = &loaded.document;
    let filter = || filter(document, level);
    let drivers = document.texts("logging.drivers");
    let named = |driver: &str| drivers.iter().any(|name| name == driver);
    let console = named("console").then(|| {
        Sink {
            form: console_form(document),
            out: Mutex::new(io::stderr()),
        }
        .with_filter(filter())
    });
    let file = if named("file") {
        let out = Mutex::new(open_file(loaded)?);
        Some(
            Sink {
                form: Form::Json,
                out,
            }
            .with_filter(filter()),
        )
    } else {
        None
    };
    // A second subscriber in one process is a mistake of a test, and harmless.
    let _ = tracing_subscriber::registry()
        .with(console)
        .with(file)
        .try_init();
    for driver in drivers
        .iter()
        .filter(|name| !["console", "file"].contains(&name.as_str()))
    {
        tracing::warn!("logging.drivers: the {driver} driver is not active yet");
    }
    Ok(())
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
