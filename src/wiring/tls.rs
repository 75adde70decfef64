//! Certificates for the listeners that speak TLS.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::failure::Failure;
use crate::settings::{Settings, TlsFiles};

/// What the listeners need to speak TLS; `None` for one that does not.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Of the client port.
    pub client: Option<Arc<ServerConfig>>,
    /// Of the manager port.
    pub manager: Option<Arc<ServerConfig>>,
}

impl Certificates {
    /// Reads certificates and keys. To be called before root is given up: keys are often root's.
    ///
    /// # Errors
    /// A file is not what it should be, or key and certificate do not belong together.
    pub fn read(settings: &Settings) -> Result<Self, Failure> {
        Ok(Self {
            client: server(settings, settings.client_tls.as_ref())?,
            manager: server(settings, settings.manager_tls.as_ref())?,
        })
    }
}

fn server(
    settings: &Settings,
    files: Option<&TlsFiles>,
) -> Result<Option<Arc<ServerConfig>>, Failure> {
    let Some(files) = files else { return Ok(None) };
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
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] = if settings.tls_1_3_only {
        &[&rustls::version::TLS13]
    } else {
        rustls::ALL_VERSIONS
    };
    let broken = |error: rustls::Error| {
        let (cert, key) = (files.cert.display(), files.key.display());
        Failure::new(format!("TLS with {cert} and {key}: {error}"))
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(broken)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(broken)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Clients that open a connection per chunk resume their session instead of shaking hands.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(broken)?;
    Ok(Some(Arc::new(config)))
}
