//! How client commands find the server: from the configuration and data directory that `serve`
//! uses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use proxy_core::token::Secret;

use crate::cli::Place;
use crate::client::http::{Endpoint, Manager};
use crate::client::tls;
use crate::datadir::DataDir;
use crate::failure::Failure;
use crate::load::{Loaded, load};
use crate::settings::{Addresses, Outside, VolumeSettings, look, volumes};

/// A server, and the right to use it.
pub struct Access {
    /// Where tokens come from.
    pub manager: Manager,
    /// Where bytes go.
    pub client: Endpoint,
    /// Health and metrics.
    pub internal: Endpoint,
    /// Names of folders, unfinished transfers.
    pub data: DataDir,
    /// The server's volumes.
    pub volumes: Vec<VolumeSettings>,
}

impl Access {
    /// Finds the server of `place`.
    ///
    /// # Errors
    /// There is no usable configuration, or no server has run with it yet.
    pub fn find(place: &Place) -> Result<Self, Failure> {
        let loaded = load(place, Vec::new())?;
        let data = DataDir::at(&loaded.data_dir);
        let secret = data.manager_secret(&loaded.document)?;
        Self::with(loaded, data, secret)
    }

    /// Finds the internal port alone, which needs no secret.
    pub fn internal(place: &Place) -> Result<Endpoint, Failure> {
        let loaded = load(place, Vec::new())?;
        let data = DataDir::at(&loaded.data_dir);
        Ok(Self::with(loaded, data, Secret::new(""))?.internal)
    }

    fn with(loaded: Loaded, data: DataDir, secret: Secret) -> Result<Self, Failure> {
        let outside = look(&loaded)
            .map_err(|issues| crate::load::problems(loaded.file.as_deref(), &issues))?;
        let Outside {
            addresses,
            client_tls,
            manager_tls,
            ..
        } = outside;
        let found = running(&data).unwrap_or(addresses);
        let cert = |tls: Option<crate::settings::TlsFiles>| tls.map(|files| files.cert);
        let manager = endpoint("manager", found.manager, cert(manager_tls))?;
        Ok(Self {
            manager: Manager::new(manager, secret),
            client: endpoint("client", found.client, cert(client_tls))?,
            internal: endpoint("internal", found.internal, None)?,
            volumes: volumes(&loaded),
            data,
        })
    }
}

/// Where the running server says that it listens; port 0 and flags of `serve` are known only there.
fn running(data: &DataDir) -> Option<Addresses> {
    let word = data.runtime()?;
    let address = |url: &str| url.split_once("://")?.1.parse().ok();
    Some(Addresses {
        client: address(&word.client)?,
        manager: address(&word.manager)?,
        internal: address(&word.internal)?,
    })
}

fn endpoint(port: &str, at: SocketAddr, cert: Option<PathBuf>) -> Result<Endpoint, Failure> {
    // "Every interface" is no place to connect to; loopback is one of them.
    let ip = match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let tls = cert.map(|cert| tls::pinned(&cert)).transpose()?;
    Ok(Endpoint::new(port, SocketAddr::new(ip, at.port()), tls))
}
