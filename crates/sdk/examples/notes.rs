//! A whole application: its table, two routes, and what `insula up` asks it for.
use axum::{Router, routing::get};
use insula::{Bundle, Config, Insula, Json, Migration, Result, Tenant};

async fn titles(tenant: Tenant) -> Result<Json<Vec<String>>> {
    let mut tx = tenant.begin().await?;
    Ok(Json(sqlx::query_scalar("SELECT title FROM notes ORDER BY title").fetch_all(&mut tx).await?))
}

async fn write(tenant: Tenant, Json(title): Json<String>) -> Result<()> {
    let mut tx = tenant.begin().await?;
    sqlx::query("INSERT INTO notes (title) VALUES ($1)").bind(title).execute(&mut tx).await?;
    Ok(tx.commit().await?)
}

fn bundle() -> Bundle {
    let sql = "CREATE TABLE notes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), title text NOT NULL);
               SELECT insula.tenant_table('notes');";
    Bundle { migrations: vec![Migration { version: 1, name: "notes".into(), sql: sql.into() }], seed: String::new() }
}

#[tokio::main]
async fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("bundle") {
        return Ok(serde_json::to_writer(std::io::stdout(), &bundle())?);
    }
    let insula = Insula::connect(Config::from_env()?).await?;
    let app = Router::new().route("/notes", get(titles).post(write)).layer(insula.layer());
    Ok(insula::serve(app, &insula).await?)
}
