//! What an application notices of its tenants, set up from its settings.

use std::sync::Arc;

use insula_catalog::Catalog;
use insula_http::usage::UsageDesk;
use insula_telemetry::senses::{Bills, Deliver, Settings};
use insula_telemetry::slo::Objectives;
use insula_telemetry::{Error, Senses};

use crate::config::{Config, Tenancy};

/// Starts noticing. Behind a gateway, requests and bytes are billed there.
pub(crate) fn start(config: &Config) -> Result<Senses, Error> {
    let many = match &config.tenancy {
        Tenancy::On(many) => Some(many),
        Tenancy::Off(_) => None,
    };
    let watching = &config.watching;
    let deliver = match (many.and_then(|many| many.control_url.as_ref()), &watching.control_key) {
        (Some(url), Some(key)) => {
            let desk = UsageDesk::new(url, key, watching.control_authorities.as_deref()).map_err(Error::Delivery)?;
            Some(Arc::new(desk) as Arc<dyn Deliver>)
        }
        _ => None,
    };
    let objectives = watching.objectives.as_deref().map(Objectives::read).transpose()?.unwrap_or_default();
    let bills = if many.is_some_and(|many| many.jwks.is_set()) { Bills::Work } else { Bills::All };
    Senses::start(Settings { objectives, spool: watching.usage_dir.clone(), deliver, bills, takes_over: false })
}

/// Lets `/top` call tenants by their slugs.
pub(crate) fn name_tenants(senses: &Senses, catalog: Catalog) {
    senses.set_names(Box::new(move |wanted| insula_http::observe::names(&catalog, wanted)));
}
