//! Connections to log servers, plain or TLS.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::verifier::{Accept, without_authority};

/// Where distributions keep the certificates that they trust.
const SYSTEM_CERTIFICATES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Either kind of connection.
pub(super) trait Both: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Both for T {}
/// An open connection.
pub(super) type Stream = Pin<Box<dyn Both>>;

/// A server, and how to speak to it.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Peer {
    pub(super) async fn connect(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::pin(stream));
        };
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(tls));
        Ok(Box::pin(connector.connect(name, stream).await?))
    }
}

/// How a server is trusted, and who we are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trust<'a> {
    pub(super) verify: bool,
    pub(super) ca_certs: Option<&'a Path>,
    /// Certificate and key.
    pub(super) own: Option<(&'a Path, &'a Path)>,
}

impl Trust<'_> {
    /// # Errors
    /// A file is not what it should be.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = if self.verify {
            let roots = Arc::new(self.roots()?);
            let builder = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
            builder.build().map_err(|error| error.to_string())?
        } else {
            without_authority(Accept::Anybody, &provider)
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|e| at(key, &e))?;
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|error| error.to_string())?
            }
        };
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let system = || {
            let mut all = SYSTEM_CERTIFICATES.iter().map(Path::new);
            all.find(|path| path.exists())
        };
        let file = self.ca_certs.or_else(system);
        let file = file.ok_or("this system has no certificates, set ca-certs")?;
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates(file)?);
        if added == 0 {
            return Err(format!("{}: no certificate of use", file.display()));
        }
        Ok(roots)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(file).map_err(|e| at(file, &e))?;
    all.collect::<Result<_, _>>().map_err(|e| at(file, &e))
}

fn at(file: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", file.display())
}
