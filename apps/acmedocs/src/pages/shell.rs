//! What every page shares: the customer's name and colour, the user, the form secret.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use chrono::{DateTime, NaiveDate, Utc};
use insula::{Error, Tenant};

use crate::caller::Visitor;
use crate::sessions::User;

/// The frame around a page's content.
#[derive(Clone, Debug)]
pub(crate) struct Shell {
    pub(crate) brand: String,
    pub(crate) locale: String,
    pub(crate) user: Option<User>,
    /// The secret of this session's forms.
    pub(crate) form: String,
    /// Which part of the site is shown.
    pub(crate) here: &'static str,
    /// What is in the search box.
    pub(crate) question: String,
}

impl Shell {
    /// The frame for somebody who is not logged in.
    pub(crate) fn outside(tenant: &Tenant) -> Self {
        Self {
            brand: tenant.display_name().to_owned(),
            locale: tenant.settings().locale.to_string(),
            user: None,
            form: String::new(),
            here: "",
            question: String::new(),
        }
    }

    /// The frame for a user.
    pub(crate) fn inside(visitor: &Visitor, user: User, here: &'static str) -> Self {
        let form = visitor.token.as_ref().map(crate::sessions::Token::form_secret).unwrap_or_default();
        Self { user: Some(user), form, here, ..Self::outside(&visitor.tenant) }
    }

    pub(crate) fn initial(&self) -> String {
        self.brand.chars().next().map(|c| c.to_uppercase().collect()).unwrap_or_default()
    }

    #[allow(clippy::unused_self, reason = "templates call it on the shell they have")]
    pub(crate) fn date(&self, at: &DateTime<Utc>) -> String {
        at.format("%-d %b %Y").to_string()
    }

    #[allow(clippy::unused_self, reason = "templates call it on the shell they have")]
    pub(crate) fn size(&self, bytes: &u64) -> String {
        size(*bytes)
    }

    #[allow(clippy::unused_self, reason = "templates call it on the shell they have")]
    pub(crate) fn day(&self, day: &NaiveDate) -> String {
        day.format("%A, %-d %B %Y").to_string()
    }

    #[allow(clippy::unused_self, reason = "templates call it on the shell they have")]
    pub(crate) fn moment(&self, at: &DateTime<Utc>) -> String {
        at.format("%-d %b %Y %H:%M UTC").to_string()
    }
}

/// A number of bytes, for people.
fn size(bytes: u64) -> String {
    let steps = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    match steps.iter().find(|(step, _)| bytes >= *step) {
        // Tenths are enough, and exact for any size.
        Some((step, name)) => format!("{}.{} {name}", bytes / step, bytes % step * 10 / step),
        None => format!("{bytes} B"),
    }
}

/// Renders a page.
pub(crate) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => Error::internal(error).into_response(),
    }
}
