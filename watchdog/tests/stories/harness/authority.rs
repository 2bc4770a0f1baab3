//! An authority of a story's own, that vouches for servers on this node.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// An authority; its certificate is `ca.pem` in its folder.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        // Unlike a server's, or that would pass for signed by itself.
        params
            .distinguished_name
            .push(DnType::CommonName, "the stories' authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("own folder");
        Self { issuer, folder }
    }

    /// Its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes a certificate for a server on 127.0.0.1 and localhost, and its key; gives both files. In the
    /// place of those that it wrote before.
    pub fn vouch(&self, into: &Path) -> (PathBuf, PathBuf) {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("names");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (cert_file, key_file) = (into.join("server.pem"), into.join("server.key"));
        std::fs::write(&cert_file, cert.pem()).expect("it can be written");
        std::fs::write(&key_file, key.serialize_pem()).expect("it can be written");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&key_file, mode).expect("own file");
        (cert_file, key_file)
    }
}
