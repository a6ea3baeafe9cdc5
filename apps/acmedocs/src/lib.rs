//! AcmeDocs: a document application for many customers, written as if it had one.
//!
//! For: log-in, documents with versions and tags, search, a dashboard, exports, a nightly digest, webhooks; as a JSON API ([`api`]) and as pages ([`pages`]). Not
//! for: knowing whose request it is or keeping customers apart; `insula` does that, below every query in here.
//! Always: one request works in one transaction of one customer; what the client reads was written for it.

pub mod api;
pub mod bundle;
pub mod caller;
pub mod dashboard;
pub mod digests;
pub mod documents;
pub mod events;
pub mod exports;
pub mod features;
pub mod import;
pub mod login;
pub mod markdown;
pub mod pages;
pub mod password;
pub mod search;
pub mod sessions;
pub mod tags;
pub mod users;
pub mod versions;

use std::time::Duration;

use axum::Router;
use insula::jobs::{Cron, CronError, EachTenant, Jobs, Zone};

use crate::password::Passwords;

/// What handlers share.
#[derive(Clone, Debug)]
pub struct App {
    /// Checks passwords, a few at a time.
    pub passwords: Passwords,
}

/// What is done later: the kinds of jobs that this application's workers run, and what comes each night.
///
/// # Errors
/// When a pattern of ours is none.
pub fn jobs() -> Result<Jobs, CronError> {
    let jobs = Jobs::new()
        .with::<exports::job::WriteExport>()
        .with::<exports::job::RemoveExport>()
        .with::<exports::forget::ForgetExports>();
    // The nights of one time zone fall together: they take half an hour to come, whoever pays more first.
    let spread = EachTenant { spread: Duration::from_secs(1800), ..EachTenant::default() };
    let nightly = Cron::parse(digests::NIGHTLY)?;
    Ok(jobs.each_tenant_with("digest", nightly, Zone::Tenant, spread, |_| digests::job::WriteDigests::default()))
}

/// The application: wrap it in `insula`'s layer and serve it.
pub fn router() -> Router {
    let app = App { passwords: Passwords::new() };
    Router::new().merge(api::routes()).merge(pages::routes()).with_state(app)
}
