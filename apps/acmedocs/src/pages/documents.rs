//! Reading: lists, results, a document, its versions, the dashboard.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use insula::{Error, Query, Result};
use serde::Deserialize;
use uuid::Uuid;

use crate::caller::Visitor;
use crate::dashboard;
use crate::documents::{self, Document, Page};
use crate::features::SEARCH;
use crate::pages::chart;
use crate::pages::fault;
use crate::pages::shell::{Shell, page};
use crate::search::{self, Found};
use crate::versions::Entry;
use crate::{markdown, tags};

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    q: Option<String>,
    tag: Option<String>,
    after: Option<Uuid>,
}

#[derive(Template)]
#[template(path = "documents.html")]
struct ListPage {
    shell: Shell,
    page: Page,
    tag: Option<String>,
    tags: Vec<tags::Count>,
    writer: bool,
}

#[derive(Template)]
#[template(path = "results.html")]
struct ResultsPage {
    shell: Shell,
    found: Found,
}

#[derive(Template)]
#[template(path = "document.html")]
struct DocumentPage {
    shell: Shell,
    document: Document,
    html: String,
    writer: bool,
}

#[derive(Template)]
#[template(path = "versions.html")]
struct VersionsPage {
    shell: Shell,
    document: Document,
    versions: Vec<Entry>,
    writer: bool,
}

#[derive(Template)]
#[template(path = "dashboard.html")]
struct DashboardPage {
    shell: Shell,
    totals: dashboard::Totals,
    top_tags: Vec<tags::Count>,
    chart: String,
}

fn shown(visitor: &Visitor, result: Result<Response>) -> Response {
    result.unwrap_or_else(|error| fault::show(&visitor.tenant, error))
}

/// What is no id is the id of nothing.
pub(crate) fn id(text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| Error::not_found())
}

pub(crate) async fn list(visitor: Visitor, query: Result<Query<ListQuery>>) -> Response {
    let result = async {
        let Query(query) = query?;
        match query.q.filter(|q| !q.trim().is_empty()) {
            Some(question) => results(&visitor, question).await,
            None => newest(&visitor, query.after, query.tag).await,
        }
    };
    shown(&visitor, result.await)
}

async fn newest(visitor: &Visitor, after: Option<Uuid>, tag: Option<String>) -> Result<Response> {
    let mut work = visitor.begin().await?;
    let page_ = documents::list(&mut work.tx, 30, after, tag.as_deref()).await?;
    let tags = tags::counts(&mut work.tx, 16).await?;
    work.tx.commit().await?;
    let writer = work.user.must_write().is_ok();
    let shell = Shell::inside(visitor, work.user, "documents");
    Ok(page(StatusCode::OK, &ListPage { shell, page: page_, tag, tags, writer }))
}

async fn results(visitor: &Visitor, question: String) -> Result<Response> {
    let question: String = question.chars().take(search::LONGEST).collect();
    visitor.tenant.require(&SEARCH)?;
    let mut work = visitor.begin().await?;
    let found = search::find(&mut work.tx, &question, 30, 0).await?;
    work.tx.commit().await?;
    let shell = Shell { question, ..Shell::inside(visitor, work.user, "documents") };
    Ok(page(StatusCode::OK, &ResultsPage { shell, found }))
}

pub(crate) async fn read(visitor: Visitor, Path(document): Path<String>) -> Response {
    let result = async {
        let mut work = visitor.begin().await?;
        let document = documents::read(&mut work.tx, id(&document)?).await?;
        work.tx.commit().await?;
        let html = markdown::render(&document.body, document.format);
        let writer = work.user.must_write().is_ok();
        let shell = Shell::inside(&visitor, work.user, "documents");
        Ok(page(StatusCode::OK, &DocumentPage { shell, document, html, writer }))
    };
    shown(&visitor, result.await)
}

pub(crate) async fn versions(visitor: Visitor, Path(document): Path<String>) -> Response {
    let result = async {
        let mut work = visitor.begin().await?;
        let document = documents::read(&mut work.tx, id(&document)?).await?;
        let versions = crate::versions::list(&mut work.tx, document.id).await?;
        work.tx.commit().await?;
        let writer = work.user.must_write().is_ok();
        let shell = Shell::inside(&visitor, work.user, "documents");
        Ok(page(StatusCode::OK, &VersionsPage { shell, document, versions, writer }))
    };
    shown(&visitor, result.await)
}

pub(crate) async fn dashboard(visitor: Visitor) -> Response {
    let result = async {
        // Who may see it is looked up each time, where nothing is old.
        let work = visitor.begin().await?;
        work.tx.commit().await?;
        let counted = dashboard::of(&visitor.tenant).await?;
        let chart = chart::bars(&counted.days);
        let shell = Shell::inside(&visitor, work.user, "dashboard");
        let (totals, top_tags) = (counted.totals.clone(), counted.top_tags.clone());
        Ok(page(StatusCode::OK, &DashboardPage { shell, totals, top_tags, chart }))
    };
    shown(&visitor, result.await)
}
