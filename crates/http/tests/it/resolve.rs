//! The decision from outside: every source, alone and against the others, anonymous and with a principal.

use std::sync::Arc;

use http::{HeaderMap, Request};
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options};
use insula_core::{Principal, TenantId, TenantState, Via};
use insula_http::host::HostError;
use insula_http::resolve::{Asked, Contributor, Hint, OptionsError, Refusal, Resolved};
use insula_http::{ResolveOptions, Resolver};

pub(crate) struct Town {
    pub(crate) catalog: Catalog,
}

/// Tenants `acme` (also at `docs.acme.example` and `wiki.acme.example`), `globex`, and the suspended `asleep`, under `example.com`.
pub(crate) async fn town() -> Town {
    let source = FakeSource::new();
    source.change(|content| {
        content.put_plan(fake::plan("bronze").unwrap());
        content.put_cell(fake::cell("main", "127.0.0.1", 1).unwrap());
        content.put_database(fake::database("main", "insula_pool", 0).unwrap());
        for (slug, no) in [("acme", 1), ("globex", 2), ("asleep", 3)] {
            let mut tenant = fake::tenant(slug, no, "bronze", "main").unwrap();
            match slug {
                "acme" => tenant.domains = vec!["docs.acme.example".into(), "wiki.acme.example".into()],
                "asleep" => tenant.state = TenantState::Suspended,
                _ => {}
            }
            content.put_tenant(tenant);
        }
    });
    let catalog = Catalog::start(source, Options { base_domain: "example.com".into(), ..Options::default() });
    catalog.ready().await;
    Town { catalog }
}

impl Town {
    fn id(&self, slug: &str) -> TenantId {
        self.catalog.by_slug(slug).unwrap().id
    }

    fn principal(&self, slugs: &[&str]) -> Principal {
        let tenants = slugs.iter().map(|slug| self.id(slug)).collect();
        Principal { subject: "ann".into(), issuer: None, via: Via::Oidc, tenants, scopes: Arc::from([]) }
    }

    /// The tenant's slug and the source that named it, or the refusal's name.
    fn ask(&self, resolver: &Resolver, request: &Request<()>) -> String {
        let resolved = Asked::of(request).and_then(|asked| resolver.resolve(&asked, &self.catalog));
        match resolved {
            Ok(Resolved::Tenant { route, by }) => format!("{} by {by}", route.slug),
            Ok(Resolved::HostSide) => "host side".into(),
            Err(refusal) => {
                let text = format!("{refusal:?}");
                text.split([' ', '(']).next().unwrap().to_owned()
            }
        }
    }
}

fn request(host: &str, target: &str, headers: &[(&str, &str)], principal: Option<Principal>) -> Request<()> {
    let mut request = Request::get(target).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(()).unwrap();
    request.extensions_mut().extend(
        principal
            .map(|principal| {
                let mut extensions = http::Extensions::new();
                extensions.insert(principal);
                extensions
            })
            .unwrap_or_default(),
    );
    request
}

fn resolver(sources: &[&str]) -> Resolver {
    let sources = sources.iter().map(|source| source.parse().unwrap()).collect();
    Resolver::new(ResolveOptions { sources, ..options() }).unwrap()
}

fn options() -> ResolveOptions {
    ResolveOptions {
        host_side: vec!["Console.example.com".into()],
        shared_hosts: vec!["api.example.com".into()],
        ..ResolveOptions::default()
    }
}

#[tokio::test]
async fn each_source_names_a_tenant() {
    let town = town().await;
    let all = Resolver::new(options()).unwrap();
    let id = town.id("acme").to_string();
    let acme = Some(town.principal(&["acme"]));
    for (host, target, headers, principal, wanted) in [
        ("acme.example.com", "/", &[][..], None, "acme by domain"),
        ("ACME.example.com.:8080", "/", &[], None, "acme by domain"),
        ("docs.acme.example", "/", &[], None, "acme by domain"),
        ("wiki.acme.example:80", "/", &[], None, "acme by domain"),
        ("api.example.com", "/", &[], acme.clone(), "acme by principal"),
        ("api.example.com", "/x?a=b&insula_tenant=acme", &[], None, "acme by query"),
        ("api.example.com", "/x?insula%5Ftenant=ac%6De", &[], None, "acme by query"),
        ("api.example.com", "/~acme/x", &[], None, "acme by route"),
        ("api.example.com", "/~acme", &[], None, "acme by route"),
        ("api.example.com", "/", &[("x-insula-tenant", "acme")], None, "acme by header"),
        ("api.example.com", "/", &[("x-insula-tenant", &id)], None, "acme by header"),
        ("api.example.com", "/", &[("cookie", "a=b; insula_tenant=acme"), ("cookie", "c")], None, "acme by cookie"),
        // Nobody's own hosts: the base domain, and addresses.
        ("example.com", "/?insula_tenant=acme", &[], None, "acme by query"),
        ("10.0.0.1:8080", "/?insula_tenant=acme", &[], None, "acme by query"),
        ("[::1]:8080", "/?insula_tenant=acme", &[], None, "acme by query"),
        // Those that agree.
        ("docs.acme.example", "/~acme/?insula_tenant=acme", &[("x-insula-tenant", &id)], acme.clone(), "acme by principal"),
    ] {
        assert_eq!(town.ask(&all, &request(host, target, headers, principal)), wanted, "{host} {target} {headers:?}");
    }
}

#[tokio::test]
async fn what_names_nobody_is_refused() {
    let town = town().await;
    let all = Resolver::new(options()).unwrap();
    for (host, target, headers, wanted) in [
        ("api.example.com", "/", &[][..], "Nobody"),
        ("example.com", "/", &[], "Nobody"),
        ("10.0.0.1", "/", &[], "Nobody"),
        ("nobody.example.com", "/", &[], "Unknown"),
        ("a.acme.example.com", "/", &[], "Unknown"),
        ("evil.example", "/", &[], "Unknown"),
        ("evil.example", "/?insula_tenant=acme", &[], "Unknown"),
        ("acme.example.com", "/?insula_tenant=nobody", &[], "Unknown"),
        ("asleep.example.com", "/", &[], "Suspended"),
        ("api.example.com", "/?insula_tenant=acme&insula_tenant=acme", &[], "Twice"),
        ("api.example.com", "/", &[("x-insula-tenant", "acme"), ("x-insula-tenant", "acme")], "Twice"),
        ("api.example.com", "/", &[("cookie", "insula_tenant=acme"), ("cookie", "insula_tenant=acme")], "Twice"),
        ("api.example.com", "/?insula_tenant=", &[], "Unreadable"),
        ("api.example.com", "/?insula_tenant=a%00b", &[], "Unreadable"),
        ("acme.example.com", "/~ac%6De/", &[], "Unreadable"),
        ("acme.example.com", "/", &[("x-insula-tenant", "acme, globex")], "Unreadable"),
        ("acme.example.com", "/", &[("x-insula-tenant", "\u{e9}")], "Unreadable"),
        ("acme.example.com", "/", &[("host", "acme.example.com")], "Host"),
        ("Console.Example.com:443", "/?insula_tenant=acme", &[], "host side"),
    ] {
        assert_eq!(town.ask(&all, &request(host, target, headers, None)), wanted, "{host} {target} {headers:?}");
    }
    // What is no text is no name either.
    for (cookie, wanted) in [
        (&b"insula_tenant=globex\xff"[..], "Unreadable"),
        (b"insula_tenant=acme; insula_tenant=\xff", "Twice"),
        (b"a=\xff", "acme by domain"),
    ] {
        let mut request = request("acme.example.com", "/", &[], None);
        request.headers_mut().insert("cookie", http::HeaderValue::from_bytes(cookie).unwrap());
        assert_eq!(town.ask(&all, &request), wanted, "{cookie:?}");
    }
}

#[tokio::test]
async fn sources_that_disagree_are_refused_and_reported() {
    let town = town().await;
    let all = Resolver::new(options()).unwrap();
    let meters = insula_telemetry::meters::install().unwrap();
    let events = |kind: &str| {
        let line = format!("insula_security_events_total{{kind=\"{kind}\"}} ");
        let text = meters.render("test");
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let disputes = [
        request("acme.example.com", "/?insula_tenant=globex", &[], None),
        request("acme.example.com", "/~globex/", &[], None),
        request("acme.example.com", "/", &[("x-insula-tenant", "globex")], None),
        request("docs.acme.example", "/", &[("cookie", "insula_tenant=globex")], None),
        request("api.example.com", "/~acme/", &[("x-insula-tenant", "globex")], None),
        request("globex.example.com", "/", &[], Some(town.principal(&["acme"]))),
        request("api.example.com", "/?insula_tenant=globex", &[], Some(town.principal(&["acme"]))),
        // Suspended or not, it is another one.
        request("acme.example.com", "/~asleep/", &[], None),
    ];
    let before = events("sources_disagree");
    for request in &disputes {
        assert_eq!(town.ask(&all, request), "Disagree", "{request:?}");
    }
    assert!(events("sources_disagree") >= before + disputes.len() as u64);
    let problem = Refusal::Disagree { first: ("a", town.id("acme")), second: ("b", town.id("globex")) }.problem();
    assert_eq!((problem.body().status, problem.body().detail.as_str()), (403, "The request names two tenants."));

    let before = events("foreign_principal");
    let both = || Some(town.principal(&["acme", "globex"]));
    assert_eq!(town.ask(&all, &request("asleep.example.com", "/", &[], both())), "Foreign");
    assert_eq!(town.ask(&all, &request("acme.example.com", "/", &[], Some(town.principal(&[])))), "Foreign");
    assert!(events("foreign_principal") >= before + 2);
}

#[tokio::test]
async fn a_hint_chooses_among_a_principals_tenants_and_never_beyond() {
    let town = town().await;
    let all = Resolver::new(options()).unwrap();
    let both = || Some(town.principal(&["acme", "globex"]));
    assert_eq!(town.ask(&all, &request("api.example.com", "/", &[], both())), "Choose");
    assert_eq!(town.ask(&all, &request("api.example.com", "/~globex/", &[], both())), "globex by route");
    assert_eq!(town.ask(&all, &request("acme.example.com", "/", &[], both())), "acme by domain");
    // Also where the claim is no source, a principal stays with its own.
    let by_domain = resolver(&["domain"]);
    assert_eq!(town.ask(&by_domain, &request("globex.example.com", "/", &[], Some(town.principal(&["acme"])))), "Foreign");
    // And the fallback is no way around it.
    let fallback = Resolver::new(ResolveOptions { fallback: "globex".parse().ok(), sources: vec![], ..options() }).unwrap();
    assert_eq!(town.ask(&fallback, &request("any.example", "/", &[], None)), "globex by fallback");
    assert_eq!(town.ask(&fallback, &request("any.example", "/", &[], Some(town.principal(&["acme"])))), "Foreign");
    assert_eq!(town.ask(&fallback, &request("any.example", "/", &[], both())), "Choose");
    // An application's own session that says no tenant is the application's to check.
    let session = Principal { via: Via::Session, ..town.principal(&[]) };
    assert_eq!(town.ask(&all, &request("acme.example.com", "/", &[], Some(session))), "acme by domain");
    let session = Principal { via: Via::Session, ..town.principal(&["globex"]) };
    assert_eq!(town.ask(&all, &request("acme.example.com", "/", &[], Some(session))), "Disagree");
}

#[tokio::test]
async fn sources_can_be_reordered_limited_and_left_out() {
    let town = town().await;
    let headers = &[("x-t", "acme")][..];
    let ask = |sources: &[&str], host, target| town.ask(&resolver(sources), &request(host, target, headers, None));
    assert_eq!(ask(&["domain", "header:x-t"], "acme.example.com", "/"), "acme by domain");
    assert_eq!(ask(&["header:x-t", "domain"], "acme.example.com", "/"), "acme by header");
    assert_eq!(ask(&["domain"], "globex.example.com", "/"), "globex by domain");
    let limited = &["header:x-t@/api@/v2/", "domain@/web"][..];
    for (target, wanted) in [
        ("/api", "acme by header"),
        ("/api/x?y", "acme by header"),
        ("/v2", "acme by header"),
        ("/v2/x", "acme by header"),
        ("/apis", "Nobody"),
        ("/", "Nobody"),
        ("/web", "globex by domain"),
    ] {
        assert_eq!(ask(limited, "globex.example.com", target), wanted, "{target}");
    }
}

struct Certificate;

impl Contributor for Certificate {
    fn name(&self) -> &'static str {
        "certificate"
    }

    fn hint<'a>(&self, asked: &Asked<'a>) -> Result<Option<Hint<'a>>, Refusal> {
        Ok(asked.extensions.get::<TenantId>().copied().map(Hint::Id))
    }
}

#[tokio::test]
async fn a_source_can_be_the_users_own() {
    let town = town().await;
    let mine = Resolver::builder(options()).unwrap().first(Certificate, &["/secure"]).build().unwrap();
    let mut asked = request("acme.example.com", "/secure/x", &[], None);
    asked.extensions_mut().insert(town.id("acme"));
    assert_eq!(town.ask(&mine, &asked), "acme by certificate");
    *asked.uri_mut() = "/other".parse().unwrap();
    assert_eq!(town.ask(&mine, &asked), "acme by domain");
    *asked.uri_mut() = "/secure".parse().unwrap();
    asked.extensions_mut().insert(town.id("globex"));
    assert_eq!(town.ask(&mine, &asked), "Disagree");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let with = |change: fn(&mut ResolveOptions)| {
        let mut options = options();
        change(&mut options);
        Resolver::new(options).map(|_| ()).unwrap_err()
    };
    assert_eq!(with(|o| o.sources.clear()), OptionsError::Empty);
    assert!(matches!(with(|o| o.sources.push("domain@/x".parse().unwrap())), OptionsError::Twice(_)));
    assert!(matches!(with(|o| o.host_side.push("a b".into())), OptionsError::Host { .. }));
    assert!(matches!(with(|o| o.host_side.push("API.example.com".into())), OptionsError::Both(_)));
    let text = "sources = ['principal', 'header:x-t@/api', 'domain']\nfallback = 'acme'\n[unknown]\nremember_ms = 100";
    assert!(Resolver::new(toml::from_str(text).unwrap()).is_ok());
    let wrong = toml::from_str::<ResolveOptions>("fallbak = 'acme'").unwrap_err().to_string();
    assert!(wrong.contains("line 1") && wrong.contains("unknown field `fallbak`"), "{wrong}");
}

#[tokio::test]
async fn a_request_by_domain_costs_no_allocation() {
    let town = town().await;
    let all = Resolver::new(options()).unwrap();
    let requests = ["acme.example.com", "ACME.example.com:8080", "docs.acme.example"]
        .map(|host| request(host, "/documents?q=x", &[("cookie", "a=b")], None));
    for request in &requests {
        let resolve = || Asked::of(request).and_then(|asked| all.resolve(&asked, &town.catalog)).is_ok();
        assert!(resolve());
        let info = allocation_counter::measure(|| assert!(resolve()));
        assert_eq!(info.count_total, 0, "{request:?}");
    }
}

#[test]
fn a_missing_host_is_told_from_a_malformed_one() {
    let (headers, extensions) = (HeaderMap::new(), http::Extensions::new());
    let uri = "/".parse().unwrap();
    assert_eq!(Asked::read(&headers, &uri, &extensions).unwrap_err(), Refusal::Host(HostError::Missing));
}
