//! Long lists, a page at a time.

use serde::{Deserialize, Serialize};

/// Items on a page when the caller does not say.
pub const DEFAULT_LIMIT: u32 = 50;
/// Most items on a page.
pub const MAX_LIMIT: u32 = 500;

/// One page of a list. Items made while a caller pages do not shift the pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Hand this back as `cursor` for the next page; absent on the last one. Opaque: its form may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Most items to answer with: 1 to 500, 50 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
