//! `/exports`: asking for one, watching it, the file itself.

use askama::Template;
use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use insula::{Error, Form, Result, Tenant};

use crate::caller::Visitor;
use crate::exports::{self, Export, New, State};
use crate::features::EXPORTS;
use crate::pages::documents::id;
use crate::pages::session::Plain;
use crate::pages::shell::{Shell, page};
use crate::pages::{fault, guard};

#[derive(Template)]
#[template(path = "exports.html")]
struct ExportsPage {
    shell: Shell,
    exports: Vec<Export>,
    /// May ask for one.
    writer: bool,
    /// How many run at once; 0: the plan has none.
    at_once: i64,
    fault: Option<String>,
}

impl ExportsPage {
    /// Whether to look again soon.
    fn open(&self) -> bool {
        self.exports.iter().any(|export| export.state.is_open())
    }
}

async fn show(visitor: &Visitor, fault: Option<(StatusCode, String)>) -> Result<Response> {
    let mut work = visitor.begin().await?;
    let exports = exports::list(&mut work.tx, &visitor.tenant).await?;
    work.tx.commit().await?;
    let writer = work.user.must_write().is_ok();
    let shell = Shell::inside(visitor, work.user, "exports");
    let (status, fault) = fault.map_or((StatusCode::OK, None), |(status, text)| (status, Some(text)));
    Ok(page(status, &ExportsPage { shell, exports, writer, at_once: visitor.tenant.feature(&EXPORTS), fault }))
}

fn shown(visitor: &Visitor, result: Result<Response>) -> Response {
    result.unwrap_or_else(|error| fault::show(&visitor.tenant, error))
}

pub(crate) async fn list(visitor: Visitor) -> Response {
    let result = show(&visitor, None).await;
    shown(&visitor, result)
}

pub(crate) async fn request(visitor: Visitor, headers: HeaderMap, form: Result<Form<Plain>>) -> Response {
    let result = async {
        guard::own_form(&headers, visitor.token.as_ref(), &form?.0.form)?;
        let mut work = visitor.begin().await?;
        work.user.must_write()?;
        match exports::request(&mut work.tx, &visitor.tenant, work.user.id, New::default()).await {
            Ok(_) => work.tx.commit().await?,
            Err(error) => {
                drop(work);
                return show(&visitor, Some(fault::about_the_form(error)?)).await;
            }
        }
        Ok(Redirect::to("/exports").into_response())
    };
    shown(&visitor, result.await)
}

pub(crate) async fn remove(
    visitor: Visitor,
    Path(export): Path<String>,
    headers: HeaderMap,
    form: Result<Form<Plain>>,
) -> Response {
    let result = async {
        guard::own_form(&headers, visitor.token.as_ref(), &form?.0.form)?;
        let mut work = visitor.begin().await?;
        work.user.must_write()?;
        exports::remove(&mut work.tx, id(&export)?).await?;
        work.tx.commit().await?;
        Ok(Redirect::to("/exports").into_response())
    };
    shown(&visitor, result.await)
}

/// The file, for whoever has a link to it: the link is the right to it, so nobody is asked who he is.
pub(crate) async fn file(tenant: Tenant, Path(export): Path<String>, target: Uri) -> Response {
    let result = async {
        tenant.check_link(&target)?;
        let mut tx = tenant.begin().await?;
        let (object, at) = exports::file(&mut tx, id(&export)?).await?;
        tx.commit().await?;
        let object = tenant.objects().open(&object).await?.ok_or_else(exports::gone)?;
        let name = format!("{}-{}.zip", tenant.context().slug, at.format("%Y-%m-%d-%H%M"));
        let headers = [
            (CONTENT_TYPE, "application/zip".to_owned()),
            (CONTENT_LENGTH, object.bytes.to_string()),
            (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
            (CACHE_CONTROL, "private, no-store".to_owned()),
        ];
        Ok::<_, Error>((headers, Body::from_stream(object.body)).into_response())
    };
    result.await.unwrap_or_else(|error| fault::show(&tenant, error))
}
