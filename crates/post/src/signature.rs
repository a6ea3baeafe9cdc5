//! How a receiver knows who posts.

use aws_lc_rs::hmac;

/// The event's identity: the same in every try, so that a receiver tells repeats by it.
pub const HEADER_EVENT: &str = "insula-event";
/// What the event is about.
pub const HEADER_TOPIC: &str = "insula-topic";
/// What [`sign`] gives.
pub const HEADER_SIGNATURE: &str = "insula-signature";

/// `t=<unix>,v1=<hex HMAC-SHA256 of "<t>.<body>">`: the time is signed, so that an old post cannot be sent again as new.
#[must_use]
pub fn sign(secret: &str, unix: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{unix}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("t={unix},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::sign;

    #[test]
    fn a_signature_covers_time_and_body() {
        let one = sign("key", 1, "body");
        assert!(one.starts_with("t=1,v1=") && one.len() == 7 + 64);
        assert_ne!(one, sign("key", 2, "body"));
        assert_ne!(one[7..], sign("key", 1, "bodz")[7..]);
    }
}
