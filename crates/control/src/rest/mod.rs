//! The REST API.

use crate::handle::Control;

/// The API's router.
pub fn router(_control: Control) -> axum::Router {
    axum::Router::new()
}
