//! Where the Manager's API is: as configured, or as Managers announce it.

use serde_json::{Map, Value};

use super::IN_ETCD;
use crate::etcd::{Etcd, Scope};
use crate::link::Link;

/// Records that are read at most: a fleet has a handful of Managers.
const RECORDS_MAX: usize = 64;

/// Finds Managers.
#[derive(Clone)]
pub struct Managers {
    endpoint: Option<String>,
    link: Link,
    etcd: Option<Etcd>,
}

impl Managers {
    /// `endpoint` goes before everything that is announced; `link` is that of the role `live`.
    pub const fn new(endpoint: Option<String>, link: Link, etcd: Option<Etcd>) -> Self {
        Self {
            endpoint,
            link,
            etcd,
        }
    }

    /// URLs of the Manager's API, the one that was heard of last first. Empty: none is known.
    pub async fn find(&self) -> Vec<String> {
        if let Some(endpoint) = &self.endpoint {
            return vec![endpoint.clone()];
        }
        let mut found = self.in_redis().await;
        found.extend(self.in_etcd().await);
        found.sort_by(|one, other| other.0.total_cmp(&one.0));
        let mut urls: Vec<String> = Vec::new();
        for (_, url) in found {
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        urls
    }

    /// Managers that say that they are up. Their names are no addresses.
    pub async fn names(&self) -> Vec<String> {
        let Some(etcd) = &self.etcd else {
            return Vec::new();
        };
        let found = etcd
            .get_prefix("nodes/manager", Scope::Global)
            .await
            .unwrap_or_default();
        let up = found.into_iter().filter(|(_, state)| state == "up");
        up.map(|(name, _)| name).collect()
    }

    async fn in_redis(&self) -> Vec<(f64, String)> {
        let mut found = Vec::new();
        for key in self.keys().await {
            let mut get = redis::cmd("HMGET");
            get.arg(key).arg("endpoint").arg("health_status");
            let fields = self
                .link
                .query::<(Option<String>, Option<String>)>(&get)
                .await;
            let Ok((Some(endpoint), health)) = fields else {
                continue;
            };
            let endpoint: Value = serde_json::from_str(&endpoint).unwrap_or_default();
            let health = health.and_then(|text| serde_json::from_str::<Value>(&text).ok());
            found.extend(url(&endpoint).map(|url| (beat(health.as_ref()), url)));
        }
        found
    }

    async fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor)
                .arg("MATCH")
                .arg("service_discovery.manager.*")
                .arg("COUNT")
                .arg(1000);
            let Ok((next, some)) = self.link.query::<(u64, Vec<String>)>(&scan).await else {
                return keys;
            };
            keys.extend(some);
            cursor = next;
            if cursor == 0 || RECORDS_MAX <= keys.len() {
                keys.truncate(RECORDS_MAX);
                return keys;
            }
        }
    }

    async fn in_etcd(&self) -> Vec<(f64, String)> {
        let Some(etcd) = &self.etcd else {
            return Vec::new();
        };
        let prefix = format!("{IN_ETCD}/manager");
        let records: Map<String, Value> = etcd
            .get_prefix(&prefix, Scope::Global)
            .await
            .unwrap_or_default();
        let found = records.values().filter_map(|record| {
            let url = url(record.get("endpoint")?)?;
            Some((beat(record.get("health_status")), url))
        });
        found.collect()
    }
}

/// When a record was written last; 0 when it does not say.
fn beat(health: Option<&Value>) -> f64 {
    let beat = health.and_then(|health| health.get("last_heartbeat"));
    match beat {
        Some(Value::String(text)) => text.parse().unwrap_or_default(),
        Some(beat) => beat.as_f64().unwrap_or_default(),
        None => 0.0,
    }
}

/// The URL of an announced endpoint. Its address has the port in it already, as a rule.
fn url(endpoint: &Value) -> Option<String> {
    let address = endpoint.get("address")?.as_str()?.trim();
    let protocol = endpoint
        .get("protocol")
        .and_then(Value::as_str)
        .unwrap_or("http");
    let port = match endpoint.get("port") {
        Some(Value::String(text)) => text.parse().ok(),
        Some(port) => port.as_u64(),
        None => None,
    };
    let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
        let is_whole = !host.contains(':') || host.ends_with(']');
        is_whole && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    match port {
        _ if address.is_empty() => None,
        Some(port) if !has_port && address.contains(':') && !address.starts_with('[') => {
            Some(format!("{protocol}://[{address}]:{port}"))
        }
        Some(port) if !has_port => Some(format!("{protocol}://{address}:{port}")),
        _ => Some(format!("{protocol}://{address}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn announced_endpoints_become_urls() {
        for (endpoint, want) in [
            (
                json!({"address": "10.0.0.1:8081", "port": 8081, "protocol": "http"}),
                Some("http://10.0.0.1:8081"),
            ),
            (
                json!({"address": "m", "port": "8081", "protocol": "https"}),
                Some("https://m:8081"),
            ),
            (
                json!({"address": "[::1]:1", "port": 1}),
                Some("http://[::1]:1"),
            ),
            (json!({"address": "::1", "port": 1}), Some("http://[::1]:1")),
            (
                json!({"address": "[::1]", "port": 1}),
                Some("http://[::1]:1"),
            ),
            (json!({"address": "m"}), Some("http://m")),
            (json!({"address": ""}), None),
            (json!({"port": 1}), None),
        ] {
            assert_eq!(url(&endpoint).as_deref(), want, "{endpoint}");
        }
    }
}
