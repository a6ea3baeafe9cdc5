//! Connections that ask through a gateway, and what they look at in an answer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::door::Door;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A connection that asks as fast as it is answered.
pub(super) struct Asker {
    stream: TcpStream,
    got: Vec<u8>,
}

/// What an asker looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `RateLimit-Policy`, where that was what refused.
    pub(super) policy: Option<String>,
}

impl Asker {
    pub(super) fn new(door: &Door) -> Result<Self> {
        let stream = TcpStream::connect(door.addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self { stream, got: Vec::new() })
    }

    /// Asks once. Answers have the length of their body in the head: an application's of ours, and problems.
    pub(super) fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request)?;
        let end = loop {
            if let Some(at) = self.got.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.read()?;
        };
        let head = String::from_utf8_lossy(&self.got[..end]).to_ascii_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length: usize = field("content-length:").map_or(Ok(0), str::parse)?;
        let answer = Answer {
            status: head.get(9..12).context("no status")?.parse()?,
            policy: field("ratelimit-policy:").map(str::to_owned),
        };
        while self.got.len() < end + length {
            self.read()?;
        }
        self.got.drain(..end + length);
        Ok(answer)
    }

    fn read(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        let n = self.stream.read(&mut buffer)?;
        ensure!(n > 0, "the gateway has closed a connection");
        self.got.extend_from_slice(&buffer[..n]);
        Ok(())
    }
}

/// A request to a tenant by its host.
pub(super) fn request(slug: &str, key: Option<&str>) -> Vec<u8> {
    let key = key.map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
    format!("GET / HTTP/1.1\r\nhost: {slug}.localhost\r\n{key}\r\n").into_bytes()
}
