//! Tenants on the move: which requests wait, and for what.
//!
//! A tenant that is being copied is served at its source like any other. At cutover its writes (requests whose method is not safe, RFC
//! 9110, section 9.2.1) wait here until the catalog shows where the tenant is now; reads go on. Always: what waits is bounded in number, a worker and
//! a tenant, and in time; a body that waits stays with the client, so that waiting costs no memory but the request's head.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::Method;
use insula_catalog::{Card, Catalog, Found, Route};
use insula_core::placement::MoveState;
use insula_core::{Kind, TenantNo};

use crate::config::{MoveConfig, ms};
use crate::refusal::Refusal;

/// Requests that wait, by tenant.
pub(crate) struct Moves {
    waiting: RefCell<HashMap<TenantNo, usize, RandomState>>,
    config: MoveConfig,
}

impl Moves {
    pub(crate) fn new(config: MoveConfig) -> Self {
        Self { waiting: RefCell::default(), config }
    }

    /// The route to send this request by: the given one, or that of after the cutover.
    pub(crate) async fn settle(&self, found: Found, method: &Method, catalog: &Catalog) -> Result<Found, Refusal> {
        if !must_wait(&found, method) {
            return Ok(found);
        }
        // Apart, so that requests which do not wait carry nothing of it.
        Ok(Box::pin(self.wait(found.arc(), method, catalog)).await?.into())
    }

    async fn wait(&self, route: Arc<Route>, method: &Method, catalog: &Catalog) -> Result<Arc<Route>, Refusal> {
        let _place = self.enter(route.no).ok_or_else(|| Refusal::of(Kind::Moved, "The tenant is moving."))?;
        // Before the first look, so that no change comes in between.
        let mut changed = catalog.changed();
        let moved = async {
            loop {
                changed.borrow_and_update();
                match catalog.by_id(route.id).map(|now| now.arc()) {
                    Some(now) if must_wait(&now, method) && now.placement.epoch == route.placement.epoch => {}
                    now => return now,
                }
                if changed.changed().await.is_err() {
                    return None;
                }
            }
        };
        match tokio::time::timeout(ms(self.config.hold_ms), moved).await {
            Ok(Some(now)) => Ok(now),
            Ok(None) => Err(Refusal::of(Kind::NoTenant, "")),
            Err(_) => Err(Refusal::of(Kind::Moved, "The tenant is moving, and it takes longer than it should.")),
        }
    }

    fn enter(&self, tenant: TenantNo) -> Option<Place<'_>> {
        let mut waiting = self.waiting.borrow_mut();
        let all: usize = waiting.values().sum();
        let mine = waiting.entry(tenant).or_default();
        if all >= self.config.held || *mine >= self.config.held_per_tenant {
            return None;
        }
        *mine += 1;
        Some(Place { moves: self, tenant })
    }
}

fn must_wait(tenant: &Card, method: &Method) -> bool {
    tenant.move_state() == MoveState::Cutover && !method.is_safe()
}

/// A request's place among those that wait.
struct Place<'a> {
    moves: &'a Moves,
    tenant: TenantNo,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.moves.waiting.borrow_mut();
        if let Some(mine) = waiting.get_mut(&self.tenant) {
            *mine -= 1;
            if *mine == 0 {
                waiting.remove(&self.tenant);
            }
        }
    }
}
