//! How an event looks on Kafka: its key, its headers, its value. Without a broker or a client: a bridge brings those.
//!
//! The key is the tenant's id in text, so that the events of one tenant stay in one partition, in their order. The headers are those of
//! [`Envelope`], their values UTF-8. The value is the body, JSON. The topic of Kafka is the bridge's choice; by convention `insula.` and the first word
//! of the event's topic. A record without a tenant, or whose key names another, is not an event: set it aside, handle it never.

use crate::envelope::{Envelope, Unreadable};

/// A record, as any client of Kafka takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What decides its partition.
    pub key: Vec<u8>,
    /// Names and values; Kafka allows a name more than once, and so this type does.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub value: Vec<u8>,
}

/// An event as a record.
#[must_use]
pub fn encode(envelope: &Envelope, body: &str) -> Record {
    Record {
        key: envelope.tenant.to_string().into_bytes(),
        headers: envelope.headers().into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect(),
        value: body.as_bytes().to_vec(),
    }
}

/// A record as an event: what is said of it, and its body.
///
/// # Errors
/// [`Unreadable`]: it is none.
pub fn decode(record: &Record) -> Result<(Envelope, &str), Unreadable> {
    let envelope = Envelope::read(record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())))?;
    if record.key != envelope.tenant.to_string().as_bytes() {
        return Err(Unreadable::Elsewhere);
    }
    let body = std::str::from_utf8(&record.value).map_err(|_| Unreadable::Body)?;
    serde_json::from_str::<serde::de::IgnoredAny>(body).map_err(|_| Unreadable::Body)?;
    Ok((envelope, body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::envelope::header;
    use crate::envelope::tests::any_envelope;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(envelope in any_envelope(), number in any::<i64>(), text in any::<String>()) {
            let body = serde_json::json!({ "n": number, "t": text }).to_string();
            let record = encode(&envelope, &body);
            prop_assert_eq!(record.key.clone(), envelope.tenant.to_string().into_bytes());
            let decoded = decode(&record);
            prop_assert_eq!(decoded, Ok((envelope, body.as_str())));
        }

        #[test]
        fn a_record_of_another_s_is_refused(envelope in any_envelope(), other in any_envelope()) {
            prop_assume!(envelope.tenant != other.tenant);
            let mut record = encode(&envelope, "{}");
            record.key = other.tenant.to_string().into_bytes();
            prop_assert_eq!(decode(&record), Err(Unreadable::Elsewhere));
            // A second tenant among the headers.
            let mut record = encode(&envelope, "{}");
            record.headers.push((header::TENANT.to_owned(), other.tenant.to_string().into_bytes()));
            prop_assert_eq!(decode(&record), Err(Unreadable::Twice(header::TENANT)));
            record.headers.retain(|(name, _)| name != header::TENANT);
            prop_assert_eq!(decode(&record), Err(Unreadable::NoTenant));
        }

        #[test]
        fn garbage_is_refused_and_nothing_panics(
            key in any::<Vec<u8>>(),
            headers in proptest::collection::vec((any::<String>(), any::<Vec<u8>>()), 0..10),
            value in any::<Vec<u8>>(),
        ) {
            let record = Record { key, headers, value };
            prop_assert!(decode(&record).is_err());
        }
    }

    #[test]
    fn headers_are_those_of_the_guide() {
        let envelope = Envelope {
            tenant: uuid::Uuid::nil().into(),
            id: uuid::Uuid::nil(),
            epoch: 7,
            cell: "main".parse().expect("a name"),
            topic: "document.created".to_owned(),
            at: chrono::DateTime::from_timestamp(1_700_000_000, 5_000).expect("a time"),
            principal: Some("ada & co".to_owned()),
            trace: None,
        };
        let record = encode(&envelope, "{}");
        let headers: Vec<(&str, &str)> =
            record.headers.iter().map(|(n, v)| (n.as_str(), std::str::from_utf8(v).expect("text"))).collect();
        let nil = "00000000-0000-0000-0000-000000000000";
        let expected = [
            ("Insula-Tenant", nil),
            ("Insula-Event", nil),
            ("Insula-Epoch", "7"),
            ("Insula-Cell", "main"),
            ("Insula-Topic", "document.created"),
            ("Insula-At", "2023-11-14T22:13:20.000005Z"),
            ("Insula-Principal", "ada%20&%20co"),
        ];
        assert_eq!(headers, expected);
    }
}
