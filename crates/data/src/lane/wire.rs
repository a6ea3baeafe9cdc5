//! One connection, spoken to in batches: everything that a batch needs goes out in one write, up to one Sync.
//!
//! Always: a batch is one implicit transaction (no BEGIN, no COMMIT); after an error the server skips all messages up to the
//! Sync, so what stands behind a statement that failed has not run; a wire whose batch was not answered to the end, or that
//! is not idle afterwards, says so by [`Wire::is_clean`] and is not used again.

use std::collections::HashMap;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::value::{Param, Row};

/// The server's own error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct ServerError {
    /// SQLSTATE.
    pub code: String,
    /// Its text.
    pub message: String,
}

/// Why a batch did not come through.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The server refused; the wire may be clean nevertheless.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The connection is lost, or out of step.
    #[error("the connection is lost: {0}")]
    Lost(#[from] io::Error),
    /// A statement was used with parameters of other types before; nothing was sent.
    #[error("a prepared statement takes parameters of the same types each time")]
    Types,
}

/// A statement of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Its text, prepared once per connection.
    pub sql: &'a str,
    /// Its parameters.
    pub params: &'a [Param<'a>],
}

/// Where and as whom.
pub struct Address<'a> {
    /// A name, an address, or the folder of a socket.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The login.
    pub user: &'a str,
    /// Its password.
    pub password: &'a str,
    /// The database.
    pub database: &'a str,
    /// Start-up parameters beside those.
    pub settings: &'a [(&'a str, &'a str)],
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// Whether the other side has said something unasked, its farewell above all. Costs no system call while it has not.
    fn has_spoken(&self) -> bool;
}

impl Stream for TcpStream {
    fn has_spoken(&self) -> bool {
        !matches!(self.try_read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Stream for UnixStream {
    fn has_spoken(&self) -> bool {
        !matches!(self.try_read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}

struct Prepared {
    name: String,
    types: Vec<u32>,
}

/// A connection.
pub struct Wire {
    stream: Box<dyn Stream>,
    input: BytesMut,
    output: BytesMut,
    prepared: HashMap<String, Prepared>,
    /// Names given so far.
    named: u64,
    pid: i32,
    clean: bool,
}

/// Statements kept per wire; past it the wire is retired rather than each eviction paid for.
const MOST_PREPARED: usize = 512;

impl Wire {
    /// Connects and logs in: SCRAM-SHA-256, MD5 never, clear text never.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn connect(address: &Address<'_>) -> Result<Self, WireError> {
        let stream: Box<dyn Stream> = if address.host.starts_with('/') {
            let path = format!("{}/.s.PGSQL.{}", address.host, address.port);
            Box::new(UnixStream::connect(path).await?)
        } else {
            let stream = TcpStream::connect((address.host, address.port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        };
        let (input, output) = (BytesMut::with_capacity(16 << 10), BytesMut::with_capacity(4 << 10));
        let mut wire = Self { stream, input, output, prepared: HashMap::new(), named: 0, pid: 0, clean: false };
        wire.log_in(address).await?;
        Ok(wire)
    }

    /// The backend.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// In step, outside any transaction, and the server has not said goodbye.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.clean && self.input.is_empty() && self.prepared.len() <= MOST_PREPARED && !self.stream.has_spoken()
    }

    /// Sends all calls in one write and reads the rows of each. A refusal of any leaves no effect of any.
    ///
    /// # Errors
    /// [`WireError::Server`] with the first refusal; [`WireError::Lost`] when the answer is not complete.
    pub async fn run(&mut self, calls: &[Call<'_>]) -> Result<Vec<Vec<Row>>, WireError> {
        let mut parsing = Vec::new();
        self.output.clear();
        for call in calls {
            self.write(call, &mut parsing)?;
        }
        frontend::sync(&mut self.output);
        self.clean = false;
        self.stream.write_all_buf(&mut self.output).await?;
        self.answers(calls.len(), parsing).await
    }

    fn write(&mut self, call: &Call<'_>, parsing: &mut Vec<(String, Prepared)>) -> Result<(), WireError> {
        let new;
        let known = self.prepared.get(call.sql).or_else(|| parsing.iter().find(|(sql, _)| sql == call.sql).map(|(_, p)| p));
        let name = match known {
            Some(known) if known.fits(call.params) => &known.name,
            Some(_) => return Err(WireError::Types),
            None => {
                self.named += 1;
                let types: Vec<u32> = call.params.iter().map(Param::oid).collect();
                new = format!("lane{}", self.named);
                frontend::parse(&new, call.sql, types.iter().copied(), &mut self.output)?;
                parsing.push((call.sql.to_owned(), Prepared { name: new.clone(), types }));
                &new
            }
        };
        let write = |param: &Param<'_>, buf: &mut BytesMut| Ok(param.write(buf));
        frontend::bind("", name, Some(1), call.params, write, Some(1), &mut self.output).map_err(|error| match error {
            frontend::BindError::Serialization(error) => WireError::Lost(error),
            frontend::BindError::Conversion(error) => WireError::Lost(io::Error::other(error)),
        })?;
        frontend::execute("", 0, &mut self.output)?;
        Ok(())
    }

    async fn answers(&mut self, calls: usize, parsing: Vec<(String, Prepared)>) -> Result<Vec<Vec<Row>>, WireError> {
        let mut results = Vec::with_capacity(calls);
        let (mut rows, mut parsing, mut refused) = (Vec::new(), parsing.into_iter(), None);
        loop {
            let (tag, body) = self.frame().await?;
            match tag {
                b'1' => self.prepared.extend(parsing.next()),
                b'D' => rows.push(Row(body)),
                b'C' | b'I' => results.push(std::mem::take(&mut rows)),
                b'E' => refused = refused.or(Some(server_error(&body))),
                b'Z' => {
                    self.clean = body.first() == Some(&b'I');
                    break;
                }
                // BindComplete, NoData; notices and parameter changes may come at any time.
                b'2' | b'n' | b'N' | b'S' => {}
                other => return Err(out_of_step(other)),
            }
        }
        match refused {
            Some(error) => Err(error.into()),
            None if results.len() == calls => Ok(results),
            None => Err(out_of_step(b'Z')),
        }
    }

    /// The next message: its tag and its body.
    async fn frame(&mut self) -> Result<(u8, Bytes), WireError> {
        loop {
            if let Some(head) = self.input.first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if !(4..=1 << 30).contains(&length) {
                    return Err(out_of_step(head[0]));
                }
                if self.input.len() > length {
                    let tag = head[0];
                    let mut message = self.input.split_to(length + 1).freeze();
                    message.advance(5);
                    return Ok((tag, message));
                }
                self.input.reserve(length + 1 - self.input.len());
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    async fn log_in(&mut self, address: &Address<'_>) -> Result<(), WireError> {
        let own = [("user", address.user), ("database", address.database), ("client_encoding", "UTF8")];
        frontend::startup_message(own.iter().chain(address.settings).copied(), &mut self.output)?;
        self.stream.write_all_buf(&mut self.output).await?;
        let mut scram = None;
        loop {
            let (tag, body) = self.frame().await?;
            match tag {
                b'R' => self.authenticate(&body, address.password, &mut scram).await?,
                b'K' => self.pid = body.first_chunk().map(|b| i32::from_be_bytes(*b)).unwrap_or_default(),
                b'Z' => break,
                b'E' => return Err(server_error(&body).into()),
                b'N' | b'S' => {}
                other => return Err(out_of_step(other)),
            }
        }
        self.clean = true;
        Ok(())
    }

    async fn authenticate(&mut self, body: &Bytes, password: &str, scram: &mut Option<ScramSha256>) -> Result<(), WireError> {
        let code = body.first_chunk().map_or(-1, |b| i32::from_be_bytes(*b));
        let data = body.get(4..).unwrap_or_default();
        match (code, scram.as_mut()) {
            (0, None) => return Ok(()),
            (10, None) => {
                if !data.split(|b| *b == 0).any(|name| name == SCRAM_SHA_256.as_bytes()) {
                    return Err(io::Error::other("the server offers no SCRAM-SHA-256").into());
                }
                let first = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                frontend::sasl_initial_response(SCRAM_SHA_256, first.message(), &mut self.output)?;
                *scram = Some(first);
            }
            (11, Some(scram)) => {
                scram.update(data)?;
                frontend::sasl_response(scram.message(), &mut self.output)?;
            }
            // The server's own proof: without it we might be talking to anybody.
            (12, Some(proof)) => {
                proof.finish(data)?;
                *scram = None;
                return Ok(());
            }
            _ => return Err(io::Error::other("the server wants another way to log in than SCRAM-SHA-256").into()),
        }
        Ok(self.stream.write_all_buf(&mut self.output).await?)
    }
}

impl Prepared {
    fn fits(&self, params: &[Param<'_>]) -> bool {
        let same = |(known, param): (&u32, &Param<'_>)| *known == param.oid() || param.oid() == 0;
        self.types.len() == params.len() && self.types.iter().zip(params).all(same)
    }
}

fn out_of_step(tag: u8) -> WireError {
    io::Error::other(format!("unexpected message {:?}", char::from(tag))).into()
}

/// Fields of an error: a letter and a text each, ended by a zero byte.
fn server_error(body: &[u8]) -> ServerError {
    let (mut code, mut message) = (String::new(), String::new());
    for field in body.split(|b| *b == 0) {
        match field.split_first() {
            Some((b'C', text)) => code = String::from_utf8_lossy(text).into_owned(),
            Some((b'M', text)) => message = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    ServerError { code, message }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("pid", &self.pid).field("clean", &self.clean).finish_non_exhaustive()
    }
}
