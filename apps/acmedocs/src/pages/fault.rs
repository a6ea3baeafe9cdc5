//! Errors as pages: the same two voices as the API, in HTML.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use insula::{Error, Kind, Tenant};

use crate::pages::shell::{Shell, page};

#[derive(Template)]
#[template(path = "fault.html")]
struct FaultPage {
    shell: Shell,
    title: String,
    detail: String,
}

/// An error on its way to a page. Who is not logged in is led to the log-in.
pub(crate) fn show(tenant: &Tenant, error: Error) -> Response {
    if error.kind() == Kind::Unauthenticated {
        return Redirect::to("/login").into_response();
    }
    let problem = error.into_problem();
    let body = problem.body();
    let status = StatusCode::from_u16(body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    page(status, &FaultPage { shell: Shell::outside(tenant), title: body.title.clone(), detail: body.detail.clone() })
}

/// What an error says to whoever filled in a form; `Err` when it is not about the form.
pub(crate) fn about_the_form(error: Error) -> Result<(StatusCode, String), Error> {
    match error.kind() {
        Kind::Invalid | Kind::Conflict | Kind::Precondition | Kind::Limited | Kind::TooLarge => {
            let problem = error.into_problem();
            let body = problem.body();
            let status = StatusCode::from_u16(body.status).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
            Ok((status, if body.detail.is_empty() { body.title.clone() } else { body.detail.clone() }))
        }
        _ => Err(error),
    }
}
