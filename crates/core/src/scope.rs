//! The tenant context follows the work: across `.await`, into tasks, onto blocking threads.
//!
//! Always: a context is entered for a scope and restored after it, also on panic and cancellation; there is no setter.
//! A plain `tokio::spawn` starts without a context, and whatever then needs one fails closed: use [`spawn`].

use std::future::Future;

use tokio::task::JoinHandle;

use crate::context::TenantContext;
use crate::id::{TenantId, TenantNo};

tokio::task_local! {
    static CURRENT: TenantContext;
}

/// There is no tenant here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no tenant in scope: run this inside a request that went through Insula's layer, or inside `scope::enter`; \
     tasks started with `tokio::spawn` lose the tenant, `scope::spawn` keeps it"
)]
pub struct NoTenant;

/// The context of the work that runs now.
///
/// # Errors
/// [`NoTenant`] outside any scope.
pub fn current() -> Result<TenantContext, NoTenant> {
    CURRENT.try_with(Clone::clone).map_err(|_| NoTenant)
}

/// Whose work runs now, without a copy of the context: asked before each statement.
#[must_use]
pub fn tenant() -> Option<(TenantId, TenantNo)> {
    CURRENT.try_with(|context| (context.tenant, context.no)).ok()
}

/// Runs `work` for `context`; afterwards the context from before is back.
pub async fn enter<F: Future>(context: TenantContext, work: F) -> F::Output {
    CURRENT.scope(context, work).await
}

/// Runs `work` for `context` on this thread; afterwards the context from before is back.
pub fn enter_sync<T>(context: TenantContext, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(context, work)
}

/// `tokio::spawn` that keeps the context.
///
/// # Errors
/// [`NoTenant`] outside any scope: tenantless work is not started.
pub fn spawn<F>(work: F) -> Result<JoinHandle<F::Output>, NoTenant>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let context = current()?;
    Ok(tokio::spawn(CURRENT.scope(context, work)))
}

/// `tokio::task::spawn_blocking` that keeps the context.
///
/// # Errors
/// [`NoTenant`] outside any scope: tenantless work is not started.
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, NoTenant> {
    let context = current()?;
    Ok(tokio::task::spawn_blocking(move || CURRENT.sync_scope(context, work)))
}
