//! Any request head: its tenant is one that every source agrees on, and that the principal belongs to; or it is refused.

use std::sync::OnceLock;

use http::{HeaderName, HeaderValue, Method, Request, Uri};
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options};
use insula_core::{Principal, Via};
use insula_http::resolve::{Asked, Refusal, Resolved};
use insula_http::{ResolveOptions, Resolver};

struct Edge {
    catalog: Catalog,
    resolver: Resolver,
    /// Keeps what the catalog runs on.
    _runtime: tokio::runtime::Runtime,
}

fn edge() -> &'static Edge {
    static EDGE: OnceLock<Edge> = OnceLock::new();
    EDGE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let source = FakeSource::new();
        source.change(|content| {
            content.put_plan(fake::plan("bronze").expect("a plan"));
            content.put_cell(fake::cell("main", "127.0.0.1", 1).expect("a cell"));
            content.put_database(fake::database("main", "insula_pool", 0).expect("a database"));
            for (slug, no) in [("acme", 1), ("globex", 2)] {
                let mut tenant = fake::tenant(slug, no, "bronze", "main").expect("a tenant");
                tenant.domains = vec![format!("docs.{slug}.example")];
                content.put_tenant(tenant);
            }
        });
        let catalog = runtime.block_on(async {
            let catalog = Catalog::start(source, Options::default());
            catalog.ready().await;
            catalog
        });
        let options = ResolveOptions {
            shared_hosts: vec!["api.localhost".into()],
            host_side: vec!["console.localhost".into()],
            ..ResolveOptions::default()
        };
        Edge { catalog, resolver: Resolver::new(options).expect("options"), _runtime: runtime }
    })
}

/// The first byte says who is authenticated; then lines: the target, and headers as `name: value`.
///
/// # Panics
/// When resolution breaks a promise.
pub(crate) fn run(data: &[u8]) {
    let edge = edge();
    let Some((who, rest)) = data.split_first() else { return };
    let id = |slug: &str| edge.catalog.by_slug(slug).expect("a tenant").id;
    let tenants = match who % 4 {
        0 => None,
        1 => Some(vec![id("acme")]),
        2 => Some(vec![id("acme"), id("globex")]),
        _ => Some(vec![]),
    };
    let mut lines = rest.split(|b| *b == b'\n');
    let Ok(uri) = Uri::try_from(lines.next().unwrap_or_default()) else { return };
    let mut request = Request::builder().method(Method::GET).uri(uri).body(()).expect("a request");
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
    }
    if let Some(tenants) = &tenants {
        let principal =
            Principal { subject: "ann".into(), issuer: None, via: Via::Oidc, tenants: tenants.clone().into(), scopes: [].into() };
        request.extensions_mut().insert(principal);
    }
    let asked = match Asked::of(&request) {
        Ok(asked) => asked,
        Err(refusal) => return assert!(matches!(refusal, Refusal::Host(_)), "{refusal}"),
    };
    match edge.resolver.resolve(&asked, &edge.catalog) {
        Ok(Resolved::HostSide) => assert_eq!(asked.host.as_str(), "console.localhost"),
        Ok(Resolved::Tenant { route, .. }) => {
            let route = route.arc();
            assert!(tenants.as_ref().is_none_or(|tenants| tenants.contains(&route.id)), "a foreign tenant: {}", route.slug);
            if let Some(by_host) = edge.catalog.by_host(asked.host.as_str()) {
                assert_eq!(by_host.id, route.id, "another tenant than the host's");
            }
        }
        Err(refusal) => {
            let problem = refusal.problem();
            assert!((400..500).contains(&problem.body().status), "{refusal}");
            let text = words(&problem);
            assert!(!text.contains(&id("acme").to_string()) && !text.contains(&id("globex").to_string()), "{text}");
        }
    }
}

/// What the client would read.
fn words(problem: &insula_http::Problem) -> String {
    format!("{} {}", problem.body().title, problem.body().detail)
}
