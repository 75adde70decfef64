//! Certificates for the listeners that speak TLS, and their exchange while the server runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use proxy_api::metrics::{Sample, Source, row};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::settings::{Settings, TlsFiles};

use super::expiry;

/// Sessions that are remembered for clients of TLS 1.2 that take no tickets.
const SESSIONS_MAX: usize = 4096;

/// What the listeners need to speak TLS; `None` for one that does not.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Of the client port.
    pub client: Option<Arc<ServerConfig>>,
    /// Of the manager port.
    pub manager: Option<Arc<ServerConfig>>,
    /// What [`Certificates::follow`] reads again, by the port that shows it.
    current: Vec<(&'static str, TlsFiles, Arc<Current>)>,
}

/// The certificate that new handshakes show.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificates {
    /// Reads certificates and keys. To be called before root is given up: keys are often root's.
    ///
    /// # Errors
    /// A file is not what it should be, or key and certificate do not belong together.
    pub fn read(settings: &Settings) -> Result<Self, Failure> {
        let mut current = Vec::new();
        let mut server = |port, files: Option<&TlsFiles>, protocols: &[&str]| {
            let Some(files) = files else { return Ok(None) };
            let shown = Arc::new(Current(ArcSwap::from_pointee(certificate(files)?)));
            current.push((port, files.clone(), Arc::clone(&shown)));
            config(settings, shown, protocols).map(Some)
        };
        let protocols: &[&str] = if settings.limits.http2 {
            &["h2", "http/1.1"]
        } else {
            &["http/1.1"]
        };
        let client = server("client", settings.client_tls.as_ref(), protocols)?;
        let manager = server("manager", settings.manager_tls.as_ref(), &["http/1.1"])?;
        Ok(Self {
            client,
            manager,
            current,
        })
    }

    /// Reads the files again at every SIGHUP. What can not be used is reported, and the old
    /// certificate stays.
    pub async fn follow(self) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => {
                tracing::error!(%error, "certificates can not be exchanged: no signals");
                return;
            }
        };
        while hangups.recv().await.is_some() {
            for (_, files, shown) in &self.current {
                let cert = files.cert.display();
                match certificate(files) {
                    Ok(fresh) => {
                        shown.0.store(Arc::new(fresh));
                        tracing::info!(%cert, "certificate read again");
                    }
                    Err(error) => tracing::error!(%cert, %error, "the old certificate stays"),
                }
            }
        }
    }
}

/// When certificates end, for the metrics page.
impl Source for Certificates {
    fn samples(&self) -> Vec<Sample> {
        let end = |(port, _, shown): &(&'static str, TlsFiles, Arc<Current>)| {
            let chain = &shown.0.load().cert;
            let first = chain
                .iter()
                .filter_map(|one| expiry::not_after(one))
                .min()?;
            Some(Sample::number(
                &row::CERTIFICATE_EXPIRY,
                &[port],
                first as f64,
            ))
        };
        self.current.iter().filter_map(end).collect()
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn broken(files: &TlsFiles, error: &rustls::Error) -> Failure {
    let (cert, key) = (files.cert.display(), files.key.display());
    Failure::new(format!("TLS with {cert} and {key}: {error}"))
}

fn certificate(files: &TlsFiles) -> Result<CertifiedKey, Failure> {
    let unreadable = |path: &std::path::Path, error: rustls_pki_types::pem::Error| {
        Failure::new(format!("read {}: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(&files.cert, error))?;
    if chain.is_empty() {
        return Err(Failure::new(format!(
            "{} holds no certificate",
            files.cert.display()
        )));
    }
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable(&files.key, error))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| broken(files, &error))
}

fn config(
    settings: &Settings,
    shown: Arc<Current>,
    protocols: &[&str],
) -> Result<Arc<ServerConfig>, Failure> {
    let versions: &[&rustls::SupportedProtocolVersion] = if settings.tls_1_3_only {
        &[&rustls::version::TLS13]
    } else {
        rustls::ALL_VERSIONS
    };
    let broken = |error: rustls::Error| Failure::new(format!("TLS: {error}"));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(versions)
        .map_err(broken)?
        .with_no_client_auth()
        .with_cert_resolver(shown);
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    // Clients that open a connection per chunk resume their session instead of shaking hands: by
    // ticket, which any thread takes, or out of the memory that all threads share.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(broken)?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    Ok(Arc::new(config))
}
