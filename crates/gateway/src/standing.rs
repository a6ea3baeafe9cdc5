//! Whether what let a request in still holds, for what goes on after that: a tunnel, a stream of events.
//!
//! Always: it ends when its tenant is not served any more, what vouched for its credentials was taken back, or its key's time is over.

use std::future::Future;
use std::time::Duration;

use http::HeaderValue;
use insula_catalog::{Catalog, Found};
use insula_core::{Clock as _, SystemClock, TenantId, TenantState};
use insula_http::Voucher;

/// What let a request in.
pub(crate) struct Standing {
    tenant: Option<TenantId>,
    voucher: Option<Voucher>,
}

/// The machine's clock may be set while somebody waits for an hour of it.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Standing {
    /// `credential` is the `Authorization` of somebody whom the gateway has proven.
    pub(crate) fn new(tenant: Option<&Found>, credential: Option<&HeaderValue>) -> Self {
        Self { tenant: tenant.map(Found::id), voucher: credential.and_then(Voucher::of) }
    }

    /// Resolves when it does not hold any more. Most keys have no end: who has one waits for it by a timer of his own.
    pub(crate) fn ends(self, catalog: &Catalog) -> impl Future<Output = ()> + use<> {
        let catalog = catalog.clone();
        async move {
            let mut changed = catalog.changed();
            while self.holds(&catalog) {
                let left = self.left(&catalog);
                let over = async {
                    match left {
                        Some(left) => tokio::time::sleep(left).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    followed = changed.changed() => if followed.is_err() { return },
                    () = over => {}
                }
            }
        }
    }

    fn holds(&self, catalog: &Catalog) -> bool {
        let is_served = |id| catalog.by_id(id).is_some_and(|route| route.state() == TenantState::Active);
        let vouched = |voucher: &Voucher| voucher.stands(catalog, self.tenant, SystemClock.unix_seconds());
        self.tenant.is_none_or(is_served) && self.voucher.as_ref().is_none_or(vouched)
    }

    /// How long until it is to be looked at though nothing has changed.
    fn left(&self, catalog: &Catalog) -> Option<Duration> {
        let ends = self.voucher.as_ref()?.ends(catalog)?;
        let left = ends.saturating_sub(SystemClock.unix_seconds());
        Some(Duration::from_secs(left.try_into().unwrap_or(0)).min(LONGEST_WAIT))
    }
}
