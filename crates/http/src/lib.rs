//! Tower layers of the edge of a process: whose request is this, and how does an answer look when it is not the good one.
//!
//! For: who asks ([`identity`]), request -> tenant ([`resolve`]), what its plan and its cell allow ([`admit`], [`feature`]), request
//! ids, body limits, panics, problem bodies (RFC 9457). Not for: SQL.
//! Always: a handler behind [`ResolveLayer`] runs for exactly one active tenant, in its scope, or does not run at all; the
//! paths that pass without a tenant run outside any scope, so that tenant data stays closed to them.

pub mod admit;
pub mod feature;
pub mod host;
pub mod identity;
pub mod observe;
pub mod page;
pub mod problem;
pub mod request_id;
pub mod resolve;
pub mod usage;

pub use admit::{Admission, AdmissionConfig, AdmitLayer};
pub use identity::{Authenticator, ContextSigner, Identity, Verifier, Voucher};
pub use problem::Problem;
pub use resolve::{Resolve, ResolveLayer, ResolveOptions, Resolver};
