//! Certificates by host name: a folder, followed, and what the catalog has ([`from_catalog`]).
//!
//! Always: a pair is used only when it fits together and to its file's name; one that does not keeps the pair of before, and says so; a
//! connection keeps what it began with. A client that asks for a name without a certificate gets the default one, or a failed handshake.

mod from_catalog;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsAcceptor;

use crate::Error;

pub(crate) use from_catalog::FromCatalog;
use from_catalog::Known;

/// The protocols that are offered in a handshake.
pub(crate) const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// How often the folder is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// The name of the pair for whoever asks for another name, or none.
const DEFAULT: &str = "default";
/// What stands in a file's name for `*`.
const WILDCARD: &str = "_.";

/// The folder's pairs, by file name without its ending.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// `None` when all are the catalog's.
    folder: Option<PathBuf>,
    /// What the catalog has; a file of the same name goes before it.
    known: ArcSwap<Known>,
    pairs: ArcSwap<HashMap<Box<str>, Pair>>,
    provider: Arc<CryptoProvider>,
}

#[derive(Clone, Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    read: Stamp,
}

/// When both files were written, and how long they are.
type Stamp = [(SystemTime, u64); 2];

/// Accepts connections with these certificates.
pub(crate) fn acceptor(certificates: &Arc<Certificates>) -> Result<TlsAcceptor, Error> {
    let wrong = |error: rustls::Error| Error::Setting { part: "tls", what: error.to_string() };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&certificates.provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(wrong)?.with_no_client_auth();
    let mut config = builder.with_cert_resolver(Arc::clone(certificates) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(wrong)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Certificates {
    /// Reads a folder. A pair that does not do is left out, with a warning.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn read(folder: Option<&Path>) -> Result<Self, Error> {
        let this = Self {
            folder: folder.map(Path::to_owned),
            known: ArcSwap::default(),
            pairs: ArcSwap::default(),
            provider: Arc::new(aws_lc_rs::default_provider()),
        };
        if let Some(folder) = folder {
            let missing =
                |e: std::io::Error| Error::Setting { part: "tls", what: format!("certificates: {}: {e}", folder.display()) };
            this.look(folder, &mut BTreeSet::new()).map_err(missing)?;
            if this.pairs.load().is_empty() {
                tracing::warn!(folder = %folder.display(), "no certificate is in the folder yet");
            }
        }
        Ok(this)
    }

    fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    fn learn(&self, known: Known) {
        self.known.store(Arc::new(known));
    }

    /// Looks at the folder again and again.
    pub(crate) async fn follow(self: Arc<Self>) {
        let Some(folder) = &self.folder else { return };
        let mut told = BTreeSet::new();
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.look(folder, &mut told) {
                tracing::warn!(folder = %folder.display(), %error, "the folder of certificates cannot be read");
            }
        }
    }

    /// Reads what has changed. `told` holds the faults that were logged already, so that each is once.
    fn look(&self, folder: &Path, told: &mut BTreeSet<String>) -> std::io::Result<()> {
        let before = self.pairs.load_full();
        let mut pairs = HashMap::new();
        let mut faults = BTreeSet::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".crt")) else { continue };
            let known = before.get(name);
            match self.pair(name, &path, known) {
                Ok(pair) => drop(pairs.insert(name.to_ascii_lowercase().into(), pair)),
                Err(fault) => {
                    let fault = format!("{name}: {fault}");
                    if !told.contains(&fault) {
                        tracing::warn!(
                            "a certificate cannot be used{}: {fault}",
                            if known.is_some() { ", its old one stays" } else { "" }
                        );
                    }
                    faults.insert(fault);
                    pairs.extend(known.map(|pair| (Box::from(name), pair.clone())));
                }
            }
        }
        *told = faults;
        let is_new = |name: &str, pair: &Pair| before.get(name).is_none_or(|old| !Arc::ptr_eq(&old.key, &pair.key));
        if pairs.len() != before.len() || pairs.iter().any(|(name, pair)| is_new(name, pair)) {
            tracing::info!(certificates = pairs.len(), "certificates were read");
            self.pairs.store(Arc::new(pairs));
        }
        Ok(())
    }

    fn pair(&self, name: &str, chain: &Path, known: Option<&Pair>) -> Result<Pair, String> {
        let key = chain.with_extension("key");
        let read = [stamp(chain)?, stamp(&key)?];
        if let Some(known) = known.filter(|known| known.read == read) {
            return Ok(known.clone());
        }
        let certificates: Vec<_> =
            CertificateDer::pem_file_iter(chain).and_then(Iterator::collect).map_err(|e| format!("{}: {e}", chain.display()))?;
        let leaf = certificates.first().ok_or("the file holds no certificate")?;
        fits(name, leaf)?;
        let key = PrivateKeyDer::from_pem_file(&key).map_err(|e| format!("{}: {e}", key.display()))?;
        let key = CertifiedKey::from_der(certificates, key, &self.provider).map_err(|e| e.to_string())?;
        Ok(Pair { key: Arc::new(key), read })
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let (pairs, known) = (self.pairs.load(), self.known.load());
        let by = |name: &str| pairs.get(name).map(|pair| &pair.key).or_else(|| known.get(name).map(|(_, key)| key));
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            by(&name).or_else(|| by(&format!("{WILDCARD}{}", name.split_once('.')?.1)))
        });
        named.or_else(|| pairs.get(DEFAULT).map(|pair| &pair.key)).map(Arc::clone)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = self.find(hello.server_name());
        if found.is_none() {
            tracing::debug!(name = hello.server_name(), "there is no certificate for this name, and no default");
        }
        found
    }
}

/// Whether a certificate is for the name of its file.
fn fits(name: &str, leaf: &CertificateDer<'_>) -> Result<(), String> {
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|e| format!("it cannot be read: {e}"))?;
    if name == DEFAULT {
        return Ok(());
    }
    // Any name below a wildcard tells.
    let name = name.strip_prefix(WILDCARD).map_or_else(|| name.to_owned(), |parent| format!("any.{parent}"));
    let name = ServerName::try_from(name).map_err(|_| "the file's name is no host name".to_owned())?;
    leaf.verify_is_valid_for_subject_name(&name).map_err(|_| "it is for other names than its file's".to_owned())
}

fn stamp(path: &Path) -> Result<(SystemTime, u64), String> {
    let meta = std::fs::metadata(path).and_then(|meta| Ok((meta.modified()?, meta.len())));
    meta.map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, file: &str, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(folder.join(format!("{file}.crt")), made.cert.pem()).unwrap();
        std::fs::write(folder.join(format!("{file}.key")), made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn names_find_their_certificate() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "acme.example", &["acme.example"]);
        write(folder.path(), "_.tenants.example", &["*.tenants.example"]);
        write(folder.path(), "lies.example", &["other.example"]);
        let certificates = Certificates::read(Some(folder.path())).unwrap();
        let has = |name: &str| certificates.find(Some(name)).is_some();
        assert!(has("ACME.example") && has("a.tenants.example"));
        assert!(!has("a.b.tenants.example") && !has("tenants.example") && !has("lies.example") && !has("x"));
        write(folder.path(), "default", &["whatever.example"]);
        certificates.look(folder.path(), &mut BTreeSet::new()).unwrap();
        assert!(has("x") && certificates.find(None).is_some());
    }

    #[test]
    fn a_broken_file_keeps_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "acme.example", &["acme.example"]);
        let certificates = Certificates::read(Some(folder.path())).unwrap();
        let first = certificates.find(Some("acme.example")).unwrap();
        let mut told = BTreeSet::new();
        std::fs::write(folder.path().join("acme.example.crt"), "-----BEGIN CERT").unwrap();
        certificates.look(folder.path(), &mut told).unwrap();
        assert!(Arc::ptr_eq(&first, &certificates.find(Some("acme.example")).unwrap()));
        assert_eq!(told.len(), 1);
        write(folder.path(), "acme.example", &["acme.example"]);
        certificates.look(folder.path(), &mut told).unwrap();
        assert!(!Arc::ptr_eq(&first, &certificates.find(Some("acme.example")).unwrap()));
        // A key of another certificate does not fit.
        write(folder.path(), "other.example", &["other.example"]);
        std::fs::copy(folder.path().join("other.example.key"), folder.path().join("acme.example.key")).unwrap();
        certificates.look(folder.path(), &mut told).unwrap();
        assert!(told.iter().any(|fault| fault.starts_with("acme.example")), "{told:?}");
        std::fs::remove_file(folder.path().join("acme.example.crt")).unwrap();
        certificates.look(folder.path(), &mut told).unwrap();
        assert!(certificates.find(Some("acme.example")).is_none());
    }
}
