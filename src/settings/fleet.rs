//! What the configuration says about the fleet.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use proxy_core::config::{Document, Issue};
use proxy_core::token::Secret;
use proxy_fleet::discovery::{Place, Settings as Discovery};
use proxy_fleet::etcd;
use proxy_fleet::frame::ServiceEndpoint;
use proxy_fleet::link::RedisSettings;
use serde_json::{Map, Value};

use crate::failure::plain;
use crate::load::Loaded;

/// Membership in a fleet.
#[derive(Clone)]
pub struct FleetSettings {
    /// etcd; without it Redis alone makes the fleet.
    pub etcd: Option<etcd::Settings>,
    /// The table `[redis]`, nested as the same settings are in etcd; empty when it is not there.
    pub redis: Map<String, Value>,
    /// How this server announces itself.
    pub discovery: Discovery,
    /// The Manager's API, if it is not to be looked for.
    pub manager_endpoint: Option<String>,
    /// How the Manager is asked, if it is.
    pub manager: Option<ManagerKeys>,
}

/// Who we are to the Manager, and how long we wait.
#[derive(Clone, Debug)]
pub struct ManagerKeys {
    /// Public half of the keypair.
    pub access_key: String,
    /// The other half.
    pub secret_key: Secret,
    /// Until a connection is there.
    pub connect_time_max: Duration,
    /// For a whole call.
    pub call_time_max: Duration,
}

impl fmt::Debug for FleetSettings {
    /// Without the table of Redis, which holds passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetSettings")
            .field("etcd", &self.etcd)
            .field("discovery", &self.discovery)
            .field("manager_endpoint", &self.manager_endpoint)
            .finish_non_exhaustive()
    }
}

/// Performance figures of volumes.
#[derive(Clone, Copy, Debug)]
pub struct VolumeStats {
    /// Between two looks.
    pub observe_interval: Duration,
    /// For one look.
    pub observe_timeout: Duration,
    /// In the cache.
    pub cache_ttl: Duration,
}

impl VolumeStats {
    pub(super) fn of(document: &Document) -> Self {
        let time = |name: &str| {
            // The table keeps it at 1 or more; what no `Duration` holds is as good as for ever.
            let seconds = document.float(&format!("storage-proxy.volume-stats.{name}"));
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        };
        Self {
            observe_interval: time("observe-interval"),
            observe_timeout: time("observe-timeout"),
            cache_ttl: time("cache-ttl"),
        }
    }
}

impl FleetSettings {
    /// `None` for a server that stands alone.
    pub(super) fn of(loaded: &Loaded, node_id: &str, tls: Option<etcd::Tls>) -> Option<Self> {
        let document = &loaded.document;
        if !is_member(document) {
            return None;
        }
        Some(Self {
            etcd: document
                .has_section("etcd")
                .then(|| of_etcd(document, node_id, tls)),
            redis: of_redis(loaded),
            discovery: of_discovery(document, node_id),
            manager_endpoint: text(document, "manager.endpoint"),
            manager: of_manager(document),
        })
    }
}

/// Whether the configuration makes this server a member of a fleet.
pub fn is_member(document: &Document) -> bool {
    document.has_section("etcd") || document.has_section("redis")
}

/// A text that is set and not empty.
fn text(document: &Document, path: &str) -> Option<String> {
    document.text(path, &[]).filter(|text| !text.is_empty())
}

fn of_manager(document: &Document) -> Option<ManagerKeys> {
    Some(ManagerKeys {
        access_key: text(document, "manager.access-key")?,
        secret_key: Secret::new(text(document, "manager.secret-key")?),
        connect_time_max: document.duration("manager.connect-timeout"),
        call_time_max: document.duration("manager.request-timeout"),
    })
}

fn of_etcd(document: &Document, node_id: &str, tls: Option<etcd::Tls>) -> etcd::Settings {
    let addresses = document.host_ports("etcd.addr");
    let user = text(document, "etcd.user");
    etcd::Settings {
        endpoints: addresses.iter().map(ToString::to_string).collect(),
        namespace: text(document, "etcd.namespace").unwrap_or_default(),
        node_id: node_id.to_owned(),
        credentials: user.zip(text(document, "etcd.password")),
        tls,
        request_time_max: document.duration("etcd.request-timeout"),
    }
}

/// The table as it stands, with the paths of files made absolute.
fn of_redis(loaded: &Loaded) -> Map<String, Value> {
    let mut table = loaded.document.nested("redis");
    absolute(loaded, &mut table);
    if let Some(roles) = table
        .get_mut("override-configs")
        .and_then(Value::as_object_mut)
    {
        for role in roles.values_mut().filter_map(Value::as_object_mut) {
            absolute(loaded, role);
        }
    }
    table
}

fn absolute(loaded: &Loaded, table: &mut Map<String, Value>) {
    if let Some(Value::String(file)) = table.get_mut("tls-ca") {
        *file = loaded.path(&*file).display().to_string();
    }
}

fn of_discovery(document: &Document, node_id: &str) -> Discovery {
    let address = document.host_port("api.manager.announce-addr");
    let labels = document.table("service-discovery.extra-labels", &[]);
    let labels: BTreeMap<String, String> = labels
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())))
        .collect();
    let in_etcd = text(document, "service-discovery.type").as_deref() == Some("etcd");
    Discovery {
        place: if in_etcd { Place::Etcd } else { Place::Redis },
        display_name: text(document, "service-discovery.display-name")
            .unwrap_or_else(|| format!("storage-{node_id}")),
        port: address.port,
        address: address.to_string(),
        prometheus_address: document
            .host_port("api.manager.announce-internal-addr")
            .to_string(),
        labels,
        instance_id: text(document, "service-discovery.instance-id"),
        service_group: text(document, "service-discovery.service-group"),
        endpoints: of_endpoints(document),
    }
}

fn of_endpoints(document: &Document) -> Vec<ServiceEndpoint> {
    let endpoint = |name: String| {
        let names = [name];
        let path = |key: &str| format!("service-discovery.endpoints[].{key}");
        let text = |key: &str| document.text(&path(key), &names).unwrap_or_default();
        let port = document.int_of(&path("port"), &names).unwrap_or_default();
        ServiceEndpoint {
            role: text("role"),
            scope: text("scope"),
            address: text("address"),
            port: u16::try_from(port).unwrap_or_default(),
            protocol: text("protocol"),
            metadata: document.table(&path("metadata"), &names),
        }
    };
    let names = document.names("service-discovery.endpoints[]");
    names.into_iter().map(endpoint).collect()
}

/// Says what is wrong with the table of Redis as a whole.
pub(super) fn check_redis(loaded: &Loaded, issues: &mut Vec<Issue>) {
    if let Err(error) = RedisSettings::from_nested(&of_redis(loaded)) {
        issues.push(Issue::new("redis", error.to_string()));
    }
}

/// Says what is missing of the Manager's keypair, or wrong with its URL.
pub(super) fn check_manager(loaded: &Loaded, issues: &mut Vec<Issue>) {
    let of = |key: &str| text(&loaded.document, key);
    let (access, secret) = (of("manager.access-key"), of("manager.secret-key"));
    if access.is_some() != secret.is_some() {
        let what = "access-key and secret-key are set together";
        issues.push(Issue::new("manager", what));
    }
    let url = of("manager.endpoint");
    if url.is_some_and(|url| url.parse::<reqwest::Url>().is_err()) {
        issues.push(Issue::new("manager.endpoint", "it is not a URL"));
    }
}

/// Reads the files of TLS towards etcd, while the process still may.
pub(super) fn etcd_tls(loaded: &Loaded, issues: &mut Vec<Issue>) -> Option<etcd::Tls> {
    let document = &loaded.document;
    if !document.flag("etcd.ssl-enabled") {
        return None;
    }
    let mut read = |path: &str| {
        let file = loaded.path(text(document, path)?);
        let content = std::fs::read(&file);
        content
            .map_err(|error| {
                let what = format!("{}: {}", file.display(), plain(&error));
                issues.push(Issue::new(path, what));
            })
            .ok()
    };
    let (cert, key) = (read("etcd.ssl-cert"), read("etcd.ssl-privkey"));
    Some(etcd::Tls {
        ca: read("etcd.ssl-ca")?,
        identity: cert.zip(key),
        server_name: text(document, "etcd.ssl-server-name"),
    })
}
