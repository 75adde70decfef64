//! Service discovery: how this server announces itself to its fleet.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Hashes in Redis.
    Redis,
    /// Keys in etcd.
    Etcd,
}

/// What is announced.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the record goes.
    pub place: Place,
    /// Name for people.
    pub display_name: String,
    /// `host:port` of the manager port, as others reach it.
    pub address: String,
    /// Its port alone.
    pub port: u16,
    /// `host:port` of the internal port, as Prometheus reaches it.
    pub prometheus_address: String,
    /// Labels of the record.
    pub labels: BTreeMap<String, String>,
    /// Name in the Manager's catalogue; made at each start when `None`.
    pub instance_id: Option<String>,
    /// Group in the Manager's catalogue; without one the server does not enter itself there.
    pub service_group: Option<String>,
    /// What the catalogue says about the addresses.
    pub endpoints: Vec<Endpoint>,
}

/// One address in the Manager's catalogue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Endpoint {
    /// What it is for.
    pub role: String,
    /// From where it can be reached.
    pub scope: String,
    /// Host name or address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// `http` or `https`.
    pub protocol: String,
    /// Anything else.
    pub metadata: Map<String, Value>,
}
