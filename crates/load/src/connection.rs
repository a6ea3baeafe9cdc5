//! One keep-alive HTTP/1.1 connection, made again when it is lost.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::plan::Target;
use crate::tally::{Failure, Outcome};

type Sender = SendRequest<Full<Bytes>>;

/// How a request went: its outcome, and the bytes of the answer's body.
pub(crate) struct Exchange {
    pub(crate) outcome: Outcome,
    pub(crate) bytes: u64,
    /// The connection was found closed and made again before anything was sent on it.
    pub(crate) reconnected: bool,
}

/// See the module. Dropping it closes it.
pub(crate) struct Connection {
    addr: SocketAddr,
    sender: Option<Sender>,
}

impl Connection {
    pub(crate) const fn new(addr: SocketAddr) -> Self {
        Self { addr, sender: None }
    }

    /// Connects, unless it is.
    pub(crate) async fn open(&mut self) -> Result<&mut Sender, Failure> {
        if self.sender.as_ref().is_none_or(Sender::is_closed) {
            self.sender = Some(connect(self.addr).await.map_err(|_| Failure::Connect)?);
        }
        self.sender.as_mut().ok_or(Failure::Connect)
    }

    /// Gives the connection up, with what was in flight on it.
    pub(crate) fn close(&mut self) {
        self.sender = None;
    }

    /// Sends one request and reads the whole answer. A request that the peer's closing kept from being sent at all is sent on a new connection,
    /// once, as every client does (RFC 9110, 9.2.2).
    pub(crate) async fn exchange(&mut self, target: &Target) -> Exchange {
        let mut reconnected = false;
        let (outcome, bytes) = match self.attempt(target, &mut reconnected).await {
            Ok((status, bytes)) => (Outcome::Answered(status), bytes),
            Err(failure) => {
                self.close();
                (Outcome::Failed(failure), 0)
            }
        };
        Exchange { outcome, bytes, reconnected }
    }

    async fn attempt(&mut self, target: &Target, reconnected: &mut bool) -> Result<(u16, u64), Failure> {
        let fresh = self.sender.is_none();
        let mut request = request(target);
        let mut response = loop {
            let sender = self.open().await?;
            // Waits for the connection to notice that its last answer is over.
            let ready = sender.ready().await;
            let sent = match ready {
                Ok(()) => sender.try_send_request(request).await,
                Err(_) if !fresh && !*reconnected => {
                    self.close();
                    *reconnected = true;
                    continue;
                }
                Err(_) => return Err(Failure::Broken),
            };
            match sent {
                Ok(response) => break response,
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh && !*reconnected => {
                        request = unsent;
                        self.close();
                        *reconnected = true;
                    }
                    _ => return Err(Failure::Broken),
                },
            }
        };
        let mut bytes = 0;
        while let Some(frame) = response.body_mut().frame().await {
            let frame = frame.map_err(|_| Failure::Broken)?;
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok((response.status().as_u16(), bytes))
    }
}

fn request(target: &Target) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(target.body.clone()));
    *request.method_mut() = target.method.clone();
    *request.uri_mut() = target.uri.clone();
    *request.headers_mut() = target.headers.clone();
    request.headers_mut().entry(header::USER_AGENT).or_insert(HeaderValue::from_static("insula-load"));
    request
}

async fn connect(addr: SocketAddr) -> std::io::Result<Sender> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    // Ends with the connection; what ends it early, the sender is told.
    tokio::spawn(async move {
        let _ = driver.await;
    });
    Ok(sender)
}
