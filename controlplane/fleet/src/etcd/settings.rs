//! Where etcd is and how to speak to it.

use std::fmt;
use std::time::Duration;

/// Everything that a client needs.
#[derive(Clone)]
pub struct Settings {
    /// Members, each as `host:port`; IPv6 addresses in brackets. Never empty.
    pub endpoints: Vec<String>,
    /// Keys stand below `/sorna/<namespace>/`.
    pub namespace: String,
    /// Whose node scope is read.
    pub node_id: String,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// TLS, if etcd speaks it.
    pub tls: Option<Tls>,
    /// How long one call may take.
    pub request_time_max: Duration,
}

/// What stands in the files of TLS, in PEM.
#[derive(Clone)]
pub struct Tls {
    /// Authorities that may sign the server's certificate.
    pub ca: Vec<u8>,
    /// Our certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that the server's certificate must have; that of the endpoint when `None`.
    pub server_name: Option<String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("endpoints", &self.endpoints)
            .field("namespace", &self.namespace)
            .field("node_id", &self.node_id)
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .field("tls", &self.tls)
            .field("request_time_max", &self.request_time_max)
            .finish()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}
