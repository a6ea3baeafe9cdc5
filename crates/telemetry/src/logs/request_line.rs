//! How a request looks in the log.

use std::io::Write as _;
use std::time::Duration;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::requests::Finished;

/// The longest path that is shown, bytes.
const LONGEST_PATH: usize = 200;

/// Appends the line. Writing to a vector cannot fail.
pub(super) fn write(out: &mut Vec<u8>, service: &str, json: bool, request: &Finished<'_>) {
    let mut time = String::with_capacity(32);
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let who = request.who.as_ref();
    let texts = [
        ("tenant", who.map(|who| who.slug)),
        ("principal", request.principal),
        ("request_id", Some(request.request_id)),
        ("trace_id", request.trace_id),
        ("method", Some(request.method)),
        ("path", Some(cut(request.path))),
        ("class", who.map(|_| request.class)),
        ("tier", who.map(|who| who.tier)),
        ("cell", who.map(|who| who.cell)),
        ("cut", if request.whole { None } else { Some("the client went away") }),
    ];
    let numbers = [
        ("bytes_in", request.bytes_in),
        ("bytes_out", request.bytes_out),
        ("cpu_us", u64::try_from(request.cpu.as_micros()).unwrap_or(u64::MAX)),
    ];
    let (head, total) = (millis(request.head), millis(request.total));
    if json {
        let _ =
            write!(out, "{{\"service\":\"{service}\",\"timestamp\":\"{time}\",\"level\":\"INFO\",\"target\":\"insula::request\"");
    } else {
        let _ = write!(out, "{service} {time}  INFO insula::request:");
    }
    for (name, text) in texts {
        let Some(text) = text else { continue };
        if json {
            let _ = write!(out, ",\"{name}\":");
            let _ = serde_json::to_writer(&mut *out, text);
        } else {
            let _ = write!(out, " {name}={}", text.escape_debug());
        }
    }
    let (comma, colon, quote) = if json { (",", ":", "\"") } else { (" ", "=", "") };
    if let Some(status) = request.status {
        let _ = write!(out, "{comma}{quote}status{quote}{colon}{status}");
    }
    let _ = write!(out, "{comma}{quote}ms{quote}{colon}{head:.3}{comma}{quote}total_ms{quote}{colon}{total:.3}");
    for (name, number) in numbers {
        let _ = write!(out, "{comma}{quote}{name}{quote}{colon}{number}");
    }
    out.extend_from_slice(if json { b"}\n" } else { b"\n" });
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn cut(path: &str) -> &str {
    &path[..path.floor_char_boundary(LONGEST_PATH)]
}

#[cfg(test)]
mod tests {
    use insula_core::TenantNo;

    use super::*;
    use crate::requests::Who;

    fn request<'a>(path: &'a str, principal: &'a str) -> Finished<'a> {
        Finished {
            who: Some(Who { no: TenantNo::new(1).unwrap(), slug: "acme", tier: "gold", cell: "main" }),
            principal: Some(principal),
            request_id: "r-1",
            trace_id: None,
            method: "GET",
            path,
            class: "default",
            status: Some(200),
            whole: true,
            head: Duration::from_micros(1234),
            total: Duration::from_micros(5678),
            bytes_in: 0,
            bytes_out: 42,
            cpu: Duration::from_micros(321),
        }
    }

    #[test]
    fn a_line_is_json_whatever_is_in_it() {
        let mut out = Vec::new();
        let path = format!("/a\"\n\u{1b}[2J{}", "ä".repeat(200));
        write(&mut out, "app", true, &request(&path, "a\\b"));
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&line["tenant"], &line["principal"], &line["status"]), (&"acme".into(), &"a\\b".into(), &200.into()));
        assert_eq!((&line["ms"], &line["total_ms"], &line["bytes_out"]), (&1.234.into(), &5.678.into(), &42.into()));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z') && line["path"].as_str().unwrap().len() <= LONGEST_PATH);
        assert!(line.get("trace_id").is_none());
    }

    #[test]
    fn people_get_one_line_as_well() {
        let mut out = Vec::new();
        write(&mut out, "app", false, &request("/x\ny", "p"));
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("app ") && text.ends_with(" cpu_us=321\n") && text.contains(" path=/x\\ny "), "{text}");
    }
}
