//! The TLS side of a client: which roots are trusted. Verification itself is rustls's and cannot be switched off.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Loads the roots once, at the first https delivery; plain http needs none and works without any.
#[derive(Debug)]
pub(super) struct Tls {
    ca_file: Option<PathBuf>,
    loaded: Mutex<Option<Arc<ClientConfig>>>,
}

impl Tls {
    /// Nothing is read yet.
    pub(super) fn new(ca_file: Option<PathBuf>) -> Self {
        Tls { ca_file, loaded: Mutex::new(None) }
    }

    /// The configuration for https. May block on the file system. A failure is not remembered, so that a file that is put
    /// right counts at the next delivery.
    ///
    /// # Errors
    /// A line for people: no usable root at all, or a CA file that is set and cannot be read.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = &*loaded {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(build(self.roots()?)?);
        *loaded = Some(Arc::clone(&config));
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut store = RootCertStore::empty();
        if let Some(path) = &self.ca_file {
            add_file(&mut store, path)?;
        }
        // What the system's store holds beside usable certificates is not ours to judge.
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            return Err("no root certificates: the system has none, and no CA file is set".into());
        }
        Ok(store)
    }
}

fn add_file(store: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("the CA file cannot be read ({error})"))?;
    if certificates.is_empty() {
        return Err("the CA file holds no certificate".into());
    }
    for certificate in certificates {
        store.add(certificate).map_err(|error| format!("the CA file holds a bad certificate ({error})"))?;
    }
    Ok(())
}

/// The provider is named here and not installed for the process, which belongs to PostgreSQL.
fn build(roots: RootCertStore) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up ({error})"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A resumed session would skip the check of the certificate.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
