//! TLS to a server whose certificate is on this machine.
//!
//! The configuration names the very certificate that the server shows, so that one is accepted and
//! no other: it may be self-signed and issued to any name, and no certificate authority is asked.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::failure::Failure;
use crate::verifier::{Accept, without_authority};

/// Trusts exactly the first certificate of a PEM file.
///
/// # Errors
/// The file has no certificate.
pub fn pinned(file: &Path) -> Result<Arc<ClientConfig>, Failure> {
    let failed = |why: String| Failure::new(format!("certificate {}: {why}", file.display()));
    let mut chain =
        CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))?;
    let first = chain
        .next()
        .ok_or_else(|| failed("the file has none".into()))?;
    let certificate = first.map_err(|error| failed(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = without_authority(Accept::Only(certificate), &provider);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
