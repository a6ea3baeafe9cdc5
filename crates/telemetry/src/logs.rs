//! Logs to standard error: JSON lines for programs, plain text for people.
//!
//! `RUST_LOG` filters (default `info`). `INSULA_LOG_FORMAT` is `json` or `human`; without it a terminal gets `human` and anything else
//! `json`. Lines about requests go through a buffer ([`lines`]); all others are written at once. Always: every line names the service, and one event is one write, so that lines of several threads never mix.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

mod request_line;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::Error;
use crate::lines::{self, Lines as Buffered};
use crate::requests::Finished;
use crate::trace;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Human,
}

/// Starts logging for this process. A second call changes nothing (tests share a process).
///
/// # Errors
/// When `RUST_LOG` is not a filter, or traces are to be sent to what is no address.
pub fn init(service: &'static str) -> Result<(), Error> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) => EnvFilter::try_new(text).map_err(|e| Error::Filter(e.to_string()))?,
        // The driver's own chatter repeats SQL text, which may hold what an application put there.
        Err(_) => EnvFilter::new("info,sqlx=warn"),
    };
    let terminal = io::stderr().is_terminal();
    let format = match std::env::var("INSULA_LOG_FORMAT").as_deref() {
        Ok("json") => Format::Json,
        Ok("human") => Format::Human,
        _ if terminal => Format::Human,
        _ => Format::Json,
    };
    let lines = Lines { service, format };
    let _already = REQUESTS.set(Requests { lines, buffer: Buffered::new(lines::BUFFER) });
    start_writer()?;
    let written = tracing_subscriber::fmt::layer().with_writer(lines).with_ansi(terminal);
    let written = match format {
        Format::Json => written.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        Format::Human => written.boxed(),
    };
    let traced = trace::layer(service)?;
    // Fails only when a subscriber is there already: the first one stays.
    let _already = tracing_subscriber::registry().with(filter).with(written).with(traced).try_init();
    Ok(())
}

/// The log is the process's, so this is as well; written once.
static REQUESTS: OnceLock<Requests> = OnceLock::new();

struct Requests {
    lines: Lines,
    buffer: Buffered,
}

/// Writes buffered lines out, every now and then, until the process ends.
fn start_writer() -> Result<(), Error> {
    static STARTED: OnceLock<()> = OnceLock::new();
    if STARTED.set(()).is_err() {
        return Ok(());
    }
    let write = || {
        loop {
            std::thread::park_timeout(lines::PERIOD);
            flush();
        }
    };
    std::thread::Builder::new().name("log".to_owned()).spawn(write).map(drop).map_err(Error::Thread)
}

/// Writes out what is buffered: the last thing that a process does.
pub fn flush() {
    if let Some(requests) = REQUESTS.get() {
        // There is nobody to tell that standard error is gone.
        let _ = requests.buffer.flush(&mut io::stderr().lock());
    }
}

/// One line about a request, with the target `insula::request` at level info; `RUST_LOG` filters it like any other.
pub fn request(request: &Finished<'_>) {
    if let Some(requests) = REQUESTS.get()
        && tracing::enabled!(target: "insula::request", tracing::Level::INFO)
    {
        requests
            .buffer
            .push(|out| request_line::write(out, requests.lines.service, requests.lines.format == Format::Json, request));
    }
}

/// Makes one writer per event.
#[derive(Clone, Copy)]
struct Lines {
    service: &'static str,
    format: Format,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(*self)
    }
}

/// Puts the service's name into a line and passes it on whole.
struct Line(Lines);

impl Line {
    fn render(&self, event: &[u8]) -> Vec<u8> {
        let mut line = Vec::with_capacity(event.len() + self.0.service.len() + 16);
        match (self.0.format, event) {
            (Format::Json, [b'{', rest @ ..]) => {
                line.extend_from_slice(b"{\"service\":\"");
                line.extend_from_slice(self.0.service.as_bytes());
                line.extend_from_slice(b"\",");
                line.extend_from_slice(rest);
            }
            (Format::Human, _) => {
                line.extend_from_slice(self.0.service.as_bytes());
                line.push(b' ');
                line.extend_from_slice(event);
            }
            (Format::Json, _) => line.extend_from_slice(event),
        }
        line
    }
}

impl Write for Line {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(&self.render(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_names_the_service_and_stays_json() {
        let line = Line(Lines { service: "control", format: Format::Json }).render(b"{\"level\":\"INFO\"}\n");
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["service"], "control");
        assert_eq!(value["level"], "INFO");
    }

    #[test]
    fn a_human_line_begins_with_the_service() {
        let line = Line(Lines { service: "control", format: Format::Human }).render(b"INFO ready\n");
        assert_eq!(line, b"control INFO ready\n");
    }
}
