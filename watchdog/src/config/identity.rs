//! The certificate and key that the port shows.
//!
//! In: two PEM files. Out: both, found to belong together, or what is wrong with which, and the mend. Never:
//! a key's content in a message.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SigningKey};
use tokio_rustls::rustls::{Error, InconsistentKeys};

use super::trust;

/// Chains are a few KiB, keys less; beyond this a file is something else.
const MAX_PEM_BYTES: u64 = 256 * 1024;

/// Where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The certificate, followed by those between it and the authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What is wrong with each of the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// With the certificate.
    pub cert: Option<String>,
    /// With the key.
    pub key: Option<String>,
}

impl IdentityFiles {
    /// Reads them.
    ///
    /// # Errors
    /// One cannot be trusted or holds something else, or they do not belong together.
    pub fn load(&self) -> Result<Arc<CertifiedKey>, Wrong> {
        let (chain, key) = match (chain(&self.cert), key(&self.key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => {
                return Err(Wrong {
                    cert: chain.err(),
                    key: key.err(),
                });
            }
        };
        let identity = CertifiedKey::new(chain, key);
        let (cert, key) = (self.cert.display(), self.key.display());
        match identity.keys_match() {
            Ok(()) => Ok(Arc::new(identity)),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(Wrong {
                key: Some(format!(
                    "{key} is not the key of the certificate in {cert}; name the key that the \
                     certificate was made with (its chain comes after it, not before)"
                )),
                ..Wrong::default()
            }),
            Err(error) => Err(Wrong {
                cert: Some(format!(
                    "{cert} begins with something that is no certificate for a server ({error}); have \
                     it issued anew"
                )),
                ..Wrong::default()
            }),
        }
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let said = |what: String| format!("{} {what}", path.display());
    let pem = read(trust::config(path).map_err(said)?).map_err(said)?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(said(
            "holds no certificate in PEM; name the file with \"BEGIN CERTIFICATE\" lines"
                .to_owned(),
        )),
        Err(error) => Err(said(format!("is damaged PEM ({error}); copy it anew"))),
    }
}

fn key(path: &Path) -> Result<Arc<dyn SigningKey>, String> {
    let said = |what: String| format!("{} {what}", path.display());
    let pem = read(trust::kept_to_few(path).map_err(said)?).map_err(said)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        said(match error {
            pem::Error::NoItemsFound if is_encrypted(&pem) => format!(
                "is encrypted, and there is nobody to ask for its password; run: openssl pkey -in \
                 {} -out FILE",
                path.display()
            ),
            pem::Error::NoItemsFound => {
                "holds no private key in PEM; name the file with a \"BEGIN PRIVATE KEY\" line"
                    .to_owned()
            }
            // Not shown: it may quote what stands there.
            _ => "is damaged PEM; copy it anew".to_owned(),
        })
    })?;
    any_supported_type(&key).map_err(|_| {
        said(
            "is a kind of key that is not supported; use ECDSA (P-256, P-384), Ed25519, or RSA from \
             2048 to 8192 bits"
                .to_owned(),
        )
    })
}

fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn read(file: std::fs::File) -> Result<Vec<u8>, String> {
    let mut pem = Vec::new();
    file.take(MAX_PEM_BYTES + 1)
        .read_to_end(&mut pem)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if pem.len() as u64 > MAX_PEM_BYTES {
        return Err("is larger than 256 KiB; name a file in PEM".to_owned());
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use rcgen::{CertificateParams, KeyPair};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        /// A certificate and its key.
        fn pair(&self, name: &str) -> IdentityFiles {
            let key = KeyPair::generate().unwrap();
            let names = vec!["localhost".to_owned()];
            let cert = CertificateParams::new(names).unwrap().self_signed(&key);
            IdentityFiles {
                cert: self.put(&format!("{name}.crt"), &cert.unwrap().pem(), 0o644),
                key: self.put(&format!("{name}.key"), &key.serialize_pem(), 0o600),
            }
        }
    }

    fn wrong(cert: &Path, key: &Path) -> (Option<String>, Option<String>) {
        let (cert, key) = (cert.to_owned(), key.to_owned());
        let wrong = IdentityFiles { cert, key }.load().unwrap_err();
        (wrong.cert, wrong.key)
    }

    #[test]
    fn a_pair_is_taken_and_two_halves_are_not() {
        let folder = Folder::new();
        let (one, other) = (folder.pair("one"), folder.pair("other"));
        assert!(one.load().is_ok());
        let (cert, key) = wrong(&one.cert, &other.key);
        assert_eq!(cert, None);
        let key = key.unwrap();
        assert!(
            key.contains("other.key is not the key of the certificate in"),
            "{key}"
        );
        assert!(key.contains("one.crt; name the key"), "{key}");
    }

    #[test]
    fn a_key_for_all_to_read_is_refused_with_the_mend() {
        let folder = Folder::new();
        let pair = folder.pair("one");
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o644)).unwrap();
        let (cert, key) = wrong(&pair.cert, &pair.key);
        assert_eq!(cert, None);
        let shown = pair.key.display();
        assert_eq!(
            key.unwrap(),
            format!("{shown} may be read by everybody; run: chmod o= {shown}")
        );
        // A group may: the service's own.
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(pair.load().is_ok());
        // Neither may be written by others.
        fs::set_permissions(&pair.cert, fs::Permissions::from_mode(0o666)).unwrap();
        let (cert, _) = wrong(&pair.cert, &pair.key);
        assert!(cert.unwrap().contains("may be written by others"));
    }

    #[test]
    fn what_is_something_else_is_said_and_never_quoted() {
        let folder = Folder::new();
        let pair = folder.pair("one");
        let chain = |text: &str| {
            wrong(&folder.put("c.pem", text, 0o600), &pair.key)
                .0
                .unwrap()
        };
        let key = |text: &str| {
            wrong(&pair.cert, &folder.put("k.pem", text, 0o600))
                .1
                .unwrap()
        };
        let secret = fs::read_to_string(&pair.key).unwrap();
        assert!(chain("").contains("holds no certificate in PEM"));
        assert!(chain(&secret).contains("holds no certificate in PEM"));
        assert!(key("").contains("holds no private key in PEM"));
        let cert = fs::read_to_string(&pair.cert).unwrap();
        assert!(key(&cert).contains("holds no private key in PEM"));
        let encrypted = secret.replace("PRIVATE", "ENCRYPTED PRIVATE");
        assert!(key(&encrypted).contains("is encrypted"));
        let strange = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        assert!(key(strange).contains("a kind of key that is not supported"));
        let torn = secret.replace("-----END", "!!hunter2\n-----END");
        let said = key(&torn);
        assert!(
            said.contains("is damaged PEM") && !said.contains("hunter2"),
            "{said}"
        );
        let no_certificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        assert!(chain(no_certificate).contains("no certificate for a server"));
        assert!(chain(&"x".repeat(300 * 1024)).contains("larger than 256 KiB"));
    }

    #[test]
    fn both_mistakes_are_told_at_once_with_key_and_line() {
        let folder = Folder::new();
        let pair = folder.pair("one");
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o604)).unwrap();
        let text = format!(
            "http:\n  tls:\n    cert: /nonexistent/c.pem\n    key: {}\n",
            pair.key.display()
        );
        let said = Config::parse(Path::new("x.yaml"), &text)
            .unwrap_err()
            .to_string();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(
            lines[0],
            "x.yaml:3: http.tls.cert: /nonexistent/c.pem does not exist; check the path"
        );
        assert!(
            lines[1].starts_with("x.yaml:4: http.tls.key: ") && lines[1].contains("chmod o="),
            "{said}"
        );
        let said = Config::parse(Path::new("x.yaml"), "http: { tls: { key: k.pem } }\n");
        let said = said.unwrap_err().to_string();
        assert!(
            said.contains("http.tls") && said.contains("name one, like"),
            "{said}"
        );
        assert!(said.contains("\"k.pem\" is not an absolute path"), "{said}");
    }
}
