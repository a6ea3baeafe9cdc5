//! What vouches for a link that opens without a log-in: a key for each tenant, so that a link made for one says nothing to another.
//!
//! HMAC-SHA256 (RFC 2104). Always: compared in constant time; the key never leaves the process, and follows from its cell's.

use std::fmt;

use aws_lc_rs::hmac;

use super::{CellKey, decode_hex, encode_hex};
use crate::id::TenantId;

/// Signs and checks one tenant's links.
#[derive(Clone)]
pub struct LinkKey(hmac::Key);

impl CellKey {
    /// The key of a tenant's links while it lives in this cell. A tenant that has moved elsewhere has others: old links are void.
    #[must_use]
    pub fn link_key(&self, tenant: TenantId) -> LinkKey {
        LinkKey(hmac::Key::new(hmac::HMAC_SHA256, self.0.derive(&["insula/link/v1", &tenant.to_string()]).bytes()))
    }
}

impl LinkKey {
    /// What proves `parts`, as 64 hexadecimal digits. Parts are told apart: ("ab", "c") is not ("a", "bc").
    #[must_use]
    pub fn sign(&self, parts: &[&str]) -> String {
        encode_hex(hmac::sign(&self.0, &message(parts)).as_ref())
    }

    /// Whether `proof` is what [`LinkKey::sign`] gave for `parts`.
    #[must_use]
    pub fn proves(&self, parts: &[&str], proof: &str) -> bool {
        let mut bytes = [0; 32];
        decode_hex(proof, &mut bytes).is_some() && hmac::verify(&self.0, &message(parts), &bytes).is_ok()
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(***)")
    }
}

fn message(parts: &[&str]) -> Vec<u8> {
    let part = |part: &&str| [(part.len() as u64).to_be_bytes().as_slice(), part.as_bytes()].concat();
    parts.iter().flat_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Secret;

    #[test]
    fn a_link_is_one_tenant_s_and_one_cell_s() {
        let cell = |hex: &str| CellKey::new(Secret::from_hex(&hex.repeat(32)).expect("a key"));
        let (main, second) = (cell("ab"), cell("cd"));
        let (acme, globex) = (TenantId::new(), TenantId::new());
        let proof = main.link_key(acme).sign(&["/exports/1/file", "17"]);
        assert_eq!(proof.len(), 64);
        assert!(main.link_key(acme).proves(&["/exports/1/file", "17"], &proof));
        assert!(!main.link_key(globex).proves(&["/exports/1/file", "17"], &proof));
        assert!(!second.link_key(acme).proves(&["/exports/1/file", "17"], &proof));
        for other in [["/exports/1/file", "18"], ["/exports/1/file1", "7"], ["/exports/2/file", "17"]] {
            assert!(!main.link_key(acme).proves(&other, &proof), "{other:?}");
        }
        for bad in ["", "00", &"0".repeat(64), &"g".repeat(64), &format!("{proof}0")] {
            assert!(!main.link_key(acme).proves(&["/exports/1/file", "17"], bad), "{bad}");
        }
        assert_eq!(format!("{:?}", main.link_key(acme)), "LinkKey(***)");
    }
}
