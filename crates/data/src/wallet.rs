//! The grants of one connection, kept while they are good: the database remembers, per session, which grants it has verified,
//! so one that comes again costs neither side a hash.

use std::collections::HashMap;

use insula_core::grant::GRANT_SECONDS;
use insula_core::{Grant, GrantKey, TenantNo};

/// About as many as the database remembers per session.
const MOST: usize = 96;
/// A kept grant must have this long to live, seconds: more than any opening takes.
const MARGIN: i64 = GRANT_SECONDS / 3;

/// What a grant is made of, beside the connection and the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) no: TenantNo,
    pub(crate) epoch: i64,
    pub(crate) fence: i64,
}

/// Grants by tenant, for one backend.
#[derive(Debug, Default)]
pub(crate) struct Wallet(HashMap<TenantNo, Grant>);

impl Wallet {
    /// Whether this connection has opened transactions of the tenant of late.
    pub(crate) fn knows(&self, no: TenantNo) -> bool {
        self.0.contains_key(&no)
    }

    /// The kept grant when it is still the right one, else a new one.
    pub(crate) fn grant(&mut self, key: &GrantKey, standing: Standing, pid: i32, now: i64) -> Grant {
        let Standing { no, epoch, fence } = standing;
        if let Some(kept) = self.0.get(&no)
            && (kept.epoch, kept.fence, kept.kid, kept.pid) == (epoch, fence, key.kid(), pid)
            && kept.expires >= now.saturating_add(MARGIN)
            // A clock that was set back makes what was signed before look too good.
            && kept.expires <= now.saturating_add(GRANT_SECONDS)
        {
            return *kept;
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, kept| kept.expires >= now.saturating_add(MARGIN));
            if self.0.len() >= MOST {
                self.0.clear();
            }
        }
        let grant = key.sign(no, epoch, now.saturating_add(GRANT_SECONDS), pid, fence);
        self.0.insert(no, grant);
        grant
    }
}

#[cfg(test)]
mod tests {
    use insula_core::keys::Secret;

    use super::*;

    #[test]
    fn a_grant_is_kept_while_it_is_the_right_one() {
        let key = |kid| GrantKey::new(kid, Secret::from_hex(&"ab".repeat(32)).expect("hex"));
        let no = TenantNo::new(7).expect("positive");
        let standing = |epoch, fence| Standing { no, epoch, fence };
        let mut wallet = Wallet::default();
        let first = wallet.grant(&key(1), standing(1, 5), 99, 1_000);
        assert!(wallet.grant(&key(1), standing(1, 5), 99, 1_020) == first);
        for other in [
            wallet.grant(&key(1), standing(1, 5), 99, 1_021),
            wallet.grant(&key(1), standing(1, 5), 99, 900),
            wallet.grant(&key(1), standing(2, 5), 99, 1_000),
            wallet.grant(&key(1), standing(1, 6), 99, 1_000),
            wallet.grant(&key(2), standing(1, 5), 99, 1_000),
            wallet.grant(&key(1), standing(1, 5), 98, 1_000),
        ] {
            assert!(other != first);
        }
        for n in 1..=1_000 {
            let standing = Standing { no: TenantNo::new(n).expect("positive"), epoch: 1, fence: 1 };
            wallet.grant(&key(1), standing, 99, 1_000);
        }
        assert!(wallet.0.len() <= MOST);
    }
}
