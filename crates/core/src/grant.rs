//! The grant: what opens one database transaction for one tenant.
//!
//! Text form, seven fields: `no.epoch.expires.pid.fence.kid.mac`, the last 64 hexadecimal digits. The MAC is HMAC-SHA256
//! (RFC 2104) over `no|epoch|expires|pid|fence|kid` in decimal ASCII; the SQL kit builds the same bytes with `concat_ws`.
//! `fence` is the database's fence count as the signer knows it: when it still stands, the signer's word that the tenant is
//! active at this epoch is current and the database need not look; when it has moved on (or is [`Grant::NO_FENCE`]), the
//! database looks at the tenant's own row. See `docs/decisions/`.

use std::fmt;

use aws_lc_rs::hmac;

use crate::id::TenantNo;
use crate::keys::{Secret, encode_hex};

/// How long a grant opens transactions, seconds.
pub const GRANT_SECONDS: i64 = 30;

/// The key that signs the grants of one database.
#[derive(Clone)]
pub struct GrantKey {
    kid: i32,
    secret: Secret,
    key: hmac::Key,
}

impl GrantKey {
    /// Wraps a secret with its key id.
    #[must_use]
    pub fn new(kid: i32, secret: Secret) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
        Self { kid, secret, key }
    }

    /// The key id.
    #[must_use]
    pub const fn kid(&self) -> i32 {
        self.kid
    }

    /// The two pads of HMAC (key padded to 64 bytes, XOR 0x36 and 0x5c), hexadecimal: what the SQL kit is installed with.
    #[must_use]
    pub fn pads(&self) -> (String, String) {
        let pad = |x: u8| {
            let mut block = [x; 64];
            for (b, k) in block.iter_mut().zip(self.secret.bytes()) {
                *b ^= k;
            }
            encode_hex(&block)
        };
        (pad(0x36), pad(0x5c))
    }

    /// Signs a grant.
    #[must_use]
    pub fn sign(&self, no: TenantNo, epoch: i64, expires: i64, pid: i32, fence: i64) -> Grant {
        let mut mac = [0; 32];
        let message = format!("{no}|{epoch}|{expires}|{pid}|{fence}|{}", self.kid);
        mac.copy_from_slice(hmac::sign(&self.key, message.as_bytes()).as_ref());
        Grant { no, epoch, expires, pid, fence, kid: self.kid, mac }
    }
}

impl fmt::Debug for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantKey(kid {}, ***)", self.kid)
    }
}

/// A signed grant. Its text opens the tenant's data on one connection until it expires: a secret while it lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The tenant.
    pub no: TenantNo,
    /// The placement's epoch.
    pub epoch: i64,
    /// Unix seconds after which it opens nothing.
    pub expires: i64,
    /// The backend (connection) that it opens.
    pub pid: i32,
    /// The fence count that the signer knows, or [`Grant::NO_FENCE`].
    pub fence: i64,
    /// Which key signed it.
    pub kid: i32,
    /// HMAC-SHA256.
    pub mac: [u8; 32],
}

impl Grant {
    /// "I do not know the fence: look at the tenant's row."
    pub const NO_FENCE: i64 = -1;

    /// The text form that `insula.enter(text)` takes.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { no, epoch, expires, pid, fence, kid, mac } = self;
        format!("{no}.{epoch}.{expires}.{pid}.{fence}.{kid}.{}", encode_hex(mac))
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grant(tenant {}, epoch {}, pid {}, ***)", self.no, self.epoch, self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_seven_fields_and_debug_hides_the_mac() {
        let key = GrantKey::new(1, Secret::from_hex(&"ab".repeat(32)).expect("hex"));
        let grant = key.sign(TenantNo::new(7).expect("positive"), 3, 1_800_000_000, 4711, 12);
        let text = grant.text();
        assert_eq!(text.split('.').count(), 7);
        assert!(text.starts_with("7.3.1800000000.4711.12.1."));
        assert!(!format!("{grant:?} {key:?}").contains(&text[text.len() - 64..]));
        assert_ne!(key.sign(TenantNo::new(8).expect("positive"), 3, 1_800_000_000, 4711, 12).mac, grant.mac);
    }
}
