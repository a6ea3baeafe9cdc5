//! `/digests`: what happened, day by day.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use crate::caller::Visitor;
use crate::digests::{self, Digest};
use crate::pages::fault;
use crate::pages::shell::{Shell, page};

#[derive(Template)]
#[template(path = "digests.html")]
struct DigestsPage {
    shell: Shell,
    digests: Vec<Digest>,
    zone: String,
}

pub(crate) async fn list(visitor: Visitor) -> Response {
    let result = async {
        let mut work = visitor.begin().await?;
        let digests = digests::list(&mut work.tx).await?;
        work.tx.commit().await?;
        let zone = visitor.tenant.settings().time_zone.as_str().to_owned();
        Ok(page(StatusCode::OK, &DigestsPage { shell: Shell::inside(&visitor, work.user, "digests"), digests, zone }))
    };
    result.await.unwrap_or_else(|error| fault::show(&visitor.tenant, error))
}
