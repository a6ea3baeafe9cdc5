//! Tells addresses of events.

use uuid::Uuid;

use crate::handle::Control;

/// What signs the posts to a webhook: derived, so that the catalog does not hold it.
pub(crate) fn secret(control: &Control, webhook: Uuid) -> String {
    control.config().root_key.catalog_password(&format!("webhook {webhook}"))
}
