//! Whether what let a request in still holds, for what goes on after that: a tunnel, a stream of events.
//!
//! Always: it ends when its tenant is not served any more, or what vouched for its credentials was taken back.

use std::future::Future;

use http::HeaderValue;
use insula_catalog::Catalog;
use insula_core::{Clock as _, SystemClock, TenantId, TenantState};
use insula_http::Voucher;

/// What let a request in.
pub(crate) struct Standing {
    tenant: Option<TenantId>,
    voucher: Option<Voucher>,
}

impl Standing {
    /// `credential` is the `Authorization` of somebody whom the gateway has proven.
    pub(crate) fn new(tenant: Option<TenantId>, credential: Option<&HeaderValue>) -> Self {
        Self { tenant, voucher: credential.and_then(Voucher::of) }
    }

    /// Resolves when it does not hold any more.
    pub(crate) fn ends(self, catalog: &Catalog) -> impl Future<Output = ()> + use<> {
        let catalog = catalog.clone();
        async move {
            let mut changed = catalog.changed();
            while self.holds(&catalog) && changed.changed().await.is_ok() {}
        }
    }

    fn holds(&self, catalog: &Catalog) -> bool {
        let is_served = |id| catalog.by_id(id).is_some_and(|route| route.state == TenantState::Active);
        let vouched = |voucher: &Voucher| voucher.stands(catalog, self.tenant, SystemClock.unix_seconds());
        self.tenant.is_none_or(is_served) && self.voucher.as_ref().is_none_or(vouched)
    }
}
