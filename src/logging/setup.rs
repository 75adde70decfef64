//! From the configuration to the places that records go to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proxy_core::config::{Document, Level};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::hub::{Counted, Feed};
use super::loki::Loki;
use super::otlp::{Options, Otlp};
use super::record::plain;
use super::secure::{Peer, Trust};
use super::ship::{self, Batch, Ship};
use super::{graylog, logstash};
use crate::failure::Failure;
use crate::load::Loaded;

/// Records that go to Logstash or Graylog in one piece.
const LINES: Batch = Batch {
    records_max: 256,
    wait: Duration::from_millis(100),
};

/// Starts the tasks that ship records; to be called inside the control plane's runtime.
///
/// # Errors
/// A certificate or an address is not what it should be, or a protocol is not spoken.
pub(super) fn feeds(loaded: &Loaded, tasks: &mut JoinSet<()>) -> Result<Vec<Feed>, Failure> {
    let document = &loaded.document;
    let mut feeds = Vec::new();
    let all = super::severity(document.level("logging.level"));
    let all = all.into_level().unwrap_or(tracing::Level::ERROR);
    for driver in document.texts("logging.drivers") {
        let (ship, batch, level): (Box<dyn Ship>, _, _) = match driver.as_str() {
            "logstash" => (logstash(loaded)?, LINES, all),
            "graylog" => (
                graylog(loaded)?,
                LINES,
                level(document, "logging.graylog.level"),
            ),
            "loki" => (loki(loaded)?, loki_batch(document), all),
            _ => continue,
        };
        let name = NAMES
            .into_iter()
            .find(|name| *name == driver)
            .unwrap_or("other");
        let (feed, incoming) = feed(document, name, level);
        tasks.spawn(ship::run(incoming, ship, batch, feed.count.clone()));
        feeds.push(feed);
    }
    if document.flag("otel.enabled") {
        let otlp = otlp(document)?;
        let (feed, incoming) = feed(document, "otlp", level(document, "otel.log-level"));
        tasks.spawn(otlp.run(incoming, feed.count.clone()));
        feeds.push(feed);
    }
    Ok(feeds)
}

const NAMES: [&str; 3] = ["logstash", "graylog", "loki"];

/// A queue with its count.
fn feed(
    document: &Document,
    name: &'static str,
    level: tracing::Level,
) -> (Feed, mpsc::Receiver<Arc<super::record::Record>>) {
    let (to, incoming) = mpsc::channel(super::queue_records(document));
    let count: Counted = (name, Arc::default());
    (Feed { to, level, count }, incoming)
}

fn level(document: &Document, path: &str) -> tracing::Level {
    let level: Level = document.level(path);
    super::severity(level)
        .into_level()
        .unwrap_or(tracing::Level::ERROR)
}

fn wrong(section: &str, why: &str) -> Failure {
    Failure::new(format!("logging.{section}: {why}"))
}

/// Who is trusted, by the keys of a section.
struct Keys {
    verify: bool,
    ca_certs: Option<PathBuf>,
    own: Option<(PathBuf, PathBuf)>,
}

impl Keys {
    fn read(loaded: &Loaded, section: &str, with_own: bool) -> Self {
        let document = &loaded.document;
        let file = |name: &str| {
            let text = document.text(&format!("logging.{section}.{name}"), &[]);
            text.filter(|text| !text.is_empty())
                .map(|text| loaded.path(text))
        };
        let own = with_own
            .then(|| file("certfile").zip(file("keyfile")))
            .flatten();
        Self {
            verify: document.flag(&format!("logging.{section}.ssl-verify")),
            ca_certs: file("ca-certs"),
            own,
        }
    }

    fn trust(&self) -> Trust<'_> {
        let own = self.own.as_ref();
        Trust {
            verify: self.verify,
            ca_certs: self.ca_certs.as_deref(),
            own: own.map(|(certificate, key)| (certificate.as_path(), key.as_path())),
        }
    }
}

fn logstash(loaded: &Loaded) -> Result<Box<dyn Ship>, Failure> {
    let document = &loaded.document;
    let endpoint = document.host_port("logging.logstash.endpoint");
    let host = crate::host::name();
    let protocol = document
        .text("logging.logstash.protocol", &[])
        .unwrap_or_default();
    match protocol.as_str() {
        "udp" => Ok(Box::new(logstash::Udp {
            to: (endpoint.host, endpoint.port),
            host,
            socket: None,
        })),
        "tcp" => {
            let keys = Keys::read(loaded, "logstash", false);
            let tls = document.flag("logging.logstash.ssl-enabled");
            let tls = tls.then(|| keys.trust().config()).transpose();
            Ok(Box::new(logstash::Tcp {
                peer: Peer {
                    host: endpoint.host,
                    port: endpoint.port,
                    tls: tls.map_err(|why| wrong("logstash", &why))?,
                },
                host,
                stream: None,
            }))
        }
        other => Err(wrong(
            "logstash",
            &format!(
                "protocol {other} is not spoken: set protocol = \"tcp\", and the input of Logstash \
                 to tcp with the json_lines codec"
            ),
        )),
    }
}

fn graylog(loaded: &Loaded) -> Result<Box<dyn Ship>, Failure> {
    let document = &loaded.document;
    let text = |name: &str| document.text(&format!("logging.graylog.{name}"), &[]);
    let keys = Keys::read(loaded, "graylog", true);
    let tls = keys
        .trust()
        .config()
        .map_err(|why| wrong("graylog", &why))?;
    Ok(Box::new(graylog::Graylog {
        peer: Peer {
            host: text("host").unwrap_or_default(),
            port: u16::try_from(document.int("logging.graylog.port")).unwrap_or(0),
            tls: Some(tls),
        },
        host: text("localname")
            .filter(|name| !name.is_empty())
            .unwrap_or_else(crate::host::name),
        stream: None,
    }))
}

fn loki(loaded: &Loaded) -> Result<Box<dyn Ship>, Failure> {
    let document = &loaded.document;
    let text = |name: &str| {
        let text = document.text(&format!("logging.loki.{name}"), &[]);
        text.filter(|text| !text.is_empty())
    };
    let tls = Keys::read(loaded, "loki", false).trust().config();
    let tls = tls.map_err(|why| wrong("loki", &why))?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured((*tls).clone())
        .timeout(Duration::from_secs(10))
        .build()
        .map_err(|error| wrong("loki", &error.to_string()))?;
    let endpoint = text("endpoint").unwrap_or_default();
    let url = format!("{}/loki/api/v1/push", endpoint.trim_end_matches('/'));
    reqwest::Url::parse(&url).map_err(|error| wrong("loki.endpoint", &error.to_string()))?;
    let mut labels: BTreeMap<String, String> = node(document)
        .map(|node| ("node".to_owned(), node))
        .into_iter()
        .collect();
    labels.insert("service_name".into(), "storage-proxy".into());
    let added = document.table("logging.loki.labels", &[]);
    labels.extend(added.into_iter().map(|(name, value)| (name, plain(&value))));
    Ok(Box::new(Loki {
        client,
        url,
        tenant: text("tenant"),
        login: text("username").map(|user| (user, text("password").unwrap_or_default())),
        labels,
        vfolder_id_label: document.flag("logging.loki.vfolder-id-label"),
        with_metadata: true,
    }))
}

fn loki_batch(document: &Document) -> Batch {
    Batch {
        records_max: usize::try_from(document.int("logging.loki.batch-records")).unwrap_or(1),
        wait: document.duration("logging.loki.batch-time"),
    }
}

fn node(document: &Document) -> Option<String> {
    let node = document.text("storage-proxy.node-id", &[]);
    node.or_else(|| Some(crate::host::name()))
}

fn otlp(document: &Document) -> Result<Otlp, Failure> {
    let count =
        |name: &str| usize::try_from(document.int(&format!("otel.{name}"))).unwrap_or(usize::MAX);
    let options = Options {
        endpoint: document.text("otel.endpoint", &[]).unwrap_or_default(),
        node_id: node(document).unwrap_or_default(),
        queue_max: count("max-queue-size"),
        batch_max: count("max-export-batch-size"),
    };
    Otlp::new(&options).map_err(|why| Failure::new(format!("otel.endpoint: {why}")))
}
