//! `/`, `/login`, `/logout`

use askama::Template;
use axum::extract::State;
use axum::http::header::{HeaderValue, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use insula::{Form, Kind, Tenant};
use serde::Deserialize;

use crate::App;
use crate::caller::{SESSION_COOKIE, Visitor};
use crate::login::{self, Credentials};
use crate::pages::shell::{Shell, page};
use crate::pages::{fault, guard};
use crate::sessions;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    shell: Shell,
    email: String,
    fault: Option<String>,
}

/// A form that carries nothing but its session's secret.
#[derive(Deserialize)]
pub(crate) struct Plain {
    #[serde(default)]
    pub(crate) form: String,
}

pub(crate) async fn home() -> Redirect {
    Redirect::to("/documents")
}

pub(crate) async fn form(tenant: Tenant) -> Response {
    page(StatusCode::OK, &LoginPage { shell: Shell::outside(&tenant), email: String::new(), fault: None })
}

pub(crate) async fn log_in(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    typed: insula::Result<Form<Credentials>>,
) -> Response {
    let (email, result) = match guard::same_site(&headers).and(typed) {
        Ok(Form(typed)) => (typed.email.clone(), login::log_in(&tenant, &app.passwords, typed).await),
        Err(error) => (String::new(), Err(error)),
    };
    let error = match result {
        Ok(opened) => {
            return (cookie(&headers, &opened.token.text(), 30 * 24 * 3600), Redirect::to("/documents")).into_response();
        }
        Err(error) => error,
    };
    // The one place where "not logged in" is the form's own news.
    let told = if error.kind() == Kind::Unauthenticated {
        Ok((StatusCode::UNAUTHORIZED, error.into_problem().body().detail.clone()))
    } else {
        fault::about_the_form(error)
    };
    match told {
        Ok((status, text)) => page(status, &LoginPage { shell: Shell::outside(&tenant), email, fault: Some(text) }),
        Err(error) => fault::show(&tenant, error),
    }
}

pub(crate) async fn log_out(visitor: Visitor, headers: HeaderMap, form: insula::Result<Form<Plain>>) -> Response {
    let ended = async {
        guard::own_form(&headers, visitor.token.as_ref(), &form?.0.form)?;
        let mut work = visitor.begin().await?;
        if let Some(token) = &visitor.token {
            sessions::end(&mut work.tx, token).await?;
        }
        Ok(work.tx.commit().await?)
    };
    match ended.await {
        Ok(()) => (cookie(&headers, "", 0), Redirect::to("/login")).into_response(),
        Err(error) => fault::show(&visitor.tenant, error),
    }
}

/// No `Domain`: the browser keeps it for this host alone.
fn cookie(headers: &HeaderMap, token: &str, seconds: u32) -> HeaderMap {
    let secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{SESSION_COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}");
    HeaderValue::from_str(&text).map(|value| [(SET_COOKIE, value)].into_iter().collect()).unwrap_or_default()
}
