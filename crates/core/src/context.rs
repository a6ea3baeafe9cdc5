//! Who a piece of work is for.

use std::sync::Arc;

use crate::id::{TenantId, TenantNo};
use crate::slug::{PlanName, Slug};

/// The tenant, and on whose behalf. Cheap to clone; carried by [`crate::scope`] across `.await`, tasks and threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantContext {
    /// Public identity.
    pub tenant: TenantId,
    /// The surrogate that stands in rows.
    pub no: TenantNo,
    /// DNS label.
    pub slug: Slug,
    /// What it bought.
    pub plan: PlanName,
    /// The authenticated user, when there is one.
    pub principal: Option<Arc<str>>,
    /// Follows one request through every log line.
    pub request_id: Arc<str>,
}
