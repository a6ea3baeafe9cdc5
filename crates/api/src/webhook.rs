//! Webhooks: addresses that are told of events.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An address that is told of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Webhook {
    /// Its id.
    pub id: Uuid,
    /// Where events are posted.
    pub url: String,
    /// Which: exact topics (`tenant.provisioned`), prefixes (`tenant.*`) or `*`.
    pub topics: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was switched off.
    pub disabled_at: Option<DateTime<Utc>>,
}

/// Asks to be told of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWebhook {
    /// Where events are posted: `https://` or `http://`, without a user or password. Redirects are not followed; addresses inside
    /// the network are refused unless the control plane is told to allow them.
    #[schema(max_length = 2000)]
    pub url: String,
    /// Which: exact topics (`tenant.provisioned`), prefixes (`tenant.*`) or `*`.
    pub topics: Vec<String>,
}

/// A new webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WebhookCreated {
    /// The webhook.
    #[serde(flatten)]
    pub webhook: Webhook,
    /// Signs what is posted: `Insula-Signature: t=<unix>,v1=<hex HMAC-SHA256 of "<t>.<body>">`. In the first answer only.
    pub secret: Option<String>,
    /// True in every repeated answer.
    #[serde(default)]
    pub secret_withheld: bool,
}
