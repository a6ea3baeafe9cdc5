//! `/users`: who may log in, for admins.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use insula::{Error, Form, Result};
use serde::Deserialize;

use crate::App;
use crate::caller::Visitor;
use crate::pages::documents::id;
use crate::pages::session::Plain;
use crate::pages::shell::{Shell, page};
use crate::pages::{fault, guard};
use crate::sessions::{Role, unknown};
use crate::users::{self, Entry, New};

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage {
    shell: Shell,
    users: Vec<Entry>,
    most: u32,
    email: String,
    /// The password that was made up for somebody, once.
    made_up: Option<(String, String)>,
    fault: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Typed {
    #[serde(default)]
    form: String,
    email: String,
    role: Role,
}

/// The page, with what is to be said besides.
async fn show(visitor: &Visitor, say: impl FnOnce(&mut UsersPage) -> StatusCode) -> Result<Response> {
    let mut work = visitor.begin().await?;
    work.user.must_administer()?;
    let users = users::list(&mut work.tx).await?;
    work.tx.commit().await?;
    let most = visitor.tenant.plan().limits.max_users;
    let shell = Shell::inside(visitor, work.user, "users");
    let mut shown = UsersPage { shell, users, most, email: String::new(), made_up: None, fault: None };
    let status = say(&mut shown);
    Ok(page(status, &shown))
}

fn shown(visitor: &Visitor, result: Result<Response>) -> Response {
    result.unwrap_or_else(|error| fault::show(&visitor.tenant, error))
}

pub(crate) async fn list(visitor: Visitor) -> Response {
    let result = show(&visitor, |_| StatusCode::OK).await;
    shown(&visitor, result)
}

/// What about the form is wrong is said above it, with what was typed.
async fn refused(visitor: &Visitor, error: Error, email: String) -> Result<Response> {
    let (status, text) = fault::about_the_form(error)?;
    let say = |page: &mut UsersPage| {
        page.fault = Some(text);
        page.email = email;
        status
    };
    show(visitor, say).await
}

pub(crate) async fn add(State(app): State<App>, visitor: Visitor, headers: HeaderMap, typed: Result<Form<Typed>>) -> Response {
    let result = async {
        let Form(typed) = typed?;
        guard::own_form(&headers, visitor.token.as_ref(), &typed.form)?;
        let token = visitor.token.as_ref().ok_or_else(unknown)?;
        let new = New { email: typed.email.clone(), role: typed.role, password: None };
        let added = match users::add(&visitor.tenant, token, &app.passwords, new).await {
            Ok(added) => added,
            Err(error) => return refused(&visitor, error, typed.email).await,
        };
        let say = |page: &mut UsersPage| {
            page.made_up = added.password.map(|password| (added.user.email, password));
            StatusCode::OK
        };
        show(&visitor, say).await
    };
    shown(&visitor, result.await)
}

pub(crate) async fn remove(
    visitor: Visitor,
    Path(user): Path<String>,
    headers: HeaderMap,
    form: Result<Form<Plain>>,
) -> Response {
    let result = async {
        guard::own_form(&headers, visitor.token.as_ref(), &form?.0.form)?;
        let token = visitor.token.as_ref().ok_or_else(unknown)?;
        match users::remove(&visitor.tenant, token, id(&user)?).await {
            Ok(()) => Ok(Redirect::to("/users").into_response()),
            Err(error) => refused(&visitor, error, String::new()).await,
        }
    };
    shown(&visitor, result.await)
}
