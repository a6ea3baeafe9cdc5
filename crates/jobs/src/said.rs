//! What a job says of itself, as the queue can keep it.
//!
//! It travels with what other tenants' jobs say, in one statement, so what the database would refuse must not come that far. Always: no NUL, which is no
//! JSON of Postgres's (22P05); no nesting that its stack cannot hold; of a size that is allowed.

use std::io;

use serde_json::{Map, Value};

/// The largest output that is kept, bytes of JSON.
pub const OUTPUT_BYTES: usize = 1 << 20;
/// The largest progress that is shown, bytes of JSON.
pub const PROGRESS_BYTES: usize = 8 << 10;
/// The largest error that is kept, characters: as `insula.settle()` cuts it.
const ERROR_CHARS: usize = 4_000;
/// Lists and objects in one another; as many as serde reads.
const DEPTH: usize = 128;
/// Outputs in one statement, bytes of JSON together. As `jsonb` they are several times that, and 256 MiB is its end.
const AT_ONCE: usize = 8 << 20;

/// A job's output, or why it cannot be kept.
pub(crate) fn output(value: Value) -> Result<Value, String> {
    let fault = || {
        format!(
            "its output is larger than {OUTPUT_BYTES} bytes of JSON, or nested deeper than {DEPTH}: \
             keep large things in a table or in the object store, and answer where they are"
        )
    };
    let value = clean(value, DEPTH).ok_or_else(fault)?;
    if size(&value, OUTPUT_BYTES) > OUTPUT_BYTES { Err(fault()) } else { Ok(value) }
}

/// A job's progress; `None` when it is too large to be shown.
pub(crate) fn progress(value: Value) -> Option<Value> {
    clean(value, DEPTH).filter(|value| size(value, PROGRESS_BYTES) <= PROGRESS_BYTES)
}

/// A job's error.
pub(crate) fn error(text: &str) -> String {
    text.chars().take(ERROR_CHARS).map(|c| if c == '\0' { ' ' } else { c }).collect()
}

/// Ends in their order, as many together as one statement should carry.
pub(crate) fn parcels(ends: Vec<Value>) -> Vec<Vec<Value>> {
    let (mut parcels, mut last, mut bytes) = (Vec::new(), Vec::new(), 0);
    for end in ends {
        let more = end.get("r").filter(|output| !output.is_null()).map_or(0, |output| size(output, OUTPUT_BYTES));
        if bytes + more > AT_ONCE && !last.is_empty() {
            parcels.push(std::mem::take(&mut last));
            bytes = 0;
        }
        bytes += more;
        last.push(end);
    }
    if !last.is_empty() {
        parcels.push(last);
    }
    parcels
}

/// Without NUL, in texts and names. `None` when it is nested too deep.
fn clean(value: Value, depth: usize) -> Option<Value> {
    Some(match value {
        Value::String(text) => Value::String(without_nul(text)),
        Value::Array(list) => {
            let inner = depth.checked_sub(1)?;
            Value::Array(list.into_iter().map(|value| clean(value, inner)).collect::<Option<_>>()?)
        }
        Value::Object(fields) => {
            let inner = depth.checked_sub(1)?;
            let fields = fields.into_iter().map(|(name, value)| Some((without_nul(name), clean(value, inner)?)));
            Value::Object(fields.collect::<Option<Map<_, _>>>()?)
        }
        other => other,
    })
}

fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// Its bytes as JSON; more than `most` are not counted.
fn size(value: &Value, most: usize) -> usize {
    let mut count = Count { bytes: 0, most };
    // It fails when there are more than `most`, and then the count says so.
    let _ = serde_json::to_writer(&mut count, value);
    count.bytes
}

struct Count {
    bytes: usize,
    most: usize,
}

impl io::Write for Count {
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        self.bytes = self.bytes.saturating_add(written.len());
        if self.bytes > self.most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(written.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nul_is_gone_from_texts_and_names_however_deep() {
        let said = json!({ "a\0": ["b\0c", { "\0": "\0" }], "n": 7 });
        let kept = json!({ "a\u{fffd}": ["b\u{fffd}c", { "\u{fffd}": "\u{fffd}" }], "n": 7 });
        assert_eq!(output(said.clone()), Ok(kept.clone()));
        assert_eq!(progress(said), Some(kept));
        assert_eq!(error("a\0b"), "a b");
    }

    #[test]
    fn what_is_too_large_or_too_deep_is_refused() {
        assert!(output(Value::String("x".repeat(OUTPUT_BYTES - 2))).is_ok());
        assert!(output(Value::String("x".repeat(OUTPUT_BYTES - 1))).is_err());
        assert!(progress(Value::String("x".repeat(PROGRESS_BYTES - 2))).is_some());
        assert!(progress(Value::String("x".repeat(PROGRESS_BYTES - 1))).is_none());
        let nested = |depth| (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        assert!(output(nested(DEPTH)).is_ok() && output(nested(DEPTH + 1)).is_err());
        assert!(progress(nested(DEPTH + 1)).is_none());
        assert_eq!(error(&"ä".repeat(5_000)).chars().count(), ERROR_CHARS);
    }

    #[test]
    fn large_outputs_are_said_in_several_statements_and_small_ones_in_one() {
        let end = |n: usize, bytes: usize| json!({ "n": n, "r": "x".repeat(bytes) });
        assert_eq!(parcels((0..1_000).map(|n| end(n, 100)).collect()).len(), 1);
        let large: Vec<Value> = (0..20).map(|n| end(n, OUTPUT_BYTES - 2)).collect();
        let said = parcels(large.clone());
        assert_eq!(said.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 4]);
        assert_eq!(said.concat(), large, "all of them, in their order");
        assert!(parcels(Vec::new()).is_empty());
    }
}
