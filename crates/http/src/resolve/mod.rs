//! Whose request is this? One tenant, proven, or a refusal; never a guess.
//!
//! For: finding the tenant that a request is for, from what several sources say ([`Contributor`]: the authenticated principal, a
//! query parameter, a route segment, a header, a cookie, the domain), in gateway and SDK alike ([`Resolver`] needs no body, no
//! runtime and no framework; [`ResolveLayer`] is the SDK's). Not for: authenticating anybody, or limits.
//!
//! Always: every source that applies is asked, and all that speak must mean the same tenant; two that differ are refused, and that
//! is a security event. A hint anybody can send never widens what a principal may: a principal reaches a tenant that it belongs to,
//! or none. What is known is decided from memory, without a lock or an allocation; who asks for what nobody knows waits in a
//! small, bounded queue ([`Unknowns`]) that nobody else stands in.

mod contributor;
mod layer;
mod options;
mod refusal;
mod resolver;
mod unknown;

pub use contributor::{Asked, Contributor, Hint};
pub use layer::{BodyLimit, Resolve, ResolveLayer, too_large, trace};
pub use options::{OptionsError, ResolveOptions, SourceKind, SourceSpec};
pub use refusal::{Refusal, UnknownTenant};
pub use resolver::{Resolved, Resolver, ResolverBuilder};
pub use unknown::{UnknownOptions, Unknowns};
