//! What a customer's plan may have or lack. What nobody has said, a customer does not have.

use insula::Feature;

/// Full-text search.
pub const SEARCH: Feature<bool> = Feature::new("search", false);
/// A host name of the customer's own.
pub const CUSTOM_DOMAIN: Feature<bool> = Feature::new("custom_domain", false);
/// Exports that may run at once.
pub const EXPORTS: Feature<i64> = Feature::new("max_concurrent_exports", 0);
