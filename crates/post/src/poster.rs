//! One post to one address: finds the host, judges where it leads, speaks TLS, sends, looks at the status.
//!
//! Not for: what is posted and when. Always: a connection goes only to an address that was judged, so that a name which
//! changes its mind in between leads nowhere; a redirect is an answer like any other; nothing of an answer but its status is read.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::error::{Error, Failure};
use crate::reach::Reach;

/// How long a receiver may take, from its name to its status.
const PATIENCE: Duration = Duration::from_secs(10);

/// Posts events. Cheap to clone.
#[derive(Clone)]
pub struct Poster {
    tls: TlsConnector,
    reach: Reach,
}

impl std::fmt::Debug for Poster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poster").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Poster {
    /// Trusts the certificate authorities that browsers trust, and those of the file `extra` (PEM).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(reach: Reach, extra: Option<&Path>) -> Result<Self, Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = extra {
            let bad = |why: String| Error::Authorities { path: path.to_owned(), why };
            let before = roots.len();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))? {
                roots.add(certificate.map_err(|e| bad(e.to_string()))?).map_err(|e| bad(e.to_string()))?;
            }
            if roots.len() == before {
                return Err(bad("there is no certificate in it".into()));
            }
        }
        // Named rather than the process's own: nobody else's choice changes what is spoken here.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), reach })
    }

    /// Posts JSON; the status that came.
    ///
    /// # Errors
    /// When none came within ten seconds.
    pub async fn post(&self, url: &str, headers: &[(&str, &str)], body: &str) -> Result<u16, Failure> {
        let url = Url::parse(url).map_err(|_| Failure("its URL cannot be read".to_owned()))?;
        let status = tokio::time::timeout(PATIENCE, self.exchange(&url, headers, body)).await;
        status.map_err(|_| Failure(format!("no answer within {} s", PATIENCE.as_secs())))?.map_err(Failure)
    }

    async fn exchange(&self, url: &Url, headers: &[(&str, &str)], body: &str) -> Result<u16, String> {
        let (host, stream) = self.connect(url).await?;
        if url.scheme() != "https" {
            return send(stream, url, headers, body).await;
        }
        let stream = self.tls.connect(host, stream).await.map_err(|e| format!("TLS: {e}"))?;
        send(stream, url, headers, body).await
    }

    /// A connection to the first address of the host that may be reached and answers.
    async fn connect(&self, url: &Url) -> Result<(ServerName<'static>, TcpStream), String> {
        let port = url.port_or_known_default().unwrap_or(443);
        let (name, addresses): (_, Vec<SocketAddr>) = match url.host() {
            Some(Host::Domain(name)) => {
                let found = tokio::net::lookup_host((name, port)).await.map_err(|e| format!("its host is not found: {e}"))?;
                let name = ServerName::try_from(name.to_owned()).map_err(|_| "its host is not a DNS name".to_owned())?;
                (name, found.collect())
            }
            Some(Host::Ipv4(v4)) => (ServerName::from(std::net::IpAddr::V4(v4)), vec![(v4, port).into()]),
            Some(Host::Ipv6(v6)) => (ServerName::from(std::net::IpAddr::V6(v6)), vec![(v6, port).into()]),
            None => return Err("its URL has no host".into()),
        };
        let mut why = "it leads to an address that webhooks may not reach".to_owned();
        for address in addresses.into_iter().filter(|a| self.reach.allows(a.ip())) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok((name, stream)),
                Err(e) => why = format!("it cannot be connected to: {e}"),
            }
        }
        Err(why)
    }
}

async fn send<S>(stream: S, url: &Url, headers: &[(&str, &str)], body: &str) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut request = hyper::Request::post(target)
        .header(HOST, host)
        .header(USER_AGENT, concat!("insula/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header(CONTENT_LENGTH, body.len());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).map_err(|e| e.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // The answer's body is left unread: dropping both ends the connection.
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // A receiver that closes at once ends the connection in the same moment as it answers; without an answer, this says why.
        _ = connection => answer.await,
    };
    Ok(answer.map_err(|e| format!("it did not answer: {e}"))?.status().as_u16())
}
