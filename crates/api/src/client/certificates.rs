//! The calls about certificates.

use reqwest::header::ETAG;
use reqwest::{Method, StatusCode};

use super::{Call, Client};
use crate::certificate::{Certificate, PutCertificate, SealedCertificates};
use crate::error::Error;
use crate::page::Page;

const NOTHING: [(); 0] = [];

#[allow(clippy::missing_errors_doc)]
/// Certificates of host names.
impl Client {
    /// All certificates, by name.
    pub async fn certificates(&self) -> Result<Page<Certificate>, Error> {
        self.get(&["v1", "certificates"], &NOTHING).await
    }

    /// Puts a certificate, in the place of the one before.
    pub async fn put_certificate(&self, name: &str, certificate: &PutCertificate) -> Result<Certificate, Error> {
        let path = ["v1", "certificates", name];
        self.send(Call::new(Method::PUT, &path).body(certificate)?).await?.json_of(self.url()).await
    }

    /// Takes a certificate away.
    pub async fn delete_certificate(&self, name: &str) -> Result<(), Error> {
        self.send(Call::new(Method::DELETE, &["v1", "certificates", name])).await.map(drop)
    }

    /// All certificates with their sealed keys, and their `ETag`; `None` when they are still those of `etag`.
    pub async fn sealed_certificates(&self, etag: Option<&str>) -> Result<Option<(SealedCertificates, String)>, Error> {
        let answer = self.send(Call::new(Method::GET, &["v1", "catalog", "certificates"]).unless(etag)).await?;
        if answer.0.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let etag = answer.0.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
        Ok(Some((answer.json_of(self.url()).await?, etag)))
    }
}
