//! The grants of one connection, kept while they are good: the database remembers, per session, which grants it has verified,
//! so one that comes again costs neither side a hash.
//!
//! A grant that comes often is worth a prepared statement of its own, without parameters: opening then costs the server hardly
//! any parsing. Tenants cannot replace it, because PREPARE and DEALLOCATE do not pass the gate.

use std::collections::HashMap;
use std::fmt::Write as _;

use insula_core::grant::GRANT_SECONDS;
use insula_core::{Grant, GrantKey, TenantNo};

/// About as many as the database remembers per session.
const MOST: usize = 96;
/// A kept grant must have this long to live, seconds: more than any opening takes.
const MARGIN: i64 = GRANT_SECONDS / 3;
/// The use of a grant at which it is prepared: by then it is likely to come again.
const PREPARED_AT: u32 = 3;

/// Run once on each shared connection, so that a grant's first uses need no planning.
pub(crate) const PREPARE_ENTER: &str = "PREPARE insula_enter (bigint, bigint, bigint, bigint, int, bytea) AS
    SELECT insula.enter($1, $2, $3, $4, $5, $6)";

/// What a grant is made of, beside the connection and the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) no: TenantNo,
    pub(crate) epoch: i64,
    pub(crate) fence: i64,
}

#[derive(Debug)]
struct Kept {
    grant: Grant,
    uses: u32,
    /// The number of its prepared statement.
    prepared: Option<u64>,
}

/// Grants by tenant, for one backend.
#[derive(Debug, Default)]
pub(crate) struct Wallet {
    kept: HashMap<TenantNo, Kept>,
    /// Prepared statements of grants that are no longer kept.
    unwanted: Vec<u64>,
    named: u64,
}

impl Wallet {
    /// Whether this connection has opened transactions of the tenant of late.
    pub(crate) fn knows(&self, no: TenantNo) -> bool {
        self.kept.contains_key(&no)
    }

    /// The kept grant when it is still the right one, else a new one.
    pub(crate) fn grant(&mut self, key: &GrantKey, standing: Standing, pid: i32, now: i64) -> Grant {
        self.keep(key, standing, pid, now).grant
    }

    /// Writes what opens a transaction: everything up to and with `BEGIN;EXECUTE …`, where `begin` is the word for `BEGIN`.
    ///
    /// The caller sends it whole, or gives the connection up: what it prepares counts as prepared.
    pub(crate) fn open(&mut self, sql: &mut String, begin: &str, key: &GrantKey, standing: Standing, pid: i32, now: i64) {
        let next = self.named + 1;
        let kept = self.keep(key, standing, pid, now);
        kept.uses += 1;
        // Writing to a String cannot fail.
        if let Some(name) = kept.prepared {
            let _ = write!(sql, "{begin};EXECUTE g{name}");
            return;
        }
        let Grant { no, epoch, expires, fence, kid, mac, .. } = kept.grant;
        let often = kept.uses >= PREPARED_AT;
        if often {
            kept.prepared = Some(next);
            let _ = write!(sql, "PREPARE g{next} AS SELECT insula.enter({no},{epoch},{expires},{fence},{kid},'");
        } else {
            let _ = write!(sql, "{begin};EXECUTE insula_enter({no},{epoch},{expires},{fence},{kid},'");
        }
        write_hex(sql, &mac);
        sql.push_str("')");
        if often {
            self.named = next;
            for name in self.unwanted.drain(..) {
                let _ = write!(sql, ";DEALLOCATE g{name}");
            }
            let _ = write!(sql, ";{begin};EXECUTE g{next}");
        }
    }

    fn keep(&mut self, key: &GrantKey, standing: Standing, pid: i32, now: i64) -> &mut Kept {
        let Standing { no, epoch, fence } = standing;
        let good = |grant: &Grant| {
            (grant.epoch, grant.fence, grant.kid, grant.pid) == (epoch, fence, key.kid(), pid) && still_good(grant, now)
        };
        if !self.kept.get(&no).is_some_and(|kept| good(&kept.grant)) {
            self.make_room(no, now);
        }
        self.kept.entry(no).or_insert_with(|| {
            let grant = key.sign(no, epoch, now.saturating_add(GRANT_SECONDS), pid, fence);
            Kept { grant, uses: 0, prepared: None }
        })
    }

    /// Forgets the tenant's own grant, and when there are too many all that have run out, or all.
    fn make_room(&mut self, no: TenantNo, now: i64) {
        let old = self.kept.remove(&no);
        self.unwanted.extend(old.and_then(|kept| kept.prepared));
        for keep_good in [true, false] {
            if self.kept.len() >= MOST {
                let gone = self.kept.extract_if(|_, kept| !(keep_good && still_good(&kept.grant, now)));
                self.unwanted.extend(gone.filter_map(|(_, kept)| kept.prepared));
            }
        }
    }
}

/// Long enough to live; and not too long, which it would be after the clock was set back.
fn still_good(grant: &Grant, now: i64) -> bool {
    (now.saturating_add(MARGIN)..=now.saturating_add(GRANT_SECONDS)).contains(&grant.expires)
}

/// As a `bytea` is written.
fn write_hex(sql: &mut String, bytes: &[u8]) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    sql.push_str("\\x");
    for byte in bytes {
        sql.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use insula_core::keys::Secret;

    use super::*;

    fn key(kid: i32) -> GrantKey {
        GrantKey::new(kid, Secret::from_hex(&"ab".repeat(32)).expect("hex"))
    }

    fn standing(no: i64, epoch: i64, fence: i64) -> Standing {
        Standing { no: TenantNo::new(no).expect("positive"), epoch, fence }
    }

    #[test]
    fn a_grant_is_kept_while_it_is_the_right_one() {
        let mut wallet = Wallet::default();
        let first = wallet.grant(&key(1), standing(7, 1, 5), 99, 1_000);
        assert!(wallet.grant(&key(1), standing(7, 1, 5), 99, 1_020) == first);
        for other in [
            wallet.grant(&key(1), standing(7, 1, 5), 99, 1_021),
            wallet.grant(&key(1), standing(7, 1, 5), 99, 900),
            wallet.grant(&key(1), standing(7, 2, 5), 99, 1_000),
            wallet.grant(&key(1), standing(7, 1, 6), 99, 1_000),
            wallet.grant(&key(2), standing(7, 1, 5), 99, 1_000),
            wallet.grant(&key(1), standing(7, 1, 5), 98, 1_000),
        ] {
            assert!(other != first);
        }
    }

    #[test]
    fn what_comes_often_is_prepared_and_what_is_forgotten_is_deallocated() {
        let mut wallet = Wallet::default();
        let mut open = |no, now| {
            let mut sql = String::new();
            wallet.open(&mut sql, "BEGIN", &key(1), standing(no, 1, 1), 99, now);
            sql
        };
        assert!(open(7, 0).starts_with("BEGIN;EXECUTE insula_enter(7,1,30,1,1,'\\x"));
        assert!(open(7, 0).starts_with("BEGIN;EXECUTE insula_enter(7"));
        let third = open(7, 0);
        assert!(third.starts_with("PREPARE g1 AS SELECT insula.enter(7") && third.ends_with(";BEGIN;EXECUTE g1"));
        assert_eq!(open(7, 0), "BEGIN;EXECUTE g1");
        // The next grant of the same tenant.
        assert!(open(7, 25).starts_with("BEGIN;EXECUTE insula_enter(7"));
        open(7, 25);
        assert!(open(7, 25).ends_with(";DEALLOCATE g1;BEGIN;EXECUTE g2"));
        // A crowd drives everything out.
        for no in 1_000..3_000 {
            open(no, 25);
        }
        assert!(wallet.kept.len() <= MOST && wallet.unwanted == [2]);
    }
}
