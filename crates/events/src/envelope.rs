//! What is said of an event beside its body: as headers, on whatever bus.

use chrono::{DateTime, SecondsFormat, Utc};
use insula_core::{CellName, TenantId};
use uuid::Uuid;

use crate::topic::is_topic;

/// Names of headers. NATS and Kafka tell upper from lower case.
pub mod header {
    /// Whose event it is: the tenant's id. None without it.
    pub const TENANT: &str = "Insula-Tenant";
    /// The event's id: the same however often it is sent.
    pub const EVENT: &str = "Insula-Event";
    /// The tenant's epoch in the database that it came from.
    pub const EPOCH: &str = "Insula-Epoch";
    /// The cell that it came from.
    pub const CELL: &str = "Insula-Cell";
    /// What it is about.
    pub const TOPIC: &str = "Insula-Topic";
    /// When it was published (RFC 3339).
    pub const AT: &str = "Insula-At";
    /// On whose behalf, when that is known; percent-encoded where it is not printable ASCII.
    pub const PRINCIPAL: &str = "Insula-Principal";
    /// W3C Trace Context, when it is part of a trace.
    pub const TRACE: &str = "traceparent";

    pub(crate) const ALL: [&str; 8] = [TENANT, EVENT, EPOCH, CELL, TOPIC, AT, PRINCIPAL, TRACE];
}

/// What is said of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its identity.
    pub id: Uuid,
    /// The tenant's epoch in the database that it came from: a process that knows an older one must look first.
    pub epoch: i64,
    /// The cell that it came from.
    pub cell: CellName,
    /// What it is about.
    pub topic: String,
    /// When it was published, to the microsecond.
    pub at: DateTime<Utc>,
    /// On whose behalf.
    pub principal: Option<String>,
    /// `traceparent`.
    pub trace: Option<String>,
}

/// Why headers are not those of an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Nobody knows whose it is.
    #[error("it has no tenant: the header {} is missing", header::TENANT)]
    NoTenant,
    /// A header is missing.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// A header is there twice, which would let two readers read two things.
    #[error("the header {0} is there more than once")]
    Twice(&'static str),
    /// A header says nothing.
    #[error("the header {0} cannot be read")]
    Wrong(&'static str),
    /// The message's own address or key names another tenant, or another topic.
    #[error("its headers and its address do not agree")]
    Elsewhere,
    /// The body is not JSON.
    #[error("its body is not JSON")]
    Body,
}

impl Envelope {
    /// As headers.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            (header::TENANT, self.tenant.to_string()),
            (header::EVENT, self.id.to_string()),
            (header::EPOCH, self.epoch.to_string()),
            (header::CELL, self.cell.to_string()),
            (header::TOPIC, self.topic.clone()),
            (header::AT, self.at.to_rfc3339_opts(SecondsFormat::Micros, true)),
        ];
        headers.extend(self.principal.as_deref().map(|principal| (header::PRINCIPAL, escape(principal))));
        headers.extend(self.trace.clone().map(|trace| (header::TRACE, escape(&trace))));
        headers
    }

    /// Reads headers; those of other names are somebody else's.
    ///
    /// # Errors
    /// [`Unreadable`], which says what is missing or wrong.
    pub fn read<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, Unreadable> {
        let mut found: [Option<&str>; 8] = [None; 8];
        for (name, value) in headers {
            let Some(place) = header::ALL.iter().position(|known| *known == name) else { continue };
            let value = std::str::from_utf8(value).map_err(|_| Unreadable::Wrong(header::ALL[place]))?;
            if found[place].replace(value).is_some() {
                return Err(Unreadable::Twice(header::ALL[place]));
            }
        }
        let [tenant, event, epoch, cell, topic, at, principal, trace] = found;
        let tenant = tenant.ok_or(Unreadable::NoTenant)?;
        let need = |value: Option<&'a str>, name| value.ok_or(Unreadable::Missing(name));
        let (event, epoch) = (need(event, header::EVENT)?, need(epoch, header::EPOCH)?);
        let (cell, topic, at) = (need(cell, header::CELL)?, need(topic, header::TOPIC)?, need(at, header::AT)?);
        let wrong = |name| move || Unreadable::Wrong(name);
        let at = DateTime::parse_from_rfc3339(at).ok().ok_or_else(wrong(header::AT))?;
        Ok(Self {
            tenant: tenant.parse().ok().ok_or_else(wrong(header::TENANT))?,
            id: event.parse().ok().ok_or_else(wrong(header::EVENT))?,
            epoch: epoch.parse().ok().filter(|epoch| *epoch > 0).ok_or_else(wrong(header::EPOCH))?,
            cell: cell.parse().ok().ok_or_else(wrong(header::CELL))?,
            topic: is_topic(topic).then(|| topic.to_owned()).ok_or_else(wrong(header::TOPIC))?,
            at: at.with_timezone(&Utc),
            principal: principal.map(|text| unescape(text).ok_or_else(wrong(header::PRINCIPAL))).transpose()?,
            trace: trace.map(|text| unescape(text).ok_or_else(wrong(header::TRACE))).transpose()?,
        })
    }
}

/// Percent-encodes what has no place in a header: whatever is not printable ASCII, the percent sign, and spaces, which some servers trim.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        if byte == b'%' {
            let (digits, more) = more.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = more;
        } else {
            bytes.push(byte);
            rest = more;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_envelope() -> impl Strategy<Value = Envelope> {
        let words = "[a-z0-9_-]{1,20}([.][a-z0-9_-]{1,20}){0,3}";
        let at = (0i64..4_000_000_000_000_000).prop_filter_map("a time", DateTime::from_timestamp_micros);
        (
            any::<u128>(),
            any::<u128>(),
            1i64..i64::MAX,
            "[a-z][a-z0-9]{0,10}",
            words,
            at,
            any::<Option<String>>(),
            any::<Option<String>>(),
        )
            .prop_map(|(tenant, id, epoch, cell, topic, at, principal, trace)| Envelope {
                tenant: Uuid::from_u128(tenant).into(),
                id: Uuid::from_u128(id),
                epoch,
                cell: cell.parse().expect("a cell name"),
                topic,
                at,
                principal,
                trace,
            })
    }

    fn read(headers: &[(&str, String)]) -> Result<Envelope, Unreadable> {
        Envelope::read(headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(envelope in any_envelope()) {
            let headers = envelope.headers();
            for (_, value) in &headers {
                prop_assert!(value.bytes().all(|b| b.is_ascii_graphic()), "{value:?} breaks no header");
            }
            prop_assert_eq!(read(&headers), Ok(envelope));
        }

        #[test]
        fn nothing_is_read_without_its_tenant_or_with_two(envelope in any_envelope(), place in 0usize..6) {
            let mut headers = envelope.headers();
            let (name, value) = headers.remove(place);
            let missing = if name == header::TENANT { Unreadable::NoTenant } else { Unreadable::Missing(name) };
            prop_assert_eq!(read(&headers), Err(missing));
            headers.extend([(name, value.clone()), (name, value)]);
            prop_assert_eq!(read(&headers), Err(Unreadable::Twice(name)));
        }

        #[test]
        fn garbage_is_refused_and_nothing_panics(values in proptest::collection::vec(any::<Vec<u8>>(), 8)) {
            let headers = header::ALL.iter().zip(&values).map(|(name, value)| (*name, value.as_slice()));
            let _ = Envelope::read(headers);
        }
    }
}
