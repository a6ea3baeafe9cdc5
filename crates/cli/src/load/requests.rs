//! What each tenant sends, and to where.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use insula_core::Kind;
use insula_load::{Rate, Target, TenantLoad, Traffic};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::error::Error;

/// Options that may be for one tenant.
#[derive(clap::Args, Debug)]
pub(crate) struct RequestArgs {
    /// Tenants' hosts are SLUG.DOMAIN; a tenant whose name holds a dot is a host itself
    #[arg(long, value_name = "DOMAIN", default_value = "localhost")]
    domain: String,
    /// Path and query
    #[arg(long, value_name = "[TENANT=]PATH")]
    path: Vec<String>,
    /// Method
    #[arg(long, value_name = "[TENANT=]METHOD")]
    method: Vec<String>,
    /// File that is sent as the body
    #[arg(long, value_name = "[TENANT=]FILE")]
    body: Vec<String>,
    /// A header more, as 'accept: text/html'
    #[arg(long, value_name = "[TENANT=]HEADER")]
    header: Vec<String>,
    /// Bearer token; @FILE reads it from there
    #[arg(long, value_name = "[TENANT=]TOKEN")]
    token: Vec<String>,
    /// Log in first: the answer's `token` is the bearer token
    #[arg(long, value_name = "[TENANT=]USER:PASSWORD")]
    login: Vec<String>,
    /// Where to log in: takes JSON with `email` and `password`
    #[arg(long, value_name = "PATH", default_value = "/api/session")]
    login_path: String,
}

/// Where requests go.
pub(crate) struct Gateway {
    url: url::Url,
    pub(crate) addr: SocketAddr,
}

#[derive(Deserialize)]
struct ReadyFile {
    gateway_url: String,
}

/// The gateway of this address, or of the running `up` on this folder.
pub(crate) fn gateway(url: Option<&str>, data: &Path) -> Result<Gateway, Error> {
    let text = match url {
        Some(url) => url.to_owned(),
        None => {
            let path = data.join("ready.json");
            let missing = |e: std::io::Error| {
                let help = format!("give --url, or start one: `insula up --data {}`", data.display());
                Error::new(
                    Kind::Unavailable,
                    format!("no running `insula up` found: {} cannot be read ({e})", path.display()),
                    help,
                )
            };
            let text = std::fs::read_to_string(&path).map_err(missing)?;
            let fault = |_| Error::new(Kind::Invalid, format!("{} is not a ready file", path.display()), "restart `insula up`");
            serde_json::from_str::<ReadyFile>(&text).map_err(fault)?.gateway_url
        }
    };
    let wrong = |why: &str| Error::new(Kind::Invalid, format!("{text:?} is no gateway: {why}"), "write http://127.0.0.1:8080");
    let url = url::Url::parse(&text).map_err(|e| wrong(&e.to_string()))?;
    if url.scheme() != "http" {
        return Err(wrong("only http:// is spoken here; measure behind TLS, or through a proxy that ends it"));
    }
    let addrs = url.socket_addrs(|| None).map_err(|e| wrong(&e.to_string()))?;
    // A name with several addresses has IPv4 taken first: that is where a local gateway listens.
    let addr = addrs.iter().find(|addr| addr.is_ipv4()).or(addrs.first()).copied().ok_or_else(|| wrong("it has no address"))?;
    Ok(Gateway { url, addr })
}

/// The last value that is for this tenant: for it alone, or for all. `NAME=` counts only when NAME is one of `names`.
fn of<'a>(values: &'a [String], tenant: &str, names: &BTreeSet<&str>) -> Option<&'a str> {
    all_of(values, tenant, names).last()
}

fn all_of<'a>(values: &'a [String], tenant: &str, names: &BTreeSet<&str>) -> impl Iterator<Item = &'a str> {
    values.iter().filter_map(move |value| match value.split_once('=') {
        Some((name, rest)) if names.contains(name) => (name == tenant).then_some(rest),
        _ => Some(value.as_str()),
    })
}

/// Everybody's requests; logs in where asked.
pub(crate) async fn traffic(
    args: &RequestArgs,
    gateway: &Gateway,
    loads: &[TenantLoad],
    connections: Option<usize>,
) -> Result<Vec<Traffic>, Error> {
    let names: BTreeSet<&str> = loads.iter().map(|load| load.name.as_str()).collect();
    let mut traffic = Vec::new();
    for load in loads {
        let target = target(args, gateway, &load.name, &names).await?;
        let connections = connections.unwrap_or_else(|| default_connections(load.rate));
        traffic.push(Traffic { name: load.name.clone(), rate: load.rate, target, connections });
    }
    Ok(traffic)
}

/// Enough for answers that take a quarter of a second.
fn default_connections(rate: Rate) -> usize {
    match rate {
        Rate::Max => 64,
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        Rate::PerSecond(rate) => (rate / 4.0).ceil().clamp(4.0, 64.0) as usize,
    }
}

async fn target(args: &RequestArgs, gateway: &Gateway, tenant: &str, names: &BTreeSet<&str>) -> Result<Target, Error> {
    let fault = |what: &str, text: &str| Error::new(Kind::Invalid, format!("{text:?} is no {what}"), "");
    let path = of(&args.path, tenant, names).unwrap_or("/");
    let uri = path.parse().ok().filter(|_| path.starts_with('/')).ok_or_else(|| fault("path: it begins with /", path))?;
    let body = match of(&args.body, tenant, names) {
        Some(file) => std::fs::read(PathBuf::from(file))
            .map_err(|e| Error::new(Kind::Invalid, format!("the body {file} cannot be read: {e}"), ""))?,
        None => Vec::new(),
    };
    let method = of(&args.method, tenant, names).unwrap_or(if body.is_empty() { "GET" } else { "POST" });
    let method = method.parse().map_err(|_| fault("method", method))?;
    let host = host(tenant, &args.domain, gateway);
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| fault("host", &host))?);
    if !body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for header in all_of(&args.header, tenant, names) {
        let (name, value) = header.split_once(':').ok_or_else(|| fault("header: write NAME: VALUE", header))?;
        let name: HeaderName = name.trim().parse().map_err(|_| fault("header: write NAME: VALUE", header))?;
        headers.insert(name, HeaderValue::from_str(value.trim()).map_err(|_| fault("header", header))?);
    }
    if let Some(token) = token(args, gateway, tenant, &host, names).await? {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Error::new(Kind::Invalid, format!("the token of {tenant} holds what no header may"), ""))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(Target { method, uri, headers, body: body.into() })
}

fn host(tenant: &str, domain: &str, gateway: &Gateway) -> String {
    let name = if tenant.contains('.') { tenant.to_owned() } else { format!("{tenant}.{domain}") };
    match gateway.url.port() {
        Some(port) => format!("{name}:{port}"),
        None => name,
    }
}

async fn token(
    args: &RequestArgs,
    gateway: &Gateway,
    tenant: &str,
    host: &str,
    names: &BTreeSet<&str>,
) -> Result<Option<String>, Error> {
    if let Some(login) = of(&args.login, tenant, names) {
        return log_in(&args.login_path, gateway, tenant, host, login).await.map(Some);
    }
    let Some(token) = of(&args.token, tenant, names) else { return Ok(None) };
    let Some(file) = token.strip_prefix('@') else { return Ok(Some(token.to_owned())) };
    let text = std::fs::read_to_string(file)
        .map_err(|e| Error::new(Kind::Invalid, format!("the token file {file} cannot be read: {e}"), ""))?;
    Ok(Some(text.trim().to_owned()))
}

#[derive(Deserialize)]
struct Session {
    token: String,
}

async fn log_in(path: &str, gateway: &Gateway, tenant: &str, host: &str, login: &str) -> Result<String, Error> {
    let (user, password) = login
        .split_once(':')
        .ok_or_else(|| Error::new(Kind::Invalid, format!("the log-in of {tenant} is no USER:PASSWORD"), ""))?;
    let failed = |kind, what: String| Error::new(kind, format!("{user} cannot log in to {tenant}: {what}"), "");
    let url = gateway.url.join(path).map_err(|e| failed(Kind::Invalid, e.to_string()))?;
    let body = serde_json::json!({"email": user, "password": password});
    let answer = reqwest::Client::new().post(url).header(HOST, host).json(&body).send().await;
    let answer = answer.map_err(|e| failed(Kind::Unavailable, e.without_url().to_string()))?;
    let status = answer.status();
    if !status.is_success() {
        let kind = match status.as_u16() {
            404 => Kind::NotFound,
            400..=428 => Kind::Denied,
            _ => Kind::Unavailable,
        };
        return Err(failed(kind, format!("the answer was {status}")));
    }
    let session: Session = answer.json().await.map_err(|_| failed(Kind::Internal, "the answer holds no `token`".to_owned()))?;
    Ok(session.token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_for_one_tenant_only_when_it_names_one() {
        let names = BTreeSet::from(["heavy", "light"]);
        let values = ["/all?a=b", "light=/search?q=x"].map(str::to_owned);
        assert_eq!(of(&values, "light", &names), Some("/search?q=x"));
        assert_eq!(of(&values, "heavy", &names), Some("/all?a=b"));
        assert_eq!(of(&["other=/x".to_owned()], "light", &names), Some("other=/x"));
    }

    #[test]
    fn gateways_are_plain_http() {
        let fault = |url: &str| gateway(Some(url), Path::new("")).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(fault("https://127.0.0.1").contains("only http:// is spoken here"));
        assert!(fault("127.0.0.1:8080").contains("is no gateway"));
        let found = gateway(Some("http://127.0.0.1:8080"), Path::new("")).expect("a gateway");
        assert_eq!(found.addr.to_string(), "127.0.0.1:8080");
        assert_eq!(host("acme", "localhost", &found), "acme.localhost:8080");
        assert_eq!(host("docs.acme.example", "localhost", &found), "docs.acme.example:8080");
    }

    #[test]
    fn connections_follow_the_rate() {
        let of = |rate| default_connections(Rate::PerSecond(rate));
        assert_eq!((of(10.0), of(100.0), of(1e6), default_connections(Rate::Max)), (4, 25, 64, 64));
    }
}
