//! `tenant.delete`: disabled at once, like a suspension that says it is for good. The data stays until it is erased, and
//! until then `tenant.resume` takes the deletion back.

use insula_core::TenantState;

use crate::operation::step::Saga;
use crate::tenant_suspend::{Fence, Mark};

pub(crate) static SAGA: Saga = Saga {
    kind: "tenant.delete",
    steps: &[
        &Mark {
            state: TenantState::Deleted,
            from: &[TenantState::Active, TenantState::Suspended, TenantState::Deleted],
            topic: "tenant.deleted",
            action: "tenant.delete",
        },
        &Fence,
    ],
};
