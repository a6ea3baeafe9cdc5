//! What a data plane knows of a tenant.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use insula_core::{Placement, Plan, Slug, TenantId, TenantNo, TenantSettings, TenantState};

use crate::row::DatabaseId;

/// A tenant, what it may do and where it lives. Never changes: a change makes a new one.
///
/// In this order in memory: what each request reads lies in the first cache line or the next, as to fetch one costs more than all else.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Route {
    /// DNS label.
    pub slug: Slug,
    /// What it may do: its plan, with the tenant's own limits and features merged in.
    pub plan: Arc<Plan>,
    /// Its number in `tenant_id` columns.
    pub no: TenantNo,
    /// Active or suspended; others have no route.
    pub state: TenantState,
    /// Where it lives, and where a move stands.
    pub placement: Placement,
    pub(crate) home: Arc<Database>,
    /// Identity.
    pub id: TenantId,
    /// The last application migration that its tables have: an application that does not serve it is not to be asked.
    pub schema_version: i64,
    /// How it wants to appear.
    pub settings: Arc<TenantSettings>,
    /// Display name.
    pub name: Box<str>,
}

impl Route {
    /// The number of the grant key in force in the tenant's database.
    #[must_use]
    pub fn kid(&self) -> i32 {
        self.home.kid.load(Ordering::Acquire)
    }

    /// Whether a grant for `self` is a grant for `other`: what the database checks of both is the same.
    pub(crate) fn same_standing(&self, other: &Self) -> bool {
        self.no == other.no
            && self.placement.epoch == other.placement.epoch
            && self.state == other.state
            && Arc::ptr_eq(&self.home, &other.home)
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.slug == other.slug
            && self.name == other.name
            && self.plan == other.plan
            && self.settings == other.settings
            && self.placement == other.placement
            && self.schema_version == other.schema_version
            && self.same_standing(other)
    }
}

/// A database, shared by the routes that lead to it. Its fence is the one thing in a snapshot that changes in place.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) id: DatabaseId,
    pub(crate) fence: AtomicI64,
    pub(crate) kid: AtomicI32,
}

/// A [`Route`] that the caller holds.
#[derive(Clone)]
pub struct RouteRef(pub(crate) Arc<Route>);

impl RouteRef {
    /// The route, to keep.
    #[must_use]
    pub fn arc(&self) -> Arc<Route> {
        Arc::clone(&self.0)
    }
}

impl Deref for RouteRef {
    type Target = Route;
    fn deref(&self) -> &Route {
        &self.0
    }
}

impl std::fmt::Debug for RouteRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}
