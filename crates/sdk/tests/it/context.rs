//! Behind a gateway: the signed context decides, the host does not; and the tenant goes along with every call to another service.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::routing::get;
use insula::{Identity, Insula, Principal, Result, Tenant, scope};
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options};
use insula_core::keys::Secret;
use insula_core::token::ContextKeys;
use insula_core::{KeyRing, RootKey, TenantState, Via};
use insula_http::identity::{CONTEXT, ContextSigner, Fetcher, Published};
use tower::ServiceExt;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub(crate) struct Behind {
    pub(crate) insula: Insula,
    pub(crate) gateway: ContextSigner,
    pub(crate) catalog: Catalog,
    source: FakeSource,
    _jwks: tempfile::NamedTempFile,
}

pub(crate) fn root() -> RootKey {
    RootKey::new(Secret::from_hex(&"5a".repeat(32)).unwrap())
}

fn keys() -> ContextKeys {
    ContextKeys::new([(0, root().context_key(1).unwrap())]).unwrap()
}

impl Behind {
    /// An application of cell `main`; `acme` and `globex` live there, `away` lives in `second`.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// The same with another plan.
    pub(crate) async fn start_with(change: impl FnOnce(&mut insula_core::Plan)) -> Self {
        let mut bronze = fake::plan("bronze").unwrap();
        change(&mut bronze);
        let source = FakeSource::new();
        source.change(|content| {
            content.put_plan(bronze);
            for cell in ["main", "second"] {
                content.put_cell(fake::cell(cell, "127.0.0.1", 1).unwrap());
                content.put_database(fake::database(cell, "insula_pool", 0).unwrap());
            }
            content.put_tenant(fake::tenant("acme", 1, "bronze", "main").unwrap());
            content.put_tenant(fake::tenant("away", 2, "bronze", "second").unwrap());
            content.put_tenant(fake::tenant("globex", 4, "bronze", "main").unwrap());
            let mut asleep = fake::tenant("asleep", 3, "bronze", "main").unwrap();
            asleep.state = TenantState::Suspended;
            content.put_tenant(asleep);
        });
        let catalog = Catalog::start(source.clone(), Options::default());
        catalog.ready().await;
        let jwks = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(jwks.path(), keys().public().to_jwks()).unwrap();
        let published = Published::follow(None, Some(jwks.path().into()), Fetcher::new().unwrap()).await.unwrap();
        let main = "main".parse().unwrap();
        let ring = KeyRing::new([("main".parse().unwrap(), root().cell(&main))]);
        let insula = Insula::from_parts_verified(catalog.clone(), ring, published);
        Self { insula, gateway: ContextSigner::gateway(keys()), catalog, source, _jwks: jwks }
    }

    pub(crate) fn context(&self, slug: &str, audience: Option<&str>) -> http::HeaderValue {
        let route = self.catalog.by_slug(slug).unwrap().arc();
        let principal = Principal {
            subject: "alice".into(),
            issuer: None,
            via: Via::Oidc,
            tenants: [route.id].into(),
            scopes: ["read".into()].into(),
        };
        self.gateway.header_for(&route, &Identity::Principal(Arc::new(principal)), audience)
    }

    pub(crate) async fn ask(&self, app: &Router, host: &str, contexts: &[http::HeaderValue]) -> (u16, String) {
        let mut request =
            Request::get("/").header("host", host).header("traceparent", TRACE).header("x-request-id", "request-0001");
        for context in contexts {
            request = request.header(CONTEXT, context);
        }
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        (status, String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap())
    }
}

async fn whose(tenant: Tenant, identity: axum::Extension<Identity>) -> Result<String> {
    let scoped = scope::current()?;
    assert_eq!(scoped, *tenant.context());
    let scopes = identity.principal().map(|principal| principal.scopes.len()).unwrap_or_default();
    Ok(format!("{} {} {scopes}", scoped.slug, scoped.principal.as_deref().unwrap_or("-")))
}

#[tokio::test]
async fn the_context_decides_and_the_host_does_not() {
    let behind = Behind::start().await;
    let app = Router::new().route("/", get(whose)).layer(behind.insula.layer());
    let (acme, away) = (behind.context("acme", None), behind.context("away", None));
    let good = (200, "acme alice 1".to_owned());
    for host in ["acme.localhost", "globex.localhost", "10.0.0.7:8080", "localhost"] {
        assert_eq!(behind.ask(&app, host, std::slice::from_ref(&acme)).await, good, "{host}");
    }
    let status = async |contexts: &[http::HeaderValue]| behind.ask(&app, "acme.localhost", contexts).await.0;
    assert_eq!(status(&[]).await, 401, "the host alone proves nothing");
    assert_eq!(status(&[acme.clone(), acme.clone()]).await, 403);
    assert_eq!(status(&[away]).await, 401, "for a cell that this process does not serve");
    assert_eq!(status(&[behind.context("acme", Some("insula-app:second"))]).await, 401);
    assert_eq!(status(&[behind.context("asleep", None)]).await, 403);
    assert_eq!(status(&["eyJhbGciOiJub25lIn0.e30.".parse().unwrap()]).await, 401);
    let stranger = ContextSigner::gateway(ContextKeys::new([(0, root().context_key(7).unwrap())]).unwrap());
    let route = behind.catalog.by_slug("acme").unwrap().arc();
    assert_eq!(status(&[stranger.header(&route, &Identity::Anonymous)]).await, 401);
}

#[tokio::test]
async fn an_epoch_that_is_news_is_caught_up_with_and_an_old_one_is_harmless() {
    let behind = Behind::start().await;
    let app = Router::new().route("/", get(whose)).layer(behind.insula.layer());
    let old = behind.context("acme", None);
    // The gateway hears of the move before we do.
    let moved = behind.source.change_silently(|content| {
        let route = behind.catalog.by_slug("acme").unwrap();
        let mut row = fake::tenant("acme", 1, "bronze", "main").unwrap();
        row.id = route.id;
        row.placement.epoch = 2;
        content.put_tenant(row.clone());
        row
    });
    let gateways = FakeSource::new();
    gateways.change(|content| {
        content.put_plan(fake::plan("bronze").unwrap());
        content.put_tenant(moved);
    });
    let gateways = Catalog::start(gateways, Options::default());
    gateways.ready().await;
    let news = behind.gateway.header(&gateways.by_slug("acme").unwrap().arc(), &Identity::Anonymous);
    assert_eq!(behind.ask(&app, "x", &[news]).await, (200, "acme - 0".to_owned()));
    assert_eq!(behind.catalog.by_slug("acme").unwrap().placement.epoch, 2);
    assert_eq!(behind.ask(&app, "x", &[old]).await.0, 200);
}

#[cfg(feature = "reqwest")]
mod reqwest {
    use http::HeaderMap;
    use insula::Services;
    use insula_http::ResolveLayer;
    use insula_http::identity::Verifier;
    use tokio::net::TcpListener;

    use super::*;

    /// What a service hears of whoever calls it.
    async fn heard(headers: HeaderMap) -> String {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        format!("{}|{}|{}", text("insula-tenant-context"), text("x-request-id"), text("traceparent"))
    }

    /// A service that tells what it heard, and one that believes only what its verifier does.
    async fn services(behind: &Behind) -> (String, String) {
        let jwks = behind._jwks.path().to_owned();
        let published = Published::follow(None, Some(jwks), Fetcher::new().unwrap()).await.unwrap();
        let verifier = Arc::new(Verifier::new("billing", published));
        let main = "main".parse().unwrap();
        let key = root().cell(&main).context_key().unwrap();
        verifier.trust_cells([("main".parse().unwrap(), insula_core::token::KeySet::new([*key.public()]))].into());
        let layer = ResolveLayer::verified(verifier, behind.catalog.clone());
        let plain = Router::new()
            .route("/", get(heard))
            .route("/away", get(async || axum::response::Redirect::to("http://localhost:1/")));
        let strict = Router::new().route(
            "/",
            get(async |context: axum::Extension<insula::TenantContext>| {
                format!("{} {}", context.slug, context.principal.as_deref().unwrap_or("-"))
            }),
        );
        let mut addresses = Vec::new();
        for app in [plain, strict.layer(layer)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(format!("127.0.0.1:{}", listener.local_addr().unwrap().port()));
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
        (addresses.remove(0), addresses.remove(0))
    }

    #[tokio::test]
    async fn the_tenant_goes_along() {
        let behind = Behind::start().await;
        let (plain, strict) = services(&behind).await;
        let named = Services::new(&behind.insula).to(&plain).to_audience(&strict, "billing");
        let client = insula::reqwest::client(named).unwrap();
        let urls = [
            format!("http://{plain}/"),
            format!("http://{strict}/"),
            "http://elsewhere.example/".to_owned(),
            format!("http://{plain}/away"),
        ];
        let app = {
            let (client, urls) = (client.clone(), urls.clone());
            Router::new().route(
                "/",
                get(async move |_: Tenant| -> Result<String> {
                    let get = async |url: &String| -> Result<String> { Ok(client.get(url).send().await?.text().await?) };
                    let stranger = client.get(&urls[2]).send().await.expect_err("a stranger").to_string();
                    let redirected = client.get(&urls[3]).send().await?.status();
                    Ok(format!("{}\n{}\n{stranger}\n{redirected}", get(&urls[0]).await?, get(&urls[1]).await?))
                }),
            )
        };
        let app = app.layer(behind.insula.layer());
        let acme = behind.context("acme", None);
        let (status, told) = behind.ask(&app, "x", std::slice::from_ref(&acme)).await;
        let told: Vec<_> = told.lines().collect();
        assert_eq!(status, 200, "{told:?}");
        assert_eq!(told[0], format!("{}|request-0001|{TRACE}", acme.to_str().unwrap()), "handed on as it came");
        assert_eq!(told[1], "acme alice", "exchanged for one that the service believes");
        assert!(told[2].contains("elsewhere.example was not named as a service"), "{}", told[2]);
        assert!(told[3].starts_with("303"), "redirects are not followed: {}", told[3]);
        // Without a tenant there is no call.
        let refused = client.get(&urls[0]).send().await.expect_err("tenantless");
        assert!(refused.to_string().contains("no tenant in scope"), "{refused}");
        // Nor one on behalf of a tenant that this process was not given.
        let away = behind.catalog.by_slug("away").unwrap();
        let context = insula::TenantContext {
            tenant: away.id,
            no: away.no,
            slug: away.slug.clone(),
            plan: away.plan.name.clone(),
            principal: None,
            request_id: "request-0002".into(),
            proof: None,
            trace: None,
        };
        let refused = scope::enter(context, client.get(&urls[0]).send()).await.expect_err("not ours");
        assert!(refused.to_string().contains("no key of cell second"), "{refused}");
    }
}

#[cfg(feature = "tonic")]
mod tonic {
    use ::tonic::service::Interceptor;
    use ::tonic::{Code, Request as Call};
    use insula::tonic::{Incoming, Outgoing, context};

    use super::*;

    #[tokio::test]
    async fn the_tenant_goes_along_both_ways() {
        let behind = Behind::start().await;
        let acme = behind.context("acme", None);
        let mut incoming = Incoming::new(behind.insula.clone());
        let mut outgoing = Outgoing::new(&behind.insula);
        let call = |token: &http::HeaderValue| {
            let mut call = Call::new(());
            call.metadata_mut().insert("insula-tenant-context", token.to_str().unwrap().parse().unwrap());
            call.metadata_mut().insert("traceparent", TRACE.parse().unwrap());
            call
        };
        let received = incoming.call(call(&acme)).unwrap();
        let here = context(&received).unwrap();
        assert_eq!((here.slug.as_str(), here.principal.as_deref()), ("acme", Some("alice")));
        let sent = scope::enter_sync(here, || outgoing.call(Call::new(())).unwrap());
        assert_eq!(sent.metadata().get("insula-tenant-context").unwrap(), acme.to_str().unwrap());
        assert_eq!(sent.metadata().get("traceparent").unwrap(), TRACE);
        incoming.call(sent).unwrap();

        assert_eq!(outgoing.call(Call::new(())).unwrap_err().code(), Code::FailedPrecondition);
        let code = |incoming: &mut Incoming, call: Call<()>| incoming.call(call).unwrap_err().code();
        assert_eq!(code(&mut incoming, Call::new(())), Code::Unauthenticated);
        assert_eq!(code(&mut incoming, call(&behind.context("away", None))), Code::Unauthenticated);
        assert_eq!(code(&mut incoming, call(&behind.context("asleep", None))), Code::PermissionDenied);
        let mut twice = call(&acme);
        twice.metadata_mut().append("insula-tenant-context", acme.to_str().unwrap().parse().unwrap());
        assert_eq!(code(&mut incoming, twice), Code::Unauthenticated);
    }
}
