//! The words of Insula, floor 0: what every other crate speaks.
//!
//! For: typed ids, plan and limit values, placements, the tenant context and the work it follows, grants and the keys
//! that sign them, error kinds, the clock. Not for: I/O of any sort, or decisions (those are `insula-planner`).
//! Always: a value that exists is valid; parsing is the only way in; secrets print as `***`.

pub mod clock;
pub mod context;
pub mod error;
pub mod feature;
pub mod grant;
pub mod id;
pub mod keys;
pub mod placement;
pub mod plan;
pub mod principal;
pub mod scope;
pub mod slug;
pub mod tenant;
pub mod token;

pub use clock::{Clock, SystemClock};
pub use context::TenantContext;
pub use error::Kind;
pub use feature::{Feature, FeatureValue, Override};
pub use grant::{Grant, GrantKey};
pub use id::{KeyId, OperationId, ProviderId, TenantId, TenantNo};
pub use keys::{CellKey, CertificateKey, KeyRing, RootKey, WebhookKey};
pub use placement::{Isolation, MoveState, Placement};
pub use plan::{ClassLimits, Limits, Plan, Tier};
pub use principal::{Principal, Via};
pub use slug::{CellName, PlanName, RouteClass, Slug};
pub use tenant::{TenantSettings, TenantState};
