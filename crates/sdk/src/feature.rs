//! Features: what a tenant's plan lets the application do.
//!
//! Declare each once, with the value that is safe when nobody has said anything, and ask where it matters: in a handler
//! ([`crate::Tenant::feature`], [`crate::Tenant::require`]), around routes ([`RequireLayer`]), or on a handler
//! ([`macro@crate::requires`]). Every question whether a feature is there is counted (`insula_feature_checks_total`).

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use http::request::Parts;

pub use insula_core::Feature;
pub use insula_http::feature::RequireLayer;

use crate::error::{Error, Result};
use crate::tenant::Tenant;

/// What a handler's tenant must have: [`macro@crate::requires`] writes these.
pub trait Requirement: Send + 'static {
    /// # Errors
    /// When the tenant lacks something.
    fn check(tenant: &Tenant) -> Result<()>;
}

/// An extractor that is there only when the tenant has what `R` asks for.
#[derive(Clone, Copy, Debug)]
pub struct Required<R>(PhantomData<fn() -> R>);

impl<S: Send + Sync, R: Requirement> FromRequestParts<S> for Required<R> {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let tenant = Tenant::from_request_parts(parts, state).await?;
        R::check(&tenant).map(|()| Self(PhantomData))
    }
}
