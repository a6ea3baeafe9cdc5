//! An axum application with one customer in mind, serving many.
use axum::{Router, routing::get};
use insula::{Config, Insula, Json, Result, Tenant};

async fn titles(tenant: Tenant) -> Result<Json<Vec<String>>> {
    let mut tx = tenant.begin().await?; // this customer's rows, and no others
    Ok(Json(sqlx::query_scalar("SELECT title FROM notes").fetch_all(&mut tx).await?))
}

#[tokio::main]
async fn main() -> Result<()> {
    let insula = Insula::connect(Config::from_env()?).await?;
    let app = Router::new().route("/notes", get(titles)).layer(insula.layer());
    Ok(insula::serve(app, &insula).await?)
}
