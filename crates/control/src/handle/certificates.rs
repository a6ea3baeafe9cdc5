//! Certificates of host names: checked when they are put, kept with a sealed key, handed to gateways as they are kept.

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, Utc};
use insula_api::certificate::{Certificate, PutCertificate};
use insula_catalog::host;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use serde_json::json;

use super::Control;
use crate::error::Error;
use crate::store;
use crate::store::certificates::Sealed;

/// Each gateway keeps all of them in memory.
const MOST: i64 = 10_000;
const LONGEST_CHAIN: usize = 65_536;
const LONGEST_KEY: usize = 16_384;

impl Control {
    /// Puts a certificate for a host name, in the place of the one before.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name is none, or certificate and key do not fit it or each other.
    pub async fn put_certificate(&self, actor: &str, name: &str, new: &PutCertificate) -> Result<Certificate, Error> {
        let name = host_name(name)?;
        let leaf = fitting(&name, new)?;
        let seal = self.config().root_key.certificate_key();
        let sealed_key = seal.seal(&name, new.key.as_bytes()).map_err(|error| Error::Corrupt(error.to_string()))?;
        let mut tx = self.catalog_pool().begin().await?;
        if store::certificates::count(&mut tx).await? >= MOST {
            return Err(Error::Conflict(format!("there are {MOST} certificates: use one for *.NAME, or files at the gateways")));
        }
        let sealed = Sealed { name, chain: new.chain.clone(), sealed_key };
        let made = store::certificates::put(&mut tx, &sealed, &fingerprint(&leaf), not_after(&leaf)).await?;
        let detail = json!({"fingerprint": made.fingerprint, "not_after": made.not_after});
        store::audit::append(&mut tx, actor, "certificate.put", None, &made.name, &detail).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// All certificates, by name.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn certificates(&self) -> Result<Vec<Certificate>, Error> {
        store::certificates::all(&mut *self.catalog_pool().acquire().await?).await
    }

    /// Takes a certificate away.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_certificate(&self, actor: &str, name: &str) -> Result<(), Error> {
        let mut tx = self.catalog_pool().begin().await?;
        if !store::certificates::delete(&mut tx, name).await? {
            return Err(Error::not_found("certificate", name));
        }
        store::audit::append(&mut tx, actor, "certificate.delete", None, name, &json!({})).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Another text whenever a certificate is put or taken away.
    pub(crate) async fn certificates_state(&self) -> Result<String, Error> {
        store::certificates::state(&mut *self.catalog_pool().acquire().await?).await
    }

    /// All certificates with their sealed keys.
    pub(crate) async fn sealed_certificates(&self) -> Result<Vec<Sealed>, Error> {
        store::certificates::sealed(&mut *self.catalog_pool().acquire().await?).await
    }
}

/// `docs.acme.example`, or `*.acme.example`, in its one normal form.
fn host_name(name: &str) -> Result<String, Error> {
    let wrong = || Error::invalid("name", "a host name like docs.acme.example, or *.acme.example");
    let (star, rest) = name.strip_prefix("*.").map_or(("", name), |rest| ("*.", rest));
    let host = host::parse(rest).map_err(|_| wrong())?;
    if host.is_address() || !host.as_str().contains('.') {
        return Err(wrong());
    }
    Ok(format!("{star}{}", host.as_str()))
}

/// The host's own certificate, when everything fits.
fn fitting(name: &str, new: &PutCertificate) -> Result<CertificateDer<'static>, Error> {
    if new.chain.len() > LONGEST_CHAIN {
        return Err(Error::invalid("chain", "64 KiB at most"));
    }
    if new.key.len() > LONGEST_KEY {
        return Err(Error::invalid("key", "16 KiB at most"));
    }
    let chain = CertificateDer::pem_slice_iter(new.chain.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| Error::invalid("chain", format!("certificates in PEM: {error}")))?;
    let leaf = chain.first().cloned().ok_or_else(|| Error::invalid("chain", "it holds no certificate in PEM"))?;
    // What the parser says could quote the key.
    let key = PrivateKeyDer::from_pem_slice(new.key.as_bytes()).map_err(|_| Error::invalid("key", "a private key in PEM"))?;
    CertifiedKey::from_der(chain, key, &default_provider())
        .map_err(|_| Error::invalid("key", "the key of this certificate, of a sort that TLS knows (RSA, ECDSA, Ed25519)"))?;
    // Any name below a wildcard tells.
    let shown = name.strip_prefix("*.").map_or_else(|| name.to_owned(), |parent| format!("any.{parent}"));
    let shown = ServerName::try_from(shown).map_err(|_| Error::invalid("name", "a host name"))?;
    let parsed = rustls::server::ParsedCertificate::try_from(&leaf);
    let fits = parsed.and_then(|parsed| rustls::client::verify_server_name(&parsed, &shown));
    fits.map_err(|_| Error::invalid("chain", format!("its first certificate is not for {name}")))?;
    Ok(leaf)
}

/// Until when it is good.
fn not_after(leaf: &CertificateDer<'_>) -> Option<DateTime<Utc>> {
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
    DateTime::from_timestamp(leaf.validity().not_after.timestamp(), 0)
}

/// The same for a chain that was checked when it was put.
pub(crate) fn chain_not_after(chain: &str) -> Option<DateTime<Utc>> {
    not_after(&CertificateDer::pem_slice_iter(chain.as_bytes()).next()?.ok()?)
}

/// As `openssl x509 -fingerprint -sha256` prints it.
fn fingerprint(leaf: &CertificateDer<'_>) -> String {
    let hash = digest(&SHA256, leaf);
    hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}
