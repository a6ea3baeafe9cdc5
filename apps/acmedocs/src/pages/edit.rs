//! Writing: the form for a new or an old document, deletion, restoring a version.

use askama::Template;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use insula::{Error, Form, Result};
use serde::Deserialize;

use crate::caller::Visitor;
use crate::dashboard;
use crate::documents::{self, Change, Document, Format, New};
use crate::pages::documents::id;
use crate::pages::session::Plain;
use crate::pages::shell::{Shell, page};
use crate::pages::{fault, guard};

/// What the form sends.
#[derive(Clone, Default, Deserialize)]
pub(crate) struct Typed {
    #[serde(default)]
    form: String,
    title: String,
    #[serde(default)]
    body: String,
    #[serde(default)]
    tags: String,
    #[serde(default)]
    version: i32,
    #[serde(default)]
    format: Format,
}

#[derive(Template)]
#[template(path = "edit.html")]
struct EditPage {
    shell: Shell,
    heading: String,
    action: String,
    back: String,
    title: String,
    body: String,
    tags: String,
    version: i32,
    format: &'static str,
    fault: Option<String>,
}

impl Typed {
    fn tags(&self) -> Vec<String> {
        self.tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
    }

    fn of(document: Document) -> Self {
        let Document { title, body, tags, version, format, .. } = document;
        Self { form: String::new(), title, body, tags: tags.join(", "), version, format }
    }

    /// The form with what was typed in it, for `document` or a new one.
    fn page(self, shell: Shell, document: Option<&str>, fault: Option<String>) -> EditPage {
        let here = document.map_or_else(|| "/documents".to_owned(), |id| format!("/documents/{id}"));
        EditPage {
            shell,
            heading: if document.is_some() { "Edit document" } else { "New document" }.to_owned(),
            action: here.clone(),
            back: here,
            title: self.title,
            body: self.body,
            tags: self.tags,
            version: self.version,
            format: self.format.as_str(),
            fault,
        }
    }
}

pub(crate) async fn new(visitor: Visitor) -> Response {
    let result = async {
        let work = visitor.begin().await?;
        work.tx.commit().await?;
        work.user.must_write()?;
        let shell = Shell::inside(&visitor, work.user, "documents");
        Ok(page(StatusCode::OK, &Typed::default().page(shell, None, None)))
    };
    result.await.unwrap_or_else(|error| fault::show(&visitor.tenant, error))
}

pub(crate) async fn form(visitor: Visitor, Path(document): Path<String>) -> Response {
    let result = async {
        let mut work = visitor.begin().await?;
        work.user.must_write()?;
        let found = documents::read(&mut work.tx, id(&document)?).await?;
        work.tx.commit().await?;
        let shell = Shell::inside(&visitor, work.user, "documents");
        Ok(page(StatusCode::OK, &Typed::of(found).page(shell, Some(&document), None)))
    };
    result.await.unwrap_or_else(|error| fault::show(&visitor.tenant, error))
}

pub(crate) async fn create(visitor: Visitor, headers: HeaderMap, typed: Result<Form<Typed>>) -> Response {
    save(visitor, headers, None, typed).await
}

pub(crate) async fn update(
    visitor: Visitor,
    Path(document): Path<String>,
    headers: HeaderMap,
    typed: Result<Form<Typed>>,
) -> Response {
    save(visitor, headers, Some(document), typed).await
}

async fn save(visitor: Visitor, headers: HeaderMap, document: Option<String>, typed: Result<Form<Typed>>) -> Response {
    let result = async {
        let Form(mut typed) = typed?;
        // Browsers send line ends as CR LF.
        typed.body = typed.body.replace("\r\n", "\n");
        guard::own_form(&headers, visitor.token.as_ref(), &typed.form)?;
        let error = match write(&visitor, document.as_deref(), typed.clone()).await {
            Ok(written) => return Ok(Redirect::to(&format!("/documents/{}", written.id)).into_response()),
            Err(error) => error,
        };
        let (status, text) = fault::about_the_form(error)?;
        let work = visitor.begin().await?;
        work.tx.commit().await?;
        let shell = Shell::inside(&visitor, work.user, "documents");
        Ok(page(status, &typed.page(shell, document.as_deref(), Some(text))))
    };
    result.await.unwrap_or_else(|error: Error| fault::show(&visitor.tenant, error))
}

async fn write(visitor: &Visitor, document: Option<&str>, typed: Typed) -> Result<Document> {
    let tags = typed.tags();
    let Typed { title, body, version, format, .. } = typed;
    let mut work = visitor.begin().await?;
    work.user.must_write()?;
    let (tx, author) = (&mut work.tx, work.user.id);
    let written = match document {
        None => documents::create(tx, author, New { title, body, tags, format, source: None }).await?,
        Some(document) => {
            let change =
                Change { title: Some(title), body: Some(body), tags: Some(tags), format: Some(format), version: Some(version) };
            documents::update(tx, author, id(document)?, change, None).await?
        }
    };
    dashboard::commit(&visitor.tenant, work.tx).await?;
    Ok(written)
}

pub(crate) async fn delete(
    visitor: Visitor,
    Path(document): Path<String>,
    headers: HeaderMap,
    form: Result<Form<Plain>>,
) -> Response {
    let result = async {
        guard::own_form(&headers, visitor.token.as_ref(), &form?.0.form)?;
        let mut work = visitor.begin().await?;
        work.user.must_write()?;
        documents::delete(&mut work.tx, work.user.id, id(&document)?, None).await?;
        dashboard::commit(&visitor.tenant, work.tx).await?;
        Ok(Redirect::to("/documents").into_response())
    };
    result.await.unwrap_or_else(|error| fault::show(&visitor.tenant, error))
}

pub(crate) async fn restore(
    visitor: Visitor,
    Path((document, version)): Path<(String, String)>,
    headers: HeaderMap,
    form: Result<Form<Plain>>,
) -> Response {
    let result = async {
        guard::own_form(&headers, visitor.token.as_ref(), &form?.0.form)?;
        let version = version.parse().map_err(|_| Error::not_found())?;
        let mut work = visitor.begin().await?;
        work.user.must_write()?;
        let restored = crate::versions::restore(&mut work.tx, work.user.id, id(&document)?, version, None).await?;
        dashboard::commit(&visitor.tenant, work.tx).await?;
        Ok(Redirect::to(&format!("/documents/{}", restored.id)).into_response())
    };
    result.await.unwrap_or_else(|error| fault::show(&visitor.tenant, error))
}
