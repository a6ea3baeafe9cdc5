//! What a data plane knows of a tenant.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use insula_core::placement::MoveState;
use insula_core::{CellName, Placement, Plan, Slug, TenantId, TenantNo, TenantSettings, TenantState};

use crate::row::DatabaseId;

/// What says whether a tenant's request goes on: who it is, what it may do, how it stands. It lies in the table where a name is looked for, so that
/// a decision need not wait for the route's own memory.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Card {
    /// What it may do: its plan, with the tenant's own limits and features merged in.
    pub plan: Arc<Plan>,
    /// Its number in `tenant_id` columns. One tenant's alone in an installation.
    pub no: TenantNo,
    pub(crate) standing: Arc<Standing>,
    /// DNS label.
    pub slug: Slug,
}

/// A tenant, what it may do and where it lives. Never changes: a change makes a new one.
///
/// Two cache lines with the counts before it, in this order in memory: who looks for a tenant by its id, and asks what it may do and where it lives,
/// reads the first alone. What is the same for many is shared by them, so that it is at hand.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Route {
    /// Identity.
    pub id: TenantId,
    /// Where it lives, and where a move stands; shared by the tenants of the same tables.
    pub placement: Arc<Placement>,
    pub(crate) card: Card,
    pub(crate) home: Arc<Database>,
    /// The last application migration that its tables have: an application that does not serve it is not to be asked.
    pub schema_version: i64,
    /// How it wants to appear.
    pub settings: Arc<TenantSettings>,
    /// Display name.
    pub name: Box<str>,
}

impl Deref for Route {
    type Target = Card;
    #[inline]
    fn deref(&self) -> &Card {
        &self.card
    }
}

/// How tenants stand: what there is few of. One for each that there is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Standing {
    pub(crate) cell: CellName,
    pub(crate) state: TenantState,
    pub(crate) moves: MoveState,
}

impl Card {
    /// Active or suspended; others have no route.
    #[must_use]
    #[inline]
    pub fn state(&self) -> TenantState {
        self.standing.state
    }

    /// The cell that it lives in.
    #[must_use]
    #[inline]
    pub fn cell(&self) -> &CellName {
        &self.standing.cell
    }

    /// Where a move of it stands.
    #[must_use]
    #[inline]
    pub fn move_state(&self) -> MoveState {
        self.standing.moves
    }
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
            && self.state() == other.state()
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

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// As [`Arc`] lays it out: two counts, then the route.
    #[test]
    fn a_route_has_two_lines_and_all_but_names_and_looks_is_in_the_first() {
        let counts = 2 * size_of::<usize>();
        assert_eq!(counts + size_of::<Route>(), 128);
        assert_eq!(counts + offset_of!(Route, card) + offset_of!(Card, slug), 64);
        assert!(offset_of!(Route, home) > offset_of!(Route, card), "and what leads to its database is in the second");
    }
}
