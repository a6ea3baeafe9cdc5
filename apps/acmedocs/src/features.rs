//! What a customer's plan may have or lack. What nobody has said, a customer does not have.

use insula::{Feature, FeatureValue, Features};

/// Full-text search.
pub const SEARCH: Feature<bool> = Feature::new("search", false);
/// A host name of the customer's own.
pub const CUSTOM_DOMAIN: Feature<bool> = Feature::new("custom_domain", false);
/// Exports that may run at once.
pub const EXPORTS: Feature<i64> = Feature::new("max_concurrent_exports", 0);

/// What a customer on its own server has: all of it, and the domain is whatever leads to that server.
#[must_use]
pub fn all() -> Features {
    [
        (SEARCH.name().to_owned(), FeatureValue::Switch(true)),
        (CUSTOM_DOMAIN.name().to_owned(), FeatureValue::Switch(true)),
        (EXPORTS.name().to_owned(), FeatureValue::Number(8)),
    ]
    .into()
}
