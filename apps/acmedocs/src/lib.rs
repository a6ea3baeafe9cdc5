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

use axum::Router;

use crate::password::Passwords;

/// What handlers share.
#[derive(Clone, Debug)]
pub struct App {
    /// Checks passwords, a few at a time.
    pub passwords: Passwords,
}

/// What is done later: the kinds of jobs that this application's workers run.
#[must_use]
pub fn jobs() -> insula::jobs::Jobs {
    insula::jobs::Jobs::new()
        .with::<exports::job::WriteExport>()
        .with::<exports::job::RemoveExport>()
        .with::<digests::job::WriteDigests>()
}

/// The application: wrap it in `insula`'s layer and serve it.
pub fn router() -> Router {
    let app = App { passwords: Passwords::new() };
    Router::new().merge(api::routes()).merge(pages::routes()).with_state(app)
}
