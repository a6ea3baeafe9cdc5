//! A tenant's own address is told of changes.

use anyhow::{Result, ensure};
use insula_e2e::client::User;
use insula_e2e::up::Up;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::receiver::Receiver;

pub(crate) async fn a_change_is_told_and_signed(up: &Up) -> Result<()> {
    let user = User::log_in(up, &up.tenant("hooked", "gold", "database")?).await?;
    let receiver = Receiver::open().await?;
    let secret = receiver.hook(&user, &["document.*"]).await?;
    let id = user.write("Told", "of").await?;
    let path = format!("/api/documents/{id}");
    let (status, changed) = user.json(Method::PATCH, &path, Some(&json!({"title": "Told again"}))).await?;
    ensure!(status == StatusCode::OK, "{status} {changed}");
    let (status, gone) = user.json(Method::DELETE, &path, None).await?;
    ensure!(status == StatusCode::NO_CONTENT, "{status} {gone}");

    let mut told = receiver.events(&secret, 3).await?;
    told.sort_by(|a, b| a.topic.cmp(&b.topic));
    let topics: Vec<_> = told.iter().map(|told| (told.topic.as_str(), told.of.as_str())).collect();
    assert_eq!(topics, ["document.created", "document.deleted", "document.updated"].map(|topic| (topic, id.as_str())));
    // A signature of another secret is none.
    ensure!(receiver.told("somebody else's").is_err(), "any secret fits");
    Ok(())
}
