//! TLS at the port: whom it says to be, exchanged while it runs.
//!
//! In: a certificate and key. Out: what greets a connection. Never: a file (they are read where the
//! configuration is), a client's certificate.

use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ServerConfig, crypto};

/// Whom the port says to be.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Shown>);

#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&shown))
    }
}

impl Identity {
    /// This one, until it is exchanged.
    #[must_use]
    pub fn new(shown: Arc<CertifiedKey>) -> Self {
        Self(Arc::new(Shown(RwLock::new(shown))))
    }

    /// Shows another to those who come from now on.
    pub fn exchange(&self, shown: Arc<CertifiedKey>) {
        *self.0.0.write().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// What greets with it: TLS 1.2 and 1.3, HTTP/1.1 inside.
    ///
    /// # Errors
    /// The library has none of these versions.
    pub fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let provider = Arc::new(crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("http.tls: TLS cannot be set up: {error}"))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.0) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
