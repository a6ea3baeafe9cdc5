//! `/webhooks`: whom the workspace tells, and how that goes. For admins.

use askama::Template;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use insula::webhooks::{self, Webhook};
use insula::{Error, Form, Kind, Result};
use serde::Deserialize;
use uuid::Uuid;

use crate::caller::{Visitor, Work};
use crate::pages::documents::id;
use crate::pages::session::Plain;
use crate::pages::shell::{Shell, page};
use crate::pages::{fault, guard};

/// What there is to choose from, and what it is for.
const CHOICES: [(&str, &str); 4] =
    [("*", "everything"), ("document.*", "documents"), ("digest.ready", "digests"), ("export.ready", "exports")];

#[derive(Template)]
#[template(path = "webhooks.html")]
struct WebhooksPage {
    shell: Shell,
    webhooks: Vec<Webhook>,
    choices: [(&'static str, &'static str); 4],
    most: usize,
    url: String,
    /// An address and its new secret, once.
    secret: Option<(String, String)>,
    fault: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Typed {
    #[serde(default)]
    form: String,
    url: String,
    topics: String,
}

async fn administer(visitor: &Visitor) -> Result<Work> {
    let work = visitor.begin().await?;
    work.user.must_administer()?;
    Ok(work)
}

/// The page, with what is to be said besides.
async fn show(visitor: &Visitor, say: impl FnOnce(&mut WebhooksPage) -> StatusCode) -> Result<Response> {
    let mut work = administer(visitor).await?;
    let webhooks = webhooks::list(&mut work.tx).await?;
    work.tx.commit().await?;
    let shell = Shell::inside(visitor, work.user, "webhooks");
    let most = webhooks::MOST;
    let mut shown = WebhooksPage { shell, webhooks, choices: CHOICES, most, url: String::new(), secret: None, fault: None };
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

pub(crate) async fn add(visitor: Visitor, headers: HeaderMap, typed: Result<Form<Typed>>) -> Response {
    let result = async {
        let Form(typed) = typed?;
        guard::own_form(&headers, visitor.token.as_ref(), &typed.form)?;
        let mut work = administer(&visitor).await?;
        let url = typed.url.trim();
        match webhooks::create(&visitor.tenant, &mut work.tx, url, &[&typed.topics]).await {
            Ok(created) => {
                work.tx.commit().await?;
                told(&visitor, url.to_owned(), created.secret).await
            }
            Err(error) => {
                drop(work);
                let (status, text) = fault::about_the_form(error)?;
                let say = |page: &mut WebhooksPage| {
                    page.fault = Some(text);
                    page.url = typed.url;
                    status
                };
                show(&visitor, say).await
            }
        }
    };
    shown(&visitor, result.await)
}

/// A secret, shown this once.
async fn told(visitor: &Visitor, url: String, secret: String) -> Result<Response> {
    let say = |page: &mut WebhooksPage| {
        page.secret = Some((url, secret));
        StatusCode::OK
    };
    show(visitor, say).await
}

pub(crate) async fn rotate(
    visitor: Visitor,
    Path(webhook): Path<String>,
    headers: HeaderMap,
    form: Result<Form<Plain>>,
) -> Response {
    let result = async {
        guard::own_form(&headers, visitor.token.as_ref(), &form?.0.form)?;
        let mut work = administer(&visitor).await?;
        let created = webhooks::rotate(&visitor.tenant, &mut work.tx, id(&webhook)?).await?.ok_or_else(Error::not_found)?;
        let all = webhooks::list(&mut work.tx).await?;
        work.tx.commit().await?;
        let url = all.into_iter().find(|one| one.id == created.id).map(|one| one.url).unwrap_or_default();
        told(&visitor, url, created.secret).await
    };
    shown(&visitor, result.await)
}

pub(crate) async fn remove(visitor: Visitor, id: Path<String>, headers: HeaderMap, form: Result<Form<Plain>>) -> Response {
    change(visitor, id, headers, form, async |work, id| webhooks::remove(&mut work.tx, id).await).await
}

pub(crate) async fn pause(visitor: Visitor, id: Path<String>, headers: HeaderMap, form: Result<Form<Plain>>) -> Response {
    change(visitor, id, headers, form, async |work, id| webhooks::pause(&mut work.tx, id, true).await).await
}

pub(crate) async fn resume(visitor: Visitor, id: Path<String>, headers: HeaderMap, form: Result<Form<Plain>>) -> Response {
    change(visitor, id, headers, form, async |work, id| webhooks::pause(&mut work.tx, id, false).await).await
}

pub(crate) async fn test(visitor: Visitor, id: Path<String>, headers: HeaderMap, form: Result<Form<Plain>>) -> Response {
    change(visitor, id, headers, form, async |work, id| webhooks::test(&mut work.tx, id).await).await
}

async fn change(
    visitor: Visitor,
    Path(webhook): Path<String>,
    headers: HeaderMap,
    form: Result<Form<Plain>>,
    change: impl AsyncFnOnce(&mut Work, Uuid) -> Result<bool>,
) -> Response {
    let result = async {
        guard::own_form(&headers, visitor.token.as_ref(), &form?.0.form)?;
        let mut work = administer(&visitor).await?;
        if !change(&mut work, id(&webhook)?).await? {
            return Err(Error::public(Kind::NotFound, "There is no such webhook, or it is paused."));
        }
        work.tx.commit().await?;
        Ok(Redirect::to("/webhooks").into_response())
    };
    shown(&visitor, result.await)
}
