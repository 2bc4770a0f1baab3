//! Whom https is spoken with: authorities that are trusted.
//!
//! In: the node's own roots, or a file. Out: what a client needs. Never: a server's certificate taken
//! unseen.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// The authorities that this node trusts.
///
/// # Errors
/// It trusts none.
pub fn by_the_node() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        return Err(
            "this node trusts no certificate authority; install ca-certificates".to_owned(),
        );
    }
    Ok(roots)
}

/// Those in a file, and no others.
///
/// # Errors
/// It holds none; the message names it.
pub fn by_file(file: &Path) -> Result<RootCertStore, String> {
    let said = |what: &str| format!("{}: {what}", file.display());
    let pem = std::fs::read(file).map_err(|error| said(&error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate
            .map_err(|error| said(&format!("is damaged PEM ({error}); copy it anew")))?;
        roots.add(certificate).map_err(|error| {
            said(&format!(
                "holds something that is no certificate ({error}); copy it anew"
            ))
        })?;
    }
    if roots.is_empty() {
        return Err(said(
            "holds no certificate; name the authority's, in PEM (\"BEGIN CERTIFICATE\")",
        ));
    }
    Ok(roots)
}

/// A client that trusts these.
///
/// # Errors
/// The library has no version of TLS to speak.
pub fn client(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("https cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
