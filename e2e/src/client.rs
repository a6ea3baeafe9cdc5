//! AcmeDocs' public API, as a browser or script of one tenant uses it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::header::HOST;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::up::{Tenant, Up};

/// One logged-in user of one tenant.
#[derive(Debug, Clone)]
pub struct User {
    http: Client,
    base: String,
    host: String,
    token: String,
}

impl User {
    /// Logs in as the tenant's first user.
    ///
    /// # Errors
    /// When the log-in is refused.
    pub async fn log_in(up: &Up, tenant: &Tenant) -> Result<Self> {
        let host = format!("{}.localhost", tenant.slug);
        Self::log_in_at(&up.ready.gateway_url, &host, &tenant.admin.email, &tenant.admin.password).await
    }

    /// Logs in to an application at `base`, by this host name.
    ///
    /// # Errors
    /// When the log-in is refused.
    pub async fn log_in_at(base: &str, host: &str, email: &str, password: &str) -> Result<Self> {
        let base = base.trim_end_matches('/').to_owned();
        let mut user = Self { http: Client::new(), base, host: host.to_owned(), token: String::new() };
        let body = json!({"email": email, "password": password});
        let answer = user.send(Method::POST, "/api/session", Some(&body)).await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status.is_success(), "log-in of {email} at {host}: {status} {body}");
        user.token = body["token"].as_str().context("no token in the answer")?.to_owned();
        Ok(user)
    }

    /// What proves who this is: a secret.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The same user with another address of the application (after a restart).
    #[must_use]
    pub fn at(&self, up: &Up) -> Self {
        self.at_address(&up.ready.gateway_url)
    }

    /// The same user with this address.
    #[must_use]
    pub fn at_address(&self, base: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), ..self.clone() }
    }

    /// The same session presented to another tenant's host.
    #[must_use]
    pub fn at_host_of(&self, other: &Self) -> Self {
        Self { host: other.host.clone(), ..self.clone() }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).header(HOST, &self.host);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Ok(request.send().await?)
    }

    /// Status and JSON body of a request. A plan's limits are not what is tested: told to come later, it does.
    ///
    /// # Errors
    /// When no answer came or it is not JSON.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let limit = tokio::time::Instant::now() + Duration::from_secs(30);
        let mut answer = self.send(method.clone(), path, body).await?;
        while answer.status() == StatusCode::TOO_MANY_REQUESTS && tokio::time::Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer = self.send(method.clone(), path, body).await?;
        }
        let status = answer.status();
        let text = answer.text().await?;
        let value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).with_context(|| text.clone())? };
        Ok((status, value))
    }

    /// Writes a document; its id when the write was acknowledged.
    ///
    /// # Errors
    /// When it was not.
    pub async fn write(&self, title: &str, body: &str) -> Result<String> {
        let body = json!({"title": title, "body": body, "tags": ["e2e"]});
        let (status, json) = self.json(Method::POST, "/api/documents", Some(&body)).await?;
        ensure!(status == StatusCode::CREATED, "{status} {json}");
        Ok(json["id"].as_str().context("no id in the answer")?.to_owned())
    }
}
