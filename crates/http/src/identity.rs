//! Who is it, proven: people's tokens and API keys at the edge, tenant contexts behind it.
//!
//! For: [`Authenticator`] (a request's credentials -> a [`Principal`]), [`ContextSigner`] (tenant and principal -> the header that
//! travels upstream), [`Verifier`] (that header -> who it is, in an application). Not for: which tenant a request is for (resolution
//! decides, and never beyond the principal's memberships), or log-in pages.
//! Always: what was proven once is remembered in bounded memory until it expires; what is remembered is asked again of the
//! catalog at each use, so that a revocation holds as soon as it is known; no token and no key is logged or kept as text.

mod authenticate;
mod clock;
mod fetch;
mod issuer;
mod jwt;
mod layer;
mod published;
mod seen;
mod sign;
mod verify;

use std::sync::Arc;

use insula_core::Principal;

pub use authenticate::{AuthOptions, Authenticator, Refusal, Voucher};
pub use fetch::Fetcher;
pub use layer::{Authenticate, AuthenticateLayer};
pub use published::{Published, PublishedError};
pub use sign::ContextSigner;
pub use verify::{CONTEXT, Verified, Verifier, VerifyError};

/// Takes a token apart and judges what needs no key, and reads the same bytes as a JWKS: for the fuzz target and for nothing else.
/// Answers whether it is a JWT that would go on to have its signature verified.
#[doc(hidden)]
#[must_use]
pub fn takes_apart(bytes: &[u8], now: i64) -> bool {
    drop(jwt::PublicKey::read_all(bytes));
    let token = std::str::from_utf8(bytes).ok().and_then(jwt::Unproven::read);
    let Some(Ok(token)) = token else { return false };
    let judged = token.algorithm().is_ok() && token.issuer().is_some() && token.audiences().next().is_some();
    judged && token.good_until(now).is_ok()
}

/// What is known of whoever sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// No credentials.
    Anonymous,
    /// Credentials that no provider of ours has issued: the application's own session, for it to judge.
    Session,
    /// Proven.
    Principal(Arc<Principal>),
}

impl Identity {
    /// Who it is, when it is proven.
    #[must_use]
    pub const fn principal(&self) -> Option<&Arc<Principal>> {
        match self {
            Self::Principal(principal) => Some(principal),
            Self::Anonymous | Self::Session => None,
        }
    }

    /// Puts it into a request's extensions, and the [`Principal`] when there is one.
    pub fn extend(&self, extensions: &mut http::Extensions) {
        if let Some(principal) = self.principal() {
            extensions.insert(Principal::clone(principal));
        }
        extensions.insert(self.clone());
    }
}
