//! A control plane that runs as it does in life: one for all tests, on a runtime of its own, spoken to over HTTP.

use std::time::Duration;

use insula_api::key::Scope;
use insula_control::{CellSpec, Config, Control, model};
use insula_testkit::server;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::sync::OnceCell;

/// Where it listens, and its keys.
#[derive(Debug)]
pub(crate) struct House {
    url: String,
    keys: [(Scope, String); 4],
    /// Its catalog's database.
    pub(crate) catalog: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

/// The one house of this binary.
pub(crate) async fn house() -> &'static House {
    static HOUSE: OnceCell<House> = OnceCell::const_new();
    HOUSE
        .get_or_init(|| async {
            let postgres = server().await;
            let catalog = postgres.create_database("rest").await;
            let mut config = Config::new(postgres.admin_url(&catalog), postgres.root_key());
            config.warm_databases = 1;
            config.cells = vec![CellSpec {
                name: postgres.cell(),
                region: "local".into(),
                labels: vec![],
                host: postgres.host().to_owned(),
                port: postgres.port(),
                app_url: None,
                capacity: 1000,
            }];
            open(config, catalog).await
        })
        .await
}

async fn open(config: Config, catalog: String) -> House {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async move {
            let control = Control::open(config).await.expect("the control plane opens");
            let background = control.start().await.expect("the control plane starts");
            let mut keys = Vec::new();
            for (scope, theirs) in [
                (Scope::Admin, model::Scope::Admin),
                (Scope::Provisioner, model::Scope::Provisioner),
                (Scope::Read, model::Scope::Read),
                (Scope::Edge, model::Scope::Edge),
            ] {
                keys.push((
                    scope,
                    control.create_api_key("tests", &format!("test-{scope}"), theirs).await.expect("a key").secret,
                ));
            }
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}", listener.local_addr().expect("an address"));
            let keys = keys.try_into().expect("a key of each scope");
            sender.send(House { url, keys, catalog }).expect("somebody waits");
            axum::serve(listener, insula_control::rest::router(control)).await.expect("it serves");
            background.stop().await;
        });
    });
    receiver.await.expect("a house")
}

impl House {
    /// The key of this scope.
    pub(crate) fn key(&self, scope: Scope) -> &str {
        &self.keys.iter().find(|(of, _)| *of == scope).expect("a key of each scope").1
    }

    /// A request without a key.
    pub(crate) fn bare(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        // A client of its own for each: connections belong to the runtime of one test.
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(90)).build().expect("a client");
        client.request(method, format!("{}{path}", self.url))
    }

    /// A request of the admin.
    pub(crate) fn admin(&self, method: &str, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(self.key(Scope::Admin))
    }

    /// GET as the admin.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.admin("GET", path)).await
    }

    /// POST as the admin.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.admin("POST", path).json(body)).await
    }
}

/// Sends a request and reads the answer.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("a body");
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or_default(), text }
}

impl Answer {
    /// The text at a JSON pointer.
    pub(crate) fn at(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// Holds that this is a whole problem body of that status and type, and that it says nothing of the inside.
    pub(crate) fn is_problem(&self, status: u16, kind: &str) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        assert_eq!(self.at("/type"), format!("https://insula.dev/problems/{kind}"), "{}", self.text);
        assert_eq!(self.body["status"], status, "{}", self.text);
        for field in ["/title", "/instance", "/request_id"] {
            assert!(!self.at(field).is_empty(), "{field} is missing: {}", self.text);
        }
        assert_eq!(self.at("/request_id"), self.header("x-request-id"));
        for inside in ["sqlx", "SQLSTATE", "postgres://", "catalog.", "panicked", "src/"] {
            assert!(!self.text.contains(inside), "tells of {inside}: {}", self.text);
        }
        self
    }

    /// Holds that the problem names this field.
    pub(crate) fn names(&self, field: &str) -> &Self {
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        assert!(errors.iter().any(|e| e["field"] == field), "{field} is not named: {}", self.text);
        self
    }

    /// Holds that this is a success.
    pub(crate) fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }
}
