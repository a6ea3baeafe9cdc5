//! gRPC over a real wire: tonic's client and server, HTTP/2 on a socket, and both interceptors between them.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Wake, Poll};

use ::tonic::body::Body;
use ::tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use ::tonic::service::interceptor::InterceptedService;
use ::tonic::{Code, Request, Response, Status, Streaming};
use axum::Router;
use axum::body::{HttpBody, to_bytes};
use axum::middleware::map_response;
use axum::routing::any_service;
use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::HeaderValue;
use http::uri::PathAndQuery;
use hyper::body::Incoming as Received;
use hyper::client::conn::http2 as client;
use hyper::server::conn::http2 as server;
use hyper_util::rt::{TokioExecutor, TokioIo};
use insula::tonic::{Incoming, Outgoing, context};
use insula::{Identity, TenantContext, scope};
use insula_core::token::{Claims, ContextKey, ContextKeys, sign};
use insula_http::identity::{CONTEXT, ContextSigner};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::{Service, ServiceExt as _, service_fn};

use crate::context::{Behind, root};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Later<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Messages are texts.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, item: String, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(item.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        String::from_utf8(bytes.to_vec()).map(Some).map_err(|_| Status::invalid_argument("no text"))
    }
}

/// Whom the scope says that the work is for.
fn here() -> Result<String, Status> {
    let context = scope::current().map_err(|error| Status::internal(error.to_string()))?;
    Ok(format!("{} {}", context.slug, context.principal.as_deref().unwrap_or("-")))
}

async fn whose(request: Request<String>) -> Result<Response<String>, Status> {
    scope::enter(context(&request)?, async { Ok(Response::new(here()?)) }).await
}

/// As many answers as are asked for. They are made after the handler has answered, by a task that keeps the tenant.
async fn count(request: Request<String>) -> Result<Response<BoxStream<'static, Result<String, Status>>>, Status> {
    let asked = request.get_ref().parse().map_err(|_| Status::invalid_argument("no number"))?;
    let (told, tells) = mpsc::channel::<Result<String, Status>>(1);
    let work = async move {
        for n in 0..asked {
            if told.send(here().map(|whose| format!("{whose} {n}"))).await.is_err() {
                return;
            }
        }
    };
    scope::enter_sync(context(&request)?, || insula::spawn(work)).map_err(|error| Status::internal(error.to_string()))?;
    let tells = stream::unfold(tells, async |mut tells| tells.recv().await.map(|told| (told, tells)));
    Ok(Response::new(tells.boxed()))
}

/// Each message that comes is answered before the next is read.
async fn talk(request: Request<Streaming<String>>) -> Result<Response<BoxStream<'static, Result<String, Status>>>, Status> {
    let context = context(&request)?;
    let answers = request.into_inner().and_then(move |said| {
        let context = context.clone();
        async move { scope::enter(context, async { Ok(format!("{} {said}", here()?)) }).await }
    });
    Ok(Response::new(answers.boxed()))
}

/// What `protoc` would write.
#[derive(Clone, Copy)]
struct Echo;

impl<B> Service<http::Request<B>> for Echo
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Wake<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = ::tonic::server::Grpc::new(Text);
            Ok(match request.uri().path() {
                "/test.Echo/Whose" => grpc.unary(service_fn(whose), request).await,
                "/test.Echo/Count" => grpc.server_streaming(service_fn(count), request).await,
                "/test.Echo/Talk" => grpc.streaming(service_fn(talk), request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// A connection, as tonic's client wants it.
#[derive(Clone)]
struct Wire(client::SendRequest<Body>);

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Received>;
    type Error = hyper::Error;
    type Future = Later<Self::Response, hyper::Error>;

    fn poll_ready(&mut self, cx: &mut Wake<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A server on a socket, and how many calls have reached it.
struct Served {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
}

impl Served {
    async fn start<S, B>(service: S) -> Self
    where
        S: Service<http::Request<Received>, Response = http::Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, calls) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, counted) = (service.clone(), Arc::clone(&counted));
                let each = hyper::service::service_fn(move |request| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    service.clone().oneshot(request)
                });
                tokio::spawn(server::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), each));
            }
        });
        Self { address, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn wire(&self) -> Wire {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = client::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        Wire(sender)
    }

    /// A client as an application has it.
    async fn client(&self, outgoing: Outgoing) -> Client<InterceptedService<Wire, Outgoing>> {
        self.on(InterceptedService::new(self.wire().await, outgoing))
    }

    /// One that carries whatever context it is given.
    async fn carrying(&self, tokens: &[HeaderValue]) -> Client<impl Calls + use<>> {
        let (wire, tokens) = (self.wire().await, tokens.to_vec());
        let carry = move |mut request: http::Request<Body>| {
            for token in &tokens {
                request.headers_mut().append(CONTEXT, token.clone());
            }
            request
        };
        self.on(wire.map_request(carry))
    }

    fn on<S: Calls>(&self, service: S) -> Client<S> {
        let origin = format!("http://{}", self.address).parse().unwrap();
        Client(::tonic::client::Grpc::with_origin(service, origin))
    }
}

trait Calls:
    Service<http::Request<Body>, Response = http::Response<Self::Answer>, Error = hyper::Error, Future: Send> + Clone + Send
{
    type Answer: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static;
}

impl<S, B> Calls for S
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error = hyper::Error, Future: Send> + Clone + Send,
    B: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    type Answer = B;
}

#[derive(Clone)]
struct Client<S>(::tonic::client::Grpc<S>);

impl<S: Calls> Client<S> {
    async fn whose(&mut self) -> Result<String, Status> {
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_static("/test.Echo/Whose");
        Ok(self.0.unary(Request::new(String::new()), path, Text).await?.into_inner())
    }

    async fn count(&mut self, asked: usize) -> Result<Vec<String>, Status> {
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_static("/test.Echo/Count");
        self.0.server_streaming(Request::new(asked.to_string()), path, Text).await?.into_inner().try_collect().await
    }

    /// Says each word when the one before was answered.
    async fn talk(&mut self, words: &[&str]) -> Result<Vec<String>, Status> {
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_static("/test.Echo/Talk");
        let (say, said) = mpsc::channel::<String>(1);
        let said = stream::unfold(said, async |mut said| said.recv().await.map(|word| (word, said)));
        let mut answers = self.0.streaming(Request::new(said), path, Text).await?.into_inner();
        let mut all = Vec::new();
        for word in words {
            say.send((*word).to_owned()).await.unwrap();
            all.push(answers.message().await?.expect("an answer"));
        }
        drop(say);
        assert_eq!(answers.message().await?, None);
        Ok(all)
    }
}

/// The context that a service has of a call that it believed.
fn believed(behind: &Behind, slug: &str) -> TenantContext {
    let mut call = Request::new(());
    call.metadata_mut().insert("insula-tenant-context", behind.context(slug, None).to_str().unwrap().parse().unwrap());
    let believed = ::tonic::service::Interceptor::call(&mut Incoming::new(behind.insula.clone()), call).unwrap();
    context(&believed).unwrap()
}

async fn served(behind: &Behind) -> Served {
    Served::start(InterceptedService::new(Echo, Incoming::new(behind.insula.clone()))).await
}

#[tokio::test]
async fn each_call_arrives_with_its_tenant_streams_too() {
    let behind = Behind::start().await;
    let (acme, globex) = (believed(&behind, "acme"), believed(&behind, "globex"));
    let served = served(&behind).await;
    let mut client = served.client(Outgoing::new(&behind.insula)).await;
    assert_eq!(scope::enter(acme.clone(), client.whose()).await.unwrap(), "acme alice");
    assert_eq!(scope::enter(acme.clone(), client.count(3)).await.unwrap(), ["acme alice 0", "acme alice 1", "acme alice 2"]);
    assert_eq!(scope::enter(globex.clone(), client.talk(&["a", "b"])).await.unwrap(), ["globex alice a", "globex alice b"]);
    // Many at once on the one connection: nobody's call is taken for another's.
    let calls = (0..100).map(|n| {
        let (mut client, context) = (client.clone(), if n % 2 == 0 { acme.clone() } else { globex.clone() });
        async move {
            let slug = context.slug.to_string();
            let told = scope::enter(context, async { (client.whose().await, client.count(5).await) }).await;
            assert_eq!(told.0.unwrap(), format!("{slug} alice"));
            assert!(told.1.unwrap().iter().all(|line| line.starts_with(&slug)));
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn without_a_tenant_nothing_is_sent() {
    let behind = Behind::start().await;
    let served = served(&behind).await;
    let mut client = served.client(Outgoing::new(&behind.insula)).await;
    let refusals = [client.whose().await.map(drop), client.count(1).await.map(drop), client.talk(&["a"]).await.map(drop)];
    for refused in refusals {
        let refused = refused.expect_err("nobody's call");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("no tenant in scope"), "{refused}");
    }
    // Nor for a tenant that this process cannot speak for.
    let mut away = believed(&behind, "acme");
    let route = behind.catalog.by_slug("away").unwrap();
    (away.tenant, away.no, away.slug, away.proof) = (route.id, route.no, route.slug.clone(), None);
    assert_eq!(scope::enter(away, client.whose()).await.expect_err("not ours").code(), Code::FailedPrecondition);
    assert_eq!(served.calls(), 0);
    assert_eq!(scope::enter(believed(&behind, "acme"), client.whose()).await.unwrap(), "acme alice");
    assert_eq!(served.calls(), 1);
}

/// What the gateway would have signed for `acme`, changed.
fn signed(behind: &Behind, key: &ContextKey, change: impl FnOnce(&mut Claims)) -> HeaderValue {
    let mut claims = believed(behind, "acme").proof.unwrap().claims.clone();
    change(&mut claims);
    sign(key, &claims).parse().unwrap()
}

/// Contexts that do not hold, and the status that refuses each.
fn refused(behind: &Behind) -> Vec<(&'static str, Vec<HeaderValue>, Code)> {
    let (key, stranger) = (root().context_key(1).unwrap(), root().context_key(7).unwrap());
    let acme = behind.context("acme", None);
    let mut text = acme.to_str().unwrap().to_owned();
    // A character inside the claims, so that the signature is another's.
    let at = text.len() / 2;
    let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
    text.replace_range(at..=at, other);
    let route = behind.catalog.by_slug("acme").unwrap().arc();
    let others = ContextSigner::gateway(ContextKeys::new([(0, root().context_key(7).unwrap())]).unwrap());
    vec![
        ("none", vec![], Code::Unauthenticated),
        ("two", vec![acme.clone(), acme], Code::Unauthenticated),
        ("not signed", vec![HeaderValue::from_static("eyJhbGciOiJub25lIn0.e30.")], Code::Unauthenticated),
        ("changed on the way", vec![text.parse().unwrap()], Code::Unauthenticated),
        ("a stranger's", vec![others.header(&route, &Identity::Anonymous)], Code::Unauthenticated),
        ("a stranger's, by our claims", vec![signed(behind, &stranger, |_| ())], Code::Unauthenticated),
        (
            "expired",
            vec![signed(behind, &key, |claims| (claims.iat, claims.exp) = (claims.iat - 600, claims.exp - 600))],
            Code::Unauthenticated,
        ),
        ("another audience", vec![signed(behind, &key, |claims| claims.aud = "billing".into())], Code::Unauthenticated),
        ("another cell", vec![behind.context("away", None)], Code::Unauthenticated),
        ("suspended", vec![behind.context("asleep", None)], Code::PermissionDenied),
    ]
}

#[tokio::test]
async fn a_context_that_does_not_hold_is_refused_by_its_status() {
    let behind = Behind::start().await;
    let served = served(&behind).await;
    let good = signed(&behind, &root().context_key(1).unwrap(), |_| ());
    assert_eq!(served.carrying(&[good]).await.whose().await.unwrap(), "acme alice");
    for (what, tokens, code) in refused(&behind) {
        let mut client = served.carrying(&tokens).await;
        let refusals = [client.whose().await.map(drop), client.count(1).await.map(drop), client.talk(&["a"]).await.map(drop)];
        for refused in refusals {
            assert_eq!(refused.expect_err(what).code(), code, "{what}");
        }
        // As it stands on the wire: whoever reads gRPC understands it.
        let mut request =
            http::Request::post(format!("http://{}/test.Echo/Whose", served.address)).body(Body::default()).unwrap();
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        for token in tokens {
            request.headers_mut().append(CONTEXT, token);
        }
        let mut wire = served.wire().await;
        let response = wire.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], (code as i32).to_string().as_str(), "{what}");
        let said = to_bytes(axum::body::Body::new(response.into_body()), 1 << 20).await.unwrap();
        assert!(said.is_empty(), "{what}");
    }
    // One that we sign for another audience is refused where it is not meant to go.
    let mut lost = served.client(Outgoing::to_audience(&behind.insula, "billing")).await;
    let refused = scope::enter(believed(&behind, "acme"), lost.whose()).await.expect_err("not its audience");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

/// A server on axum's router has the layer of all other applications, which opens the scope by itself.
#[tokio::test]
async fn a_server_on_axum_s_router_is_in_scope_by_the_layer() {
    let behind = Behind::start().await;
    let app = Router::new().route("/test.Echo/{method}", any_service(Echo)).layer(behind.insula.layer());
    let app = app.layer(map_response(insula::tonic::refusal));
    let served = Served::start(app).await;
    let mut client = served.client(Outgoing::new(&behind.insula)).await;
    let acme = believed(&behind, "acme");
    assert_eq!(scope::enter(acme.clone(), client.whose()).await.unwrap(), "acme alice");
    assert_eq!(scope::enter(acme.clone(), client.count(2)).await.unwrap(), ["acme alice 0", "acme alice 1"]);
    assert_eq!(scope::enter(acme, client.talk(&["a"])).await.unwrap(), ["acme alice a"]);
    for (what, tokens, code) in refused(&behind) {
        // Several contexts are an attack where the layer is asked, and none that holds where the interceptor is.
        let code = if what == "two" { Code::PermissionDenied } else { code };
        assert_eq!(served.carrying(&tokens).await.whose().await.expect_err(what).code(), code, "{what}");
    }
}
