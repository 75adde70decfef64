//! A certificate for the servers, and a client that trusts it: TLS 1.3 with one cipher, the same
//! for all, so that nobody wins by another one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite, ClientConfig, RootCertStore};

use crate::peer::TlsFiles;

/// What servers and the client need.
pub struct Certificate {
    /// For the servers.
    pub files: TlsFiles,
    /// For the client.
    pub client: Arc<ClientConfig>,
}

/// The cipher: what every server prefers on processors with AES instructions.
const CIPHER: CipherSuite = CipherSuite::TLS13_AES_256_GCM_SHA384;

/// Makes a certificate for `localhost` in `dir`.
///
/// # Errors
/// The files cannot be written.
pub fn make(dir: &Path) -> io::Result<Certificate> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
    let made = made.map_err(io::Error::other)?;
    let files = TlsFiles {
        chain: dir.join("chain.pem"),
        key: dir.join("key.pem"),
    };
    std::fs::write(&files.chain, made.cert.pem())?;
    std::fs::write(&files.key, made.signing_key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots
        .add(made.cert.der().clone())
        .map_err(io::Error::other)?;
    let mut provider: CryptoProvider = ring::default_provider();
    provider
        .cipher_suites
        .retain(|suite| suite.suite() == CIPHER);
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Certificate {
        files,
        client: Arc::new(client),
    })
}
