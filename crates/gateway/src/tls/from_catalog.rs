//! Certificates that the catalog has, beside those of the folder.
//!
//! Always: private keys come sealed, and stay sealed on the disk; an outage of the control plane leaves what there is, and a start without it
//! begins with the copy; a certificate that cannot be used leaves the one of its name that was there before.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use insula_api::Client;
use insula_api::certificate::{SealedCertificate, SealedCertificates};
use insula_core::CertificateKey;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Certificates, WILDCARD, fits};
use crate::Error;
use crate::config::Config;

/// How often the control plane is asked; mostly it answers that nothing has changed.
const EVERY: Duration = Duration::from_secs(2);

/// Certificates by name, as files are named.
pub(super) type Known = HashMap<Box<str>, (SealedCertificate, Arc<CertifiedKey>)>;

/// Follows the catalog's certificates.
pub(crate) struct FromCatalog {
    client: Client,
    key: CertificateKey,
    copy: Option<PathBuf>,
    certificates: Arc<Certificates>,
}

impl FromCatalog {
    /// Begins with the copy on the disk; `None` when the settings name no key for the catalog's certificates.
    pub(crate) fn open(config: &Config, certificates: &Arc<Certificates>) -> Result<Option<Self>, Error> {
        let Some(file) = &config.tls.catalog_key_file else { return Ok(None) };
        let bad = |what: String| Error::Setting { part: "tls", what };
        let read = |file: &Path| std::fs::read_to_string(file).map_err(|e| bad(format!("{}: {e}", file.display())));
        let (Some(url), Some(edge_key)) = (&config.catalog.control_url, &config.catalog.key_file) else {
            return Err(bad("catalog_key_file needs [catalog] control_url and key_file".into()));
        };
        let key = CertificateKey::from_hex(read(file)?.trim()).map_err(|e| bad(format!("{}: {e}", file.display())))?;
        let authorities = config.catalog.authorities().map_err(bad)?;
        let client = Client::with_authorities(url, &read(edge_key)?, authorities.as_deref()).map_err(|e| bad(e.to_string()))?;
        let this = Self { client, key, copy: config.tls.catalog_copy.clone(), certificates: Arc::clone(certificates) };
        match this.copy.as_deref().map(std::fs::read) {
            None => {}
            Some(Ok(bytes)) => match serde_json::from_slice(&bytes) {
                Ok(kept) => this.take(kept),
                Err(error) => tracing::warn!(%error, "the copy of the catalog's certificates cannot be read"),
            },
            Some(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Some(Err(error)) => tracing::warn!(%error, "the copy of the catalog's certificates cannot be read"),
        }
        Ok(Some(this))
    }

    /// Asks again and again.
    pub(crate) async fn follow(self) {
        let this = Arc::new(self);
        let (mut etag, mut is_away) = (None, false);
        loop {
            match this.client.sealed_certificates(etag.as_deref()).await {
                Ok(Some((all, tag))) => {
                    (etag, is_away) = (Some(tag), false);
                    let taker = Arc::clone(&this);
                    // Opening and checking takes a while for thousands. A panic there was reported by its own thread.
                    let _ = tokio::task::spawn_blocking(move || {
                        taker.keep(&all);
                        taker.take(all);
                    })
                    .await;
                }
                Ok(None) => is_away = false,
                Err(error) if !is_away => {
                    is_away = true;
                    tracing::warn!(%error, "the catalog's certificates cannot be had: those that are known stay");
                }
                Err(_) => {}
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn take(&self, all: SealedCertificates) {
        let before = self.certificates.known();
        let mut known = Known::with_capacity(all.items.len());
        for item in all.items {
            let file_name = item.name.strip_prefix("*.").map_or_else(|| item.name.clone(), |rest| format!("{WILDCARD}{rest}"));
            let old = before.get(&*file_name);
            if let Some(same) = old.filter(|(was, _)| *was == item) {
                known.insert(file_name.into(), same.clone());
                continue;
            }
            match self.pair(&file_name, &item) {
                Ok(key) => drop(known.insert(file_name.into(), (item, Arc::new(key)))),
                Err(fault) => {
                    tracing::warn!(name = item.name, fault, "a certificate of the catalog cannot be used");
                    known.extend(old.map(|old| (file_name.into(), old.clone())));
                }
            }
        }
        tracing::info!(certificates = known.len(), "the catalog's certificates were read");
        self.certificates.learn(known);
    }

    fn pair(&self, file_name: &str, item: &SealedCertificate) -> Result<CertifiedKey, String> {
        let sealed = STANDARD.decode(&item.sealed_key).map_err(|e| e.to_string())?;
        let opened = self.key.open(&item.name, &sealed).map_err(|e| e.to_string())?;
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(item.chain.as_bytes()).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        fits(file_name, chain.first().ok_or("it holds no certificate")?)?;
        let key = PrivateKeyDer::from_pem_slice(&opened).map_err(|_| "its key cannot be read")?;
        CertifiedKey::from_der(chain, key, &self.certificates.provider).map_err(|e| e.to_string())
    }

    /// Writes the copy, whole or not at all.
    fn keep(&self, all: &SealedCertificates) {
        let Some(copy) = &self.copy else { return };
        let new = copy.with_extension("new");
        let written = serde_json::to_vec(all).map_err(std::io::Error::other);
        let written = written.and_then(|text| std::fs::write(&new, text)).and_then(|()| std::fs::rename(&new, copy));
        if let Err(error) = written {
            tracing::warn!(file = %copy.display(), %error, "the catalog's certificates cannot be kept on the disk");
        }
    }
}
