//! Server-sent events, as far as this API uses them: messages of one line each, with an id to come back with.

use std::time::Duration;

use insula_core::OperationId;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Response, StatusCode};

use super::Client;
use crate::error::Error;
use crate::operation::OperationEvents;

/// A stream says something at least three times as often, be it that there is nothing new.
const LONGEST_SILENCE: Duration = Duration::from_secs(45);
/// The control plane ends a stream itself before that.
const LONGEST: Duration = Duration::from_secs(900);
/// Longest line: an operation with a thousand events.
const LONGEST_LINE: usize = 8 << 20;

/// News of one operation as they come.
#[derive(Debug)]
pub struct OperationStream {
    client: Client,
    response: Response,
    lines: Lines,
}

impl Client {
    /// News of an operation after event `after`, pushed; `None` when the operation has ended with that event, or when who
    /// answers knows no streams: ask with [`Client::operation_events`] then.
    ///
    /// # Errors
    /// As every call; it is not tried again by itself.
    pub async fn operation_stream(&self, id: OperationId, after: i64) -> Result<Option<OperationStream>, Error> {
        let mut url = self.base.clone();
        let path = ["v1", "operations", &id.to_string(), "events"];
        url.path_segments_mut().map_err(|()| Error::Invalid("not a base URL".into()))?.pop_if_empty().extend(path);
        let request = self
            .http
            .get(url)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(ACCEPT, "text/event-stream, application/problem+json")
            .timeout(LONGEST);
        let request = if after > 0 { request.header("last-event-id", after) } else { request };
        let response = request.send().await.map_err(|e| self.transport(&e))?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let media = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if response.status() == StatusCode::NO_CONTENT || !media.starts_with("text/event-stream") {
            return Ok(None);
        }
        Ok(Some(OperationStream { client: self.clone(), response, lines: Lines::default() }))
    }
}

impl OperationStream {
    /// The next news; `None` when the stream has ended. Whether the operation has is in the news before.
    ///
    /// # Errors
    /// When the connection breaks or falls silent, or what comes is not of this API.
    pub async fn next(&mut self) -> Result<Option<OperationEvents>, Error> {
        loop {
            while let Some(line) = self.lines.next()? {
                if let Some(data) = line.strip_prefix("data:") {
                    return serde_json::from_str(data.trim_start()).map(Some).map_err(|_| self.client.unexpected(StatusCode::OK));
                }
            }
            let chunk = tokio::time::timeout(LONGEST_SILENCE, self.response.chunk()).await;
            let silent = |_| Error::Timeout { url: self.client.base.to_string(), seconds: LONGEST_SILENCE.as_secs() };
            match chunk.map_err(silent)?.map_err(|e| self.client.transport(&e))? {
                Some(chunk) => self.lines.push(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// Whole lines out of pieces that end anywhere.
#[derive(Debug, Default)]
struct Lines {
    pending: Vec<u8>,
    /// How far it was looked through for an end.
    searched: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) {
        self.pending.extend_from_slice(piece);
    }

    fn next(&mut self) -> Result<Option<String>, Error> {
        match self.pending[self.searched..].iter().position(|b| *b == b'\n') {
            Some(at) => {
                let line: Vec<u8> = self.pending.drain(..=self.searched + at).collect();
                self.searched = 0;
                let text = String::from_utf8_lossy(&line);
                Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
            }
            None if self.pending.len() > LONGEST_LINE => Err(Error::Invalid("a line of the stream has no end".into())),
            None => {
                self.searched = self.pending.len();
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_wherever_the_pieces_end() {
        let text = "id: 7\r\nevent: news\ndata: {\"ä\":1}\n\n: alive\n\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece);
                while let Some(line) = lines.next().expect("short") {
                    seen.push(line);
                }
            }
            assert_eq!(seen, ["id: 7", "event: news", "data: {\"ä\":1}", "", ": alive", ""], "pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LONGEST_LINE + 1]);
        assert!(lines.next().is_err());
    }
}
