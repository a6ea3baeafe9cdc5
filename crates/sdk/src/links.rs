//! Links that open without a log-in, for a time: signed with a key of the tenant's, so that one opens nothing at another tenant's host.
//!
//! Always: what is not exactly as it was signed is as if there were nothing (404); what was signed and is over says so (410).

use std::time::Duration;

use http::{StatusCode, Uri};
use insula_core::keys::LinkKey;
use insula_core::{Clock as _, Kind, SystemClock};
use insula_http::Problem;

use crate::error::{Error, Result};
use crate::tenant::Tenant;

impl Tenant {
    /// `path` with a signature that opens it for `lifetime`: give it to whoever may have what is there. It says nothing to other tenants, and is
    /// void once the tenant has moved to another cell.
    ///
    /// # Errors
    /// When this process has no key of the tenant's cell.
    pub fn sign_link(&self, path: &str, lifetime: Duration) -> Result<String> {
        let until = SystemClock.unix_seconds().saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        Ok(signed(&self.link_key()?, path, until))
    }

    /// Holds that a request's target is what [`Tenant::sign_link`] made, and that it is not over.
    ///
    /// # Errors
    /// Not found, in general words, for anything that was not signed for this tenant; gone (410) for what was, and is over.
    pub fn check_link(&self, target: &Uri) -> Result<()> {
        check(&self.link_key()?, target, SystemClock.unix_seconds())
    }
}

fn signed(key: &LinkKey, path: &str, until: i64) -> String {
    format!("{path}?until={until}&signature={}", key.sign(&[path, &until.to_string()]))
}

fn check(key: &LinkKey, target: &Uri, now: i64) -> Result<()> {
    let query = target.query().unwrap_or_default();
    let parts = query.strip_prefix("until=").and_then(|rest| rest.split_once("&signature="));
    let (until, proof) = parts.ok_or_else(Error::not_found)?;
    if !key.proves(&[target.path(), until], proof) {
        return Err(Error::not_found());
    }
    // Signed by us, so a number.
    if until.parse::<i64>().is_ok_and(|until| now < until) {
        return Ok(());
    }
    let gone = Problem::of_status(StatusCode::GONE).detail("This link was good for a time, which is over. Ask for a new one.");
    Err(Error::problem(Kind::NotFound, gone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use insula_core::keys::Secret;
    use insula_core::{CellKey, TenantId};

    fn status(key: &LinkKey, target: &str, now: i64) -> u16 {
        check(key, &target.parse().expect("a target"), now).map_or_else(|error| error.into_problem().body().status, |()| 200)
    }

    #[test]
    fn a_link_opens_what_it_was_signed_for_until_it_is_over() {
        let cell = CellKey::new(Secret::from_hex(&"ab".repeat(32)).expect("a key"));
        let (acme, globex) = (cell.link_key(TenantId::new()), cell.link_key(TenantId::new()));
        let link = signed(&acme, "/exports/1/file", 100);
        assert_eq!((status(&acme, &link, 99), status(&acme, &link, 100), status(&acme, &link, i64::MAX)), (200, 410, 410));
        assert_eq!(status(&globex, &link, 99), 404);
        let proof = link.split('=').next_back().expect("a proof");
        for forged in [
            "/exports/1/file".to_owned(),
            format!("/exports/2/file?until=100&signature={proof}"),
            format!("/exports/1/file?until=101&signature={proof}"),
            format!("/exports/1/file?until=0100&signature={proof}"),
            format!("/exports/1/file?until=100&signature={}", "0".repeat(64)),
            format!("/exports/1/file?until=100&signature={proof}&until=999"),
            format!("/exports/1/file?signature={proof}&until=100"),
            "/exports/1/file?until=100".to_owned(),
            "/exports/1/file?until=&signature=".to_owned(),
        ] {
            assert_eq!(status(&acme, &forged, 99), 404, "{forged}");
        }
    }
}
